"""Values inside values: the store reads lists and maps of plain values; what lies deeper becomes JSON text before.

Walking attributes costs many times what parsing costs, and hardly any body nests: ``may_nest`` looks at the raw bytes
first (a list or map begins with its tag, its length and its first element's tag), and only its hits are walked.
"""

from __future__ import annotations

import base64
import json
import math
import re
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

    from base.scrub import OtlpRequest

_CONTAINERS: Final = frozenset({"array_value", "kvlist_value"})
_ARRAY: Final = 0x2A
_CONTAINER_TAGS: Final = frozenset({_ARRAY, 0x32})
_ELEMENT: Final = 0x0A
# One pattern for each width of a length: a literal beginning lets `re` skip ahead.
_MAPS: Final = tuple(re.compile(rb"\x32" + more + rb".\x0a", re.DOTALL) for more in (b"", rb"[\x80-\xff]{1,4}"))
_ARRAYS: Final = tuple(re.compile(rb"\x2a" + more + rb".\x0a", re.DOTALL) for more in (b"", rb"[\x80-\xff]{1,4}"))


def may_nest(body: bytes, *, metrics: bool = False) -> bool:
    """Whether an encoded OTLP request could hold a value that ``flatten`` would change; never a false no.

    Args:
        body: An uncompressed protobuf request of any signal.
        metrics: It holds metrics, whose exemplars have plain values alone.
    """
    if any(pattern.search(body) for pattern in _MAPS):
        return True
    arrays = (match.start() for pattern in _ARRAYS for match in pattern.finditer(body))
    return any(metrics or _holds_container(body, start + 1) for start in arrays)


def _holds_container(body: bytes, at: int) -> bool:
    length, at = _varint(body, at)
    end = min(at + length, len(body))
    while at < end and body[at] == _ELEMENT:
        length, at = _varint(body, at + 1)
        if length and at < end and body[at] in _CONTAINER_TAGS:
            return True
        at += length
    return at != end


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(body):
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint has no high bit
            break
    return value, at


def flatten(request: OtlpRequest) -> int:
    """Render in place, as JSON text, each list and map that holds another, and those where only plain values are kept.

    Returns:
        How many values were rendered.
    """
    changed = 0
    for values, plain in _values(request):
        for value in values:
            kind = value.WhichOneof("value")
            if kind in _CONTAINERS and (plain or _nests(value)):
                value.string_value = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))
                changed += 1
    return changed


def scopes_hold_containers(request: OtlpRequest) -> bool:
    """Whether a scope has a list or a map, which the store keeps as text alone; cheap, for scopes are few."""
    return any(
        attribute.value.WhichOneof("value") in _CONTAINERS
        for scope in _scopes(request)
        for attribute in scope.scope.attributes
    )


def _nests(value: AnyValue) -> bool:
    if value.WhichOneof("value") == "array_value":
        return any(item.WhichOneof("value") in _CONTAINERS for item in value.array_value.values)
    return any(item.value.WhichOneof("value") in _CONTAINERS for item in value.kvlist_value.values)


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {item.key: _plain(item.value) for item in value.kvlist_value.values}
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if kind == "double_value" and not math.isfinite(value.double_value):
        return str(value.double_value)
    return getattr(value, kind) if kind else None


def _scopes(request: OtlpRequest) -> Iterator[Any]:
    if isinstance(request, ExportTraceServiceRequest):
        for spans in request.resource_spans:
            yield from spans.scope_spans
    elif isinstance(request, ExportLogsServiceRequest):
        for logs in request.resource_logs:
            yield from logs.scope_logs
    else:
        for metrics in request.resource_metrics:
            yield from metrics.scope_metrics


def _values(request: OtlpRequest) -> Iterator[tuple[Iterable[AnyValue], bool]]:
    """Values that lie side by side, and whether only plain ones are kept there."""
    for scope in _scopes(request):
        yield _of(scope.scope.attributes), True
    if isinstance(request, ExportTraceServiceRequest):
        for spans in request.resource_spans:
            yield _of(spans.resource.attributes), False
            for span in (span for scoped in spans.scope_spans for span in scoped.spans):
                yield _of(span.attributes), False
                for event in span.events:
                    yield _of(event.attributes), False
                for link in span.links:
                    yield _of(link.attributes), False
    elif isinstance(request, ExportLogsServiceRequest):
        for logs in request.resource_logs:
            yield _of(logs.resource.attributes), False
            for record in (record for scoped in logs.scope_logs for record in scoped.log_records):
                yield _of(record.attributes), False
                yield (record.body,), False
    else:
        yield from _metric_values(request)


def _metric_values(request: ExportMetricsServiceRequest) -> Iterator[tuple[Iterable[AnyValue], bool]]:
    for metrics in request.resource_metrics:
        yield _of(metrics.resource.attributes), False
        for metric in (metric for scoped in metrics.scope_metrics for metric in scoped.metrics):
            kind = metric.WhichOneof("data")
            for point in getattr(metric, kind).data_points if kind else ():
                yield _of(point.attributes), False
                for exemplar in getattr(point, "exemplars", ()):
                    yield _of(exemplar.filtered_attributes), True


def _of(attributes: Iterable[KeyValue]) -> Iterator[AnyValue]:
    return (attribute.value for attribute in attributes)
