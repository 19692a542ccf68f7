"""Spans as rows of ``land_spans``: what ``land_spans_mv`` makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from collector.plain.landed import OddError
from collector.plain.values import FAR_NS, IDENTITY, MAP, attributes, identity
from collector.store.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

_WORD: Final = "LowCardinality(String)"
LAND_SPANS: Final = {
    "received_ns": "UInt64", "tenant": _WORD, "sender_tenant": _WORD, "sender_key_id": _WORD, "sender_peer": _WORD,
    "ResourceAttributes": MAP, **dict.fromkeys(IDENTITY, _WORD), "scope_name": "String", "scope_version": "String",
    "trace_id": "String", "span_id": "String", "parent_span_id": "String", "trace_state": "String", "name": "String",
    "kind": "Int32", "start_ns": "UInt64", "end_ns": "UInt64", "status_code": "Int32", "status_message": "String",
    "keys": f"Array({_WORD})", "texts": "Array(String)", "flags": "Array(Bool)", "numbers": "Array(Float64)",
    "counts": "Array(UInt32)", "SpanAttributes": MAP, "event_ns": "Array(UInt64)", "event_names": "Array(String)",
    "event_attributes": f"Array({MAP})", "link_trace_ids": "Array(String)", "link_span_ids": "Array(String)",
    "link_trace_states": "Array(String)", "link_attributes": f"Array({MAP})",
}  # fmt: skip
_LARGEST_NUMBER: Final = 1e15
_LARGEST_COUNT: Final = 4294967295


def rows(requests: Sequence[Any]) -> list[Rows]:
    """Rows of requests of the log, in the engine's order.

    Raises:
        OddError: Something that only the engine may read.
    """
    spans = Rows("land_spans", LAND_SPANS)
    for request in requests:
        for found in request.resource_spans:
            resource = attributes(found.resource.attributes)
            whose = identity(resource)
            for scoped in found.scope_spans:
                about = (scoped.scope.name, scoped.scope.version)
                spans.values += [_row(request, resource, (*whose, *about), span) for span in scoped.spans]
    return [spans]


def _row(request: Any, resource: dict[str, str], about: tuple[str, ...], span: Span) -> tuple[object, ...]:
    own = attributes(span.attributes)
    values = [one.value for one in span.attributes]
    # as the view adds up a value's members, of which all but one have nothing
    numbers = [_number(value.double_value + float(value.int_value)) for value in values]
    start_ns = span.start_time_unix_nano or span.end_time_unix_nano or request.received_ns
    if max(start_ns, span.end_time_unix_nano) >= FAR_NS:
        raise OddError("a time too far away")
    tenant = request.tenant or own.get("servescope.tenant") or resource.get("servescope.tenant", "")
    return (
        request.received_ns, tenant, request.tenant, request.sender_key_id, request.sender_peer, resource, *about,
        span.trace_id, span.span_id, span.parent_span_id, span.trace_state, span.name, span.kind, start_ns,
        span.end_time_unix_nano, span.status.code, span.status.message, list(own), list(own.values()),
        [value.bool_value for value in values], numbers, [int(n) if n < _LARGEST_COUNT else 0 for n in numbers], own,
        [event.time_unix_nano or start_ns for event in span.events], [event.name for event in span.events],
        [attributes(event.attributes) for event in span.events], [link.trace_id for link in span.links],
        [link.span_id for link in span.links], [link.trace_state for link in span.links],
        [attributes(link.attributes) for link in span.links],
    )  # fmt: skip


def _number(value: float) -> float:
    return value if 0 < value < _LARGEST_NUMBER else 0.0
