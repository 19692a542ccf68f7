"""Objectives over their periods, up to now: how much of each budget is left and how fast it goes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from alerts.measure.store import Measurer
from alerts.rules.sli import sums_by
from analytics.slo import budget_remaining, burn_rate

if TYPE_CHECKING:
    from alerts.measure.rows import Rows
    from alerts.rules.model import RulesFile
    from alerts.rules.slo import Slo


@dataclass(frozen=True, slots=True)
class SloStatus:
    """An SLO over its period, up to now.

    Attributes:
        name, description, target, period_seconds: As the file says.
        labels: Of the group it is judged for; empty: all.
        total, bad: Valid and bad requests of the period.
        good_ratio: Share of good requests; None without traffic.
        budget_ratio: Share of the error budget left (1 untouched, below 0 overspent); None without traffic.
        burn_rates: By window seconds, how fast the budget goes; 1 spends it exactly over the period.
        state: ok, burning (a pair of windows is above its factor), exhausted, or no_traffic.
    """

    name: str
    description: str
    target: float
    period_seconds: float
    labels: dict[str, str]
    total: float
    bad: float
    good_ratio: float | None
    budget_ratio: float | None
    burn_rates: dict[float, float]
    state: str


def slo_statuses(store: Rows, file: RulesFile, now: datetime | None = None) -> list[SloStatus]:
    """All SLOs of a file over their periods, in the file's order, one per group they are judged for."""
    at = now or datetime.now(UTC)
    rules = [rule for slo in file.slos for rule in slo.rules()]
    if not rules:
        return []
    spans = sorted(
        {slo.period for slo in file.slos}
        | {s for slo in file.slos for w in slo.burn_windows() for s in (w.long_seconds, w.short_seconds)}
    )
    counted = Measurer(rule.needs() for rule in rules).count(store, spans, at.timestamp())
    found = []
    for slo in file.slos:
        measure = slo.sli.measure()
        sums = {span: sums_by(counted[span], measure, slo.filter, slo.by) for span in spans}
        for key, whole in sorted(sums[slo.period].items()):
            rates = {}
            for window in slo.burn_windows():
                for span in (window.long_seconds, window.short_seconds):
                    one = sums[span].get(key)
                    rates[span] = burn_rate(one.bad, one.total, slo.target) if one else 0.0
            labels = dict(zip(slo.by, key, strict=True))
            found.append(_status(slo, labels, whole.total, whole.bad, rates))
    return found


def _status(slo: Slo, labels: dict[str, str], total: float, bad: float, rates: dict[float, float]) -> SloStatus:
    left = budget_remaining(bad, total, slo.target) if total else None
    burning = any(rates[w.long_seconds] > w.factor and rates[w.short_seconds] > w.factor for w in slo.burn_windows())
    state = "no_traffic" if not total else "burning" if burning else "exhausted" if (left or 0) <= 0 else "ok"
    return SloStatus(
        slo.name,
        slo.description,
        slo.target,
        slo.period,
        labels,
        total,
        bad,
        1 - bad / total if total else None,
        left,
        rates,
        state,
    )
