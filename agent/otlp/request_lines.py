"""Edge spans as lines of a recording's ``requests.jsonl.gz``: the fields of a request record, ids in hex."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agent.otlp.request import FIELDS
from base.vocabulary import Outcome

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

_NAMES: Final = {field.wire.key: field.name for field in FIELDS}
"""Field of a record by attribute."""


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
        if name := _NAMES.get(pair.key):
            row[name] = _value(pair.value)
    return row


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None
