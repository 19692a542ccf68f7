from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics.question import QuestionError
from analytics.questions import requests, story
from analytics.questions.story import intervals
from analytics.selection import Filter, Selection
from analytics.window import EVER, Window

if TYPE_CHECKING:
    from analytics.request_row import RequestRow
    from tests.analytics.lab import Lab

seconds = st.one_of(st.none(), st.floats(0, 20))


@pytest.fixture(scope="module")
def some_row(lab: Lab) -> RequestRow:
    answer = requests.ask(
        lab.store, Selection(lab.window, Filter(instance=("vllm-0",)), outcome=("ok",)), signal="decode_seconds"
    )
    return answer.result.requests[40]


@given(
    phases=st.tuples(*[seconds] * 8),
    e2e=st.floats(0.001, 60),
    start=st.one_of(st.none(), st.floats(-1, 70)),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_intervals_touch_and_fill_the_request_exactly(
    some_row: RequestRow, phases: tuple[float | None, ...], e2e: float, start: float | None
):
    names = ("edge", "queue", "stall", "prefill", "decode", "compute_input", "compute_infer", "compute_output")
    row = replace(some_row, **{f"{name}_seconds": value for name, value in zip(names, phases, strict=True)})
    end = row.time + timedelta(seconds=e2e)
    found = intervals(row, end, None if start is None else row.time + timedelta(seconds=start))
    assert found[0].start == row.time
    assert found[-1].end == end
    assert all(a.end == b.start for a, b in pairwise(found))
    assert all(item.end > item.start for item in found)
    assert sum(item.seconds for item in found) == pytest.approx((end - row.time).total_seconds())
    for name, value in zip(names, phases, strict=True):
        told = sum(item.seconds for item in found if item.phase == name)
        assert told <= (value or 0.0) + 0.001


def test_what_a_client_was_waited_for_stands_at_the_end(some_row: RequestRow):
    known = dict.fromkeys(("transit", "frontend", "queue", "stall", "compute_input", "compute_infer", "compute_output"))
    quiet = {f"{name}_seconds": value for name, value in known.items()}
    row = replace(some_row, **quiet, edge_seconds=6.0, ttft_seconds=0.5, prefill_seconds=0.4, decode_seconds=1.5)
    end = row.time + timedelta(seconds=8)
    for engine_start in (None, row.time + timedelta(seconds=0.001)):
        found = intervals(row, end, engine_start)
        assert found[-1].phase == "edge"
        assert found[-1].seconds == pytest.approx(6.0, abs=0.01)
    sent_slowly = intervals(replace(row, ttft_seconds=6.4), end, None)
    assert sent_slowly[0].phase == "edge"


def test_the_story_has_the_request_its_engine_and_its_neighbours(lab: Lab, some_row: RequestRow):
    answer = story.ask(lab.store, Selection.one(key=some_row.key), margin=10)
    told = answer.result
    assert told.request == some_row
    assert story.ask(lab.store, Selection(Window.instant(some_row.time), key=some_row.key)).result.request == some_row
    assert story.ask(lab.store, Selection.one(trace_id=some_row.trace_id)).result.request == some_row
    assert told.start == some_row.time
    assert told.end is not None
    truth = next(r for r in lab.requests if str(r["key"]) == some_row.key)
    assert (told.end - told.start).total_seconds() == pytest.approx(truth["e2e_seconds"], abs=1e-5)
    by_phase = {item.phase: item.seconds for item in told.phases}
    for name in ("queue", "prefill", "decode"):
        assert by_phase.get(name, 0.0) == pytest.approx(truth[f"{name}_seconds"], abs=1e-4)

    low, high = told.start - timedelta(seconds=10), told.end + timedelta(seconds=10)
    samples = [s for s in lab.samples if s["instance"] == "vllm-0" and low <= s["time"] < high]
    assert [p.time for p in told.samples] == sorted(s["time"] for s in samples)
    assert [p.waiting for p in told.samples] == [s["waiting"] for s in sorted(samples, key=lambda s: s["time"])]
    first = min(samples, key=lambda s: s["time"])
    assert told.samples[0].tokens_per_step == pytest.approx(first["batch_tokens_delta"] / first["engine_steps_delta"])

    def overlap(other: dict[str, object]) -> float:
        e2e = timedelta(milliseconds=round(other["e2e_seconds"] * 1000))  # type: ignore[operator]
        end = min(told.end, other["time"] + e2e)  # type: ignore[type-var, operator]
        return (end - max(told.start, other["time"])).total_seconds()  # type: ignore[operator, type-var]

    near = [
        r
        for r in lab.requests
        if r["instance"] == "vllm-0" and r["recording"] == "" and str(r["key"]) != some_row.key and overlap(r) > 0.001
    ]
    assert len(near) > 0
    assert abs(told.neighbours_total - len(near)) <= 1
    assert {n.key for n in told.neighbours} >= {str(r["key"]) for r in near}
    overlaps = [overlap(next(r for r in lab.requests if str(r["key"]) == n.key)) for n in told.neighbours]
    assert overlaps == pytest.approx(sorted(overlaps, reverse=True), abs=0.002)


def test_an_engines_span_places_the_phases(lab: Lab, some_row: RequestRow):
    start = some_row.time + timedelta(milliseconds=7)
    span = {
        "Timestamp": start,
        "TraceId": some_row.trace_id,
        "SpanId": "00000000000000aa",
        "ParentSpanId": f"{int(some_row.key):016x}",
        "SpanName": "llm_request",
        "ServiceName": "chat",
        "ScopeName": "vllm.llm_engine",
        "SpanAttributes": {"gen_ai.usage.completion_tokens": "12"},
        "Duration": 1_500_000_000,
        "StatusCode": "Unset",
    }
    lab.owner.insert("otel_traces", [span])
    lab.owner.insert("otel_traces", [span], token="delivered twice")
    found = story.ask(lab.store, Selection.one(key=some_row.key)).result
    (told,) = found.spans
    assert told.start == start
    assert told.end == start + timedelta(seconds=1.5)
    assert told.attributes == {"gen_ai.usage.completion_tokens": "12"}
    queue = next(item for item in found.phases if item.phase in {"queue", "prefill"})
    assert queue.start == start
    assert queue.placed == "measured"


def test_who_is_not_there_has_no_story(lab: Lab):
    answer = story.ask(lab.store, Selection.one(key="987654321012"))
    assert answer.result.request is None
    assert answer.rows == 0
    assert answer.state == "no_data"
    with pytest.raises(QuestionError, match="story is about one request"):
        story.ask(lab.store, Selection(EVER))
