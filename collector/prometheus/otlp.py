"""Series of remote write → one OTLP request, a resource for each target that was scraped.

``job`` becomes ``service.name`` and ``instance`` ``service.instance.id``, as OpenTelemetry's own receiver for
Prometheus has it; all other labels stay attributes of the points. A classic histogram's series stay what they are,
cumulative sums by ``le``: version 1.0 does not say which belong together, and a request may hold only some of them.
Native histograms become exponential ones. Points without a value (a series that ended) are left out; of points that
can't be what they say (a time that is none in milliseconds, a histogram whose counts are no counts) the first is told
to the sender.

Source: https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE

from base.vocabulary import Resource
from collector.decode import TooLargeError
from collector.prometheus.wire import stale

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

    from collector.prometheus.wire import Written

SCOPE: Final = "servescope.remote_write"
_COUNTERS: Final = ("_total", "_count", "_sum", "_bucket")
"""How the names of series that only grow end, where the sender does not say."""
_GROWING: Final = frozenset({"counter", "histogram", "summary"})
_CUSTOM: Final = -53
"""Schema of a native histogram whose bounds are listed."""
_FINEST: Final = (-4, 8)
"""Coarsest and finest schema of a native histogram."""
_INDEX: Final = 1 << 30
"""Numbers of buckets lie far within; beyond, OpenTelemetry has no room for them."""
_MOST_COUNTED: Final = 1 << 63
_NANOSECONDS: Final = 1_000_000
_LATEST_MS: Final = 1 << 43
"""The year 2248: the same instant in microseconds is far beyond."""
_PAIR_BYTES: Final = 10
_POINT_BYTES: Final = 40
_NAME_SHOWN: Final = 100


@dataclass
class Converted:
    """What became of a request.

    Attributes:
        request: All series with their points; timestamps in ns.
        refused: How many points are not among them.
        told: What is wrong with the first of those.
    """

    request: ExportMetricsServiceRequest = field(default_factory=ExportMetricsServiceRequest)
    refused: int = 0
    told: str = ""

    def refuse(self, text: str) -> None:
        """Leave a point out."""
        self.refused += 1
        self.told = self.told or text


class _OddError(Exception):
    """A point can't be what it says."""


def converted(series: Iterable[Written], limit: int) -> Converted:
    """The series of a request, at most ``limit`` bytes of them: labels stand in every point of a series.

    Raises:
        TooLargeError: They would be more.
    """
    made = Converted()
    request = made.request
    scopes: dict[tuple[str, str], Any] = {}
    size = 0
    for one in series:
        labels = sum(len(name) + len(value) + _PAIR_BYTES for name, value in one.labels.items())
        of_metric = len(one.name) + len(one.unit) + len(one.help) + _POINT_BYTES
        size += of_metric + (len(one.samples) + len(one.histograms)) * (labels + of_metric)
        if size > limit:
            raise TooLargeError
        target = one.labels.get("job", ""), one.labels.get("instance", "")
        scope = scopes.get(target)
        if scope is None:
            group = request.resource_metrics.add()
            _told(group.resource.attributes, {Resource.DEPLOYMENT: target[0], Resource.INSTANCE: target[1]})
            scope = scopes[target] = group.scope_metrics.add()
            scope.scope.name = SCOPE
        _add(scope.metrics, one, made)
    return made


def _add(metrics: Any, one: Written, made: Converted) -> None:
    labels = {name: value for name, value in one.labels.items() if name not in {"job", "instance"}}
    values = [sample for sample in one.samples if not stale(sample.value)]
    if values:
        metric = _named(metrics, one)
        points = _growing(metric) if _grows(one) else metric.gauge.data_points
        for sample in values:
            try:
                point = points.add(time_unix_nano=_ns(sample.timestamp), as_double=sample.value)
            except _OddError as error:
                made.refuse(f"{one.name[:_NAME_SHOWN]}: {error}")
                continue
            _told(point.attributes, labels)
    for histogram in (each for each in one.histograms if not stale(each.sum)):
        metric = _named(metrics, one)
        try:
            point = _listed(metric, histogram) if histogram.schema == _CUSTOM else _exponential(metric, histogram)
        except _OddError as error:
            del metrics[-1]
            made.refuse(f"{one.name[:_NAME_SHOWN]}: {error}")
            continue
        _told(point.attributes, labels)


def _named(metrics: Any, one: Written) -> Metric:
    metric: Metric = metrics.add(name=one.name, unit=one.unit, description=one.help)
    return metric


def _grows(one: Written) -> bool:
    if one.kind == "summary":
        return one.name.endswith(_COUNTERS)  # its quantiles do not
    return one.kind in _GROWING if one.kind else one.name.endswith(_COUNTERS)


def _growing(metric: Metric) -> Any:
    metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    metric.sum.is_monotonic = True
    return metric.sum.data_points


def _exponential(metric: Metric, histogram: Any) -> Any:
    if not _FINEST[0] <= histogram.schema <= _FINEST[1]:
        raise _OddError(f"a histogram's schema is {histogram.schema}, none from {_FINEST[0]} to {_FINEST[1]}")
    data = metric.exponential_histogram
    data.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    point = data.data_points.add(
        time_unix_nano=_ns(histogram.timestamp),
        count=histogram.count_int or _count(histogram.count_float),
        sum=histogram.sum,
        scale=histogram.schema,
        zero_count=histogram.zero_count_int or _count(histogram.zero_count_float),
        zero_threshold=histogram.zero_threshold,
    )
    for ours, counts in (
        (point.positive, _buckets(histogram.positive_spans, histogram.positive_deltas, histogram.positive_counts)),
        (point.negative, _buckets(histogram.negative_spans, histogram.negative_deltas, histogram.negative_counts)),
    ):
        if counts:
            first, last = min(counts), max(counts)
            if not -_INDEX < first <= last < _INDEX:
                raise _OddError(f"a histogram has a bucket number {first if first < 0 else last}")
            # Prometheus counts a bucket by its upper bound, OpenTelemetry by its lower one
            ours.offset = first - 1
            ours.bucket_counts.extend([counts.get(index, 0) for index in range(first, last + 1)])
    return point


def _listed(metric: Metric, histogram: Any) -> Any:
    metric.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    counts = _buckets(histogram.positive_spans, histogram.positive_deltas, histogram.positive_counts)
    bounds = list(histogram.custom_values)
    return metric.histogram.data_points.add(
        time_unix_nano=_ns(histogram.timestamp),
        count=histogram.count_int or _count(histogram.count_float),
        sum=histogram.sum,
        explicit_bounds=bounds,
        bucket_counts=[counts.get(index, 0) for index in range(len(bounds) + 1)],
    )


_MOST_BUCKETS: Final = 4096
"""More than any histogram has; a span may claim billions."""


def _buckets(spans: Sequence[Any], deltas: Sequence[int], counts: Sequence[float]) -> dict[int, int]:
    """Count by index of a bucket: integers are told as differences from the bucket before, floats as they are."""
    found: dict[int, int] = {}
    at = index = count = 0
    told = len(deltas) or len(counts)
    for span in spans:
        index += span.offset
        for _ in range(min(span.length, told - at)):
            count = count + deltas[at] if deltas else _count(counts[at])
            if not 0 <= count < _MOST_COUNTED:
                raise _OddError(f"a histogram's bucket has {count} in it")
            found[index] = count
            at, index = at + 1, index + 1
    if found and max(found) - min(found) > _MOST_BUCKETS:
        first = max(found) - _MOST_BUCKETS
        found = {index: number for index, number in found.items() if index >= first}
    return found


def _told(attributes: Any, labels: Mapping[str, str]) -> None:
    for name, value in labels.items():
        if value:
            pair: KeyValue = attributes.add(key=name)
            pair.value.string_value = value


def _count(value: float) -> int:
    if not 0 <= value < _MOST_COUNTED:
        raise _OddError(f"a histogram's count is {value}")
    return round(value)


def _ns(milliseconds: int) -> int:
    if not 0 < milliseconds < _LATEST_MS:
        raise _OddError(f"the timestamp {milliseconds} is none in milliseconds since 1970")
    return milliseconds * _NANOSECONDS
