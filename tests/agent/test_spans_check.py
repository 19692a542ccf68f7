"""Spans without ids are refused where they come in, and nothing that is kept is of 1970."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from agent.otlp.check import check
from agent.sources.spans import Spans
from collector.sift import sift

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOW = 1_700_000_000_000_000_000
TRACE, SPAN = bytes(range(16)), bytes(range(8))


def spans(*ids: tuple[bytes, bytes], **more: int | bytes) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number, (trace_id, span_id) in enumerate(ids):
        scope.spans.add(name=f"span {number}", trace_id=trace_id, span_id=span_id, **more)
    return request


def names(request: ExportTraceServiceRequest) -> list[str]:
    return [one.name for group in request.resource_spans for scope in group.scope_spans for one in scope.spans]


@pytest.mark.parametrize(
    "ids",
    [(b"", b""), (TRACE, b""), (b"", SPAN), (TRACE[:3], SPAN[:3]), (bytes(16), SPAN), (TRACE, bytes(8)),
     (TRACE.hex().encode(), SPAN.hex().encode()), (SPAN, TRACE), (TRACE + b"x", SPAN)],
)  # fmt: skip
def test_a_span_without_its_ids_is_left_out_and_its_neighbours_stay(ids: tuple[bytes, bytes]):
    request = spans((TRACE, SPAN), ids, (TRACE, b"12345678"))
    assert check(request, NOW) == 1
    assert names(request) == ["span 0", "span 2"]


def test_ids_of_parents_and_records_that_are_none_are_blank():
    request = spans((TRACE, SPAN), (TRACE, SPAN), parent_span_id=b"short")
    request.resource_spans[0].scope_spans[0].spans[1].parent_span_id = b"12345678"
    assert check(request, NOW) == 0
    assert [one.parent_span_id for one in request.resource_spans[0].scope_spans[0].spans] == [b"", b"12345678"]
    logs = ExportLogsServiceRequest()
    records = logs.resource_logs.add().scope_logs.add().log_records
    records.add(trace_id=b"short", span_id=bytes(8), time_unix_nano=5)
    records.add(trace_id=TRACE, span_id=SPAN, time_unix_nano=5)
    check(logs, NOW)
    assert [(one.trace_id, one.span_id, one.time_unix_nano) for one in records] == [(b"", b"", 5), (TRACE, SPAN, 5)]


@pytest.mark.parametrize(
    ("start", "end", "kept"),
    [(0, 0, (NOW, NOW)), (0, NOW - 5, (NOW - 5, NOW - 5)), (NOW - 9, 0, (NOW - 9, NOW - 9)), (3, 7, (3, 7))],
)
def test_a_span_without_a_time_stands_where_its_other_time_or_its_receipt_is(
    start: int, end: int, kept: tuple[int, int]
):
    request = spans((TRACE, SPAN), start_time_unix_nano=start, end_time_unix_nano=end)
    check(request, NOW)
    one = request.resource_spans[0].scope_spans[0].spans[0]
    assert (one.start_time_unix_nano, one.end_time_unix_nano) == kept


def test_records_and_points_without_a_time_have_the_observed_one_or_their_receipt():
    logs = ExportLogsServiceRequest()
    records = logs.resource_logs.add().scope_logs.add().log_records
    for time, observed in ((0, 0), (0, 4), (3, 4)):
        records.add(time_unix_nano=time, observed_time_unix_nano=observed)
    check(logs, NOW)
    assert [one.time_unix_nano for one in records] == [NOW, 4, 3]
    metrics = ExportMetricsServiceRequest()
    found = metrics.resource_metrics.add().scope_metrics.add().metrics
    for kind in ("gauge", "sum", "histogram", "exponential_histogram", "summary"):
        points = getattr(found.add(), kind).data_points
        points.add()
        points.add(time_unix_nano=6)
    found.add(name="no data")
    check(metrics, NOW)
    times = [[point.time_unix_nano for point in getattr(one, one.WhichOneof("data")).data_points] for one in found[:-1]]
    assert times == [[NOW, 6]] * 5


def test_what_is_of_another_signal_keeps_no_time_so_that_it_can_be_told():
    metrics = ExportMetricsServiceRequest()
    metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="a metric")
    logs = ExportLogsServiceRequest.FromString(metrics.SerializeToString())
    (record,) = logs.resource_logs[0].scope_logs[0].log_records
    assert not record.time_unix_nano
    check(logs, NOW)
    assert not record.time_unix_nano
    assert sift(ExportLogsServiceRequest.FromString(logs.SerializeToString())) is not None


@asynccontextmanager
async def receiving() -> AsyncIterator[tuple[Spans, list[bytes]]]:
    out: list[bytes] = []
    receiver = Spans([], http_port=0, grpc_port=0)
    await receiver.open()
    task = asyncio.create_task(receiver.run(lambda _signal, body: out.append(body)))
    await asyncio.sleep(0)
    try:
        yield receiver, out
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_log_export_at_the_traces_door_is_refused_over_http_and_grpc():
    logs = ExportLogsServiceRequest()
    record = logs.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=NOW)
    record.body.string_value = "model loaded"
    body = logs.SerializeToString()
    async with receiving() as (receiver, out), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{receiver.http_port}/v1/traces"
        async with session.post(url, data=body, headers={"Content-Type": "application/x-protobuf"}) as answer:
            assert answer.status == 400
            assert "/v1/logs" in await answer.text()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel:
            export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await export(body)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert (out, receiver.intake.stats.malformed) == ([], 2)


async def test_what_is_left_out_is_said_as_a_partial_success():
    body = spans((TRACE, SPAN), (b"", SPAN)).SerializeToString()
    document = {
        "resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": TRACE.hex(), "spanId": SPAN.hex()}, {"name": "x"}]}]}]
    }
    async with receiving() as (receiver, out), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{receiver.http_port}/v1/traces"
        async with session.post(url, data=body, headers={"Content-Type": "application/x-protobuf"}) as answer:
            told = ExportTraceServiceResponse.FromString(await answer.read()).partial_success
        async with session.post(url, data=json.dumps(document), headers={"Content-Type": "application/json"}) as answer:
            in_json = (await answer.json())["partialSuccess"]
        assert (told.rejected_spans, in_json["rejectedSpans"], receiver.intake.stats.rejected) == (1, "1", 2)
        assert "trace id" in told.error_message
        assert in_json["errorMessage"] == told.error_message
        assert [len(names(ExportTraceServiceRequest.FromString(kept))) for kept in out] == [1, 1]


async def test_an_empty_export_is_no_fault():
    async with receiving() as (receiver, _out), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{receiver.http_port}/v1/traces"
        async with session.post(url, data=b"", headers={"Content-Type": "application/x-protobuf"}) as answer:
            assert answer.status == 200
