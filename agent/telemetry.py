"""The agent's own health: ``/metrics`` for Prometheus, ``/healthz`` for people and supervisors, spans of its own work.

The figures are read from the parts when somebody asks, so that counting costs nothing in between.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from base.errors import PortInUseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from prometheus_client.metrics_core import Metric

    from agent.ship import OpenSpan, Shipper
    from agent.sources.metrics_page import ScrapeStats
    from agent.sources.spans import SpanStats
    from agent.spool.reader import SpoolReader
    from agent.spool.writer import SpoolWriter

_P = "servescope_agent"
_STALE_SECONDS = 15.0


class Watched(Protocol):
    """What health is told by: the sidecar."""

    writer: SpoolWriter
    reader: SpoolReader
    shipper: Shipper
    started: float

    @property
    def restarts(self) -> Mapping[str, int]:
        """Times a source failed, by its name."""
        ...

    @property
    def running(self) -> Mapping[str, bool]:
        """Whether a source runs now, by its name."""
        ...

    def scrapes(self) -> Mapping[str, ScrapeStats]:
        """Counts of the metrics pages, by instance."""
        ...

    def spans(self) -> SpanStats:
        """Counts of the spans that came in."""
        ...


class _Families:
    """Reads the parts at each scrape (the custom-collector protocol of prometheus_client)."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def collect(self) -> Iterator[Metric]:
        yield from self._targets()
        yield from self._spool()
        yield from self._ship()
        restarts = CounterMetricFamily(
            f"{_P}_source_restarts", "Times a source failed and was begun again.", labels=["source"]
        )
        for source, count in self._watched.restarts.items():
            restarts.add_metric([source], count)
        yield restarts

    def _targets(self) -> Iterator[Metric]:
        pages = GaugeMetricFamily(
            f"{_P}_last_page_timestamp_seconds", "When a target's page was last read.", labels=["instance"]
        )
        scrapes = CounterMetricFamily(f"{_P}_scrapes", "Metrics pages asked for.", labels=["instance"])
        failures = CounterMetricFamily(f"{_P}_scrape_failures", "Metrics pages that did not come.", labels=["instance"])
        malformed = CounterMetricFamily(f"{_P}_malformed_lines", "Lines of pages passed over.", labels=["instance"])
        unknown = CounterMetricFamily(f"{_P}_unknown_pages", "Pages of no known engine.", labels=["instance"])
        for instance, stats in self._watched.scrapes().items():
            pages.add_metric([instance], stats.last_good)
            scrapes.add_metric([instance], stats.scrapes)
            failures.add_metric([instance], stats.failures)
            malformed.add_metric([instance], stats.malformed_lines)
            unknown.add_metric([instance], stats.unknown_pages)
        yield from (pages, scrapes, failures, malformed, unknown)
        spans = self._watched.spans()
        seen = GaugeMetricFamily(
            f"{_P}_last_spans_timestamp_seconds", "When a target last sent spans.", labels=["instance"]
        )
        for instance, when in spans.last_seen.items():
            seen.add_metric([instance], when)
        yield seen
        received = CounterMetricFamily(
            f"{_P}_otlp_requests", "OTLP requests received, by what became of them.", labels=["result"]
        )
        for result, count in (
            ("taken", spans.requests),
            ("malformed", spans.malformed),
            ("refused", spans.refused),
            ("too_large", spans.too_large),
        ):
            received.add_metric([result], count)
        yield received
        yield CounterMetricFamily(f"{_P}_spans_rejected", "Spans without ids.", value=spans.rejected)
        yield CounterMetricFamily(f"{_P}_prompt_values_removed", "Prompt-bearing values removed.", value=spans.scrubbed)
        yield CounterMetricFamily(f"{_P}_unmatched_groups", "Span groups of no known target.", value=spans.unmatched)

    def _spool(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily(f"{_P}_spool_bytes", "Bytes waiting to be sent.", labels=["producer", "signal"])
        delivered = CounterMetricFamily(
            f"{_P}_records_delivered", "Records acknowledged.", labels=["producer", "signal"]
        )
        dropped = CounterMetricFamily(
            f"{_P}_records_dropped", "Records given up, by reason.", labels=["producer", "signal", "reason"]
        )
        for lane in self._watched.reader.lanes():
            depth.add_metric([lane.producer, lane.signal], lane.pending_bytes())
            delivered.add_metric([lane.producer, lane.signal], lane.delivered)
            for reason, count in lane.dropped.items():
                dropped.add_metric([lane.producer, lane.signal, reason], count)
        for reason, count in self._watched.writer.dropped.items():
            dropped.add_metric(["agent", "", reason], count)
        yield from (depth, delivered, dropped)

    def _ship(self) -> Iterator[Metric]:
        stats = self._watched.shipper.stats
        batches = CounterMetricFamily(f"{_P}_batches", "Batches acknowledged.", labels=["signal"])
        sent = CounterMetricFamily(f"{_P}_sent_bytes", "Compressed bytes of acknowledged batches.", labels=["signal"])
        errors = CounterMetricFamily(f"{_P}_ship_errors", "Attempts that failed.", labels=["reason"])
        for signal, count in stats.batches.items():
            batches.add_metric([signal], count)
            sent.add_metric([signal], stats.sent_bytes[signal])
        for reason, count in stats.errors.items():
            errors.add_metric([reason], count)
        yield from (batches, sent, errors)
        yield CounterMetricFamily(
            f"{_P}_records_rejected", "Records refused in acknowledged batches.", value=stats.partly_rejected
        )
        yield GaugeMetricFamily(f"{_P}_last_ship_timestamp_seconds", "Last acknowledgement.", value=stats.last_success)
        if stats.clock_offset_seconds is not None:
            yield GaugeMetricFamily(
                f"{_P}_clock_offset_seconds", "Collector's clock minus ours.", value=stats.clock_offset_seconds
            )


def describe(watched: Watched, now: float | None = None) -> dict[str, Any]:
    """The answer of ``/healthz``.

    Returns:
        ``status`` is ``ok``, or ``degraded`` with ``problems`` in plain English. A target's ``page_age_seconds`` and
        ``spans_age_seconds`` are None where nothing came since the start: configured but silent.
    """
    now = time.time() if now is None else now
    stats, spans = watched.shipper.stats, watched.spans()
    scrapes = watched.scrapes()
    targets = {
        instance: {
            "page_age_seconds": _age(now, scrape.last_good),
            "spans_age_seconds": _age(now, spans.last_seen.get(instance, 0.0)),
        }
        for instance, scrape in scrapes.items()
    }
    fresh = now - watched.started < _STALE_SECONDS
    problems = [
        f"{instance} has shown no metrics page "
        + ("since the start" if age is None else f"for {age:.0f} s")
        + (f": {scrapes[instance].last_error}" if scrapes[instance].last_error else "")
        for instance, target in targets.items()
        if not fresh and ((age := target["page_age_seconds"]) is None or age > _STALE_SECONDS)
    ]
    problems += [f"the source {name} is down" for name, running in watched.running.items() if not running]
    if stats.last_error:
        problems.append(f"batches do not get through: {stats.last_error}")
    lanes = watched.reader.lanes()
    dropped = sum((lane.dropped for lane in lanes), start=type(watched.writer.dropped)()) + watched.writer.dropped
    return {
        "status": "degraded" if problems else "ok",
        "problems": problems,
        "targets": targets,
        "sources": {
            name: {"running": up, "restarts": watched.restarts.get(name, 0)} for name, up in watched.running.items()
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


def start_self_spans(collector: str) -> tuple[OpenSpan, Callable[[], None]]:
    """Spans of the agent's own work, sent to its own collector by opentelemetry-sdk.

    Returns:
        How to open a span (name, attributes), and what flushes and ends it all.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - paid when wanted
    from opentelemetry.sdk.resources import Resource as SdkResource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=SdkResource({"service.name": "servescope-agent"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{collector.rstrip('/')}/v1/traces")))
    tracer = provider.get_tracer("servescope.agent")

    def open_span(name: str, attributes: Mapping[str, str | int]) -> AbstractContextManager[object]:
        return tracer.start_as_current_span(name, attributes=attributes)

    return open_span, provider.shutdown
