"""Triton's spans become one row a request, and engine halves without a tap's id find their edge."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector.settle import Settler
from tests.kits.schema_tools import (
    NOW_MS,
    RESOURCE,
    attributes,
    edge_span,
    engine_span,
    framed,
    fresh_store,
    recorded,
    span_id,
    token,
    traces,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.store.client import Store
    from tests.conftest import StoreServer

TRITON = "triton-server"
MERGED = "SELECT * FROM requests WHERE request_id = {r:String} ORDER BY time, has_edge"


@pytest.fixture(scope="module")
def store(store_server: StoreServer) -> Iterator[Store]:
    with fresh_store(store_server) as made:
        yield made


def land(store: Store, *messages: Any) -> None:
    store.insert_segment("land_traces", framed(*messages), token())


def at(span: Span, event: str) -> int:
    return next((item.time_unix_nano for item in span.events if item.name == event), 0)


def value(span: Span, key: str) -> Any:
    return next((item.value.string_value or item.value.int_value for item in span.attributes if item.key == key), "")


def expected(spans: list[Span]) -> dict[bytes, dict[str, Any]]:
    """Rows by trace, worked out from the spans alone."""
    below: dict[tuple[bytes, bytes], list[Span]] = defaultdict(list)
    for span in spans:
        below[span.trace_id, span.parent_span_id].append(span)
    rows = {}
    for request in (span for span in spans if span.name == "InferRequest"):
        (model,) = below[request.trace_id, request.span_id]
        steps = [model]
        if not any(span.name == "compute" for span in below[model.trace_id, model.span_id]):
            steps = below[model.trace_id, model.span_id]
        row: dict[str, Any] = {"queue": 0, "input": 0, "infer": 0, "output": 0}
        for step in steps:
            for compute in (span for span in below[step.trace_id, step.span_id] if span.name == "compute"):
                marks = [
                    at(step, "QUEUE_START"),
                    *(at(compute, f"COMPUTE_{name}") for name in ("START", "INPUT_END", "OUTPUT_START", "END")),
                ]
                for name, first, last in zip(("queue", "input", "infer", "output"), marks, marks[1:], strict=False):
                    row[name] += last - first
        row["model"] = value(model, "triton.model_name")
        row["request_id"] = value(model, "triton.request_id")
        row["e2e"] = request.end_time_unix_nano - request.start_time_unix_nano
        rows[request.trace_id] = row
    return rows


def test_the_recorded_traces_become_one_row_each(store: Store):
    body = recorded("triton/otlp_traces_1119_requests_as_protobuf.pb.gz")
    spans = [span for group in body.resource_spans for scoped in group.scope_spans for span in scoped.spans]
    truth = expected(spans)
    land(store, body)
    settler = Settler(store)
    settler.run()
    settler.run()
    rows = {
        bytes.fromhex(row["trace_id"]): row
        for row in store.rows("SELECT * FROM requests WHERE deployment = 'triton-vision'")
    }
    assert len(truth) == len(rows) == 1111
    for trace, want in truth.items():
        row = rows[trace]
        assert (row["model"], row["request_id"]) == (want["model"], want["request_id"])
        for column, name in (
            ("queue", "queue"),
            ("compute_input", "input"),
            ("compute_infer", "infer"),
            ("compute_output", "output"),
        ):
            assert row[f"{column}_seconds"] == pytest.approx(want[name] / 1e9, rel=1e-5, abs=1e-9)
        assert row["e2e_seconds"] == pytest.approx(want["e2e"] / 1e9, rel=1e-5)
        assert row["deployment"] == "triton-vision"
    outcomes = store.rows(
        "SELECT outcome, count() AS n FROM requests WHERE deployment = 'triton-vision' GROUP BY 1 ORDER BY 1"
    )
    # the client saw 434 times "queue full" and 22 deadlines that ran out in the queue
    assert outcomes == [
        {"outcome": "", "n": 655},
        {"outcome": "client_abort", "n": 22},
        {"outcome": "rejected", "n": 434},
    ]


def triton_trace(trace: bytes, bits: int, *, steps: int = 1) -> list[Span]:
    """InferRequest under a tap's span; one model, or an ensemble of several."""
    start = NOW_MS * 1_000_000 + 1_000_000
    own = [os.urandom(8) for _ in range(2 + 2 * steps)]
    made = [
        Span(
            trace_id=trace,
            span_id=own[0],
            parent_span_id=span_id(NOW_MS, bits),
            name="InferRequest",
            start_time_unix_nano=start,
            end_time_unix_nano=start + 90_000_000,
        )
    ]
    made[0].events.add(name="INFER_RESPONSE_COMPLETE", time_unix_nano=start + 89_000_000)

    def model(name: str, span: bytes, parent: bytes, outer: int) -> None:
        item = Span(
            trace_id=trace,
            span_id=span,
            parent_span_id=parent,
            name=name,
            start_time_unix_nano=start,
            end_time_unix_nano=start + 80_000_000,
        )
        item.attributes.extend(
            attributes({"triton.model_name": name, "triton.trace_parent_id": outer, "triton.request_id": "t-1"})
        )
        item.events.add(name="QUEUE_START", time_unix_nano=start + 2_000_000)
        item.events.add(name="REQUEST_END", time_unix_nano=start + 80_000_000)
        made.append(item)

    def compute(parent: bytes, span: bytes) -> None:
        item = Span(trace_id=trace, span_id=span, parent_span_id=parent, name="compute")
        for name, ms in (
            ("COMPUTE_START", 12),
            ("COMPUTE_INPUT_END", 13),
            ("COMPUTE_OUTPUT_START", 43),
            ("COMPUTE_END", 45),
        ):
            item.events.add(name=name, time_unix_nano=start + ms * 1_000_000)
        made.append(item)

    model("outer", own[1], own[0], 0)
    if steps == 1:
        compute(own[1], own[2])
    else:
        for step in range(steps):
            model(f"step{step}", own[2 + 2 * step], own[1], 1)
            compute(own[2 + 2 * step], own[3 + 2 * step])
    return made


@pytest.mark.parametrize("steps", [1, 2])
def test_spans_spread_over_exports_meet_the_edge(store: Store, steps: int):
    trace, bits = os.urandom(16), int.from_bytes(os.urandom(2), "big")
    settler = Settler(store)
    for span in reversed(triton_trace(trace, bits, steps=steps)):
        land(store, traces([span], TRITON, RESOURCE | {"servescope.engine": "triton"}))
        settler.run()
    land(
        store,
        traces(
            [edge_span(trace=trace, bits=bits, gen_ai__request__model="outer")],
            resource=RESOURCE | {"servescope.engine": "triton"},
        ),
    )
    (row,) = store.rows("SELECT * FROM requests WHERE trace_id = {t:String}", {"t": trace.hex()})
    assert (row["has_edge"], row["has_engine"], row["model"], row["engine"]) == (1, 1, "outer", "triton")
    assert row["queue_seconds"] == pytest.approx(0.010 * steps, rel=1e-5)
    assert row["compute_infer_seconds"] == pytest.approx(0.030 * steps, rel=1e-5)
    assert row["engine_e2e_seconds"] == pytest.approx(0.090, rel=1e-5)


def test_two_requests_of_one_trace_stay_apart(store: Store):
    trace = os.urandom(16)
    land(store, traces([*triton_trace(trace, 1), *triton_trace(trace, 2)], TRITON))
    Settler(store).run()
    rows = store.rows("SELECT queue_seconds FROM requests WHERE trace_id = {t:String}", {"t": trace.hex()})
    assert [row["queue_seconds"] for row in rows] == pytest.approx([0.010, 0.010], rel=1e-5)


def test_spans_of_a_recording_are_no_part_of_what_happened(store: Store):
    trace, bits, settler = os.urandom(16), int.from_bytes(os.urandom(2), "big"), Settler(store)
    spans = triton_trace(trace, bits, steps=2)
    for name in ("", "triton-a"):
        whose = RESOURCE | {"servescope.engine": "triton", "servescope.recording": name}
        land(store, traces([edge_span(trace=trace, bits=bits)], resource=whose))
        land(store, traces(spans, TRITON, whose))
        settler.run()
    told = "SELECT recording, has_edge, has_engine, queue_seconds FROM requests WHERE trace_id = {t:String} ORDER BY 1"
    rows = store.rows(told, {"t": trace.hex()})
    assert [(row["recording"], row["has_edge"], row["has_engine"]) for row in rows] == [("", 1, 1), ("triton-a", 1, 1)]
    assert [row["queue_seconds"] for row in rows] == pytest.approx([0.020, 0.020], rel=1e-5)


@pytest.mark.parametrize("first", ["edge", "engine"])
def test_an_engine_half_without_the_taps_id_goes_to_its_edge(store: Store, first: str):
    name, bits = f"job-{token()}", int.from_bytes(os.urandom(2), "big")
    edge = edge_span(trace=os.urandom(16), bits=bits, servescope__request__id=name, gen_ai__response__id=f"cmpl-{name}")
    engine = engine_span(trace=os.urandom(16), gen_ai__request__id=f"cmpl-{name}-0")
    engine.parent_span_id = b""
    halves = [traces([edge]), traces([engine], "vllm.tracing.otel")]
    for half in halves if first == "edge" else reversed(halves):
        land(store, half)
        Settler(store).run()
    before = store.rows(MERGED, {"r": name})
    assert [(row["has_edge"], row["has_engine"]) for row in before] == [(1, 1)]
    assert before[0]["key"] == int.from_bytes(span_id(NOW_MS, bits), "big")
    assert before[0]["queue_seconds"] == pytest.approx(0.01)
    land(store, halves[1])
    Settler(store).run()
    assert store.rows(MERGED, {"r": name}) == before


def test_an_id_used_twice_goes_to_the_edge_that_was_open(store: Store):
    name = f"retry-{token()}"
    edges = [
        edge_span(
            ms=NOW_MS + ms, bits=77, servescope__request__id=name, gen_ai__response__id="", servescope__e2e_seconds=0.14
        )
        for ms in (0, 60_000)
    ]
    engine = engine_span(ms=NOW_MS + 60_001, gen_ai__request__id=f"cmpl-{name}-0")
    engine.parent_span_id = b""
    land(store, traces(edges), traces([engine], "vllm.tracing.otel"))
    Settler(store).run()
    assert [row["has_engine"] for row in store.rows(MERGED, {"r": name})] == [0, 1]


def test_requests_without_ids_are_left_alone(store: Store):
    edge = edge_span(
        ms=NOW_MS + 500, bits=99, trace=os.urandom(16), servescope__request__id="", gen_ai__response__id=""
    )
    trace = os.urandom(16)
    engine = engine_span(ms=NOW_MS + 500, trace=trace, gen_ai__request__id="")
    engine.parent_span_id = b""
    land(store, traces([edge]), traces([engine], "vllm.tracing.otel"))
    Settler(store).run()
    rows = store.rows("SELECT has_edge FROM requests WHERE trace_id = {t:String}", {"t": trace.hex()})
    assert rows == [{"has_edge": 0}]


def test_a_step_that_has_nothing_to_look_at_does_not_run(store: Store, monkeypatch: pytest.MonkeyPatch):
    settler = Settler(store)
    settler.run()
    ran: list[str] = []
    command = store.command

    def noted(sql: str, *arguments: Any, **more: Any) -> str:
        ran.append(sql)
        return command(sql, *arguments, **more)

    monkeypatch.setattr(store, "command", noted)
    for table in ("triton_spans", "request_claims", "request_orphans"):
        command(f"TRUNCATE TABLE {table}")
    land(store, traces([edge_span(bits=771)]))
    settler.run()
    assert not [sql for sql in ran if "INSERT" in sql]
    nobodys = engine_span(bits=772)
    nobodys.parent_span_id = b""
    land(store, traces([nobodys], "vllm.llm_engine"))
    settler.run()
    assert len([sql for sql in ran if "INSERT" in sql]) == 1
