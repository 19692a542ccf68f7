"""Pages as an OpenTelemetry Collector sends them that scraped them: cumulative, or by interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, AGGREGATION_TEMPORALITY_DELTA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.pages.page import Page

Buckets = dict[float, float]
"""Cumulative counts by their upper bounds."""


def scraped(time_ns: int, page: Page, since: tuple[int, Page] | None = None, *, delta: bool = False) -> bytes:
    """A request with the page of a target.

    Args:
        time_ns: When it was scraped.
        page: It.
        since: The page before and its time; a series that it lacks is left out by interval, as a Collector does.
        delta: Counters and histograms tell what they gained since.
    """
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    for key, value in (("service.name", "chat"), ("service.instance.id", "a:1")):
        group.resource.attributes.add(key=key).value.string_value = value
    metrics = group.scope_metrics.add().metrics
    for name, value in (("up", 1.0), ("scrape_duration_seconds", 0.25)):
        metrics.add(name=name).gauge.data_points.add(time_unix_nano=time_ns, as_double=value)
    numbers, histograms = _read(page)
    earlier_numbers, earlier_histograms = _read(since[1]) if since is not None else ({}, {})
    start_ns = since[0] if since is not None else 0
    for (name, labels), (kind, value) in numbers.items():
        if kind == "counter" and delta and (name, labels) not in earlier_numbers:
            continue
        metric = metrics.add(name=name)
        if kind == "counter":
            told = value - earlier_numbers[name, labels][1] if delta else value
            points = _counting(metric.sum, delta=delta)
            metric.sum.is_monotonic = True
            _labelled(points.add(time_unix_nano=time_ns, start_time_unix_nano=start_ns, as_double=told), dict(labels))
        else:
            _labelled(metric.gauge.data_points.add(time_unix_nano=time_ns, as_double=value), dict(labels))
    for (name, labels), (buckets, total) in histograms.items():
        if delta and (name, labels) not in earlier_histograms:
            continue
        had, had_total = earlier_histograms[name, labels] if delta else ({}, 0.0)
        counts = [buckets[bound] - had.get(bound, 0.0) for bound in sorted(buckets)]
        each = [int(high - low) for high, low in zip(counts, [0.0, *counts], strict=False)]
        point = _counting(metrics.add(name=name).histogram, delta=delta).add(
            time_unix_nano=time_ns, start_time_unix_nano=start_ns, count=sum(each), sum=total - had_total,
            explicit_bounds=sorted(buckets)[:-1], bucket_counts=each,
        )  # fmt: skip
        _labelled(point, dict(labels))
    return request.SerializeToString()


def _counting(data: Any, *, delta: bool) -> Any:
    data.aggregation_temporality = AGGREGATION_TEMPORALITY_DELTA if delta else AGGREGATION_TEMPORALITY_CUMULATIVE
    return data.data_points


def _labelled(point: Any, labels: Mapping[str, str]) -> None:
    for key, value in labels.items():
        point.attributes.add(key=key).value.string_value = value


def _read(page: Page) -> tuple[dict[Any, tuple[str, float]], dict[Any, tuple[Buckets, float]]]:
    """Kind and value of numbers, buckets and sum of histograms; by name and labels."""
    numbers: dict[Any, tuple[str, float]] = {}
    buckets: dict[Any, Buckets] = {}
    totals: dict[Any, float] = {}
    for name, labels, value, _ in page.samples():
        family = page.layout.family(name)
        kind = page.layout.types.get(family, "gauge")
        who = frozenset((key, text) for key, text in labels.items() if key != "le" or kind != "histogram")
        if kind != "histogram":
            numbers[name, who] = kind, value
        elif name.endswith("_bucket"):
            buckets.setdefault((family, who), {})[float(labels["le"])] = value
        elif name.endswith("_sum"):
            totals[family, who] = value
    return numbers, {who: (found, totals[who]) for who, found in buckets.items()}
