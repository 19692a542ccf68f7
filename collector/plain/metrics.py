"""Metrics as rows of ``land_samples`` and ``land_numbers``, as the views of these names with ``_mv`` make them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from collector.plain.landed import OddError
from collector.plain.values import FAR_NS, IDENTITY, MAP, attributes, identity, plain_attributes
from collector.store.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.proto.metrics.v1.metrics_pb2 import ScopeMetrics

SAMPLES: Final = frozenset({"servescope.sample", "servescope.host", "servescope.gpu"})
"""Scopes of an agent's samples."""
_SENDER: Final = {
    "received_ns": "UInt64", "tenant": "LowCardinality(String)", "sender_key_id": "LowCardinality(String)",
    "sender_peer": "LowCardinality(String)",
}  # fmt: skip
LAND_SAMPLES: Final = {
    **_SENDER, "scope_name": "String", **dict.fromkeys(IDENTITY, "LowCardinality(String)"), "ResourceAttributes": MAP,
    "time": "DateTime64(3, 'UTC')", "names": "Array(String)", "signals": "Array(Nullable(Float64))",
    "histogram_names": "Array(String)", "histogram_counts": "Array(UInt64)", "histogram_sums": "Array(Float64)",
    "histogram_bounds": "Array(Array(Float64))", "histogram_buckets": "Array(Array(UInt64))",
}  # fmt: skip
LAND_NUMBERS: Final = {
    **_SENDER, "kind": "LowCardinality(String)", "ResourceAttributes": MAP, "ResourceSchemaUrl": "String",
    "ScopeName": "String", "ScopeVersion": "String", "ScopeAttributes": MAP, "ScopeDroppedAttrCount": "UInt32",
    "ScopeSchemaUrl": "String", "MetricName": "String", "MetricDescription": "String", "MetricUnit": "String",
    "AggregationTemporality": "Int32", "IsMonotonic": "Bool", "Attributes": MAP, "start_ns": "UInt64",
    "time_ns": "UInt64", "flags": "UInt32", "value": "Float64",
}  # fmt: skip


def rows(requests: Sequence[Any]) -> list[Rows]:
    """Rows of requests of the log, in the engine's order.

    Raises:
        OddError: Something that only the engine may read: histograms that are no sample's, exemplars, odd values.
    """
    samples, numbers = Rows("land_samples", LAND_SAMPLES), Rows("land_numbers", LAND_NUMBERS)
    for request in requests:
        for metrics in request.resource_metrics:
            resource = attributes(metrics.resource.attributes)
            whose = identity(resource)
            for scoped in metrics.scope_metrics:
                if scoped.scope.name in SAMPLES:
                    samples.values += _sample(request, resource, whose, scoped)
                else:
                    numbers.values += _numbers(request, resource, metrics.schema_url, scoped)
    return [samples, numbers]


def _sample(
    request: Any, resource: dict[str, str], whose: tuple[str, ...], scoped: ScopeMetrics
) -> Iterator[tuple[object, ...]]:
    names: list[str] = []
    signals: list[float | None] = []
    times: dict[str, list[int]] = {"gauge": [], "sum": [], "histogram": []}
    drawn: list[tuple[str, Any]] = []
    for metric in scoped.metrics:
        kind = metric.WhichOneof("data")
        points = getattr(metric, kind).data_points if kind is not None and kind in times else ()
        names.append(metric.name)
        value = 0.0
        if kind is not None and points:
            times[kind].extend(point.time_unix_nano for point in points)
            if kind == "histogram":
                drawn.append((metric.name, points[0]))
            else:
                value = _value(points[0])
        signals.append(value if math.isfinite(value) else None)
    found = [*times["gauge"], *times["sum"], *times["histogram"]]
    if not found:
        return
    first = next((ns for ns in found if ns), request.received_ns)
    if max(first, request.received_ns) >= FAR_NS:
        raise OddError("a time too far away")
    tenant = request.tenant or resource.get("servescope.tenant", "")
    yield (
        request.received_ns, tenant, request.sender_key_id, request.sender_peer, scoped.scope.name, *whose, resource,
        first // 1_000_000, names, signals, [name for name, _ in drawn], [point.count for _, point in drawn],
        [point.sum for _, point in drawn], [list(point.explicit_bounds) for _, point in drawn],
        [list(point.bucket_counts) for _, point in drawn],
    )  # fmt: skip


def _numbers(
    request: Any, resource: dict[str, str], schema_url: str, scoped: ScopeMetrics
) -> Iterator[tuple[object, ...]]:
    scope = scoped.scope
    about = plain_attributes(scope.attributes)
    for metric in scoped.metrics:
        kind = metric.WhichOneof("data")
        if kind not in {None, "gauge", "sum"}:
            raise OddError(f"{kind} that is no sample's")
        summed = metric.sum if kind == "sum" else None
        for point in getattr(metric, kind).data_points if kind else ():
            if point.exemplars:
                raise OddError("exemplars")
            labels = attributes(point.attributes)
            value, time_ns = _value(point), point.time_unix_nano or request.received_ns
            if math.isnan(value):
                raise OddError("not a number")
            tenant = request.tenant or labels.get("servescope.tenant") or resource.get("servescope.tenant", "")
            yield (
                request.received_ns, tenant, request.sender_key_id, request.sender_peer, kind, resource, schema_url,
                scope.name, scope.version, about, scope.dropped_attributes_count, scoped.schema_url, metric.name,
                metric.description, metric.unit, summed.aggregation_temporality if summed else 0,
                summed.is_monotonic if summed else False, labels, point.start_time_unix_nano or time_ns, time_ns,
                point.flags, value,
            )  # fmt: skip


def _value(point: Any) -> float:
    # as the view adds up a point's two members, of which one has nothing: there is no negative zero
    return float(point.as_double) + float(point.as_int)
