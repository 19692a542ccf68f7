"""Multi-window, multi-burn-rate arithmetic.

Source: *The Site Reliability Workbook*, chapter 5 "Alerting on SLOs", approach 6 "Multiwindow, Multi-Burn-Rate
Alerts" (https://sre.google/workbook/alerting-on-slos/). A burn rate of 1 spends the error budget exactly over the
SLO's period; an alert pages when a long window shows that a share of the budget went *and* a short one shows that it
still goes, so that the page ends soon after the fault does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from analytics.slo import burn_rate

if TYPE_CHECKING:
    from alerts.measure.measured import Counted
    from alerts.rules.rule import Severity


class Spend(NamedTuple):
    """One row of the workbook's table: alert when `budget_share` of the budget goes within `long_seconds`.

    Attributes:
        budget_share: Share of the period's error budget (0–1).
        long_seconds: Window in which it goes.
        short_seconds: Window that must burn as fast too; a twelfth of the long one.
        severity: Of the alert that these windows raise.
    """

    budget_share: float
    long_seconds: float
    short_seconds: float
    severity: Severity


WORKBOOK: Final = (
    Spend(0.02, 3600.0, 300.0, "critical"),
    Spend(0.05, 6 * 3600.0, 1800.0, "critical"),
    Spend(0.10, 24 * 3600.0, 7200.0, "warning"),
    Spend(0.10, 72 * 3600.0, 6 * 3600.0, "warning"),
)
"""Table 5-8 of the chapter (14.4, 6 and 1 for a period of 30 days). The day-long row (factor 3) is not in that table:
it is the one that generators in common use put between (sloth's `google-30d` windows)."""


WORKBOOK_PERIOD_SECONDS: Final = 30 * 86_400.0
FIXED_FROM_SECONDS: Final = 28 * 86_400.0
SHORTEST_PERIOD_SECONDS: Final = 3600.0
SHORTEST_LONG_SECONDS: Final = 60.0
SHORTEST_SHORT_SECONDS: Final = 10.0
"""Two rounds of five seconds: a shorter window is looked at with gaps between."""


@dataclass(frozen=True, slots=True)
class BurnWindow:
    """One pair of windows with the burn rate that both must exceed.

    Attributes:
        long_seconds: The window that proves that the budget was spent.
        short_seconds: The window that proves that it is still being spent.
        factor: Burn rate that counts as too fast, in multiples of an even spend over the period.
        severity: Severity of the alert.
    """

    long_seconds: float
    short_seconds: float
    factor: float
    severity: Severity


def windows_for(period_seconds: float) -> tuple[BurnWindow, ...]:
    """The workbook's windows with factors for a period: ``factor = budget share x period / long window``.

    A period of 30 days gives the well-known 14.4, 6, 3 and 1. Longer ones, and those of 28 days, keep the windows and
    get their own factors. For shorter ones the windows shrink with the period and the factors stay, since a window of
    an hour says little about a budget of a day; none gets shorter than what can be counted. Below an hour there is
    nothing to scale to: none.
    """
    if period_seconds < SHORTEST_PERIOD_SECONDS:
        return ()
    scale = 1.0 if period_seconds >= FIXED_FROM_SECONDS else period_seconds / WORKBOOK_PERIOD_SECONDS
    found = []
    for spend in WORKBOOK:
        long = spend.long_seconds * scale
        factor = round(spend.budget_share * period_seconds / long, 6)
        short = max(spend.short_seconds * scale, SHORTEST_SHORT_SECONDS)
        found.append(BurnWindow(max(long, SHORTEST_LONG_SECONDS), short, factor, spend.severity))
    return tuple(found)


def highest_burn_rate(target: float) -> float:
    """The burn rate when every request is bad; a factor at or above it can never page."""
    return 1.0 / (1.0 - target)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a pair of windows says.

    Attributes:
        breached: Both windows burn faster than the factor and the traffic suffices.
        long_rate: Burn rate over the long window.
        short_rate: Burn rate over the short window.
        total: Weight of valid requests in the long window.
        bad: Weight of bad ones in it.
        guarded: Fast enough to page, but with too few requests to say so.
        near: Not breached, and both windows burn at half the factor or faster.
    """

    breached: bool
    long_rate: float
    short_rate: float
    total: float
    bad: float
    guarded: bool
    near: bool = False


def judge(window: BurnWindow, long: Counted, short: Counted, target: float, min_requests: float) -> Verdict:
    """Judge one pair of windows.

    Args:
        window: The windows and their factor.
        long: Counts over the long window.
        short: Counts over the short window.
        target: Objective as a ratio.
        min_requests: Low-traffic guard: fewer valid requests than this in the long window never page.
    """
    long_rate = burn_rate(long.bad, long.total, target)
    short_rate = burn_rate(short.bad, short.total, target)
    fast = long_rate > window.factor and short_rate > window.factor
    enough = long.total >= min_requests
    breached, half = fast and enough, window.factor / 2
    near = not breached and long_rate > half and short_rate > half
    return Verdict(breached, long_rate, short_rate, long.total, long.bad, fast and not enough, near)
