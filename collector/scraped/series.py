"""The series of an OTLP request, as the page that they were scraped from had them.

Prometheus' receiver of the OpenTelemetry Collector and remote write end in the same shape: ``service.name`` is the job
and ``service.instance.id`` the target; one instant of scraping is one timestamp for all series of a page. Other senders
stamp series one after the other, and name no target but the service: what one request has of a target is one instant
then, and a process that tells when it began is a target of its own. What a sender made a count by interval
(``cumulativetodelta``, an SDK's delta temporality) says since when it counts, and becomes a sum again where pages are
read (`collector.scraped.sums`).
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA as _DELTA

from base.vocabulary import Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, Metric, NumberDataPoint, SummaryDataPoint

_SPREAD_NS: Final = 250_000_000
"""Time that one scrape's series may be stamped in; who scrapes more often than each second is rare."""
_PROCESS: Final = "process_start_time_seconds"
_NAMELESS: Final = "unknown_service"
"""How SDKs begin the name of a service that nobody named."""


class Point(NamedTuple):
    """One value of one series.

    Attributes:
        time_ns: When it was scraped, or until when it counts.
        name: Of the series.
        labels: Its labels.
        value: What it shows.
        since_ns: Of delta temporality: since when it counts, 0 where that is not told; else None.
    """

    time_ns: int
    name: str
    labels: Mapping[str, str]
    value: float
    since_ns: int | None = None


class Group(NamedTuple):
    """What a request has of one target.

    Attributes:
        resource: Attributes of the target, as text; without an instance where it can't be told which one it is.
        metrics: What it shows.
        process: When its process began, where only that tells it from others of its service.
    """

    resource: Mapping[str, str]
    metrics: Sequence[Metric]
    process: str = ""

    def points(self) -> Sequence[Point]:
        """Its values, as series."""
        return _at_once(list(_points(self.metrics)))


def groups(request: ExportMetricsServiceRequest) -> Iterator[Group]:
    """The targets of a request."""
    for group in request.resource_metrics:
        resource = _texts(group.resource.attributes)
        metrics = [metric for scope in group.scope_metrics for metric in scope.metrics]
        service = resource.get(Resource.DEPLOYMENT, "")
        if resource.get(Resource.INSTANCE) or not service or service.startswith(_NAMELESS):
            yield Group(resource, metrics)
        elif process := _began(metrics):
            yield Group({**resource, Resource.INSTANCE: service}, metrics, process)
        else:
            yield Group(resource, metrics)


def _began(metrics: Iterable[Metric]) -> str:
    """When the process began whose page it is; "" where it does not say, or where there are several."""
    found = {str(point.value) for point in _points(one for one in metrics if one.name == _PROCESS)}
    return found.pop() if len(found) == 1 else ""


def _at_once(points: Sequence[Point]) -> Sequence[Point]:
    """The same, with one time where they are one scrape's that were stamped one after the other.

    They are not where a series comes twice. What counts by interval keeps its time, for the next interval begins there.
    """
    times = {one.time_ns for one in points}
    if len(times) <= 1 or max(times) - min(times) > _SPREAD_NS or any(one.since_ns is not None for one in points):
        return points
    if len({(one.name, frozenset(one.labels.items())) for one in points}) < len(points):
        return points
    last = max(times)
    return [one._replace(time_ns=last) for one in points]


def _points(metrics: Iterable[Metric]) -> Iterator[Point]:
    for metric in metrics:
        kind = metric.WhichOneof("data")
        name = metric.name
        delta = _is_delta(metric)
        if kind in {"gauge", "sum"}:
            yield from _numbers(metric, delta=delta)
        elif kind == "histogram":
            for point in filter(_has_value, metric.histogram.data_points):
                if not delta or _counts(point.sum):
                    yield from _buckets(name, point, point.start_time_unix_nano if delta else None)
        elif kind == "summary":
            for several in filter(_has_value, metric.summary.data_points):
                labels, time_ns = _texts(several.attributes), several.time_unix_nano
                yield Point(time_ns, f"{name}_sum", labels, several.sum)
                yield Point(time_ns, f"{name}_count", labels, float(several.count))


def _numbers(metric: Metric, *, delta: bool) -> Iterator[Point]:
    if delta and not metric.sum.is_monotonic:
        return  # changes of a level that nobody told
    for number in (metric.gauge if metric.WhichOneof("data") == "gauge" else metric.sum).data_points:
        value = number.as_double if number.HasField("as_double") else float(number.as_int)
        if _has_value(number) and (not delta or _counts(value)):
            since = number.start_time_unix_nano if delta else None
            yield Point(number.time_unix_nano, metric.name, _texts(number.attributes), value, since)


def _has_value(point: NumberDataPoint | HistogramDataPoint | SummaryDataPoint) -> bool:
    """Whether a value was recorded; where none was, the series has ended."""
    return not point.flags & 1


def _is_delta(metric: Metric) -> bool:
    kind = metric.WhichOneof("data")
    return kind in {"sum", "histogram"} and getattr(metric, kind).aggregation_temporality == _DELTA


def _counts(value: float) -> bool:
    """Whether a count by interval can be added: one that is none would be in every sum after it."""
    return isfinite(value) and value >= 0


def _buckets(name: str, point: HistogramDataPoint, since_ns: int | None) -> Iterator[Point]:
    labels = _texts(point.attributes)
    time_ns: int = point.time_unix_nano
    bounds, counts = point.explicit_bounds, point.bucket_counts
    total = 0
    for index, count in enumerate(counts if bounds else ()):  # one bucket of all says no more than the count
        total += count
        bound = repr(bounds[index]) if index < len(bounds) else "+Inf"
        yield Point(time_ns, f"{name}_bucket", {**labels, "le": bound}, float(total), since_ns)
    yield Point(time_ns, f"{name}_sum", labels, point.sum, since_ns)
    yield Point(time_ns, f"{name}_count", labels, float(point.count), since_ns)


def _texts(attributes: Iterable[KeyValue]) -> dict[str, str]:
    found = {}
    for pair in attributes:
        value = pair.value
        kind = value.WhichOneof("value")
        if kind == "string_value":
            found[pair.key] = value.string_value
        elif kind in {"int_value", "double_value", "bool_value"}:
            found[pair.key] = str(getattr(value, kind)).lower()
    return found
