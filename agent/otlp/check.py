"""What an OTLP request must have before it is kept: spans their ids, records and points a time.

A log export that is posted to the traces door decodes as spans without ids, and a time that is not said is 1970 to
whoever reads it. Here is the first place that sees the bytes, and the one that knows when they came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from base.scrub import OtlpRequest

WHAT_IS_WRONG: Final = (
    "spans without a trace id of 16 bytes and a span id of 8 (other signals go to /v1/logs, /v1/metrics)"
)
_TRACE_ID_BYTES: Final = 16
_SPAN_ID_BYTES: Final = 8
_NONE: Final = frozenset({bytes(_TRACE_ID_BYTES), bytes(_SPAN_ID_BYTES)})


def check(request: OtlpRequest, now_ns: int) -> int:
    """Take out spans that have no ids, and give what has no time one, in place.

    Args:
        request: Any of the three export requests.
        now_ns: When it came, Unix time in ns.

    Returns:
        How many spans were taken out.
    """
    if isinstance(request, ExportTraceServiceRequest):
        return _traces(request, now_ns)
    if isinstance(request, ExportLogsServiceRequest):
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    _log(record, now_ns)
        return 0
    _metrics(request, now_ns)
    return 0


def has_spans(request: OtlpRequest) -> bool:
    """Whether a request holds a span."""
    return isinstance(request, ExportTraceServiceRequest) and any(
        scope.spans for group in request.resource_spans for scope in group.scope_spans
    )


def _traces(request: ExportTraceServiceRequest, now_ns: int) -> int:
    rejected = 0
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            spans = scope.spans
            doomed = []
            for index, span in enumerate(spans):
                trace, own, parent = span.trace_id, span.span_id, span.parent_span_id
                if len(trace) != _TRACE_ID_BYTES or len(own) != _SPAN_ID_BYTES or trace in _NONE or own in _NONE:
                    doomed.append(index)
                    continue
                if parent and (len(parent) != _SPAN_ID_BYTES or parent in _NONE):
                    span.parent_span_id = b""
                if not span.start_time_unix_nano or not span.end_time_unix_nano:
                    _give_time(span, now_ns)
            rejected += len(doomed)
            if doomed and len(doomed) == len(spans):
                del spans[:]
            for index in reversed(doomed if spans else ()):
                del spans[index]
    return rejected


def _of_another_kind(message: Any) -> bool:
    """Whether the bytes held what this message has no field for.

    Protobuf has no names on the wire: a span at the door of logs is a record without a time. It is left as it is, for
    the collector to refuse.
    """
    return len(UnknownFieldSet(message)) > 0  # type: ignore[no-untyped-call,unused-ignore]


def _is_id(raw: bytes, size: int) -> bool:
    return len(raw) == size and raw not in _NONE


def _give_time(span: Span, now_ns: int) -> None:
    known = span.start_time_unix_nano or span.end_time_unix_nano
    if known or not _of_another_kind(span):
        # Without a start or an end the span has no length; where it stands is all that is known.
        span.start_time_unix_nano = span.end_time_unix_nano = known or now_ns


def _log(record: LogRecord, now_ns: int) -> None:
    if not record.time_unix_nano and (record.observed_time_unix_nano or not _of_another_kind(record)):
        record.time_unix_nano = record.observed_time_unix_nano or now_ns
    if record.trace_id and not _is_id(record.trace_id, _TRACE_ID_BYTES):
        record.trace_id = b""
    if record.span_id and not _is_id(record.span_id, _SPAN_ID_BYTES):
        record.span_id = b""


def _metrics(request: ExportMetricsServiceRequest, now_ns: int) -> None:
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                for point in getattr(metric, kind).data_points if kind else ():
                    if not point.time_unix_nano:
                        point.time_unix_nano = now_ns
