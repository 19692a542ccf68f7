"""Batch sizes in columns, and what an execution of each takes."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from analytics.questions.batching import BatchSize, ModelBatches
from dashboard import batches
from dashboard.figures import Style
from dashboard.theme import DARK

SPAN = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
CONTEXT: Any = SimpleNamespace(style=Style(DARK, UTC, SPAN))
SMALL = ModelBatches("small", 4, 1.5, [BatchSize(1, 1, 3, 0.03), BatchSize(3, 3, 1, 0.02)])
LARGE = ModelBatches("large", 2, 900.0, [BatchSize(17, 20, 1, 0.5), BatchSize(1025, None, 1, None)])


def test_columns_stand_in_order_of_size_and_are_shares_of_their_model():
    figure: Any = batches.executions([LARGE, SMALL], CONTEXT)
    assert list(figure.layout.xaxis.categoryarray) == ["1", "3", "17 to 20", "1025 and more"]
    drawn = {trace.name: dict(zip(trace.x, trace.y, strict=True)) for trace in figure.data}
    assert drawn == {"small": {"1": 0.75, "3": 0.25}, "large": {"17 to 20": 0.5, "1025 and more": 0.5}}
    (said,) = [trace.customdata for trace in figure.data if trace.name == "small"]
    assert list(said) == ["1 items: 75 %, 3 executions", "3 items: 25 %, 1 execution"]


def test_what_an_execution_takes_is_drawn_where_it_is_told():
    figure: Any = batches.compute([LARGE, SMALL], CONTEXT)
    drawn = {trace.name: list(trace.y) for trace in figure.data}
    assert drawn == {"large": [0.5], "small": [0.01, 0.02]}
    assert "3 items, 1 execution" in figure.data[1].customdata[1]


def test_of_many_models_the_busiest_are_drawn():
    figure: Any = batches.executions([ModelBatches(f"m{n}", 1, 1.0, SMALL.sizes[:1]) for n in range(9)], CONTEXT)
    assert [trace.name for trace in figure.data] == [f"m{n}" for n in range(6)]
