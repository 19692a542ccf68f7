"""A source is one file: put beside the others it is asked whether it applies, runs, and what it observes is shipped."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from agent import sources
from agent.config import AgentConfig
from agent.sidecar import Sidecar, sources_for
from agent.source import Scene
from agent.target import Place, Target
from base.found import NotFoundError
from tests.kits.agent_fakes import FakeCollector, until

SOURCE = """
import asyncio
import time

from prometheus_client.core import GaugeMetricFamily

from agent.otlp.encode import attributes, encode_gauges, resource
from agent.source import METRICS, Source


class Barometer(Source):
    def __init__(self, scene):
        self.targets = list(scene.targets)
        self.place = scene.place

    async def run(self, emit):
        while True:
            rows = [(resource(attributes(one, self.place)), {"pressure_pascals": 101325.0}) for one in self.targets]
            emit("metrics", encode_gauges(rows, "servescope.weather", time.time_ns()))
            await asyncio.sleep(0.05)

    def watch(self, targets):
        self.targets += targets

    def metrics(self):
        yield GaugeMetricFamily(f"{METRICS}_barometers", "Barometers read.", value=1)

    def problems(self, now, since):
        yield "the barometer is foggy"


def source(scene):
    return Barometer(scene) if scene.config.region == "Bergen" else None
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "sources"
    found.mkdir()
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(found)])
    return found


def config(**more: object) -> AgentConfig:
    ports = {"health_port": 0, "otlp_http_port": None, "otlp_grpc_port": None}
    return AgentConfig.model_validate(
        ports | {"flush_seconds": 0.05, "host": False, "gpu": False, "probe": False, "black_box_seconds": 0} | more
    )


def scene(**more: object) -> Scene:
    return Scene(config(**more), Place(), (), lambda _instance: None, Path())


def rows(collector: FakeCollector) -> set[tuple[str, str]]:
    """(instance, metric) of all that came from the barometer."""
    return {
        (pair.value.string_value, metric.name)
        for group in ExportMetricsServiceRequest.FromString(collector.merged("metrics")).resource_metrics
        for pair in group.resource.attributes
        for scope in group.scope_metrics
        for metric in scope.metrics
        if pair.key == "service.instance.id" and scope.scope.name == "servescope.weather"
    }


async def test_a_source_is_one_file(folder: Path, tmp_path: Path):
    (folder / "barometer.py").write_text(SOURCE)
    (folder / "_shared.py").write_text("raise RuntimeError('nobody imports it')\n")
    async with FakeCollector() as collector:
        settings = config(collector=collector.url, region="Bergen")
        agent = Sidecar(settings, tmp_path, [Target("a", "d", url="http://127.0.0.1:9")])
        stop = asyncio.Event()
        task = asyncio.create_task(agent.run(stop))
        await until(lambda: task.done() or ("a", "pressure_pascals") in rows(collector))
        agent.watch([Target("b", "d", url="http://127.0.0.1:9")])
        await until(lambda: task.done() or ("b", "pressure_pascals") in rows(collector))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{agent.health.port}") as session:
            health = await (await session.get("/healthz")).json()
            page = await (await session.get("/metrics")).text()
        stop.set()
        await task
    assert health["sources"]["barometer"] == {"running": True, "restarts": 0}
    assert "the barometer is foggy" in health["problems"]
    assert "servescope_agent_barometers 1.0" in page


def test_a_source_says_whether_it_applies(folder: Path):
    (folder / "barometer2.py").write_text(SOURCE)
    assert "barometer2" not in sources_for(scene(region="Oslo"))
    assert "barometer2" in sources_for(scene(region="Bergen"))
    always = {"forward_passes", "kv_events", "metrics_page", "pod_resources", "spans"}
    assert set(sources_for(scene())) == always, "the others are switched off"
    assert set(sources_for(scene(host=True, gpu=True))) == always | {"host", "gpu"}
    assert "black_box" in sources_for(scene(black_box_seconds=60))


def test_a_file_that_makes_no_source_is_named(folder: Path):
    (folder / "empty_source.py").write_text("")
    with pytest.raises(NotFoundError, match=r"empty_source\.py has no source"):
        sources_for(scene())
