"""Records that can't be what they say: spans without ids, metrics without names, times of 1970, another signal's.

They are taken out, counted and told to their sender; their neighbours stay. Protobuf has no names on the wire, so a
request that is sent to another signal's door parses there in part: as spans without ids, or as nothing at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from base.otlp_json import NO_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from base.scrub import OtlpRequest

KINDS: Final[dict[str, type[ExportTraceServiceRequest | ExportMetricsServiceRequest | ExportLogsServiceRequest]]] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
EARLIEST_NS: Final = 10**18
"""September 2001: what is earlier, and not 0, which says that there is no time, counts something else than nanoseconds
since 1970. The same number of microseconds, milliseconds or seconds lies thousands of years ahead, so that all times of
our days are told apart."""
_UNITS: Final = ((10**9, "seconds"), (10**12, "milliseconds"), (10**15, "microseconds"))
_START: Final = attrgetter("start_time_unix_nano")
_END: Final = attrgetter("end_time_unix_nano")
_TIME: Final = attrgetter("time_unix_nano")
_EVENTS: Final = attrgetter("events")
_TRACE_ID_BYTES: Final = 16
_SPAN_ID_BYTES: Final = 8
_NO_TRACE: Final = bytes(_TRACE_ID_BYTES)
_NO_SPAN: Final = bytes(_SPAN_ID_BYTES)
_JSON_KEYS: Final = {
    "traces": re.compile(rb'"resource_?[sS]pans"\s*:'),
    "metrics": re.compile(rb'"resource_?[mM]etrics"\s*:'),
    "logs": re.compile(rb'"resource_?[lL]ogs"\s*:'),
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Records of a request that are refused for good.

    Attributes:
        reason: A word for the metric, of the first of them: ``ids``, ``unnamed``, ``times`` or ``signal``.
        records: How many.
        text: What is wrong with the first of them and how to mend it, for the sender.
    """

    reason: str
    records: int
    text: str


def sift(request: OtlpRequest) -> Refusal | None:
    """Take out of a request, in place, what can't be kept; None where all of it can.

    Call it before unknown fields are discarded: they tell a record of another signal.
    """
    if isinstance(request, ExportTraceServiceRequest):
        lists: list[Any] = [scope.spans for group in request.resource_spans for scope in group.scope_spans]
        return _sift(lists, _odd_span if _may_have_early_spans(lists) else _unlike_a_span, _span_fault)
    if isinstance(request, ExportLogsServiceRequest):
        lists = [scope.log_records for group in request.resource_logs for scope in group.scope_logs]
        return _sift(lists, _odd_record, _record_fault)
    lists = [scope.metrics for group in request.resource_metrics for scope in group.scope_metrics]
    nameless = _sift(lists, _odd_metric, _metric_fault, points)
    lists = [data_points(metric) for metrics in lists for metric in metrics]
    early = _sift(lists, _odd_point, _point_fault) if _any_early(_TIME, chain.from_iterable(lists)) else None
    if nameless is None or early is None:
        return nameless or early
    return Refusal(nameless.reason, nameless.records + early.records, nameless.text)


def _sift(
    lists: list[Any],
    odd: Callable[[Any], bool],
    fault: Callable[[Any], tuple[str, str]],
    size: Callable[[Any], int] = lambda _: 1,
) -> Refusal | None:
    refused = 0
    first: tuple[str, str] | None = None
    for items in lists:
        bad = [index for index, item in enumerate(items) if odd(item)]
        for index in reversed(bad):
            refused += size(items[index])
        if bad and first is None:
            first = fault(items[bad[0]])
        for index in reversed(bad):
            del items[index]
    return None if first is None or not refused else Refusal(first[0], refused, first[1])


def _may_have_early_spans(lists: list[Any]) -> bool:
    """Asked of all of them in compiled code: one after the other it would be felt in what a span costs."""
    return any(_any_early(_START, spans) or _any_early(_END, spans) or any(map(_EVENTS, spans)) for spans in lists)


def _any_early(of: attrgetter[int], items: Iterable[Any]) -> bool:
    return min(filter(None, map(of, items)), default=EARLIEST_NS) < EARLIEST_NS


def _unlike_a_span(span: Span) -> bool:
    trace, own = span.trace_id, span.span_id
    if len(trace) != _TRACE_ID_BYTES or len(own) != _SPAN_ID_BYTES or trace == _NO_TRACE or own == _NO_SPAN:
        return True
    return not span.start_time_unix_nano and not span.end_time_unix_nano and _has_unknown(span)


def _odd_span(span: Span) -> bool:
    if 0 < span.start_time_unix_nano < EARLIEST_NS or 0 < span.end_time_unix_nano < EARLIEST_NS:
        return True
    return _unlike_a_span(span) or any(0 < event.time_unix_nano < EARLIEST_NS for event in span.events)


def _span_fault(span: Span) -> tuple[str, str]:
    lengths = len(span.trace_id), len(span.span_id)
    if lengths == (_TRACE_ID_BYTES, _SPAN_ID_BYTES) and span.trace_id != _NO_TRACE and span.span_id != _NO_SPAN:
        times = [("start_time_unix_nano", span.start_time_unix_nano), ("end_time_unix_nano", span.end_time_unix_nano)]
        times += [("events.time_unix_nano", event.time_unix_nano) for event in span.events]
        if (early := _early("a span", times)) is not None:
            return early
        return "signal", "a record is no span; send logs to /v1/logs and metrics to /v1/metrics"
    text = f"trace_id must have 16 bytes and span_id 8, not all zeros; a span has {lengths[0]} and {lengths[1]}"
    if NO_ID in {span.trace_id, span.span_id}:
        text = "traceId and spanId are hexadecimal digits in OTLP's JSON, not base64 or other text"
    elif lengths == (2 * _TRACE_ID_BYTES, 2 * _SPAN_ID_BYTES):
        text += ": send the bytes, not their hex text"
    elif lengths == (0, 0):
        text += "; send logs to /v1/logs and metrics to /v1/metrics"
    elif lengths == (_TRACE_ID_BYTES, _SPAN_ID_BYTES):
        text += " of which one is zeros alone"
    return "ids", text


def _odd_record(record: LogRecord) -> bool:
    # The observed time counts where there is no other.
    time = record.time_unix_nano or record.observed_time_unix_nano
    return time < EARLIEST_NS and (time > 0 or _has_unknown(record))


def _record_fault(record: LogRecord) -> tuple[str, str]:
    times = [(name, getattr(record, name)) for name in ("time_unix_nano", "observed_time_unix_nano")]
    if (early := _early("a log record", times)) is not None:
        return early
    return "signal", "a record is no log record; send spans to /v1/traces and metrics to /v1/metrics"


def _odd_metric(metric: Metric) -> bool:
    return not metric.name


def _metric_fault(_: Metric) -> tuple[str, str]:
    return "unnamed", "a metric has no name; give each one, or send spans to /v1/traces and logs to /v1/logs"


def _odd_point(point: Any) -> bool:
    return bool(0 < point.time_unix_nano < EARLIEST_NS)


def _point_fault(point: Any) -> tuple[str, str]:
    return _early("a data point", [("time_unix_nano", point.time_unix_nano)]) or ("times", "")


def _early(what: str, times: list[tuple[str, int]]) -> tuple[str, str] | None:
    """The fault of a record one of whose times is too early; None where none is."""
    for name, time in times:
        if not 0 < time < EARLIEST_NS:
            continue
        for unit, word in _UNITS:
            if unit <= time < 10 * unit:
                return "times", f"{name} of {what} is {time}, which is in {word}: send nanoseconds since 1970"
        return "times", f"{name} of {what} is {time}, a time of 1970: send nanoseconds since 1970, of the wall clock"
    return None


def data_points(metric: Metric) -> Any:
    """The data points of a metric, of whatever kind."""
    kind = metric.WhichOneof("data")
    return getattr(metric, kind).data_points if kind else []


def points(metric: Metric) -> int:
    """How many data points a metric has."""
    return len(data_points(metric))


def _has_unknown(message: Any) -> bool:
    return len(UnknownFieldSet(message)) > 0  # type: ignore[no-untyped-call,unused-ignore]


def other_door(signal: str, body: bytes, *, as_json: bool) -> str:
    """To which signal a request belongs in which nothing of ``signal`` was found; empty where that can't be told."""
    for other, kind in KINDS.items():
        if other == signal:
            continue
        if as_json:
            if _JSON_KEYS[other].search(body):
                return other
            continue
        try:
            request: OtlpRequest = kind.FromString(body)
        except DecodeError:
            continue
        found = count(request)
        if found and sift(request) is None:
            return other
    return ""


def count(request: OtlpRequest) -> int:
    """Spans, data points or log records of a request."""
    if isinstance(request, ExportTraceServiceRequest):
        return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
    if isinstance(request, ExportLogsServiceRequest):
        return sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)
    return sum(
        points(metric)
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )
