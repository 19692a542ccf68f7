"""From an SLO of the rules file to the objective that analytics draws and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alerts.rules.sli import AvailabilitySli, LatencySli
from analytics.selection import Filter
from analytics.slo import Objective

if TYPE_CHECKING:
    from alerts.rules.slo import Slo


def objective_of(slo: Slo) -> Objective | None:
    """The objective of an SLO; None for goodput (no single signal tells it) and for patterns (no filter takes them)."""
    chosen = {name: getattr(slo.filter, name) for name in slo.filter.dimensions()}
    if any(set(text) & set("*?[") for patterns in chosen.values() for text in patterns):
        return None
    narrowed = Filter(recording="exclude").narrowed(**chosen)
    if isinstance(slo.sli, LatencySli):
        return Objective(
            slo.name,
            "latency",
            slo.target,
            slo.period,
            narrowed,
            signal=slo.sli.signal,
            threshold_seconds=slo.sli.threshold_seconds,
        )
    if isinstance(slo.sli, AvailabilitySli):
        bad = tuple(outcome.value for outcome in slo.sli.bad)
        return Objective(slo.name, "availability", slo.target, slo.period, narrowed, bad_outcomes=bad)
    return None
