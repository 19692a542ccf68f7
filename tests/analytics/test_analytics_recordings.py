"""What was recorded of a server says nothing of the live one of its name, and the other way round."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from analytics.questions import phases
from analytics.selection import Filter, Selection
from analytics.window import Window

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def namesakes(lab: Lab) -> Window:
    """A minute in which a server with sums alone is live, and one of its name with histograms is played."""
    at = (datetime.now(UTC) - timedelta(days=9, hours=3)).replace(second=0, microsecond=0)
    common = {"time": at + timedelta(seconds=5), "instance": "namesake", "engine": "vllm", "model": "m"}
    lab.owner.insert("engine_samples", [{
        **common, "recording": "", "up": 1, "interval_seconds": 1.0, "requests_finished_delta": 4.0,
        "request_seconds_delta": 8.0, "queue_seconds_delta": 2.0, "prefill_seconds_delta": 1.0,
        "decode_seconds_delta": 5.0,
    }])  # fmt: skip
    lab.owner.insert("engine_histograms", [
        {**common, "recording": "old", "signal": signal, "bounds": [1.0], "counts": [0, 6], "count": 6, "sum": seconds}
        for signal, seconds in (("e2e_seconds", 30.0), ("queue_seconds", 12.0), ("decode_seconds", 18.0))
    ])  # fmt: skip
    return Window(at, at + MINUTE)


@pytest.mark.parametrize(
    ("given", "requests", "mean"),
    [
        (Filter(recording="exclude"), 4, 2.0),
        (Filter(recording="only"), 6, 5.0),
        (Filter(), 10, 3.8),
    ],
)
def test_a_recordings_histograms_do_not_hide_the_live_servers_sums(
    lab: Lab, namesakes: Window, given: Filter, requests: int, mean: float
) -> None:
    told = phases.ask(lab.store, Selection(namesakes, given)).result
    assert sum(told.requests) == requests
    assert told.e2e_mean == pytest.approx(mean)
