"""The agent's own health: ``/metrics`` for Prometheus, ``/healthz`` for people and supervisors.

The figures are read from the parts when somebody asks, so that counting costs nothing in between.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from agent.source import METRICS
from agent.supervision import State
from agent.tap.page import families as tap_metrics
from base import certificates
from base.certificates import Expirations
from base.errors import PortInUseError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from prometheus_client.metrics_core import Metric

    from agent.finder import Finder
    from agent.outlet import Outlet
    from agent.roster import Roster
    from agent.source import Source
    from agent.supervision import Supervision


class Watched(Protocol):
    """What health is told by: the sidecar."""

    outlet: Outlet
    started: float
    supervision: Supervision
    sources: dict[str, Source]
    finders: list[Finder]
    roster: Roster
    certificates: Mapping[str, Path]


class _Families:
    """Reads the parts at each scrape (the custom-collector protocol of prometheus_client)."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def collect(self) -> Iterator[Metric]:
        for source in self._watched.sources.values():
            yield from source.metrics()
        yield from self._targets()
        yield from self._spool()
        yield from self._ship()
        yield from tap_metrics(self._watched.outlet.spool)
        restarts = CounterMetricFamily(
            f"{METRICS}_source_restarts", "Times a source failed and was begun again.", labels=["source"]
        )
        for name, charge in self._watched.supervision.charges.items():
            restarts.add_metric([name], charge.restarts)
        yield restarts

    def _targets(self) -> Iterator[Metric]:
        watched = self._watched
        yield GaugeMetricFamily(f"{METRICS}_targets", "Servers that are watched.", value=len(watched.roster.targets))
        left = CounterMetricFamily(
            f"{METRICS}_targets_left", "Servers that left on purpose, by who let them go.", labels=["by"]
        )
        failures = CounterMetricFamily(f"{METRICS}_discovery_failures", "Looks for servers that failed.", labels=["by"])
        for by, count in watched.roster.left.items():
            left.add_metric([by], count)
        for finder in watched.finders:
            failures.add_metric([finder.name], finder.failures)
        yield from (left, failures)

    def _spool(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily(f"{METRICS}_spool_bytes", "Bytes waiting to be sent.", labels=["producer", "signal"])
        delivered = CounterMetricFamily(
            f"{METRICS}_records_delivered", "Records acknowledged.", labels=["producer", "signal"]
        )
        dropped = CounterMetricFamily(
            f"{METRICS}_records_dropped", "Records given up, by reason.", labels=["producer", "signal", "reason"]
        )
        for lane in self._watched.outlet.reader.lanes():
            depth.add_metric([lane.producer, lane.signal], lane.pending_bytes())
            delivered.add_metric([lane.producer, lane.signal], lane.delivered)
            for reason, count in lane.dropped.items():
                dropped.add_metric([lane.producer, lane.signal, reason], count)
        for reason, count in self._watched.outlet.writer.dropped.items():
            dropped.add_metric(["agent", "", reason], count)
        yield from (depth, delivered, dropped)

    def _ship(self) -> Iterator[Metric]:
        stats = self._watched.outlet.shipper.stats
        batches = CounterMetricFamily(f"{METRICS}_batches", "Batches acknowledged.", labels=["signal"])
        sent = CounterMetricFamily(
            f"{METRICS}_sent_bytes", "Compressed bytes of acknowledged batches.", labels=["signal"]
        )
        errors = CounterMetricFamily(f"{METRICS}_ship_errors", "Attempts that failed.", labels=["reason"])
        for signal, count in stats.batches.items():
            batches.add_metric([signal], count)
            sent.add_metric([signal], stats.sent_bytes[signal])
        for reason, count in stats.errors.items():
            errors.add_metric([reason], count)
        yield from (batches, sent, errors)
        yield CounterMetricFamily(
            f"{METRICS}_records_rejected", "Records refused in acknowledged batches.", value=stats.partly_rejected
        )
        yield GaugeMetricFamily(
            f"{METRICS}_last_ship_timestamp_seconds", "Last acknowledgement.", value=stats.last_success
        )
        if stats.clock_offset_seconds is not None:
            yield GaugeMetricFamily(
                f"{METRICS}_clock_offset_seconds", "Collector's clock minus ours.", value=stats.clock_offset_seconds
            )


def describe(watched: Watched, now: float | None = None) -> dict[str, Any]:
    """The answer of ``/healthz``.

    Returns:
        ``status`` is ``ok``, or ``degraded`` with ``problems`` in plain English. A target's ``page_age_seconds`` and
        ``spans_age_seconds`` are None where nothing came since the start: configured but silent.
    """
    now = time.time() if now is None else now
    outlet, charges, sources = watched.outlet, watched.supervision.charges, watched.sources.values()
    stats = outlet.shipper.stats
    seen = {what: times for source in sources for what, times in source.seen().items()}
    targets = {
        one.instance: {f"{what}_age_seconds": _age(now, times.get(one.instance, 0.0)) for what, times in seen.items()}
        for one in watched.roster.targets
    }
    problems = [problem for source in sources for problem in source.problems(now, watched.started)]
    problems += [problem for finder in watched.finders for problem in finder.problems()] + watched.roster.problems()
    problems += [f"the source {name} is down" for name, charge in charges.items() if charge.state is not State.RUNNING]
    if stats.last_error:
        problems.append(f"batches do not get through: {stats.last_error}")
    problems += certificates.told(watched.certificates, now)
    lanes = outlet.reader.lanes()
    dropped = sum((lane.dropped for lane in lanes), start=type(outlet.writer.dropped)()) + outlet.writer.dropped
    return {
        "status": "degraded" if problems else "ok",
        "problems": problems,
        "targets": targets,
        "sources": {
            name: {"running": charge.state is State.RUNNING, "restarts": charge.restarts}
            for name, charge in charges.items()
        },
        "spool": {"bytes": sum(lane.pending_bytes() for lane in lanes), "dropped": dict(dropped)},
        "ship": {
            "batches": dict(stats.batches),
            "errors": dict(stats.errors),
            "last_success_age_seconds": _age(now, stats.last_success),
            "clock_offset_seconds": stats.clock_offset_seconds,
        },
    }


def _age(now: float, when: float) -> float | None:
    return round(max(0.0, now - when), 3) if when else None


class HealthServer:
    """Serves ``/metrics`` and ``/healthz``; both answer 200 while the process lives, a fault is in the body."""

    def __init__(self, watched: Watched, host: str, port: int) -> None:
        self.port = port
        self._watched = watched
        self._host = host
        self._registry = CollectorRegistry()
        self._registry.register(_Families(watched))
        self._registry.register(Expirations(METRICS, watched.certificates))
        ProcessCollector(registry=self._registry)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            PortInUseError: The port is taken.
        """
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self.port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise PortInUseError(
                f"the agent can't listen for health on {self._host}:{self.port}: {error.strerror}",
                "Stop what listens there, or set agent.health_port.",
            ) from error
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response(describe(self._watched))
