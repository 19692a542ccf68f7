"""Edge spans as lines of a recording's ``requests.jsonl.gz``: the fields of a request record, ids in hex."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from base.vocabulary import Edge, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

FIELDS: Final[Mapping[str, str]] = {
    Edge.OUTCOME: "outcome",
    Edge.METHOD: "method",
    Edge.ROUTE: "route",
    Edge.STATUS: "status",
    Edge.OPERATION: "operation",
    Edge.REQUEST_MODEL: "request_model",
    Edge.RESPONSE_MODEL: "response_model",
    Edge.RESPONSE_ID: "response_id",
    Edge.REQUEST_ID: "request_id",
    Edge.TENANT: "tenant",
    Edge.CALLER_SAMPLED: "caller_sampled",
    Edge.UNSAMPLED: "unsampled",
    Edge.FINISH_REASONS: "finish_reasons",
    Edge.ERROR_TYPE: "error_type",
    Edge.STREAM: "stream",
    Edge.INPUT_TOKENS: "prompt_tokens",
    Edge.OUTPUT_TOKENS: "completion_tokens",
    Edge.CACHED_TOKENS: "cached_tokens",
    Edge.TOKENS_COUNTED: "tokens_counted",
    Edge.REQUEST_BYTES: "request_bytes",
    Edge.RESPONSE_BYTES: "response_bytes",
    Edge.EDGE_SECONDS: "edge_seconds",
    Edge.TTFT_SECONDS: "ttft_seconds",
    Edge.E2E_SECONDS: "e2e_seconds",
    Edge.ITL_MEAN_SECONDS: "itl_mean_seconds",
    Edge.ITL_P50_SECONDS: "itl_p50_seconds",
    Edge.ITL_P99_SECONDS: "itl_p99_seconds",
    Edge.ITL_MAX_SECONDS: "itl_max_seconds",
    Edge.GAPS: "itl_gaps",
}
"""Field of ``agent.otlp.request.RequestRecord`` by attribute."""


def to_row(span: Span) -> dict[str, Any]:
    """The line of an edge span; what the span does not say is absent."""
    method, _, route = span.name.partition(" ")
    row: dict[str, Any] = {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "start_ns": span.start_time_unix_nano,
        "end_ns": span.end_time_unix_nano,
        "method": method,
        "route": route,
        "outcome": Outcome.OK.value,
        "flags": span.flags,
    }
    if span.parent_span_id:
        row["parent_span_id"] = span.parent_span_id.hex()
    if span.trace_state:
        row["trace_state"] = span.trace_state
    for pair in span.attributes:
        if name := FIELDS.get(pair.key):
            row[name] = _value(pair.value)
    return row


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None
