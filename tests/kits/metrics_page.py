"""A model server whose page a test sets, the source that scrapes it, and what it told."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from agent.sources.metrics_page import MetricsPages
from agent.target import Place, Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

FIXTURES = Path(__file__).parents[1] / "fixtures"
SOON = 30.0


def vllm_page(name: str = "busy_04") -> str:
    return gzip.decompress((FIXTURES / f"vllm/metrics_{name}.txt.gz").read_bytes()).decode()


class Server:
    """A model server whose page, version and health a test sets."""

    def __init__(self) -> None:
        self.page: str | None = vllm_page()
        self.about: dict[str, object] = {"version": "0.32.0"}
        self.hang = asyncio.Event()
        self.hang.set()
        self.asked = 0
        self.at_once = 0
        self.most_at_once = 0
        self.url = ""

    async def metrics(self, _request: web.Request) -> web.Response:
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.hang.wait()
            return web.Response(status=503) if self.page is None else web.Response(text=self.page)
        finally:
            self.at_once -= 1

    async def tell(self, _request: web.Request) -> web.Response:
        return web.json_response(self.about)


class Seen:
    """What a source emitted, decoded."""

    def __init__(self) -> None:
        self.samples: list[tuple[dict[str, str], dict[str, float]]] = []
        self.events: list[tuple[str, str, dict[str, str], dict[str, str]]] = []
        self._news = asyncio.Event()

    def emit(self, signal: str, body: bytes) -> None:
        if signal == "metrics":
            for one in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                values = {}
                for metric in one.scope_metrics[0].metrics:
                    if metric.HasField("histogram"):
                        values[metric.name] = float(metric.histogram.data_points[0].count)
                    else:
                        points = metric.gauge.data_points or metric.sum.data_points
                        values[metric.name] = points[0].as_double
                self.samples.append(({pair.key: pair.value.string_value for pair in one.resource.attributes}, values))
        else:
            for logs in ExportLogsServiceRequest.FromString(body).resource_logs:
                whose = {pair.key: pair.value.string_value for pair in logs.resource.attributes}
                for record in logs.scope_logs[0].log_records:
                    details = {pair.key: pair.value.string_value for pair in record.attributes}
                    self.events.append((record.event_name, record.body.string_value, details, whose))
        self._news.set()

    def names(self, instance: str | None = None) -> list[str]:
        return [name for name, _, _, whose in self.events if instance in {None, whose["service.instance.id"]}]

    def of(self, instance: str) -> list[dict[str, float]]:
        return [values for whose, values in self.samples if whose["service.instance.id"] == instance]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(SOON):
            while not condition():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def serving(count: int = 1) -> AsyncIterator[list[Server]]:
    servers, runners = [], []
    for _ in range(count):
        server = Server()
        app = web.Application()
        app.router.add_get("/metrics", server.metrics)
        for path in ("/version", "/props", "/v2"):
            app.router.add_get(path, server.tell)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        servers.append(server)
        runners.append(runner)
    try:
        yield servers
    finally:
        for server, runner in zip(servers, runners, strict=True):
            server.hang.set()
            await runner.cleanup()


@asynccontextmanager
async def scraping(
    targets: Sequence[Target], *, timeout_seconds: float = SOON
) -> AsyncIterator[tuple[Seen, MetricsPages]]:
    seen = Seen()
    source = MetricsPages(targets, Place(region="eu-west-1"), interval_seconds=0.05, timeout_seconds=timeout_seconds)
    task = asyncio.create_task(source.run(seen.emit))
    try:
        yield seen, source
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def target(server: Server, instance: str = "a", engine: str | None = None) -> Target:
    return Target(instance, "chat", engine, server.url)
