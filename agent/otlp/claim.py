"""Whose a group of OTLP is: its resource gets the attributes of the target it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from base.vocabulary import Resource

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from opentelemetry.proto.resource.v1.resource_pb2 import Resource as OtlpResource

    from base.scrub import OtlpRequest

REPORTED: Final = "servescope.reported."
_OWNED: Final = frozenset({Resource.INSTANCE, Resource.DEPLOYMENT})


def groups(request: OtlpRequest) -> Iterable[tuple[OtlpResource, Sequence[str]]]:
    """Each resource of a request with the names of its scopes."""
    if isinstance(request, ExportTraceServiceRequest):
        for spans in request.resource_spans:
            yield spans.resource, [scope.scope.name for scope in spans.scope_spans]
    elif isinstance(request, ExportMetricsServiceRequest):
        for metrics in request.resource_metrics:
            yield metrics.resource, [scope.scope.name for scope in metrics.scope_metrics]
    else:
        for logs in request.resource_logs:
            yield logs.resource, [scope.scope.name for scope in logs.scope_logs]


def claim(resource: OtlpResource, whose: Mapping[str, str]) -> None:
    """Give a group the attributes of the target it comes from.

    Instance and deployment become the target's, what the sender called them stays under ``servescope.reported.*``;
    of the others only those are added that are missing.
    """
    for pair in resource.attributes:
        if pair.key in _OWNED and whose.get(pair.key) != pair.value.string_value:
            pair.key = REPORTED + pair.key
    add_missing(resource, {pair.key for pair in resource.attributes}, whose)


def common(whose: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What several targets have in common: a deployment without its instance, where one can't be named."""
    first, *others = whose
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def add_missing(resource: OtlpResource, own: Collection[str], whose: Mapping[str, str]) -> None:
    """Give a resource the attributes that are not among its ``own``."""
    for key, value in whose.items():
        if key not in own:
            pair = resource.attributes.add()
            pair.key, pair.value.string_value = key, value
