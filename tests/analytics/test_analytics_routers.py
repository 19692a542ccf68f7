"""A router's requests are its servers' too: each counts once, and a router alone or asked for is shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from analytics.questions import traffic
from analytics.selection import Filter, Selection
from analytics.window import Window

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

BACK = timedelta(days=7)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def start(lab: Lab) -> datetime:
    """In the first two minutes a router and its server are watched, in the third the router alone."""
    at = (datetime.now(UTC) - BACK).replace(second=0, microsecond=0)
    rows = []
    for second in range(180):
        for engine, running in (("litellm", 7.0), ("vllm", 5.0)):
            if engine == "litellm" or second < 120:
                rows.append({
                    "time": at + timedelta(seconds=second), "instance": f"{engine}-r", "engine": engine, "model": "m",
                    "up": 1, "running": running, "interval_seconds": 1.0,
                })  # fmt: skip
    lab.owner.insert("engine_samples", rows)
    return at


@pytest.mark.parametrize(
    ("given", "minutes", "highest"),
    [
        (Filter(), (0, 2), 5),
        (Filter(model=("m",)), (0, 2), 5),
        (Filter(instance=("litellm-r",)), (0, 2), 7),
        (Filter(engine=("litellm", "vllm")), (0, 2), 12),
        (Filter(), (2, 3), 7),
    ],
)
def test_each_request_counts_once(
    lab: Lab, start: datetime, given: Filter, minutes: tuple[int, int], highest: float
) -> None:
    window = Window(start + minutes[0] * MINUTE, start + minutes[1] * MINUTE)
    assert traffic.ask(lab.store, Selection(window, given)).result.running.value == highest
