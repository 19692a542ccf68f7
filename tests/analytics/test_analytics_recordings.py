"""What was recorded of a server says nothing of the live one of its name, and the other way round."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from analytics.ask import all_questions
from analytics.questions import choices, phases, traffic
from analytics.selection import Filter, Selection
from analytics.slo import Objective
from analytics.window import Window
from tests.analytics.lab import RECORDING

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

MINUTE = timedelta(minutes=1)
REPLAYED = re.compile(r"FROM (requests|engine|host|gpu|events|instance)\w*")
"""Tables in which a replay writes."""


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


@pytest.fixture(scope="module")
def rows_and_samples(lab: Lab) -> Window:
    """A minute in which a server without rows is live, and the rows of one of its name are played."""
    at = (datetime.now(UTC) - timedelta(days=9, hours=5)).replace(second=0, microsecond=0)
    place = {"time": at + timedelta(seconds=5), "instance": "twin", "engine": "vllm", "model": "m", "deployment": "d"}
    lab.owner.insert("engine_samples", [
        {**place, "time": place["time"] + timedelta(milliseconds=ms), "recording": recording, "up": 1,  # type: ignore[operator]
         "interval_seconds": 1.0, "running": running, "requests_finished_delta": finished}
        for recording, running, finished, ms in (("", 3.0, 8.0, 0), ("old", 5.0, 2.0, 400))
    ])  # fmt: skip
    lab.owner.insert("requests_t", [
        {**place, "key": (int(place["time"].timestamp() * 1000) << 22) | number, "recording": "old", "outcome": "ok",  # type: ignore[attr-defined]
         "status": 200, "e2e_seconds": 1.0, "has_edge": 1, "tenant": "played", "version": "v-old",
         "route": "/v1/completions"}
        for number in range(2)
    ])  # fmt: skip
    return Window(at, at + MINUTE)


@pytest.mark.parametrize(
    ("given", "requests", "running", "most"),
    [
        (Filter(recording="exclude"), 8, 3, 3),
        (Filter(recording="only"), 2, 5, 5),
        (Filter(), 10, 8, 8),
    ],
)
def test_a_recordings_rows_do_not_hide_what_the_live_server_of_its_name_counts(
    lab: Lab, rows_and_samples: Window, given: Filter, requests: int, running: float, most: float
) -> None:
    told = traffic.ask(lab.store, Selection(rows_and_samples, given)).result
    assert told.requests.value == pytest.approx(requests / 60)
    assert told.models[0].requests_per_second == pytest.approx(requests / 60)
    assert (told.running.value, told.running.peak) == (running, most), "two servers, though of one name"


def test_what_is_offered_is_of_what_is_looked_at_and_recordings_are_told_in_any_case(
    lab: Lab, rows_and_samples: Window
) -> None:
    told = {
        name: choices.ask(lab.store, Selection(rows_and_samples, Filter(recording=name)))  # type: ignore[arg-type]
        for name in ("exclude", "only", "include")
    }
    assert [answer.result.tenants for answer in told.values()] == [[], ["played"], ["played"]]
    assert [answer.result.versions for answer in told.values()] == [[], ["v-old"], ["v-old"]]
    assert [answer.result.recordings for answer in told.values()] == [["old"]] * 3
    assert [answer.recordings for answer in told.values()] == [(), ("old",), ("old",)]
    assert [answer.rows for answer in told.values()] == [1, 3, 4]


def test_what_only_was_recorded_is_offered_to_nobody_who_looks_at_what_is_live(lab: Lab) -> None:
    at = (datetime.now(UTC) - timedelta(days=9, hours=7)).replace(second=0, microsecond=0)
    lab.owner.insert("engine_samples", [{
        "time": at + timedelta(seconds=5), "instance": "gone", "engine": "vllm", "model": "m", "recording": "old",
        "up": 1, "running": 1.0, "interval_seconds": 1.0,
    }])  # fmt: skip
    told = choices.ask(lab.store, Selection(Window(at, at + MINUTE), Filter(recording="exclude")))
    assert (told.rows, told.result.instances, told.result.recordings) == (0, [], ["old"])


@pytest.mark.parametrize(
    "name", sorted({*all_questions()} - {"story"})
)  # which is of one request, by its own recording
def test_every_statement_goes_by_whether_recordings_are_looked_at(lab: Lab, name: str) -> None:
    options: dict[str, Any] = {"objectives": [Objective("o", "availability", 0.9)]} if name == "budget" else {}
    selection = Selection(lab.window, Filter(recording="exclude", model=("llama",)))
    answer = all_questions()[name](lab.store, selection, **options)
    read = [sql for sql in answer.sql if REPLAYED.search(sql)]
    assert read, "of what a replay writes too"
    shown = "groupUniqArrayIf(500)(model, recording = '')" if name == "choices" else "recording = ''"
    assert [sql for sql in read if shown not in sql] == []
    assert RECORDING not in answer.recordings
