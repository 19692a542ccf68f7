"""The edge span of a record as protobuf's own messages, key by key: what the wire is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agent.otlp.request_wire import CALM, MAX_TEXT
from base.vocabulary import Edge

if TYPE_CHECKING:
    from agent.otlp.request import RequestRecord


def to_span(record: RequestRecord) -> Span:
    """The edge span of a record as a message."""
    return Span(
        trace_id=record.trace_id,
        span_id=record.span_id,
        parent_span_id=record.parent_span_id,
        trace_state=record.trace_state,
        flags=record.flags,
        name=f"{record.method} {record.route}",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=record.start_ns,
        end_time_unix_nano=max(record.end_ns, record.start_ns),
        attributes=_attributes(record),
        status=None if record.outcome in CALM else Status(code=Status.STATUS_CODE_ERROR),
    )


def _attributes(record: RequestRecord) -> list[KeyValue]:
    out = [
        _text(key, value)
        for key, value in (
            (Edge.OUTCOME, record.outcome.value),
            (Edge.METHOD, record.method),
            (Edge.ROUTE, record.route),
            (Edge.OPERATION, record.operation),
            (Edge.REQUEST_MODEL, record.request_model),
            (Edge.RESPONSE_MODEL, record.response_model),
            (Edge.TENANT, record.tenant),
            (Edge.ERROR_TYPE, record.error_type),
        )
        if value
    ]
    if record.status is not None:
        out.append(KeyValue(key=Edge.STATUS, value=AnyValue(int_value=record.status)))
    out.append(KeyValue(key=Edge.STREAM, value=AnyValue(bool_value=record.stream)))
    out += [
        KeyValue(key=key, value=AnyValue(bool_value=flag))
        for key, flag in (
            (Edge.TOKENS_COUNTED, record.tokens_counted or None),
            (Edge.CALLER_SAMPLED, record.caller_sampled),
            (Edge.UNSAMPLED, record.unsampled or None),
        )
        if flag is not None
    ]
    if record.finish_reasons:
        reasons = AnyValue()
        reasons.array_value.values.extend(AnyValue(string_value=r[:MAX_TEXT]) for r in record.finish_reasons)
        out.append(KeyValue(key=Edge.FINISH_REASONS, value=reasons))
    out += [
        _text(key, value)
        for key, value in ((Edge.RESPONSE_ID, record.response_id), (Edge.REQUEST_ID, record.request_id))
        if value
    ]
    out += [
        KeyValue(key=key, value=AnyValue(int_value=number))
        for key, number in (
            (Edge.INPUT_TOKENS, record.prompt_tokens),
            (Edge.OUTPUT_TOKENS, record.completion_tokens),
            (Edge.CACHED_TOKENS, record.cached_tokens),
            (Edge.REQUEST_BYTES, record.request_bytes),
            (Edge.RESPONSE_BYTES, record.response_bytes),
            (Edge.GAPS, record.itl_gaps or None),
        )
        if number is not None
    ]
    out += [
        KeyValue(key=key, value=AnyValue(double_value=seconds))
        for key, seconds in (
            (Edge.EDGE_SECONDS, record.edge_seconds),
            (Edge.TTFT_SECONDS, record.ttft_seconds),
            (Edge.E2E_SECONDS, record.whole_seconds),
            (Edge.ITL_MEAN_SECONDS, record.itl_mean_seconds),
            (Edge.ITL_P50_SECONDS, record.itl_p50_seconds),
            (Edge.ITL_P99_SECONDS, record.itl_p99_seconds),
            (Edge.ITL_MAX_SECONDS, record.itl_max_seconds),
        )
        if seconds is not None
    ]
    return out


def _text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value[:MAX_TEXT]))
