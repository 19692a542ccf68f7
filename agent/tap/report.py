"""A tap's own figures as OTLP metrics in its spool, and as a page for its agent's: nobody scrapes a tap itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, Final

import structlog
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Gauge,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)

from agent.tap.open_requests import settle
from agent.tap.page import Page
from base.vocabulary import SERVICE_TAP, Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from agent.tap.core import Core
    from agent.tap.recorder import Recorder, Spool

log = structlog.get_logger()

_SCOPE: Final = "servescope.tap"
_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 30.0
_PREFIX: Final = "servescope_tap_"
_PID: Final = "process.pid"


class Reporter:
    """Writes the figures every five seconds while they change, else every thirty.

    Args:
        core: Whose figures.
        recorder: Knows what the target is.
        spool: Where they go; a writer of its own, so that a slow disk here holds up no record.
        folder: ``DIR/spool/<producer>``, where processes that are gone may have left open requests.
        append: Puts the records of those into the spool.
    """

    def __init__(
        self, core: Core, recorder: Recorder, spool: Spool, folder: Path, append: Callable[[bytes], bool]
    ) -> None:
        self._core = core
        self._recorder = recorder
        self._spool = spool
        self._folder = folder
        self._append = append
        self._page = Page(core.open.folder, core.counters.registry, recorder.resource.get(Resource.INSTANCE, ""))
        self._started_ns = time.time_ns()
        self._stopped = asyncio.Event()
        self._last: tuple[float, ...] = ()
        self._last_at = float("-inf")

    async def run(self) -> None:
        """Settle and report until stopped, and once more then."""
        stopped = False
        while not stopped:
            stopped = self._stopped.is_set()
            try:
                await settle(self._folder, self._core, self._recorder.resource, self._append)
                await self.report(final=stopped)
            except Exception:
                self._core.counters.faults.labels("report").inc()
                log.exception("tap_report_failed")
            if not stopped:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), _SECONDS)
        self._spool.close()

    def stop(self) -> None:
        """Have ``run`` end."""
        self._stopped.set()

    async def report(self, *, final: bool = False) -> None:
        """Write the figures if they changed, the last ones are old, or nothing comes after (``final``)."""
        now_ns, now = time.time_ns(), time.monotonic()
        oldest = self._core.open.oldest_seconds(now_ns)
        found = list(figures(self._core, oldest))
        state = tuple(value for name, value, _, sums in found if sums or name.endswith(".open"))
        if not final and state == self._last and not len(self._core.open) and now - self._last_at < _IDLE_SECONDS:
            return
        self._last, self._last_at = state, now
        self._core.lag_seconds = 0.0
        resource = {**self._recorder.resource, Resource.DEPLOYMENT: SERVICE_TAP, _PID: str(os.getpid())}
        body = encode(found, resource, now_ns, self._started_ns)
        await asyncio.to_thread(self._page.write)
        if not await asyncio.to_thread(self._spool.append, "metrics", body):
            log.warning("tap_report_refused_by_spool")


_Figure = tuple[str, float, "Mapping[str, str]", bool]
"""Name, value, attributes, whether it is a sum (else a gauge)."""


def figures(core: Core, oldest_seconds: float) -> Iterator[_Figure]:
    """All figures of a tap: its counters and gauges under dotted names, and what only this report has."""
    yield "servescope.tap.requests.open", float(len(core.open)), {}, False
    yield "servescope.tap.requests.oldest_age", oldest_seconds, {}, False
    yield "servescope.tap.requests.owed_age", core.owed(time.monotonic()), {}, False
    yield "servescope.tap.places", float(core.limits.max_connections), {}, False
    yield "servescope.tap.tunnels", float(core.tunnels), {}, False
    yield "servescope.tap.loop_lag", core.lag_seconds, {}, False
    for family in core.counters.registry.collect():
        if family.type in {"counter", "gauge"}:
            name = "servescope.tap." + family.name.removeprefix(_PREFIX)
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    yield name, float(sample.value), sample.labels, family.type == "counter"


def encode(found: list[_Figure], resource: Mapping[str, str], time_ns: int, start_ns: int) -> bytes:
    """Serialized ``ExportMetricsServiceRequest``; sums are cumulative since ``start_ns``."""
    metrics: dict[str, Metric] = {}
    for name, value, attributes, is_sum in found:
        point = NumberDataPoint(
            time_unix_nano=time_ns, start_time_unix_nano=start_ns if is_sum else 0, as_double=value,
            attributes=[_pair(key, text) for key, text in attributes.items()],
        )  # fmt: skip
        metric = metrics.get(name)
        if metric is None:
            cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
            kind = {"sum": Sum(aggregation_temporality=cumulative, is_monotonic=True)} if is_sum else {"gauge": Gauge()}
            metric = metrics[name] = Metric(name=name, **kind)
        (metric.sum if is_sum else metric.gauge).data_points.append(point)
    scope = ScopeMetrics(scope=InstrumentationScope(name=_SCOPE), metrics=metrics.values())
    group = ResourceMetrics(scope_metrics=[scope])
    group.resource.attributes.extend(_pair(key, value) for key, value in resource.items() if value)
    return ExportMetricsServiceRequest(resource_metrics=[group]).SerializeToString()


def _pair(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))
