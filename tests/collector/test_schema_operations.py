"""What a row says was asked of a model, whose id it bears, and what of it has a time to first token."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from collector.settle import settle
from tests.kits.schema_tools import NOW_MS, edge_span, engine_span, framed, fresh_store, token, traces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from collector.store.client import Store
    from tests.conftest import StoreServer

VLLM = "vllm.tracing.otel"


@pytest.fixture(scope="module")
def store(store_server: StoreServer) -> Iterator[Store]:
    with fresh_store(store_server) as made:
        yield made


def land(store: Store, *messages: Any) -> None:
    store.insert_segment("land_traces", framed(*messages), token())


def fresh() -> tuple[bytes, int]:
    return os.urandom(16), int.from_bytes(os.urandom(4), "big") >> 10


def one(store: Store, trace: bytes) -> dict[str, Any]:
    rows = store.rows("SELECT * FROM requests WHERE trace_id = {t:String}", {"t": trace.hex()})
    assert len(rows) == 1
    return rows[0]


def edge(store: Store, named: str = "POST /v1/completions", *engine: Span, **more: object) -> dict[str, Any]:
    trace, bits = fresh()
    span = edge_span(trace=trace, bits=bits, **{"http__route": named.partition(" ")[2], **more})
    span.name = named
    land(store, traces([span]))
    return one(store, trace)


def test_what_runs_a_model_is_an_operation_and_what_does_not_is_none(store: Store):
    assert edge(store, gen_ai__operation__name="chat")["operation"] == "chat"
    assert edge(store, "GET /v1/models")["operation"] == ""
    assert edge(store, "OPTIONS /v1/completions")["operation"] == ""
    assert edge(store, "POST /*")["operation"] == ""


def test_a_sender_that_names_no_operation_is_told_by_its_route(store: Store):
    assert edge(store)["operation"] == "text_completion"
    assert edge(store, "POST /v2/models/{model}/infer")["operation"] == "inference"


def test_a_row_written_before_there_were_operations_has_one(store: Store):
    old = {"time": datetime.fromtimestamp(NOW_MS / 1000, UTC), "tenant": "old", "has_edge": 1}
    store.insert("requests_t", [{**old, "key": 1, "route": "/v1/messages"}, {**old, "key": 2, "route": "/v1/models"}])
    rows = store.rows("SELECT key, operation FROM requests WHERE tenant = 'old' ORDER BY key")
    assert [row["operation"] for row in rows] == ["chat", ""]


@pytest.mark.parametrize(
    ("raw_id", "operation"),
    [("chatcmpl-1", "chat"), ("cmpl-1-0", "text_completion"), ("resp_1", "chat"), ("own-1", "inference")],
)
def test_a_row_with_an_engine_half_is_always_an_operation(store: Store, raw_id: str, operation: str):
    trace, bits = fresh()
    land(store, traces([engine_span(trace=trace, bits=bits, gen_ai__request__id=raw_id)], VLLM))
    assert one(store, trace)["operation"] == operation
    named = edge_span(trace=trace, bits=bits, http__route="/*")
    named.name = "POST /*"
    land(store, traces([named]))
    assert one(store, trace)["operation"] == operation


def test_a_whole_answer_has_the_engines_first_token_or_none(store: Store):
    row = edge(store, servescope__stream=False)
    assert (row["ttft_seconds"], row["e2e_seconds"] > 0) == (0, True)
    trace, bits = fresh()
    halves = [
        traces([edge_span(trace=trace, bits=bits, servescope__stream=False)]),
        traces([engine_span(trace=trace, bits=bits)], VLLM),
    ]
    land(store, *halves)
    row = one(store, trace)
    assert row["ttft_seconds"] == row["engine_ttft_seconds"] > 0
    assert edge(store)["ttft_seconds"] == pytest.approx(0.075)


def test_a_session_has_neither_first_token_nor_latency(store: Store):
    trace, bits = fresh()
    session = edge_span(
        trace=trace,
        bits=bits,
        servescope__stream=False,
        gen_ai__operation__name="realtime",
        servescope__e2e_seconds=9.0,
    )
    land(store, traces([session]), traces([engine_span(trace=trace, bits=bits)], VLLM))
    row = one(store, trace)
    assert (row["operation"], row["has_engine"], row["ttft_seconds"], row["e2e_seconds"]) == ("realtime", 1, 0, 0)


@pytest.mark.parametrize("seen", ["msg_client", "aaa", "zzz", ""])
def test_the_answers_id_is_the_one_that_the_client_saw(store: Store, seen: str):
    trace, bits = fresh()
    land(
        store,
        traces([engine_span(trace=trace, bits=bits, gen_ai__request__id="chatcmpl-mid")], VLLM),
        traces([edge_span(trace=trace, bits=bits, gen_ai__response__id=seen)]),
    )
    row = one(store, trace)
    assert (row["response_id"], row["has_engine"], row["has_edge"]) == (seen, 1, 1)


def test_halves_still_meet_by_the_answers_id(store: Store):
    trace, bits = fresh()
    foreign = engine_span(trace=trace, bits=bits, gen_ai__request__id="chatcmpl-meet")
    foreign.parent_span_id = b"\xff" * 8
    land(store, traces([edge_span(trace=trace, bits=bits, gen_ai__response__id="chatcmpl-meet")]))
    land(store, traces([foreign], VLLM))
    settle(store)
    row = one(store, trace)
    assert (row["response_id"], row["has_engine"]) == ("chatcmpl-meet", 1)


def test_whether_the_caller_sampled_stays_on_the_row(store: Store):
    assert [edge(store)[name] for name in ("caller_sampled", "unsampled")] == ["", 0]
    assert edge(store, servescope__caller_sampled=True)["caller_sampled"] == "yes"
    row = edge(store, servescope__caller_sampled=False, servescope__unsampled=True)
    assert (row["caller_sampled"], row["unsampled"]) == ("no", 1)


def test_the_rollup_counts_operations(store: Store):
    edge(store, servescope__tenant="rolled")
    edge(store, "GET /v1/models", servescope__tenant="rolled")
    edge(store, "OPTIONS /v1/completions", servescope__tenant="rolled")
    assert store.rows("SELECT sum(count) AS n FROM requests_1m WHERE tenant = 'rolled'") == [{"n": 1}]
