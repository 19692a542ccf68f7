"""All alerts in memory: each is advanced by what its rule sees, and what changed goes into the round's draft."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import structlog

from alerts.incidents.incident import Alert, alert_key
from alerts.incidents.register import stored_alert
from alerts.rules.reading import Reading
from alerts.rules.rule import About
from alerts.state import AlertState, Observation, Phase, Timing, step
from alerts.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from alerts.incidents.register import Draft, Register
    from alerts.journal import Journal

log = structlog.get_logger()

RESTORED_SECONDS: Final = 300.0
"""After a start, an alert that has no data for so long, while the store answers, is taken as one without data."""
_GONE: Final = About("", "info", "", Timing(no_data="ok"))
"""Said of alerts whose rule the file no longer has."""
_LOGGED: Final = {
    Phase.PENDING: "alert_pending",
    Phase.FIRING: "alert_firing",
    Phase.RESOLVED: "alert_resolved",
}


@dataclass(slots=True)
class Tracked:
    """One alert in memory; `waits` for data since it was read from the journal."""

    rule: str
    labels: dict[str, str]
    context: dict[str, str]
    state: AlertState
    waits: bool = False


class Tracking:
    """Advances alerts.

    Args:
        journal: Where their states live.
        register: Where their incidents live.
        abouts: Every rule there is.
    """

    def __init__(self, journal: Journal, register: Register, abouts: Iterable[About]) -> None:
        self._journal, self._register = journal, register
        self._abouts = {about.name: about for about in abouts}
        self._near: dict[str, list[dict[str, str]]] = {}
        self.reload()

    def reload(self) -> None:
        """Read the alerts from the journal; each stays as it is until it is judged with data again."""
        self._sees_since: float | None = None
        self._tracked = {
            key: Tracked(v["rule"], v["labels"], v.get("context", {}), AlertState.from_dict(v["state"]), waits=True)
            for key, v in self._journal.section("alerts").items()
        }

    def snapshot(self) -> dict[str, Tracked]:
        """All alerts as they are now, for :meth:`go_back`."""
        return {key: replace(tracked) for key, tracked in self._tracked.items()}

    def go_back(self, before: dict[str, Tracked]) -> None:
        """Forget what happened since a snapshot."""
        self._tracked = before

    def sees(self, now: float) -> None:
        """The store answers: an alert of before the start that has no data waits for it from the first time on."""
        self._sees_since = now if self._sees_since is None else self._sees_since

    def count(self, phase: Phase) -> int:
        """How many alerts are in a phase."""
        return sum(tracked.state.phase is phase for tracked in self._tracked.values())

    def soon(self) -> list[dict[str, str]]:
        """All labels of each alert that may fire soon: those pending, the newest last, and those that come near."""
        pending = (t for t in self._tracked.values() if t.state.phase is Phase.PENDING)
        there = sorted(pending, key=lambda tracked: tracked.state.breach_since or 0.0)
        near = [labels for found in self._near.values() for labels in found]
        return [{**tracked.context, **tracked.labels} for tracked in there] + near

    def judge(self, draft: Draft, name: str, readings: Iterable[Reading]) -> None:
        """Advance all alerts of one rule; those without a reading have no data."""
        about = self._abouts[name]
        seen: set[str] = set()
        near = self._near[name] = []
        for reading in readings:
            key = alert_key(name, reading.labels)
            tracked = self._tracked.get(key)
            if tracked is None and reading.near:
                near.append({**reading.context, **reading.labels})
            if tracked is not None and tracked.waits and not reading.data:
                continue
            seen.add(key)
            if tracked is None:
                if not reading.seen.breached or not reading.opens:
                    continue
                tracked = Tracked(name, dict(reading.labels), dict(reading.context), AlertState())
                self._tracked[key] = tracked
            tracked.context, tracked.waits = dict(reading.context), False
            self._advance(draft, tracked, reading, about)
        for key, tracked in self._tracked.items():
            if tracked.rule == name and key not in seen and not self._held(tracked, draft.now):
                silent = Reading(tracked.labels, Observation(None, draft.now), "no data", 0.0, 0.0, tracked.context)
                self._advance(draft, tracked, silent, about)

    def retire(self, draft: Draft) -> None:
        """Alerts of rules that the file no longer has are over."""
        for tracked in self._tracked.values():
            if tracked.rule not in self._abouts:
                gone = Reading(tracked.labels, Observation(None, draft.now), "the rule was removed", 0.0)
                self._advance(draft, tracked, gone, _GONE)

    def remember(self, draft: Draft, before: Mapping[str, Tracked]) -> None:
        """Write clocks that moved without a transition: a restart goes on from them."""
        for key, tracked in self._tracked.items():
            moved = key not in before or tracked.state != before[key].state
            if moved and key not in draft.alerts and tracked.state.phase in {Phase.PENDING, Phase.FIRING}:
                draft.alerts[key] = stored_alert(tracked.rule, tracked.labels, tracked.context, tracked.state)

    def forget_inactive(self) -> None:
        """Let go of alerts that are over."""
        self._tracked = {k: t for k, t in self._tracked.items() if t.state.phase is not Phase.INACTIVE}

    def _held(self, tracked: Tracked, now: float) -> bool:
        """Whether an alert of before the start still waits for its first data; that it never comes ends it in time."""
        if not tracked.waits:
            return False
        tracked.waits = self._sees_since is None or now - self._sees_since < RESTORED_SECONDS
        return tracked.waits

    def _advance(self, draft: Draft, tracked: Tracked, reading: Reading, about: About) -> None:
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
        self._register.transition(draft, alert, done.state, done.entered, reason)
        labels = {f"label_{name}": plain(value) for name, value in tracked.labels.items()}
        log.info(_LOGGED[done.entered], rule=tracked.rule, reason=plain(reason, 300), **labels)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
