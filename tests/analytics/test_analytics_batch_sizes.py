"""What sizes batches had, out of histograms over the same sizes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from analytics.questions import batching
from analytics.questions.batching import BatchSize
from analytics.selection import Filter, Selection
from analytics.window import Window

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

BACK = timedelta(days=21)
BOUNDS = [1.0, 2.0, 4.0]


@pytest.fixture(scope="module")
def window(lab: Lab) -> Window:
    start = (datetime.now(UTC) - BACK).replace(microsecond=0)

    def row(second: int, instance: str, model: str, signal: str, counts: list[int], bounds: list[float]) -> object:
        total = sum(size * count for size, count in zip([*bounds, 8.0], counts, strict=True))
        return {
            "time": start + timedelta(seconds=second), "instance": instance, "model": model, "engine": "triton",
            "signal": signal, "bounds": bounds, "counts": counts, "count": sum(counts), "sum": total,
        }  # fmt: skip

    sizes, compute = "batch_size", "batch_compute_microseconds"
    lab.owner.insert("engine_histograms", [
        row(1, "one", "m", sizes, [2, 0, 1, 0], BOUNDS), row(1, "one", "m", compute, [2000, 0, 3000, 0], BOUNDS),
        row(6, "two", "m", sizes, [0, 0, 4, 1], BOUNDS), row(6, "two", "m", compute, [0, 0, 9000, 5000], BOUNDS),
        row(6, "two", "silent", sizes, [1, 0, 0], [1.0, 2.0]),
        row(6, "two", "m", "e2e_seconds", [9, 9, 9, 9], BOUNDS),
    ])  # fmt: skip
    lab.owner.insert("engine_samples", [
        {"time": start + timedelta(seconds=second), "instance": one, "model": "m", "engine": "triton", "up": 1}
        for second, one in ((1, "one"), (6, "two"))
    ])  # fmt: skip
    return Window(start, start + timedelta(seconds=60))


def test_sizes_add_up_over_servers_and_seconds(lab: Lab, window: Window):
    found = batching.ask(lab.store, Selection(window)).result.batch_sizes
    assert [(one.model, one.executions) for one in found] == [("m", 8), ("silent", 1)]
    assert found[0].mean == pytest.approx((2 * 1 + 5 * 4 + 1 * 8) / 8)
    assert found[0].sizes == [
        BatchSize(1, 1, 2, pytest.approx(0.002)),  # type: ignore[arg-type]
        BatchSize(3, 4, 5, pytest.approx(0.012)),  # type: ignore[arg-type]
        BatchSize(5, None, 1, pytest.approx(0.005)),  # type: ignore[arg-type]
    ]
    assert found[1].sizes == [BatchSize(1, 1, 1, None)]


def test_one_server_alone_and_none(lab: Lab, window: Window):
    (only,) = batching.ask(lab.store, Selection(window, Filter(instance=("one",)))).result.batch_sizes
    assert [one.executions for one in only.sizes] == [2, 1]
    later = Window(window.start + timedelta(seconds=7), window.end)
    assert batching.ask(lab.store, Selection(later)).result.batch_sizes == []
