"""The record of one request as its client felt it, wherever it came from: a tap, a gateway, a recording.

On the wire it is one span of scope ``servescope.edge`` (kind SERVER) whose span id carries the request's time: the
engine continues that span, so both halves of a request derive one key and one time from it with no lookup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agent.entropy import draw
from agent.otlp.request_wire import CALM, MAX_TEXT, e2e_seconds, pack
from base.vocabulary import SPAN_ID_RANDOM_BITS, Edge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from base.vocabulary import Outcome


class RequestRecord(NamedTuple):
    """One request. Empty texts and ``None`` mean unknown and are left out on the wire.

    Attributes:
        trace_id: 16 bytes.
        span_id: 8 bytes, see ``time_coded_span_id``.
        parent_span_id: 8 bytes of the caller's span, or empty.
        trace_state: W3C ``tracestate`` as it came.
        flags: W3C trace flags as the caller's.
        start_ns: Arrival, Unix nanoseconds.
        end_ns: Last byte handed to the client, Unix nanoseconds.
        method: HTTP method, bounded (``_OTHER`` for unknown ones).
        route: Path template of low cardinality, never a raw path.
        outcome: How it ended.
        status: Status code the client was sent; ``None`` when it was sent none.
        operation: ``chat``, ``text_completion``, ``embeddings``, … (OpenTelemetry's words where they exist); empty for
            what runs no model.
        request_model: Model the client asked for.
        response_model: Model that the answer names.
        response_id: Id that the answer names.
        request_id: ``X-Request-Id``.
        tenant: Name or salted hash of who asked.
        caller_sampled: Whether the caller sampled its trace; ``None`` when the trace began here.
        unsampled: Sent on as not sampled, so that the engine records nothing.
        finish_reasons: One for each choice, in order.
        error_type: Low-cardinality word for what went wrong.
        stream: Whether the answer was (to be) a stream.
        prompt_tokens: Tokens.
        completion_tokens: Tokens; counted chunks when ``tokens_counted``.
        cached_tokens: Prompt tokens that came from a cache.
        tokens_counted: The server reported no usage, ``completion_tokens`` are counted chunks.
        request_bytes: Body bytes from the client (without chunk framing).
        response_bytes: Body bytes to the client (without chunk framing).
        edge_seconds: Time at the edge in which the server was not at work for the request.
        ttft_seconds: Arrival to the first content of a stream handed to the client; a whole answer has none.
        e2e_seconds: Arrival to the last byte handed to the client; ``None`` to take it from start and end, 0 for a
            session that has no latency.
        itl_mean_seconds: Mean gap between content events; the others are its quantiles.
        itl_p50_seconds: Median gap.
        itl_p99_seconds: 99th percentile of the gaps.
        itl_max_seconds: Longest gap.
        itl_gaps: Number of gaps.
    """

    trace_id: bytes
    span_id: bytes
    start_ns: int
    end_ns: int
    method: str
    route: str
    outcome: Outcome
    parent_span_id: bytes = b""
    trace_state: str = ""
    flags: int = 1
    status: int | None = None
    operation: str = ""
    request_model: str = ""
    response_model: str = ""
    response_id: str = ""
    request_id: str = ""
    tenant: str = ""
    caller_sampled: bool | None = None
    unsampled: bool = False
    finish_reasons: tuple[str, ...] = ()
    error_type: str = ""
    stream: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    tokens_counted: bool = False
    request_bytes: int = 0
    response_bytes: int = 0
    edge_seconds: float | None = None
    ttft_seconds: float | None = None
    e2e_seconds: float | None = None
    itl_mean_seconds: float | None = None
    itl_p50_seconds: float | None = None
    itl_p99_seconds: float | None = None
    itl_max_seconds: float | None = None
    itl_gaps: int = 0


def time_coded_span_id(arrival_ns: int, random: int | None = None) -> bytes:
    """Span id of a request: 42 bits of Unix milliseconds, then 22 random bits, big-endian (8 bytes).

    Args:
        arrival_ns: Arrival, Unix nanoseconds.
        random: The low bits, for a replay that must give the same id again; drawn when ``None``.
    """
    low = int.from_bytes(draw(4)) if random is None else random
    low &= (1 << SPAN_ID_RANDOM_BITS) - 1
    milliseconds = (arrival_ns // 1_000_000) & ((1 << (64 - SPAN_ID_RANDOM_BITS)) - 1)
    return ((milliseconds << SPAN_ID_RANDOM_BITS) | low).to_bytes(8, "big")


def to_otlp(record: RequestRecord, resource: Mapping[str, str]) -> bytes:
    """Serialized ``ExportTraceServiceRequest`` that holds one edge span.

    Args:
        record: The request.
        resource: Attributes of the target, keys from ``vocabulary.Resource``; empty values are left out.
    """
    return to_otlp_many((record,), resource)


def to_otlp_many(records: Iterable[RequestRecord], resource: Mapping[str, str]) -> bytes:
    """Serialized ``ExportTraceServiceRequest`` that holds an edge span for each record of one target."""
    return pack(records, resource)


def to_span(record: RequestRecord) -> Span:
    """The edge span of a record as a message; what ``request_wire`` packs is this, byte for byte."""
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
            (Edge.E2E_SECONDS, e2e_seconds(record)),
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
