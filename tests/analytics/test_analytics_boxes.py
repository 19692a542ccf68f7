"""What the heatmap counts in a box is what the list of requests shows for it."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from analytics.questions import heatmap, requests
from analytics.selection import LatencyRange, Selection
from analytics.window import Window
from dashboard.views.latency import cells_in

if TYPE_CHECKING:
    from analytics.signals import LatencySignal
    from tests.analytics.lab import Lab


@pytest.mark.parametrize("signal", ["e2e_seconds", "ttft_seconds", "queue_seconds"])
def test_the_list_has_just_the_requests_of_the_cells(lab: Lab, signal: LatencySignal) -> None:
    chance = random.Random(signal)
    whole = Window(lab.window.start + timedelta(seconds=3.25), lab.window.end - timedelta(seconds=2.5))
    heat = heatmap.ask(lab.store, Selection(whole), signal=signal, points=40).result
    counted = 0
    for _ in range(8):
        start = whole.start + timedelta(seconds=chance.uniform(0, 400))
        low = chance.uniform(0.001, 1.0)
        chosen = cells_in(
            heat,
            whole,
            Window(start, start + timedelta(seconds=chance.uniform(1, 300))),
            low,
            low * chance.uniform(1, 50),
        )
        assert chosen is not None
        listed = requests.ask(
            lab.store,
            Selection(chosen.window, latency=LatencyRange(signal, float(f"{chosen.low!r}"), float(f"{chosen.high!r}"))),
            signal=signal,
        )
        assert listed.result.matching == chosen.requests
        counted += chosen.requests
    assert counted
