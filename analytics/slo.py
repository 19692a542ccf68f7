"""Service levels: what is good, what is bad and what is promised; decided here for budgets, rules and pages alike.

A service level counts what happened at the edge, and of that model operations alone. A request is bad when its outcome
is the service's fault, or when it took longer than a limit. A client that hangs up (``client_abort``) and one that asks
for the impossible (``client_error``) count as requests, and never against the service: else any client could spend the
budget. A refusal for a full queue (``rejected``) is the service's fault: it had promised to answer.

A client that leaves tells something too: one that had waited longer than the limit for what it never got is *known to
exceed it*, whatever it would have got (a censored value), so that a server that hangs is no server that keeps its
promise. One that leaves sooner tells nothing about that limit.

A request counts at the instant when it ends, in rules and budgets alike: a row exists once its request is over, and a
short window by arrival would never hold the slow ones. So one that took longer than `LONGEST_SECONDS` is in no window.

An objective promises that a share ``target`` of the requests of its ``period`` is good. The rest, ``1 − target``, is
the error budget. The burn rate of a window is its share of bad requests over ``1 − target``: at 1 the budget lasts
exactly the period (Google, *The Site Reliability Workbook*, ch. 5).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from analytics.counters import FAILED, JUDGED
from analytics.selection import Filter
from analytics.signals import LatencySignal, signal_of
from analytics.window import WindowError
from base.vocabulary import Outcome

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
FINISHED: Final = "addMilliseconds(time, toUInt32(least(e2e_seconds, 86400) * 1000))"
"""When a request ended, in SQL over ``requests``: the instant at which it counts."""
LONGEST_SECONDS: Final = 600.0
"""How far before a window arrivals are looked at for requests that end inside."""
_GONE: Final = f"'{Outcome.CLIENT_ABORT.value}', '{Outcome.UPSTREAM_RESET.value}'"
_CENSORED: Final = {
    # only a stream was going to show its first token at the edge
    "ttft_seconds": f"has_edge = 1 AND stream = 1 AND ttft_seconds = 0 AND outcome IN ({_GONE}, "
    f"'{Outcome.TIMEOUT.value}') AND toFloat64(e2e_seconds)",
    "e2e_seconds": f"has_edge = 1 AND outcome IN ({_GONE}) AND toFloat64(e2e_seconds)",
}
"""Latencies that a request which was given up is known to exceed: whether it was, and the seconds it had waited."""
Sli = Literal["availability", "latency", "goodput"]
Source = Literal["rows", "metrics"]


@dataclass(frozen=True, slots=True)
class Measure:
    """What is counted of requests: which are valid and which of them are bad. Rules that share it share columns.

    Attributes:
        bad: Outcomes that are bad.
        limits: (latency, seconds) pairs; a request that exceeds any is bad.
        latency_only: Only requests of which every limited latency is known, or known to exceed its limit, are valid.
        source: ``rows``: request by request. ``metrics``: the servers' own counters and histograms, for those that
            nobody stands in front of.
        ignored: Outcomes that are not valid.
    """

    bad: tuple[str, ...] = ()
    limits: tuple[tuple[str, float], ...] = ()
    latency_only: bool = False
    source: Source = "rows"
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Objective:
    """A promise about requests.

    Args:
        name: Short and unique; names alerts and panels.
        sli: ``availability``: good unless the outcome is one of ``bad_outcomes``. ``latency``: of the requests that
            have the signal, those within ``threshold_seconds`` are good; given up after that time without it is bad.
            Requests that failed have no latency and belong to availability. ``goodput``: good is what has none of
            ``bad_outcomes`` and exceeds none of ``limits``.
        target: Share that shall be good, above 0 and below 1 (0.99).
        period_seconds: Time the budget is for (28 days when not said).
        filter: Whose requests, by `analytics.patterns`; recordings are left out unless it says otherwise.
        signal: Which latency (``latency`` alone).
        threshold_seconds: Slowest good latency (``latency`` alone).
        bad_outcomes: What spends the budget (``availability`` and ``goodput``).
        ignored_outcomes: Outcomes that do not count at all, neither good nor bad.
        description: One sentence for people.
        limits: Latencies and the slowest good seconds of each (``goodput`` alone).
        source: As `Measure.source`; an objective over rows is read from metrics too where no request has a row.

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
    limits: tuple[tuple[str, float], ...] = ()
    source: Source = "rows"

    def __post_init__(self) -> None:
        if not 0 < self.target < 1:
            raise WindowError(f"Objective {self.name}: target is {self.target}", "Give a share above 0 and below 1")
        if self.sli not in {"availability", "latency", "goodput"}:
            raise WindowError(f"Objective {self.name}: sli is {self.sli!r}", "Use availability, latency or goodput")
        if self.sli == "latency" and not self.threshold_seconds > 0:
            raise WindowError(f"Objective {self.name}: no threshold_seconds", "Say how slow is still good")
        if self.sli == "goodput" and not self.limits:
            raise WindowError(f"Objective {self.name}: no limits", "Give latencies and how slow each may be")
        for name in (self.signal, *(name for name, _ in self.limits)):
            signal_of(name)
        if not self.period_seconds > 0:
            raise WindowError(f"Objective {self.name}: period_seconds is {self.period_seconds}", "Give a positive one")

    @property
    def measure(self) -> Measure:
        """What it counts."""
        if self.sli == "latency":
            limits = ((self.signal, self.threshold_seconds),)
            return Measure((), limits, latency_only=True, source=self.source, ignored=self.ignored_outcomes)
        return Measure(self.bad_outcomes, self.limits, source=self.source, ignored=self.ignored_outcomes)


@dataclass(frozen=True, slots=True)
class Counting:
    """SQL that counts a measure over one table.

    Attributes:
        rows: Whether a row is looked at.
        total: Its weight, of valid requests.
        bad: Its weight, of bad ones.
        parameters: What the three need.
    """

    rows: str
    total: str
    bad: str
    parameters: dict[str, Any] = field(default_factory=dict)

    def sums(self, also: str) -> tuple[str, str]:
        """Valid and bad requests, of rows that another condition holds of too."""
        inside = f"{also} AND ({self.rows})"
        return f"sumIf({self.total}, {inside})", f"sumIf({self.bad}, {inside})"


def counting(measure: Measure, mark: str) -> Counting:
    """How a measure is counted where its source is: over ``requests``, ``engine_histograms`` or ``engine_samples``.

    Args:
        measure: What to count; from metrics of one latency at most.
        mark: Distinguishes its parameters from those of others in the same statement.

    Raises:
        WindowError: There is no such latency.
    """
    if measure.source == "rows":
        return _of_rows(measure, mark)
    if not measure.limits:
        return Counting("1", JUDGED, FAILED)
    ((name, seconds),) = measure.limits
    held = f"if(bound <= {{limit_{mark}:Float64}}, held, 0)"
    good = f"arraySum((held, bound) -> {held}, arrayPopBack(counts), bounds)"
    parameters = {f"limit_{mark}": float(seconds), f"signal_{mark}": signal_of(name).distribution}
    return Counting(f"signal = {{signal_{mark}:String}}", "count", f"count - {good}", parameters)


def burn_rate(bad: float, total: float, target: float) -> float:
    """How fast the budget goes: ``(bad / total) / (1 - target)``; 0 without traffic, 1 for an even spend.

    Args:
        bad: Weight of bad requests in the window.
        total: Weight of valid requests in the window.
        target: Objective as a ratio, above 0 and below 1.
    """
    return 0.0 if total <= 0 else (bad / total) / (1.0 - target)


def budget_remaining(bad: float, total: float, target: float) -> float:
    """Share of the period's error budget that is left; 1 without traffic, below 0 when overspent."""
    return 1.0 - burn_rate(bad, total, target)


def _of_rows(measure: Measure, mark: str) -> Counting:
    parameters: dict[str, Any] = {}
    valid: list[str] = [OPERATION]
    wrong: list[str] = []
    if measure.ignored:
        valid.append(f"NOT has({{ignored_{mark}:Array(String)}}, outcome)")
        parameters[f"ignored_{mark}"] = list(measure.ignored)
    if measure.bad:
        wrong.append(f"has({{bad_{mark}:Array(String)}}, outcome)")
        parameters[f"bad_{mark}"] = list(measure.bad)
    for index, (name, seconds) in enumerate(measure.limits):
        about = signal_of(name)
        limit = f"{{limit_{mark}_{index}:Float64}}"
        parameters[f"limit_{mark}_{index}"] = float(seconds)
        known = f"({about.present})"
        given_up = f"({_CENSORED[name]} > {limit})" if name in _CENSORED else ""
        valid += [f"({known} OR {given_up})" if given_up else known] if measure.latency_only else []
        wrong.append(f"({known} AND toFloat64({about.value}) > {limit})")
        wrong += [given_up] if given_up else []
    return Counting(" AND ".join(valid), "weight", f"if({' OR '.join(wrong) or '0'}, weight, 0)", parameters)
