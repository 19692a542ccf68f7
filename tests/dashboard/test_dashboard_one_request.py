"""One request on one axis: its phases, what of them is charged to causes, and what its server ran on meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from analytics.machines import GpuPoint, HostPoint
from analytics.questions.story import Phase, Story
from dashboard.figures import Interval, Style, story
from dashboard.one_request import charges_of
from dashboard.request_machine import lanes
from dashboard.theme import DARK, LIGHT

START = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
END = START + timedelta(seconds=8)
STYLE = Style(LIGHT, UTC, (START, END))


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def phase(name: str, start: float, end: float) -> Phase:
    return Phase(name, at(start), at(end), end - start, "measured")


def cause(name: str, of: str, seconds: float) -> Any:
    return SimpleNamespace(cause=name, phase=of, seconds=seconds)


PHASES = [phase("transit", 0, 2), phase("queue", 2, 6), phase("decode", 6, 7.9), phase("transit", 7.9, 8)]


def spans(causes: list[Any]) -> list[tuple[float, float]]:
    drawn = charges_of(causes, PHASES, END, STYLE)
    return [(round(one.start, 6), round(one.start + one.seconds, 6)) for one in drawn]


def test_a_charge_lies_in_the_phase_that_lost_most_to_it_and_those_of_one_phase_in_a_row() -> None:
    told = [
        cause("kv_cache_full", "queue", 2.5),
        cause("preemption", "queue", 1.0),
        cause("cpu_starved", "transit", 1.5),
    ]
    assert spans(told) == [(3.5, 6), (2.5, 3.5), (0.5, 2)]
    names = [one.name for one in charges_of(told, PHASES, END, STYLE)]
    assert names == ["KV cache full, +2.5 s", "preemptions, +1 s", "starved of CPU, +1.5 s"]


def test_what_its_phase_can_not_hold_reaches_back_and_never_before_the_request() -> None:
    assert spans([cause("queue_saturated", "queue", 5.0)]) == [(1, 6)]
    assert spans([cause("queue_saturated", "queue", 50.0)]) == [(0, 6)]
    assert spans([cause("upstream_error", "other", 3.0)]) == [(5, 8)], "of no phase: at the end of the request"
    assert charges_of([cause("restart", "queue", 1.0)], [], END, STYLE)[0].seconds == 0


def test_charges_stand_beneath_the_phases_on_the_same_axis() -> None:
    own = [Interval("queue", 2, 4, "#111111", "waited")]
    charged = charges_of([cause("kv_cache_full", "queue", 2.5)], PHASES, END, STYLE)
    figure = story(own, [], [], STYLE, total=8, span=(-1, 9), charges=charged)
    (bars,) = figure.data
    assert (list(bars.base), list(bars.x)) == ([2, 3.5], [4, 2.5])
    assert list(figure.layout.yaxis.ticktext) == ["queue", "charged"]
    words = [note.text for note in figure.layout.annotations]
    assert "KV cache full, +2.5 s" in words
    assert any(text.startswith("Phases, and what is charged") for text in words)
    assert "2.5 s charged to KV cache full, most of it queue" in bars.customdata[1]
    alone = story(own, [], [], STYLE, total=8, span=(-1, 9))
    assert list(alone.layout.yaxis.ticktext) == ["queue"]


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_gpus_and_machine_have_lanes_of_their_own(colours: Any) -> None:
    gpus = [GpuPoint(at(second), 2, 0.9, 0.5, 0.7, 1.2e9, 600.0) for second in range(-2, 10)]
    hosts = [HostPoint(at(second + 0.5), 0.8, None, 1.5, 0.25) for second in range(-2, 10)]
    told = Story(None, START, END, PHASES, [], [], [], 0, gpus=gpus, hosts=hosts)
    gpu, cpus, waits = lanes(told, Style(colours, UTC, (START, END)))
    assert gpu.title == "2 GPUs, mean"
    assert [trace.name for trace in gpu.traces] == ["busy", "slowed"]
    assert gpu.traces[0].text[0] == "slowest clock 1.2 GHz, 600 W, fullest memory 70 %"
    assert gpu.offsets[0] == -2
    assert cpus.offsets[0] == -1.5
    assert cpus.traces[0].text[0] == "its processes: 1.5 CPUs"
    assert set(waits.traces[0].values) == {0.25}
    figure = story([], [], [gpu, cpus, waits], STYLE, total=8, span=(-1, 9))
    shapes = {trace.line.shape for trace in figure.data if trace.y and trace.x[0] == -2}
    assert shapes == {"hv"}, "a GPU's sample holds from then on"
    assert {trace.line.shape for trace in figure.data if trace.y and trace.x[0] == -1.5} == {"vh"}


def test_who_tells_of_neither_has_none() -> None:
    assert lanes(Story(None, START, END, PHASES, [], [], [], 0), STYLE) == []
