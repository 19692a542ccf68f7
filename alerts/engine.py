"""The clock-driven loop: measure, judge, remember, tell.

A round asks the store what the rules need, advances every alert, and writes what changed as one transaction of the
journal; a page is queued with it and waits for no further question. When the store is away the rules keep still – an
alert neither fires nor resolves on ignorance – and the pager says so itself after a while, from memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import structlog

from alerts.incidents.incident import Alert, alert_key
from alerts.incidents.register import stored_alert
from alerts.measure.store import Measured, Measurer
from alerts.rules.evaluate import Reading, evaluate, timing_of
from alerts.rules.model import STORE_RULE, TAP_RULE, BurnRule, Rule, RulesFile, Severity, all_rules
from alerts.state import AlertState, Observation, Phase, Timing, step
from alerts.text import plain
from base.durations import spell
from base.errors import ServescopeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from alerts.config import AlertsConfig
    from alerts.incidents.register import Draft, Register
    from alerts.journal import Journal
    from alerts.measure.store import Rows

log = structlog.get_logger()

STORE_LABELS: Final = {"component": "store"}
STORE_RUNBOOK: Final = "docs/runbooks/store-unreachable.md"
TAP_RUNBOOK: Final = "docs/runbooks/tap-losing.md"
PRUNE_SECONDS: Final = 60.0
RESTORED_SECONDS: Final = 300.0
"""After a start, an alert that has no data for so long, while the store answers, is taken as one without data."""

_LOGGED: Final = {
    Phase.PENDING: "alert_pending",
    Phase.FIRING: "alert_firing",
    Phase.RESOLVED: "alert_resolved",
}


@dataclass(slots=True)
class _Tracked:
    """One alert in memory; `waits` for data since it was read from the journal."""

    rule: str
    labels: dict[str, str]
    context: dict[str, str]
    state: AlertState
    waits: bool = False


@dataclass(slots=True)
class Health:
    """What the process says of itself.

    Attributes:
        rounds: Rounds done.
        failed_rounds: Rounds in which the store did not answer or refused.
        last_round_at: Unix seconds.
        last_round_seconds: How long it took.
        store_error: Why the store could not be asked last time, empty when it could.
        store_down_since: Unix seconds, None while it answers.
        pending, firing: Alerts.
        open_incidents: Incidents that are not resolved.
        failing_rules: Rules that could not be judged in the last round, and why; their alerts stay as they are.
    """

    rounds: int = 0
    failed_rounds: int = 0
    last_round_at: float = 0.0
    last_round_seconds: float = 0.0
    store_error: str = ""
    store_down_since: float | None = None
    pending: int = 0
    firing: int = 0
    open_incidents: int = 0
    failing_rules: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _About:
    severity: Severity
    runbook: str
    timing: Timing


@dataclass(slots=True)
class Engine:
    """Evaluates rules round by round.

    Args:
        store: Where to ask.
        file: The rules.
        journal: Where states live.
        register: Where incidents live.
        config: Settings.
        clock: Unix seconds.
        blocked: Why the store must not be believed yet, empty when it may; the rules keep still meanwhile.
        taps: What taps say of themselves, asked elsewhere, since no page waits for it; None: not known.
    """

    store: Rows
    file: RulesFile
    journal: Journal
    register: Register
    config: AlertsConfig
    clock: Callable[[], float]
    health: Health = field(default_factory=Health)
    blocked: str = ""
    taps: list[Reading] | None = None
    _rules: tuple[Rule, ...] = field(init=False)
    _abouts: dict[str, _About] = field(init=False)
    _measurer: Measurer = field(init=False)
    _tracked: dict[str, _Tracked] = field(init=False)
    _pruned_at: float = field(init=False, default=0.0)
    _sees_since: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._rules = all_rules(self.file)
        self._abouts = {rule.name: _about(rule) for rule in self._rules}
        self._abouts[TAP_RULE] = _About("error", TAP_RUNBOOK, Timing(0.0, 0.0, "ok"))
        patience = Timing(self.config.store_unreachable_after_seconds, 0.0, "keep")
        self._abouts[STORE_RULE] = _About("critical", STORE_RUNBOOK, patience)
        self._measurer = Measurer(
            self._rules,
            ingest_delay_seconds=self.config.ingest_delay_seconds,
            longest_request_seconds=self.config.longest_request_seconds,
        )
        self.reload()

    def reload(self) -> None:
        """Read the alerts from the journal; each stays as it is until it is judged with data again."""
        self._sees_since = None
        self._tracked = {
            key: _Tracked(v["rule"], v["labels"], v.get("context", {}), AlertState.from_dict(v["state"]), waits=True)
            for key, v in self.journal.section("alerts").items()
        }

    @property
    def sees(self) -> bool:
        """Whether the store answered last time and is believed."""
        return not self.blocked and self.health.rounds > 0 and self.health.store_down_since is None

    def round(self) -> None:
        """One round.

        Raises:
            Exception: Whatever went wrong (a full disk, say); nothing of the round happened then, and the next one
                starts from the same states.
        """
        now = self.clock()
        measured = self._measure(now)
        with self.register.guard:
            draft = self.register.draft(now)
            before = {key: replace(tracked) for key, tracked in self._tracked.items()}
            try:
                if measured is not None:
                    self._sees_since = now if self._sees_since is None else self._sees_since
                    for rule in self._rules:
                        if (readings := self._evaluate(rule, measured, now)) is not None:
                            self._judge(draft, rule.name, readings)
                    if self.taps is not None:
                        self._judge(draft, TAP_RULE, self.taps)
                    self._retire(draft)
                self._judge_store(draft)
                self._remember(draft, before)
                self.register.commit(draft)
            except Exception:
                self._tracked = before
                self.register.reload()
                raise
            self.journal.flush()
            if now - self._pruned_at > PRUNE_SECONDS:
                self.register.prune(now)
                self._pruned_at = now
        self._tracked = {k: t for k, t in self._tracked.items() if t.state.phase is not Phase.INACTIVE}
        self._note(now)

    def _measure(self, now: float) -> Measured | None:
        try:
            measured = self._ask(now)
        except ServescopeError as error:
            self.health.failed_rounds += 1
            self.health.store_error = plain(str(error), 500)
            if self.health.store_down_since is None:
                self.health.store_down_since = now
                log.error("store_unreachable", error=self.health.store_error)  # noqa: TRY400 one line is enough
            return None
        if self.health.store_down_since is not None:
            log.info("store_reachable", away_seconds=round(now - self.health.store_down_since, 1))
        self.health.store_down_since, self.health.store_error = None, ""
        return measured

    def _ask(self, now: float) -> Measured:
        if self.blocked:
            raise ServescopeError(self.blocked)
        if not self._rules:
            self.store.rows("SELECT 1 AS one")
        return self._measurer.measure(self.store, now)

    def _evaluate(self, rule: Rule, measured: Measured, now: float) -> list[Reading] | None:
        """Its readings; None when the rule trips over what was measured, which must not silence the others."""
        try:
            readings = evaluate(rule, measured, now)
        except Exception as error:
            said = plain(f"{type(error).__name__}: {error}", 300)
            if self.health.failing_rules.get(rule.name) != said:
                log.exception("rule_failed", rule=rule.name)
            self.health.failing_rules[rule.name] = said
            return None
        self.health.failing_rules.pop(rule.name, None)
        return readings

    def _judge(self, draft: Draft, name: str, readings: list[Reading]) -> None:
        """Advance all alerts of one rule; those without a reading have no data."""
        about = self._abouts[name]
        seen: set[str] = set()
        for reading in readings:
            key = alert_key(name, reading.labels)
            tracked = self._tracked.get(key)
            if tracked is not None and tracked.waits and not reading.data:
                continue
            seen.add(key)
            if tracked is None:
                if not reading.seen.breached or not reading.opens:
                    continue
                tracked = _Tracked(name, dict(reading.labels), dict(reading.context), AlertState())
                self._tracked[key] = tracked
            tracked.context, tracked.waits = dict(reading.context), False
            self._advance(draft, tracked, reading, about)
        for key, tracked in self._tracked.items():
            if tracked.rule == name and key not in seen and not self._held(tracked, draft.now):
                silent = Reading(tracked.labels, Observation(None, draft.now), "no data", 0.0, 0.0, tracked.context)
                self._advance(draft, tracked, silent, about)

    def _held(self, tracked: _Tracked, now: float) -> bool:
        """Whether an alert of before the start still waits for its first data; that it never comes ends it in time."""
        if not tracked.waits:
            return False
        tracked.waits = self._sees_since is None or now - self._sees_since < RESTORED_SECONDS
        return tracked.waits

    def _remember(self, draft: Draft, before: Mapping[str, _Tracked]) -> None:
        """Write clocks that moved without a transition: a restart goes on from them."""
        for key, tracked in self._tracked.items():
            moved = key not in before or tracked.state != before[key].state
            if moved and key not in draft.alerts and tracked.state.phase in {Phase.PENDING, Phase.FIRING}:
                draft.alerts[key] = stored_alert(tracked.rule, tracked.labels, tracked.context, tracked.state)

    def _advance(self, draft: Draft, tracked: _Tracked, reading: Reading, about: _About) -> None:
        done = step(tracked.state, reading.seen, draft.now, about.timing)
        tracked.state = done.state
        if done.entered is None:
            return
        alert = Alert(
            rule=tracked.rule,
            labels=dict(tracked.labels),
            context=dict(tracked.context),
            severity=about.severity,
            reason=reading.reason,
            value=_finite(reading.seen.value),
            threshold=_finite(reading.threshold),
            window_seconds=reading.window_seconds,
            runbook=about.runbook,
            fired_at=draft.now,
        )
        reason = reading.reason if done.entered is not Phase.RESOLVED else done.reason
        self.register.transition(draft, alert, done.state, done.entered, reason)
        log.info(_LOGGED[done.entered], rule=tracked.rule, reason=plain(reason, 300), **_labels(tracked))

    def _retire(self, draft: Draft) -> None:
        """Alerts of rules that the file no longer has are over."""
        for tracked in self._tracked.values():
            if tracked.rule not in self._abouts:
                about = _About("info", "", Timing(no_data="ok"))
                gone = Reading(tracked.labels, Observation(None, draft.now), "the rule was removed", 0.0)
                self._advance(draft, tracked, gone, about)

    def _judge_store(self, draft: Draft) -> None:
        since, now = self.health.store_down_since, draft.now
        away = 0.0 if since is None else now - since
        reason = f"the store has not answered for {spell(round(away))}: {self.health.store_error}"
        seen = Observation(since is not None, now, away, since, unbroken=True)
        limit = self.config.store_unreachable_after_seconds
        self._judge(draft, STORE_RULE, [Reading(STORE_LABELS, seen, reason, limit)])

    def _note(self, now: float) -> None:
        phases = [tracked.state.phase for tracked in self._tracked.values()]
        self.health.rounds += 1
        self.health.last_round_at = now
        self.health.last_round_seconds = max(0.0, self.clock() - now)
        self.health.pending = phases.count(Phase.PENDING)
        self.health.firing = phases.count(Phase.FIRING)
        self.health.open_incidents = len(self.register.open)


def _about(rule: Rule) -> _About:
    if isinstance(rule, BurnRule):
        return _About(rule.severity, rule.slo.runbook, timing_of(rule))
    return _About(rule.severity, rule.runbook, timing_of(rule))


def _labels(tracked: _Tracked) -> dict[str, str]:
    return {f"label_{name}": plain(value) for name, value in tracked.labels.items()}


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
