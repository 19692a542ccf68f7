"""One alert's life: inactive → pending → firing → resolved. Pure: the clock is an argument, nothing is stored.

An alert is one rule with one set of labels. It becomes *pending* when its condition holds, *firing* when it has held
for the rule's ``for``, and *resolved* when it has not held for ``keep_firing_for``, which damps flapping. Times are
Unix seconds. The evidence is dated by the data (``Observation.at``), not by the evaluator: a late sample proves as
much as a prompt one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from base.formats import spell

NoData = Literal["ok", "keep", "alert"]


class Phase(StrEnum):
    """Where an alert stands."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Timing:
    """A rule's patience.

    Attributes:
        for_seconds: How long the condition must hold before the alert fires.
        keep_firing_seconds: How long it must not hold before the alert resolves.
        no_data: What silence means: ``ok`` (the condition does not hold), ``keep`` (stay as it is), ``alert`` (it
            holds).
        stale_after_seconds: With ``keep``, silence this long ends the alert, for its subject is gone.
    """

    for_seconds: float = 0.0
    keep_firing_seconds: float = 0.0
    no_data: NoData = "keep"
    stale_after_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class Observation:
    """What one evaluation saw.

    Attributes:
        breached: Whether the condition holds now; None without data.
        at: Time of the newest datum.
        value: The number compared with the threshold.
        since: When the present run of breaching data began, as far back as was looked; None: at `at`.
        unbroken: No datum in the look-back contradicts the condition, so a run known from before goes on.
        last_breach: Newest breaching datum, for a condition that no longer holds.
    """

    breached: bool | None
    at: float
    value: float = math.nan
    since: float | None = None
    unbroken: bool = True
    last_breach: float | None = None


@dataclass(frozen=True, slots=True)
class AlertState:
    """The memory of one alert; everything needed to go on after a restart.

    Attributes:
        phase: inactive, pending or firing.
        breach_since: Start of the present run of breaching data.
        fired_at: When it began to fire.
        last_breach: Newest breaching datum.
        last_data: Newest datum of any kind.
        value: The newest number.
    """

    phase: Phase = Phase.INACTIVE
    breach_since: float | None = None
    fired_at: float | None = None
    last_breach: float | None = None
    last_data: float | None = None
    value: float = math.nan

    def as_dict(self) -> dict[str, Any]:
        """The state as JSON-ready values."""
        found = asdict(self)
        found["value"] = self.value if math.isfinite(self.value) else None
        return found

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> AlertState:
        """The state that :meth:`as_dict` wrote."""
        value = stored.get("value")
        return cls(
            Phase(stored["phase"]),
            stored.get("breach_since"),
            stored.get("fired_at"),
            stored.get("last_breach"),
            stored.get("last_data"),
            math.nan if value is None else float(value),
        )


@dataclass(frozen=True, slots=True)
class Step:
    """The next state and the transition made on the way, if any.

    Attributes:
        state: The state to keep; `inactive` ones may be forgotten.
        entered: The phase entered (pending, firing, resolved), None when nothing changed.
        reason: Why, in plain English.
    """

    state: AlertState
    entered: Phase | None = None
    reason: str = ""


def step(state: AlertState, seen: Observation, now: float, timing: Timing) -> Step:
    """Advance one alert by one observation.

    Args:
        state: The state so far.
        seen: What this evaluation saw.
        now: The evaluator's clock.
        timing: The rule's patience.
    """
    if seen.breached is None:
        return _silent(state, now, timing)
    known = replace(state, last_data=max(seen.at, state.last_data or seen.at), value=seen.value)
    if seen.breached:
        return _breached(known, seen, now, timing)
    return _clear(known, seen.at, seen.last_breach, timing, "the condition no longer holds")


def _silent(state: AlertState, now: float, timing: Timing) -> Step:
    if timing.no_data == "alert":
        since = state.last_data if state.last_data is not None else now
        return _breached(state, Observation(True, now, state.value, since), now, timing)
    if timing.no_data == "ok":
        return _clear(state, now, None, timing, "there is no data any more")
    if state.phase is Phase.INACTIVE or now - (state.last_data or now) < timing.stale_after_seconds:
        return Step(state)
    return Step(
        AlertState(last_data=state.last_data), Phase.RESOLVED, f"no data for {spell(timing.stale_after_seconds)}"
    )


def _breached(state: AlertState, seen: Observation, now: float, timing: Timing) -> Step:
    start = seen.at if seen.since is None else min(seen.since, seen.at)
    goes_on = state.phase is not Phase.INACTIVE and seen.unbroken and state.breach_since is not None
    since = min(start, state.breach_since) if goes_on and state.breach_since is not None else start
    held = replace(state, breach_since=since, last_breach=max(seen.at, state.last_breach or seen.at))
    if state.phase is Phase.FIRING:
        return Step(held)
    if seen.at - since >= timing.for_seconds:
        return Step(replace(held, phase=Phase.FIRING, fired_at=now), Phase.FIRING, "the condition has held long enough")
    if state.phase is Phase.PENDING:
        return Step(held)
    return Step(replace(held, phase=Phase.PENDING), Phase.PENDING, "the condition holds")


def _clear(state: AlertState, at: float, last_breach: float | None, timing: Timing, reason: str) -> Step:
    if state.phase is Phase.INACTIVE:
        return Step(AlertState(last_data=state.last_data, value=state.value))
    if state.phase is Phase.PENDING:
        return Step(
            AlertState(last_data=state.last_data, value=state.value), Phase.RESOLVED, f"{reason}; it never fired"
        )
    newest = max((t for t in (state.last_breach, last_breach) if t is not None), default=-math.inf)
    if at - newest < timing.keep_firing_seconds:
        return Step(replace(state, last_breach=newest))
    return Step(AlertState(last_data=state.last_data, value=state.value), Phase.RESOLVED, reason)
