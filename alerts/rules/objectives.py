"""From an SLO of the rules file to the objective that analytics draws and counts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, assert_never

from alerts.rules.sli import AvailabilitySli, GoodputSli, LatencySli
from analytics.selection import Filter
from analytics.slo import Objective

if TYPE_CHECKING:
    from alerts.rules.slo import Slo


def objective_of(slo: Slo) -> Objective:
    """The objective of an SLO, which counts what its rules count."""
    chosen = {name: getattr(slo.filter, name) for name in slo.filter.dimensions()}
    made = partial(
        Objective, slo.name, target=slo.target, period_seconds=slo.period, description=slo.description,
        filter=Filter(recording=slo.filter.recordings).narrowed(**chosen),
    )  # fmt: skip
    match slo.sli:
        case LatencySli() as sli:
            return made(sli="latency", signal=sli.signal, threshold_seconds=sli.threshold_seconds, source=sli.source)
        case AvailabilitySli() as sli:
            return made(sli="availability", bad_outcomes=tuple(outcome.value for outcome in sli.bad), source=sli.source)
        case GoodputSli() as sli:
            return made(sli="goodput", limits=tuple(sorted(sli.limits.items())))
    assert_never(slo.sli)
