"""What a sender is told of records that are refused, and what the books say of them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from google.rpc import status_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from base import signing
from collector.auth import Door
from tests.kits.collector_process import spans
from tests.kits.collector_way import KEY
from tests.kits.schema_tools import edge_span, event, metrics, traces

if TYPE_CHECKING:
    from collections.abc import Callable


def odd_and_good() -> bytes:
    odd = edge_span(trace=b"\x01" * 32)
    return traces([edge_span(), odd, odd]).SerializeToString()


async def test_a_partial_success_says_how_many_and_why(make: Callable[..., Any]):
    way = await make()
    status, body, _ = await way.post(odd_and_good())
    answer = ExportTraceServiceResponse.FromString(body).partial_success
    assert (status, answer.rejected_spans) == (200, 2)
    assert "trace_id must have 16 bytes" in answer.error_message
    books = way.books()
    assert (books["received"], books["rejected"]) == (3, 2)
    assert 'rejected_records_total{reason="ids",signal="traces"} 2.0' in way.ledger.page().decode()
    nameless = metrics("theirs", {"": 1.0, "named": 2.0}).SerializeToString()
    status, body, _ = await way.post(nameless, "metrics")
    assert (status, ExportMetricsServiceResponse.FromString(body).partial_success.rejected_data_points) == (200, 1)
    assert way.books("metrics")["rejected"] == 1
    mixed = event("deploy", "x", {})
    span = Span(trace_id=b"\x01" * 16, span_id=b"\x02" * 8).SerializeToString()
    mixed.resource_logs[0].scope_logs[0].log_records.add().ParseFromString(span)
    status, body, _ = await way.post(mixed.SerializeToString(), "logs")
    assert (status, ExportLogsServiceResponse.FromString(body).partial_success.rejected_log_records) == (200, 1)


async def test_a_retry_is_told_the_same(make: Callable[..., Any]):
    way = await make()
    answers = [await way.post(odd_and_good()) for _ in range(2)]
    assert [answer[:2] for answer in answers] == [answers[0][:2]] * 2
    assert signing.HEADER_REPEAT in answers[1][2]
    books = way.books()
    assert (books["received"], books["rejected"], books["dropped"]) == (6, 4, 1)


async def test_json_is_answered_in_json(make: Callable[..., Any]):
    way = await make()
    one = {"traceId": "ab", "spanId": "cd", "startTimeUnixNano": "1790000000000000000"}
    good = {"traceId": "ab" * 16, "spanId": "cd" * 8, "startTimeUnixNano": "1790000000000000000"}
    for listed, status in (([good, one], 200), ([one], 400), ([good], 200)):
        body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": listed}]}]}).encode()
        answered, text, _ = await way.post(body, Content_Type="application/json")
        assert answered == status
        if status == 400:
            assert "a span has 1 and 1" in json.loads(text)["message"]
        elif one in listed:
            assert json.loads(text)["partialSuccess"]["rejectedSpans"] == "1"
        else:
            assert json.loads(text) == {}


@pytest.mark.parametrize("door", ["traces", "metrics"])
async def test_a_wrong_door_is_answered_400_and_counted(make: Callable[..., Any], door: str):
    way = await make()
    status, body, _ = await way.post(event("deploy", "model loaded", {}).SerializeToString(), door)
    assert status == 400
    assert status_pb2.Status.FromString(body).code == 3
    assert way.books(door)["rejected"] == 1


async def test_records_are_counted_by_the_key_that_signed_them(make: Callable[..., Any]):
    way = await make(Door({signing.key_id(KEY): KEY}))
    signed = spans(0, 3)
    headers = signing.signed_headers(KEY, "POST", "/v1/traces", signed, now_ms=int(time.time() * 1000))
    assert (await way.post(signed, **headers))[0] == 200
    assert (await way.post(spans(10, 2)))[0] == 200
    page = way.ledger.page().decode()
    assert f'sent_records_total{{key_id="{signing.key_id(KEY)}",signal="traces"}} 3.0' in page
    assert 'sent_records_total{key_id="",signal="traces"} 2.0' in page


@pytest.mark.parametrize("batch", ["batch-1", ""])
async def test_nobody_uses_up_the_batch_of_another(make: Callable[..., Any], batch: str):
    keys = {signing.key_id(key): key for key in (KEY, b"z" * 32)}
    way = await make(Door(keys, dict(zip(keys, ("acme", "rival"), strict=True))))
    body = spans(0, 1)
    for repeat in (False, True):
        for key in (*keys.values(), None):
            now = int(time.time() * 1000)
            headers = signing.signed_headers(key, "POST", "/v1/traces", body, now_ms=now) if key else {}
            status, _, answered = await way.post(body, X_Servescope_Batch=batch, **headers)
            assert (status, signing.HEADER_REPEAT in answered) == (200, repeat)
    assert len(await way.logged()) == 3
