"""The clock-driven loop: measure, judge, remember, tell.

A round asks the store what the rules need, advances every alert, and writes what changed as one transaction of the
journal; a page is queued with it and waits for no further question. When the store is away the rules keep still – an
alert neither fires nor resolves on ignorance – and the pager says so itself after a while, from memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from alerts.measure.live import Standing, StoreWatch
from alerts.measure.store import Measurer
from alerts.rules import own
from alerts.rules.model import RulesFile, all_rules
from alerts.state import Phase
from alerts.text import plain
from alerts.tracking import Tracking

if TYPE_CHECKING:
    from collections.abc import Callable

    from alerts.config import AlertsConfig
    from alerts.incidents.register import Draft, Register
    from alerts.journal import Journal
    from alerts.measure.measured import Measured
    from alerts.measure.rows import Living
    from alerts.measure.taps import Loss
    from alerts.rules.reading import Reading
    from alerts.rules.rule import Rule

log = structlog.get_logger()

PRUNE_SECONDS: Final = 60.0


@dataclass(slots=True)
class Health:
    """What the loop says of itself.

    Attributes:
        rounds: Rounds done.
        last_round_at: Unix seconds.
        last_round_seconds: How long it took.
        pending, firing: Alerts.
        open_incidents: Incidents that are not resolved.
        failing_rules: Rules that could not be judged in the last round, and why; their alerts stay as they are.
    """

    rounds: int = 0
    last_round_at: float = 0.0
    last_round_seconds: float = 0.0
    pending: int = 0
    firing: int = 0
    open_incidents: int = 0
    failing_rules: dict[str, str] = field(default_factory=dict)


class Engine:
    """Evaluates rules round by round.

    Args:
        store: Where to ask.
        file: The rules.
        journal: Where states live.
        register: Where incidents live.
        config: Settings.
        clock: Unix seconds.

    Attributes:
        rules: Every rule of the file.
        watch: Whether the store answers, and is believed.
        taps: What taps lost, asked elsewhere, since no page waits for it; None: not known.
        health: What it says of itself.
    """

    def __init__(
        self,
        store: Living,
        file: RulesFile,
        journal: Journal,
        register: Register,
        config: AlertsConfig,
        clock: Callable[[], float],
    ) -> None:
        self.rules = all_rules(file)
        self.register = register
        self.taps: list[Loss] | None = None
        self.health = Health()
        self._journal, self._clock = journal, clock
        self._store_limit = config.store_unreachable_after_seconds
        self.watch = StoreWatch(
            store,
            Measurer(
                (rule.needs() for rule in self.rules),
                ingest_delay_seconds=config.ingest_delay_seconds,
                longest_request_seconds=config.longest_request_seconds,
            ),
        )
        self._alerts = Tracking(journal, register, (*self.rules, *own.own_rules(self._store_limit)))
        self._pruned_at = 0.0

    def reload(self) -> None:
        """Read the alerts from the journal; each stays as it is until it is judged with data again."""
        self._alerts.reload()

    @property
    def sees(self) -> bool:
        """Whether the store answered last time and is believed."""
        return self.health.rounds > 0 and self.watch.standing is Standing.ANSWERS

    def pending(self) -> list[dict[str, str]]:
        """All labels of each alert that may fire soon; waits while a round judges."""
        with self.register.guard:
            return self._alerts.soon()

    def round(self) -> None:
        """One round.

        Raises:
            Exception: Whatever went wrong (a full disk, say); nothing of the round happened then, and the next one
                starts from the same states.
        """
        now = self._clock()
        measured = self.watch.ask(now)
        with self.register.guard:
            draft = self.register.draft(now)
            before = self._alerts.snapshot()
            try:
                if measured is not None:
                    self._judge(draft, measured)
                away = own.store_reading(self.watch.away_since, self.watch.error, now, self._store_limit)
                self._alerts.judge(draft, own.STORE_RULE, [away])
                self._alerts.remember(draft, before)
                self.register.commit(draft)
            except Exception:
                self._alerts.go_back(before)
                self.register.reload()
                raise
            self._journal.flush()
            if now - self._pruned_at > PRUNE_SECONDS:
                self.register.prune(now)
                self._pruned_at = now
        self._alerts.forget_inactive()
        self._note(now)

    def _judge(self, draft: Draft, measured: Measured) -> None:
        """Every rule, by what was measured."""
        self._alerts.sees(draft.now)
        for rule in self.rules:
            if (readings := self._readings(rule, measured, draft.now)) is not None:
                self._alerts.judge(draft, rule.name, readings)
        if self.taps is not None:
            self._alerts.judge(draft, own.TAP_RULE, own.tap_readings(self.taps, draft.now))
        self._alerts.retire(draft)

    def _readings(self, rule: Rule, measured: Measured, now: float) -> list[Reading] | None:
        """Its readings; None when the rule trips over what was measured, which must not silence the others."""
        try:
            readings = rule.judge(measured, now)
        except Exception as error:
            said = plain(f"{type(error).__name__}: {error}", 300)
            if self.health.failing_rules.get(rule.name) != said:
                log.exception("rule_failed", rule=rule.name)
            self.health.failing_rules[rule.name] = said
            return None
        self.health.failing_rules.pop(rule.name, None)
        return readings

    def _note(self, now: float) -> None:
        self.health.rounds += 1
        self.health.last_round_at = now
        self.health.last_round_seconds = max(0.0, self._clock() - now)
        self.health.pending = self._alerts.count(Phase.PENDING)
        self.health.firing = self._alerts.count(Phase.FIRING)
        self.health.open_incidents = len(self.register.open)
