"""Requests from the spans of edge and engine: real recordings, halves in any order, odd input."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.kits.schema_tools import (
    NOW_MS,
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

VLLM = "vllm.tracing.otel"


@pytest.fixture(scope="module")
def store(store_server: StoreServer) -> Iterator[Store]:
    with fresh_store(store_server) as made:
        yield made


def land(store: Store, *messages: Any, name: str = "") -> None:
    store.insert_segment("land_traces", framed(*messages), name or token())


def fresh() -> tuple[bytes, int]:
    """A trace id, and the random bits of a span id: with the time, the request's key."""
    return os.urandom(16), int.from_bytes(os.urandom(4), "big") >> 10


def one(store: Store, trace: bytes) -> dict[str, Any]:
    rows = store.rows("SELECT * FROM requests WHERE trace_id = {t:String}", {"t": trace.hex()})
    assert len(rows) == 1
    return rows[0]


def number(span: Span, key: str) -> float:
    for item in span.attributes:
        if item.key == key:
            return item.value.double_value + item.value.int_value
    return 0.0


def text(span: Span, key: str) -> str:
    return next((item.value.string_value for item in span.attributes if item.key == key), "")


def test_a_recorded_export_gives_one_row_a_span_with_its_values(store: Store):
    body = recorded("vllm/otlp_traces_237_requests.pb.gz")
    spans = [span for group in body.resource_spans for scoped in group.scope_spans for span in scoped.spans]
    land(store, body)
    rows = {row["trace_id"]: row for row in store.rows("SELECT * FROM requests WHERE engine = 'vllm'")}
    assert len(spans) == 237
    for span in spans:
        raw = text(span, "gen_ai.request.id")
        row = rows[span.trace_id.hex()]
        assert row["response_id"] == (raw.removesuffix("-0") if raw.startswith("cmpl-") else raw)
        assert row["request_id"] == raw.removeprefix("chatcmpl-").removeprefix("cmpl-").removesuffix("-0")
        assert int(row["time"].timestamp() * 1000) == span.start_time_unix_nano // 1_000_000
        assert row["prompt_tokens"] == number(span, "gen_ai.usage.prompt_tokens")
        assert row["completion_tokens"] == number(span, "gen_ai.usage.completion_tokens")
        queue, prefill, ttft = (
            number(span, f"gen_ai.latency.{name}")
            for name in ("time_in_queue", "time_in_model_prefill", "time_to_first_token")
        )
        assert row["queue_seconds"] == pytest.approx(queue, rel=1e-6)
        assert row["prefill_seconds"] == pytest.approx(prefill, rel=1e-6)
        assert row["ttft_seconds"] == pytest.approx(ttft, rel=1e-6)
        assert row["e2e_seconds"] == pytest.approx(number(span, "gen_ai.latency.e2e"), rel=1e-6)
        assert row["stall_seconds"] == pytest.approx(max(0.0, ttft - queue - prefill), rel=1e-4, abs=1e-7)
        assert (row["has_engine"], row["has_edge"], row["outcome"], row["deployment"]) == (1, 0, "ok", "")


@pytest.mark.parametrize("order", ["edge first", "engine first", "one batch", "one message"])
def test_both_halves_become_one_row(store: Store, order: str):
    trace, bits = fresh()
    edge = traces([edge_span(trace=trace, bits=bits)])
    engine = traces([engine_span(trace=trace, bits=bits)], VLLM, {"service.instance.id": "a-uuid", "service.name": "x"})
    if order == "one batch":
        land(store, engine, edge)
    elif order == "one message":
        engine.MergeFrom(edge)
        land(store, engine)
    else:
        for half in (edge, engine) if order == "edge first" else (engine, edge):
            land(store, half)
    row = one(store, trace)
    assert (row["has_edge"], row["has_engine"]) == (1, 1)
    assert row["key"] == int.from_bytes(span_id(NOW_MS, bits), "big")
    assert int(row["time"].timestamp() * 1000) == NOW_MS
    assert (row["tenant"], row["model"], row["finish_reason"], row["status"]) == ("acme", "tiny", "length", 200)
    assert (row["instance"], row["deployment"], row["version"]) == ("vllm-a", "chat", "0.32.0")
    assert row["e2e_seconds"] == pytest.approx(0.14)
    assert row["engine_e2e_seconds"] == pytest.approx(0.13)
    assert row["queue_seconds"] == pytest.approx(0.01)
    assert row["stall_seconds"] == pytest.approx(0.02)
    assert row["outcome"] == "ok"


@pytest.mark.parametrize(
    ("engine_e2e", "edge", "e2e", "expected"),
    [
        pytest.param(0.5, 0.01, 0.6, (0.01, 0.1, 0.09), id="apart"),
        pytest.param(0.5, 0.02, 0.5, (0.02, 0.08, 0), id="the server ends while the edge hands on"),
        pytest.param(0.5, 0.15, 0.5, (0.1, 0, 0), id="the edge hands on while the engine decodes"),
        pytest.param(0.39, 0.01, 0.6, (0.01, 0, 0.19), id="the server tells less of the whole than of the parts"),
        pytest.param(0.5, 0.15, 0.3, (0, 0, 0), id="halves that do not belong together"),
    ],
)
def test_no_moment_of_a_request_counts_twice(
    store: Store, engine_e2e: float, edge: float, e2e: float, expected: tuple[float, float, float]
):
    _, key = fresh()
    trace = f"{key:016x}".encode()  # an id of letters: inserted as text
    half = {"time": datetime.fromtimestamp(NOW_MS / 1000, UTC), "key": key}
    phases = {"queue_seconds": 0.1, "decode_seconds": 0.3}
    edge_half = {"has_edge": 1, "edge_seconds": edge, "e2e_seconds": e2e}
    store.insert("requests_t", [half | {"trace_id": trace.decode()} | edge_half])
    store.insert("requests_t", [half | {"has_engine": 1, "engine_e2e_seconds": engine_e2e, **phases}])
    row = one(store, trace)
    told = tuple(row[name] for name in ("edge_seconds", "frontend_seconds", "transit_seconds"))
    assert told == pytest.approx(expected, abs=1e-6)
    if e2e > sum(phases.values()):
        assert sum(told) + sum(phases.values()) == pytest.approx(e2e, abs=1e-6)


def test_redelivered_halves_change_no_row_and_a_token_counts_once(store: Store):
    trace, bits = fresh()
    halves = [
        traces([edge_span(trace=trace, bits=bits, servescope__tenant="once")]),
        traces([engine_span(trace=trace, bits=bits)], VLLM),
    ]
    name = token()
    land(store, *halves, name=name)
    land(store, *halves, name=name)
    spans = "SELECT count() AS n FROM otel_traces WHERE TraceId = {t:String}"
    assert store.rows(spans, {"t": trace.hex()}) == [{"n": 2}]
    rollup = "SELECT sum(count) AS n, sum(completion_tokens) AS t FROM requests_1m WHERE tenant = 'once'"
    assert store.rows(rollup) == [{"n": 1, "t": 8}]
    before = one(store, trace)
    land(store, *reversed(halves))
    assert one(store, trace) == before


def test_requests_of_one_trace_stay_apart(store: Store):
    trace, base = fresh()
    land(store, traces([edge_span(trace=trace, bits=base ^ n, ms=NOW_MS + n) for n in range(1, 6)]))
    land(
        store,
        traces([engine_span(trace=trace, bits=base ^ n, ms=NOW_MS + n, own=bytes([n]) * 8) for n in (1, 2, 5)], VLLM),
    )
    rows = store.rows("SELECT has_engine FROM requests WHERE trace_id = {t:String} ORDER BY time", {"t": trace.hex()})
    assert [row["has_engine"] for row in rows] == [1, 1, 0, 0, 1]
    keys = store.rows(
        "SELECT count() AS n FROM requests WHERE (time, key) IN "
        "(SELECT time, key FROM request_keys WHERE trace_id = unhex({t:String}))",
        {"t": trace.hex()},
    )
    assert keys == [{"n": 5}]


def test_counted_tokens_give_way_to_real_ones(store: Store):
    trace, bits = fresh()
    land(
        store,
        traces([edge_span(trace=trace, bits=bits, servescope__tokens_counted=True, gen_ai__usage__output_tokens=11)]),
    )
    row = one(store, trace)
    assert (row["completion_tokens"], row["tokens_counted"]) == (11, 1)
    land(store, traces([engine_span(trace=trace, bits=bits)], VLLM))
    row = one(store, trace)
    assert (row["completion_tokens"], row["tokens_counted"]) == (8, 0)


def test_an_abort_at_the_edge_stays_one(store: Store):
    trace, bits = fresh()
    land(store, traces([engine_span(trace=trace, bits=bits)], VLLM))
    land(store, traces([edge_span(trace=trace, bits=bits, servescope__outcome="client_abort")]))
    assert one(store, trace)["outcome"] == "client_abort"


def test_new_usage_names_and_agent_identity_are_understood(store: Store):
    trace, bits = fresh()
    span = engine_span(trace=trace, bits=bits, gen_ai__usage__input_tokens=33, gen_ai__usage__output_tokens=44)
    resource = {
        "service.instance.id": "uuid",
        "servescope.instance": "vllm-b",
        "servescope.deployment": "chat",
        "servescope.model": "m",
        "servescope.recording": "rec",
    }
    land(store, traces([span], VLLM, resource))
    row = one(store, trace)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (33, 44)
    assert (row["instance"], row["deployment"], row["model"], row["recording"]) == ("vllm-b", "chat", "m", "rec")


def test_chat_ids_keep_their_end(store: Store):
    trace, bits = fresh()
    land(store, traces([engine_span(trace=trace, bits=bits, gen_ai__request__id="chatcmpl-mine-0")], VLLM))
    row = one(store, trace)
    assert (row["request_id"], row["response_id"]) == ("mine-0", "chatcmpl-mine-0")


def test_the_landing_tenant_fills_in(store: Store):
    trace, bits = fresh()
    span = edge_span(trace=trace, bits=bits)
    kept = [item for item in span.attributes if item.key != "servescope.tenant"]
    del span.attributes[:]
    span.attributes.extend(kept)
    body = traces([span]).SerializeToString() + b"\xca\xa9\x07\x03org"
    land(store, body)
    assert one(store, trace)["tenant"] == "org"


def odd_spans() -> list[Span]:
    big = 2**64 - 1
    spans = [
        Span(trace_id=b"\xff" * size, span_id=b"\xff" * size, parent_span_id=b"\xff" * size, name="llm_request")
        for size in (0, 1, 7, 8, 9, 15, 17, 40)
    ]
    spans += [
        Span(name="llm_request", start_time_unix_nano=big, end_time_unix_nano=0, kind=77, parent_span_id=b"\xff" * 8),
        Span(name="InferRequest", start_time_unix_nano=big, end_time_unix_nano=big),
        edge_span(ms=1),
        edge_span(ms=2**42 - 1),
        edge_span(
            http__response__status_code=-5, gen_ai__usage__input_tokens=2**62, servescope__e2e_seconds=float("nan")
        ),
        edge_span(
            servescope__ttft_seconds=float("inf"), http__request__body__size=-1, gen_ai__response__finish_reasons=[]
        ),
        edge_span(servescope__e2e_seconds="text", servescope__stream="yes", servescope__outcome=b"\x00\xff"),
        edge_span(nested={"a": [1, {"b": 2}], "c": b"x"}, floats=[1.5, float("nan")]),
    ]
    spans[-1].status.code = 9
    spans[-1].events.add(time_unix_nano=big, name="e", attributes=spans[-1].attributes)
    spans[-1].links.add(trace_id=b"1", span_id=b"2" * 30, attributes=spans[-1].attributes)
    return spans


@pytest.mark.parametrize("scope", ["servescope.edge", VLLM, "triton-server", ""])
def test_odd_input_throws_in_no_view(store: Store, scope: str):
    spans = odd_spans()
    land(store, traces(spans, scope), traces(spans, scope, {}))
    found = "SELECT count() AS n FROM otel_traces WHERE ScopeName = {s:String} AND Timestamp < {t:DateTime64(3)}"
    old = sum(0 < span.start_time_unix_nano < 1e18 for span in spans)
    assert store.rows(found, {"s": scope, "t": datetime(2001, 1, 1, tzinfo=UTC)}) == [{"n": 2 * old}]
    bad = store.rows(
        "SELECT count() AS n FROM requests WHERE NOT isFinite(e2e_seconds + ttft_seconds) OR e2e_seconds < 0"
    )
    assert bad == [{"n": 0}]


def test_spans_of_many_days_go_in_at_once(store: Store):
    day = 86_400_000
    trace, bits = fresh()
    land(store, traces([edge_span(ms=NOW_MS - days * day, bits=bits, trace=trace) for days in range(130)]))
    assert store.rows("SELECT count() AS n FROM requests WHERE trace_id = {t:String}", {"t": trace.hex()}) == [
        {"n": 130}
    ]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**42 - 1),
            st.integers(0, 2**22 - 1),
            st.one_of(
                st.integers(-4_000_000, 4_000_000), st.sampled_from([-3_600_000, -3_599_999, 3_599_999, 3_600_000])
            ),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_the_key_is_the_parent_within_an_hour_else_a_hash(store: Store, cases: list[tuple[int, int, int]]):
    cases = [(ms, bits, shift) for ms, bits, shift in cases if 0 <= ms + shift < 2**43]
    sql = (
        "SELECT reinterpretAsUInt64(reverse(unhex(x.1))) AS key, toInt64(bitShiftRight(key, 22)) AS ms, "
        "abs(ms - x.2) < 3600000 AS timed "
        "FROM (SELECT arrayJoin(arrayZip({ids:Array(String)}, {starts:Array(Int64)})) AS x)"
    )
    ids = [span_id(ms, bits).hex() for ms, bits, _ in cases]
    rows = store.rows(sql, {"ids": ids, "starts": [ms + shift for ms, _, shift in cases]}) if cases else []
    for row, (ms, bits, shift) in zip(rows, cases, strict=True):
        assert row["key"] == (ms << 22) | bits
        assert row["ms"] == ms
        assert bool(row["timed"]) == (abs(shift) < 3_600_000)


def test_a_foreign_parent_stands_by_itself(store: Store):
    trace, bits = fresh()
    stranger = engine_span(trace=trace, bits=bits)
    stranger.parent_span_id = bytes.fromhex("86d9df00b7126fa7")
    land(store, traces([stranger], VLLM))
    row = one(store, trace)
    assert row["key"] != int.from_bytes(stranger.parent_span_id, "big")
    assert int(row["time"].timestamp() * 1000) == stranger.start_time_unix_nano // 1_000_000
    land(store, traces([stranger], VLLM))
    assert one(store, trace) == row
