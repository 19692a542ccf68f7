"""Above the limit for exact percentiles the same statements run with sketches; the limit is lowered to see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from analytics import latencies as percentiles
from analytics.questions import latency, phases, tenants, traffic
from analytics.selection import Filter, Selection
from tests.analytics.truth import latencies

if TYPE_CHECKING:
    from tests.analytics.lab import Lab


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(percentiles, "EXACT_LIMIT", 100)


def nearly(values: list[float], q: float, told: float | None) -> bool:
    """Within 1 % of the values beside the rank: a sketch names a value, it does not interpolate."""
    ordered = sorted(values)
    rank = q * (len(ordered) - 1)
    low, high = ordered[max(0, int(rank) - 1)], ordered[min(len(ordered) - 1, int(rank) + 2)]
    return told is not None and low * 0.985 <= told <= high * 1.015


def test_percentiles_are_estimated_within_a_percent_and_labelled(lab: Lab):
    answer = latency.ask(lab.store, Selection(lab.window))
    (line,) = answer.result.lines
    values = latencies(lab.rows(), "ttft_seconds")
    assert (answer.level, answer.exactness, line.exactness) == ("rows", "derived", "derived")
    assert line.total["count"] == len(values)
    for name, q in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
        assert nearly(values, q, line.total[name])


def test_the_other_questions_estimate_too(lab: Lab):
    tile = traffic.ask(lab.store, Selection(lab.window)).result.ttft_p99
    assert tile.exactness == "derived"
    assert nearly(latencies(lab.rows(), "ttft_seconds"), 0.99, tile.value)
    told = tenants.ask(lab.store, Selection(lab.window))
    assert told.exactness == "derived"
    first = next(tenant for tenant in told.result.tenants if tenant.tenant)
    values = latencies(lab.rows(Filter(tenant=(first.tenant,))), "e2e_seconds")
    assert nearly(values, 0.99, first.e2e_p99_seconds)
    means = phases.ask(lab.store, Selection(lab.window)).result
    assert means.exactness == "exact", "means stay exact, only the tails are estimated"
    assert all(line.p99 is not None for line in means.phases if line.phase != "unaccounted")
