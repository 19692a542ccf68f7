"""Samples and events → OTLP protobuf bytes.

A sample's metrics are one data point each, of fixed width: once the set of metric names is known, a whole
``ScopeMetrics`` is constant bytes with numbers between them, which ``struct`` fills in one call. That costs a tenth of
building message objects; the tests decode every body with ``opentelemetry-proto`` and compare.

Field numbers: https://github.com/open-telemetry/opentelemetry-proto (``metrics/v1``, ``logs/v1``, ``common/v1``).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from struct import Struct
from typing import TYPE_CHECKING, Final, Literal

from base.redact import redacted
from base.vocabulary import SCOPE_EVENT, SCOPE_SAMPLE, Resource

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from agent.pages.samples import EngineSample, Increase, Key
    from agent.target import Place, Target

Shape = Literal["gauge", "total", "delta"]

_VARINT_MORE: Final = 0x80
_DELTA: Final = b"\x10\x01"  # aggregation_temporality = 2, DELTA
_CUMULATIVE: Final = b"\x10\x02"
_MONOTONIC: Final = b"\x18\x01"
_START: Final = b"\x11"  # start_time_unix_nano = 2, fixed64
_TIME: Final = b"\x19"
_DOUBLE: Final = b"\x21"  # NumberDataPoint.as_double = 4
_INFO: Final = b"\x10\x09\x1a\x04INFO"  # severity_number = 2, severity_text = 3
_WARN: Final = b"\x10\x0d\x1a\x04WARN"
_FIXED64: Final = Struct("<Q").pack
_POINT_BYTES: Final = 18
_DELTA_POINT_BYTES: Final = 27
_TEMPLATES_KEPT: Final = 256
_TEXT_KEPT: Final = 2_000
_NAME_KEPT: Final = 100
_DETAILS_KEPT: Final = 64


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= _VARINT_MORE:
        out.append(value & 0x7F | _VARINT_MORE)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _opening(number: int, size: int) -> bytes:
    """Tag and length of a field whose ``size`` bytes follow."""
    return _varint(number << 3 | 2) + _varint(size)


def attributes(target: Target | None, place: Place, version: str = "") -> dict[str, str]:
    """Resource attributes of a record; what is unknown is left out."""
    pod, namespace, pod_node = place.pod, place.namespace, place.node if place.pod else ""
    if target is not None and target.pod:
        pod, namespace, pod_node = target.pod, target.namespace, target.node
    found = {
        Resource.REGION: place.region,
        Resource.CLUSTER: place.cluster,
        Resource.POD: pod,
        Resource.NAMESPACE: namespace,
        Resource.POD_NODE: pod_node,
        Resource.NODE: place.node,
        Resource.VERSION: version or (target.version if target is not None else ""),
    }
    if target is not None:
        found |= {
            Resource.DEPLOYMENT: target.deployment,
            Resource.INSTANCE: target.instance,
            Resource.ENGINE: target.engine if target.engine not in {None, "auto"} else "",
            Resource.ROLE: target.role,
        }
    return {key: value for key, value in found.items() if value}


def _attribute(number: int, key: str, value: str) -> bytes:
    return _field(number, _field(1, key.encode()) + _field(2, _field(1, value.encode())))


def resource(found: Mapping[str, str]) -> bytes:
    """A ``Resource`` message with string attributes."""
    return b"".join([_attribute(1, key, value) for key, value in found.items()])


class _Template:
    """A ``ScopeMetrics`` of one scope with one data point per name, waiting for its numbers."""

    __slots__ = ("_arguments", "_deltas", "_struct")

    def __init__(self, scope: str, names: Sequence[tuple[Shape, str]]) -> None:
        code = ["<"]
        arguments: list[object] = []
        pending = _field(1, _field(1, scope.encode()))
        for shape, name in names:
            pending += _head(shape, name)
            if shape == "delta":
                pending += _START
                arguments += (pending, 0)
                code.append(f"{len(pending)}sQ")
                pending = b""
            pending += _TIME
            arguments += (pending, 0, _DOUBLE, 0.0)
            code.append(f"{len(pending)}sQ1sd")
            pending = _tail(shape)
        arguments.append(pending)
        code.append(f"{len(pending)}s")
        self._deltas = sum(shape == "delta" for shape, _ in names)
        self._struct = Struct("".join(code))
        self._arguments = arguments

    def fill(self, values: Sequence[float], time_ns: int, start_ns: int) -> bytes:
        """The message; deltas come last in ``values``."""
        arguments = self._arguments
        plain = (len(values) - self._deltas) * 4
        arguments[1:plain:4] = [time_ns] * (plain // 4)
        arguments[3:plain:4] = values[: plain // 4]
        if self._deltas:
            arguments[plain + 1 : -1 : 6] = [start_ns] * self._deltas
            arguments[plain + 3 : -1 : 6] = [time_ns] * self._deltas
            arguments[plain + 5 :: 6] = values[plain // 4 :]
        return self._struct.pack(*arguments)


def _head(shape: Shape, name: str) -> bytes:
    """Everything of a ``Metric`` up to its data point's first field."""
    point = _opening(1, _DELTA_POINT_BYTES if shape == "delta" else _POINT_BYTES)
    data_size = len(point) + (_DELTA_POINT_BYTES if shape == "delta" else _POINT_BYTES) + len(_tail(shape))
    data = _opening(5 if shape == "gauge" else 7, data_size)
    named = _field(1, name.encode())
    return _opening(2, len(named) + len(data) + data_size) + named + data + point


def _tail(shape: Shape) -> bytes:
    """What follows the data point in a Gauge or Sum."""
    if shape == "gauge":
        return b""
    return (_DELTA if shape == "delta" else _CUMULATIVE) + _MONOTONIC


_templates: dict[tuple[str, tuple[tuple[Shape, str], ...]], _Template] = {}


def _template(scope: str, names: tuple[tuple[Shape, str], ...]) -> _Template:
    found = _templates.get((scope, names))
    if found is None:
        if len(_templates) >= _TEMPLATES_KEPT:
            _templates.clear()
        found = _templates[scope, names] = _Template(scope, names)
    return found


_histograms: dict[tuple[str, tuple[float, ...]], tuple[Struct, bytes, bytes]] = {}


def _histogram(increase: Increase, time_ns: int, start_ns: int) -> bytes:
    """A ``Metric`` field with one DELTA histogram point."""
    key = (increase.distribution, increase.bounds)
    found = _histograms.get(key)
    buckets = len(increase.counts)
    if found is None:
        bounds = _field(7, Struct(f"<{len(increase.bounds)}d").pack(*increase.bounds))
        counts = _opening(6, 8 * buckets)
        # start, time, count (fixed64) and sum (double) with their tags, then counts and bounds
        size = 4 * 9 + len(counts) + 8 * buckets + len(bounds)
        point = _opening(1, size)
        data = _opening(9, len(point) + size + len(_DELTA))
        named = _field(1, increase.distribution.encode())
        head = _opening(2, len(named) + len(data) + len(point) + size + len(_DELTA)) + named + data + point + _START
        end = bounds + _DELTA
        if len(_histograms) >= _TEMPLATES_KEPT:
            _histograms.clear()
        packer = Struct(f"<{len(head)}sQ1sQ1sQ1sd{len(counts)}s{buckets}Q{len(end)}s")
        found = _histograms[key] = (packer, head, end)
    packer, head, end = found
    return packer.pack(
        head, start_ns, _TIME, time_ns, b"\x21", increase.count, b"\x29", increase.total,
        _opening(6, 8 * buckets), *increase.counts, end,
    )  # fmt: skip


def _resource_metrics(whose: bytes, scope_metrics: bytes) -> bytes:
    """One ``ExportMetricsServiceRequest.resource_metrics``."""
    body = _field(1, whose) + _field(2, scope_metrics)
    return _field(1, body)


@dataclass(frozen=True, slots=True)
class Moment:
    """When a sample was taken.

    Args:
        time_ns: Unix time of the scrape in ns.
        previous_ns: Unix time of the last good scrape; 0 before the first.
        scrape_seconds: How long the page took to come.
    """

    time_ns: int
    previous_ns: int = 0
    scrape_seconds: float = 0.0


class SampleEncoder:
    """Encodes the engine samples of one server.

    Args:
        whose: Resource attributes of the server (:func:`attributes`).
    """

    def __init__(self, whose: Mapping[str, str]) -> None:
        self._whose = dict(whose)
        self._resources: dict[Key, bytes] = {}

    def _resource(self, key: Key) -> bytes:
        found = self._resources.get(key)
        if found is None:
            if len(self._resources) >= _TEMPLATES_KEPT:
                self._resources.clear()
            more = {Resource.MODEL: key.model, Resource.DP_RANK: key.dp_rank}
            whose = self._whose | {name: value for name, value in more.items() if value}
            found = self._resources[key] = resource(whose)
        return found

    def encode(self, samples: Iterable[EngineSample], moment: Moment) -> bytes:
        """One ``ExportMetricsServiceRequest`` with a ``ResourceMetrics`` per sample."""
        time_ns, start_ns = moment.time_ns, moment.previous_ns
        parts = []
        for sample in samples:
            own: list[tuple[Shape, str]] = [("gauge", "up"), ("gauge", "scrape_seconds")]
            values: list[float] = [1.0, moment.scrape_seconds]
            if start_ns:
                own.append(("gauge", "interval_seconds"))
                values.append((time_ns - start_ns) / 1e9)
            names = (
                *own,
                *[("gauge", name) for name in sample.gauges],
                *[("total", name) for name in sample.totals],
                *[("delta", _delta_name(name)) for name in sample.deltas],
            )
            values += sample.gauges.values()
            values += sample.totals.values()
            values += sample.deltas.values()
            scope_metrics = _template(SCOPE_SAMPLE, names).fill(values, time_ns, start_ns)
            if sample.histograms:
                scope_metrics += b"".join([_histogram(one, time_ns, start_ns) for one in sample.histograms])
            parts.append(_resource_metrics(self._resource(sample.key), scope_metrics))
        return b"".join(parts)

    def encode_down(self, keys: Iterable[Key], moment: Moment) -> bytes:
        """``up`` = 0 for each model last known, and nothing else."""
        down = _template(SCOPE_SAMPLE, (("gauge", "up"),)).fill([0.0], moment.time_ns, 0)
        return b"".join([_resource_metrics(self._resource(key), down) for key in keys])

    def encode_up(self, keys: Iterable[Key], moment: Moment) -> bytes:
        """``up`` = 1 of a server that answers with a page no table reads."""
        names: tuple[tuple[Shape, str], ...] = (("gauge", "up"), ("gauge", "scrape_seconds"))
        body = _template(SCOPE_SAMPLE, names).fill([1.0, moment.scrape_seconds], moment.time_ns, 0)
        return b"".join([_resource_metrics(self._resource(key), body) for key in keys])


_delta_names: dict[str, str] = {}


def _delta_name(total: str) -> str:
    found = _delta_names.get(total)
    if found is None:
        found = _delta_names[total] = f"{total.removesuffix('_total')}_delta"
    return found


def encode_gauges(
    rows: Iterable[tuple[bytes, Mapping[str, float]]], scope: str, time_ns: int, totals: Collection[str] = ()
) -> bytes:
    """Host or GPU rows: (resource bytes, value by metric name) each → one ``ExportMetricsServiceRequest``.

    Args:
        rows: What to encode.
        scope: Of what kind they are.
        time_ns: Unix time in ns.
        totals: Names that go as cumulative sums, as OpenTelemetry's conventions have them.
    """
    parts = []
    for whose, values in rows:
        names: tuple[tuple[Shape, str], ...] = tuple(
            [("total" if name in totals else "gauge", name) for name in values]
        )
        parts.append(_resource_metrics(whose, _template(scope, names).fill(list(values.values()), time_ns, 0)))
    return b"".join(parts)


def encode_event(
    whose: Mapping[str, str],
    event: str,
    message: str,
    time_ns: int,
    details: Mapping[str, str] | None = None,
    *,
    warning: bool = False,
) -> bytes:
    """One event as an ``ExportLogsServiceRequest``.

    Args:
        whose: Resource attributes.
        event: ``event_name``, for example ``instance_down``.
        message: One plain-English sentence; URLs lose their secrets, and what is over 2,000 characters is cut.
        time_ns: Unix time in ns.
        details: Free attributes, at most 64, each as the message is; a name over 100 characters is cut.
        warning: Severity WARN instead of INFO.
    """
    text = redacted(message)[:_TEXT_KEPT]
    more = islice((details or {}).items(), _DETAILS_KEPT)
    record = b"".join(
        (
            b"\x09" + _FIXED64(time_ns),
            _WARN if warning else _INFO,
            _field(5, _field(1, text.encode())),
            *[_attribute(6, key[:_NAME_KEPT], redacted(value)[:_TEXT_KEPT]) for key, value in more],
            b"\x59" + _FIXED64(time_ns),
            _field(12, event.encode()),
        )
    )
    scoped = _field(1, _field(1, SCOPE_EVENT.encode())) + _field(2, record)
    return _field(1, _field(1, resource(whose)) + _field(2, scoped))
