"""Service levels: how much of what was promised is left, and how fast it goes.

An objective promises that a share ``target`` of the requests of its ``period`` is good. The rest, ``1 − target``, is
the error budget. The burn rate of a window is its share of bad requests over ``1 − target``: at 1 the budget lasts
exactly the period (Google, *The Site Reliability Workbook*, ch. 5).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from analytics.outcomes import BAD
from analytics.signals import LatencySignal, signal_of
from analytics.window import Exactness, Filter, WindowError

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.window import Exactness, State

Sli = Literal["availability", "latency"]


@dataclass(frozen=True, slots=True)
class Objective:
    """A promise about requests.

    Args:
        name: Short and unique; names alerts and panels.
        sli: ``availability``: good unless the outcome is one of ``bad_outcomes``. ``latency``: of the requests that
            have the signal, those within ``threshold_seconds`` are good; given up after that time without it is bad
            (`analytics.sli`). Requests that failed have no latency and belong to availability.
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
class BudgetStatus:
    """One objective over one window.

    Attributes:
        objective: Its name.
        sli: Kind.
        target: Promised share of good requests.
        total, bad, good: Requests, weighted; 0 without traffic.
        sli_ratio: Share of good ones; None without traffic.
        budget_ratio: Share of the window's budget left: 1 untouched, 0 spent, negative overspent; None without
            traffic.
        budget_requests: Bad requests still affordable at this volume; None without traffic.
        burn_rate: Bad share over the allowed share; None without traffic.
        times: Starts of the steps of the two lines.
        line: Share of good requests per step, None in steps without traffic.
        budget_line: ``budget_ratio`` as it went down over the window, measured against the window's whole volume.
        exactness: ``exact`` from rows, ``derived`` from histogram or counters.
        state: *No traffic* and *no data* are told apart.
        note: What this SLI cannot see, empty when nothing.
    """

    objective: str
    sli: Sli
    target: float
    total: float
    bad: float
    good: float
    sli_ratio: float | None
    budget_ratio: float | None
    budget_requests: float | None
    burn_rate: float | None
    times: list[datetime]
    line: list[float | None]
    budget_line: list[float | None]
    exactness: Exactness
    state: State
    note: str


@dataclass(frozen=True, slots=True)
class Budget:
    """Objectives over one window, in the order given.

    Attributes:
        step: Seconds of a step of the lines.
        objectives: One status each.
    """

    step: int
    objectives: list[BudgetStatus]


@dataclass(frozen=True, slots=True)
class Burn:
    """Burn rate of one objective over one window that ends now.

    Attributes:
        objective: Its name.
        window_seconds: Length of the window.
        total, bad: Requests, weighted.
        burn_rate: None without traffic in that window.
    """

    objective: str
    window_seconds: float
    total: float
    bad: float
    burn_rate: float | None


@dataclass(frozen=True, slots=True)
class Burns:
    """Burn rates of several objectives over several windows.

    Attributes:
        burns: By objective, then window, in the order asked.
    """

    burns: list[Burn]
