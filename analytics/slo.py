"""Service levels: what is good, what is bad and what is promised; decided here for budgets, rules and pages alike.

A service level counts what happened at the edge, and of that model operations alone. A request is bad when its outcome
is the service's fault, or when it took longer than a limit. A client that hangs up (``client_abort``) and one that asks
for the impossible (``client_error``) count as requests, and never against the service: else any client could spend the
budget. A refusal for a full queue (``rejected``) is the service's fault: it had promised to answer.

A client that leaves tells something too: one that had waited longer than the limit for what it never got is *known to
exceed it*, whatever it would have got (a censored value), so that a server that hangs is no server that keeps its
promise. One that leaves sooner tells nothing about that limit.

An objective promises that a share ``target`` of the requests of its ``period`` is good. The rest, ``1 − target``, is
the error budget. The burn rate of a window is its share of bad requests over ``1 − target``: at 1 the budget lasts
exactly the period (Google, *The Site Reliability Workbook*, ch. 5).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from analytics.selection import Filter
from analytics.signals import LatencySignal, signal_of
from analytics.window import WindowError
from base.vocabulary import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence


BAD: Final[tuple[str, ...]] = (
    Outcome.REJECTED.value,
    Outcome.SERVER_ERROR.value,
    Outcome.UPSTREAM_RESET.value,
    Outcome.UNREACHABLE.value,
    Outcome.TIMEOUT.value,
)
"""Outcomes that spend the error budget unless an objective names its own."""
FORGIVEN: Final[tuple[str, ...]] = (Outcome.CLIENT_ABORT.value, Outcome.CLIENT_ERROR.value)
"""Outcomes that are the client's doing."""
OPERATION: Final = "operation != ''"
"""Whether a request asked anything of a model: counts, latencies and objectives are of those alone."""
_GONE: Final = f"'{Outcome.CLIENT_ABORT.value}', '{Outcome.UPSTREAM_RESET.value}'"
_CENSORED: Final = {
    # only a stream was going to show its first token at the edge
    "ttft_seconds": f"has_edge = 1 AND stream = 1 AND ttft_seconds = 0 AND outcome IN ({_GONE}, "
    f"'{Outcome.TIMEOUT.value}') AND toFloat64(e2e_seconds)",
    "e2e_seconds": f"has_edge = 1 AND outcome IN ({_GONE}) AND toFloat64(e2e_seconds)",
}
"""Latencies that a request which was given up is known to exceed: whether it was, and the seconds it had waited."""
Sli = Literal["availability", "latency"]


@dataclass(frozen=True, slots=True)
class Objective:
    """A promise about requests.

    Args:
        name: Short and unique; names alerts and panels.
        sli: ``availability``: good unless the outcome is one of ``bad_outcomes``. ``latency``: of the requests that
            have the signal, those within ``threshold_seconds`` are good; given up after that time without it is bad
            (`judged`). Requests that failed have no latency and belong to availability.
        target: Share that shall be good, above 0 and below 1 (0.99).
        period_seconds: Time the budget is for (28 days when not said).
        filter: Whose requests; recordings are left out unless it says otherwise.
        signal: Which latency (``latency`` alone).
        threshold_seconds: Slowest good latency (``latency`` alone).
        bad_outcomes: What spends the budget (``availability`` alone).
        ignored_outcomes: Outcomes that do not count at all, neither good nor bad.
        description: One sentence for people.

    Raises:
        WindowError: A field makes no sense.
    """

    name: str
    sli: Sli
    target: float
    period_seconds: float = 28 * 86400.0
    filter: Filter = field(default_factory=lambda: Filter(recording="exclude"))
    signal: LatencySignal = "ttft_seconds"
    threshold_seconds: float = 0.0
    bad_outcomes: tuple[str, ...] = BAD
    ignored_outcomes: tuple[str, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.target < 1:
            raise WindowError(f"Objective {self.name}: target is {self.target}", "Give a share above 0 and below 1")
        if self.sli not in {"availability", "latency"}:
            raise WindowError(f"Objective {self.name}: sli is {self.sli!r}", "Use availability or latency")
        if self.sli == "latency" and not self.threshold_seconds > 0:
            raise WindowError(f"Objective {self.name}: no threshold_seconds", "Say how slow is still good")
        signal_of(self.signal)
        if not self.period_seconds > 0:
            raise WindowError(f"Objective {self.name}: period_seconds is {self.period_seconds}", "Give a positive one")


@dataclass(frozen=True, slots=True)
class Judged:
    """SQL over ``requests``.

    Attributes:
        valid: Whether a request counts.
        bad: Whether it is bad, of those that count.
        parameters: What both need.
    """

    valid: str
    bad: str
    parameters: dict[str, Any] = field(default_factory=dict)


def judged(
    mark: str,
    *,
    bad: Sequence[str] = (),
    limits: Sequence[tuple[str, float]] = (),
    measured_only: bool = False,
    ignored: Sequence[str] = (),
) -> Judged:
    """The tests of one objective.

    Args:
        mark: Distinguishes its parameters from those of others in the same statement.
        bad: Outcomes that are bad.
        limits: Latencies and the slowest good seconds of each.
        measured_only: Only requests of which every limited latency is known, or known to exceed its limit, count.
        ignored: Outcomes that do not count.

    Raises:
        WindowError: There is no such latency.
    """
    parameters: dict[str, Any] = {}
    valid: list[str] = [OPERATION]
    wrong: list[str] = []
    if ignored:
        valid.append(f"NOT has({{ignored_{mark}:Array(String)}}, outcome)")
        parameters[f"ignored_{mark}"] = list(ignored)
    if bad:
        wrong.append(f"has({{bad_{mark}:Array(String)}}, outcome)")
        parameters[f"bad_{mark}"] = list(bad)
    for index, (name, seconds) in enumerate(limits):
        about = signal_of(name)
        limit = f"{{limit_{mark}_{index}:Float64}}"
        parameters[f"limit_{mark}_{index}"] = float(seconds)
        known = f"({about.present})"
        given_up = f"({_CENSORED[name]} > {limit})" if name in _CENSORED else ""
        valid += [f"({known} OR {given_up})" if given_up else known] if measured_only else []
        wrong.append(f"({known} AND toFloat64({about.value}) > {limit})")
        wrong += [given_up] if given_up else []
    return Judged(" AND ".join(valid), " OR ".join(wrong) or "0", parameters)
