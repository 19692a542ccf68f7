"""Series of remote write → one OTLP request, a resource for each target that was scraped.

``job`` becomes ``service.name`` and ``instance`` ``service.instance.id``, as OpenTelemetry's own receiver for
Prometheus has it; all other labels stay attributes of the points. A classic histogram's series stay what they are,
cumulative sums by ``le``: version 1.0 does not say which belong together, and a request may hold only some of them.
Native histograms become exponential ones. Points without a value (a series that ended) are left out.

Source: https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE

from base.vocabulary import Resource
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
_NANOSECONDS: Final = 1_000_000


def request_of(series: Iterable[Written]) -> ExportMetricsServiceRequest:
    """All series with their points; timestamps in ns."""
    request = ExportMetricsServiceRequest()
    scopes: dict[tuple[str, str], Any] = {}
    for one in series:
        target = one.labels.get("job", ""), one.labels.get("instance", "")
        scope = scopes.get(target)
        if scope is None:
            group = request.resource_metrics.add()
            _told(group.resource.attributes, {Resource.DEPLOYMENT: target[0], Resource.INSTANCE: target[1]})
            scope = scopes[target] = group.scope_metrics.add()
            scope.scope.name = SCOPE
        _add(scope.metrics, one)
    return request


def _add(metrics: Any, one: Written) -> None:
    labels = {name: value for name, value in one.labels.items() if name not in {"job", "instance"}}
    values = [sample for sample in one.samples if not stale(sample.value)]
    if values:
        metric = _named(metrics, one)
        points = _growing(metric) if _grows(one) else metric.gauge.data_points
        for sample in values:
            point = points.add(time_unix_nano=_ns(sample.timestamp), as_double=sample.value)
            _told(point.attributes, labels)
    histograms = [histogram for histogram in one.histograms if not stale(histogram.sum)]
    if histograms:
        listed = histograms[0].schema == _CUSTOM
        for histogram in (each for each in histograms if (each.schema == _CUSTOM) == listed):
            metric = _named(metrics, one)
            point = _listed(metric, histogram) if listed else _exponential(metric, histogram)
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
    data = metric.exponential_histogram
    data.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    point = data.data_points.add(
        time_unix_nano=_ns(histogram.timestamp),
        count=histogram.count_int or round(histogram.count_float),
        sum=histogram.sum,
        scale=histogram.schema,
        zero_count=histogram.zero_count_int or round(histogram.zero_count_float),
        zero_threshold=histogram.zero_threshold,
    )
    for ours, counts in (
        (point.positive, _buckets(histogram.positive_spans, histogram.positive_deltas, histogram.positive_counts)),
        (point.negative, _buckets(histogram.negative_spans, histogram.negative_deltas, histogram.negative_counts)),
    ):
        if counts:
            first, last = min(counts), max(counts)
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
        count=histogram.count_int or round(histogram.count_float),
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
            count = count + deltas[at] if deltas else round(counts[at])
            found[index] = max(count, 0)
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


def _ns(milliseconds: int) -> int:
    return max(milliseconds, 0) * _NANOSECONDS
