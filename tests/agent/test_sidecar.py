from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from agent import sources, supervision
from agent.config import AgentConfig
from agent.discovery import local
from agent.sidecar import Life, Sidecar
from agent.target import Target
from agent.telemetry import describe
from base.errors import PortInUseError
from tests.kits.agent_fakes import FakeCollector, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PAGE = Path(__file__).parent.parent / "fixtures" / "vllm" / "metrics_busy_02.txt.gz"
FREE = {"health_port": 0, "otlp_http_port": 0, "otlp_grpc_port": None, "flush_seconds": 0.05, "drain_seconds": 20}


@asynccontextmanager
async def model_server() -> AsyncIterator[str]:
    page = gzip.decompress(PAGE.read_bytes())

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=page, content_type="text/plain")

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@asynccontextmanager
async def living(agent: Sidecar) -> AsyncIterator[Sidecar]:
    stop = asyncio.Event()
    task = asyncio.create_task(agent.run(stop))
    await until(lambda: task.done() or "spans" in agent.supervision.charges)
    if task.done():
        task.result()
    yield agent
    stop.set()
    await task


def config(collector: str, **more: Any) -> AgentConfig:
    return AgentConfig.model_validate(FREE | {"collector": collector, "gpu": False} | more)


async def get(agent: Sidecar, path: str) -> Any:
    url = f"http://127.0.0.1:{agent.health.port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        return await (response.json() if path == "/healthz" else response.text())


def events(collector: FakeCollector) -> list[str]:
    return [
        record.event_name
        for group in ExportLogsServiceRequest.FromString(collector.merged("logs")).resource_logs
        for scope in group.scope_logs
        for record in scope.log_records
    ]


def scopes(collector: FakeCollector) -> set[str]:
    groups = ExportMetricsServiceRequest.FromString(collector.merged("metrics")).resource_metrics
    return {scope.scope.name for group in groups for scope in group.scope_metrics}


async def test_pages_host_and_spans_reach_the_collector(tmp_path: Path):
    async with FakeCollector() as collector, model_server() as url:
        targets = [Target("vllm-a", "chat", url=url)]
        async with living(Sidecar(config(collector.url), tmp_path, targets)) as agent:
            await until(lambda: {"servescope.sample", "servescope.host"} <= scopes(collector))
            body = ExportTraceServiceRequest()
            group = body.resource_spans.add().scope_spans.add()
            group.scope.name = "vllm.tracing.otel"
            group.spans.add(name="llm_request", trace_id=b"t" * 16, span_id=b"s" * 8)
            otlp = f"http://127.0.0.1:{agent.sources['spans'].http_port}/v1/traces"
            headers = {"Content-Type": "application/x-protobuf"}
            health = await get(agent, "/healthz")
            assert health["targets"]["vllm-a"]["spans_age_seconds"] is None, "configured but silent"
            async with aiohttp.ClientSession() as session:
                assert (await session.post(otlp, data=body.SerializeToString(), headers=headers)).status == 200
            await until(lambda: bool(collector.accepted["traces"]))
            health = await get(agent, "/healthz")
            assert health["status"] == "ok"
            assert health["targets"]["vllm-a"]["spans_age_seconds"] < 30
            assert health["targets"]["vllm-a"]["page_age_seconds"] < 30
            page = await get(agent, "/metrics")
            told = [line for line in page.splitlines() if line.startswith("# TYPE")]
            assert len(told) == len(set(told)) > 10, "each family is described once, or parsers refuse the page"
            families = {family.name for family in text_string_to_metric_families(page)}
    (spans,) = ExportTraceServiceRequest.FromString(collector.merged("traces")).resource_spans
    whose = {pair.key: pair.value.string_value for pair in spans.resource.attributes}
    assert whose["service.instance.id"] == "vllm-a"
    assert whose["servescope.engine"] == "vllm", "learnt from the page"
    assert {"agent_started", "instance_up", "instance_config"} <= set(events(collector))
    assert {
        "servescope_agent_last_page_timestamp_seconds",
        "servescope_agent_spool_bytes",
        "servescope_agent_records_dropped",
        "servescope_agent_ship_errors",
    } <= families


FAILING = """
from agent.source import Source

class Failing(Source):
    runs = 0

    async def run(self, emit):
        self.runs += 1
        raise RuntimeError("broken")

def source(scene):
    return Failing()
"""


async def test_a_source_that_fails_is_begun_again_and_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "failing.py").write_text(FAILING)
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(folder)])
    monkeypatch.setattr(supervision.Backoff, "failed", lambda *_arguments: 0.01)
    async with (
        FakeCollector() as collector,
        model_server() as url,
        living(Sidecar(config(collector.url), tmp_path, [Target("a", "a", url=url)])) as agent,
    ):
        await until(lambda: agent.sources["failing"].runs >= 3 and "servescope.sample" in scopes(collector))
        health = await get(agent, "/healthz")
        assert health["sources"]["failing"]["restarts"] >= 2
        assert health["sources"]["metrics_page"] == {"running": True, "restarts": 0}
        assert agent.sources["metrics_page"].stats["a"].failures == 0


async def test_servers_that_appear_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with FakeCollector() as collector, model_server() as url:
        found = [Target("vllm-new", "vllm", engine="vllm", url=url)]

        async def look(_self: object, *, known: list[Target], skip_ports: object) -> list[Target]:
            return [] if known else found

        monkeypatch.setattr(local.NewServers, "find", look)
        async with living(Sidecar(config(collector.url, discover=True, host=False), tmp_path, [])) as agent:
            pages, spans = agent.sources["metrics_page"], agent.sources["spans"]
            await until(lambda: "vllm-new" in pages.stats and pages.stats["vllm-new"].last_good > 0)
            await until(lambda: "target_found" in events(collector))
            assert [target.instance for target in spans.intake.match("", ["vllm.tracing"])] == ["vllm-new"]
            await until(lambda: "vllm-new" in describe(agent)["targets"])
            agent.life = Life.DRAINING
            agent.watch([Target("too-late", "vllm", engine="vllm", url=url)])
            assert list(pages.stats) == ["vllm-new"], "an agent that drains takes on nothing"
            agent.life = Life.WATCHING


async def test_what_is_wrong_is_said_in_plain_words(tmp_path: Path):
    async with FakeCollector() as collector:
        collector.answer = lambda _signal, _body, _batch: web.Response(status=401, text="the key id is unknown here")
        settings = config(collector.url, host=False, drain_seconds=0.1)
        async with living(Sidecar(settings, tmp_path, [Target("gone", "d", url="http://127.0.0.1:9")])) as agent:
            await until(lambda: bool(agent.outlet.shipper.stats.last_error))
            health = describe(agent, now=agent.started + 60)
    assert health["status"] == "degraded"
    told = next(text for text in health["problems"] if text.startswith("gone has shown no metrics page since"))
    assert "Cannot connect to host 127.0.0.1:9" in told
    assert any("the key id is unknown here" in problem for problem in health["problems"])
    assert health["spool"]["bytes"] > 0


async def test_a_taken_health_port_is_named_and_all_is_let_go(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        agent = Sidecar(config("http://127.0.0.1:9", health_port=taken.getsockname()[1]), tmp_path, [])
        with pytest.raises(PortInUseError, match="health_port"):
            await agent.run(asyncio.Event())
    Sidecar(config("http://127.0.0.1:9"), tmp_path, []).outlet.reader.close()


async def test_own_spans_are_sent_when_wanted(tmp_path: Path):
    async with FakeCollector() as collector:
        async with living(Sidecar(config(collector.url, self_spans=True, host=False), tmp_path, [])):
            await until(lambda: bool(collector.accepted["logs"]))
        names = {
            span.name
            for _, body in collector.accepted["traces"]
            for group in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        }
    assert names == {"ship"}


def test_the_process_ends_cleanly_and_refuses_plainly(tmp_path: Path):
    command = [sys.executable, "-m", "agent", "--data", str(tmp_path), "--collector", "http://127.0.0.1:9"]
    settings = {
        "SERVESCOPE_AGENT_HEALTH_PORT": "0",
        "SERVESCOPE_AGENT_OTLP_HTTP_PORT": "null",
        "SERVESCOPE_AGENT_OTLP_GRPC_PORT": "null",
        "SERVESCOPE_AGENT_DRAIN_SECONDS": "0.1",
    }
    refused = subprocess.run(
        [*command, "--target", "ftp://x"], env=os.environ | settings, check=False, capture_output=True, text=True
    )
    assert (refused.returncode, len(refused.stderr.strip().splitlines())) == (1, 1)
    process = subprocess.Popen(command, env=os.environ | settings, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "agent_started" in line:
            break
    process.send_signal(signal.SIGTERM)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert "agent_stopped" in rest


def test_what_is_large_is_not_loaded_by_those_who_do_not_use_it():
    code = """
import sys, agent.__main__
from agent import sources
from base import found
found.members(sources, "source")
print(*(name in sys.modules for name in ("grpc", "pandas", "opentelemetry.sdk", "pynvml")))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False"] * 4


def test_what_is_read_again_is_said_and_what_is_not_too(tmp_path: Path):
    file = tmp_path / "servescope.yaml"
    quiet = FREE | {"otlp_http_port": None, "collector": "http://127.0.0.1:9", "gpu": False, "host": False}

    def write(**more: Any) -> None:
        file.write_text(json.dumps({"agent": quiet | {"drain_seconds": 0.1, "probe": False} | more}))

    write(targets=[{"instance": "a", "url": "http://127.0.0.1:9"}])
    command = [sys.executable, "-m", "agent", "--data", str(tmp_path / "data"), "--config", str(file)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None

    def told(event: str) -> dict[str, Any]:
        for line in process.stderr or ():
            if line.startswith("{") and (found := json.loads(line)).get("event") == event:
                return dict(found)
        raise AssertionError(event)

    told("agent_started")
    write(targets=[{"instance": "b", "url": "http://127.0.0.1:9"}], interval_seconds=2, region="north")
    process.send_signal(signal.SIGHUP)
    assert told("agent_reloaded")["targets"] == ["b"]
    assert told("settings_changed_in_vain")["settings"] == ["interval_seconds", "region"]
    file.write_text("agent: [")
    process.send_signal(signal.SIGHUP)
    assert str(file) in told("reload_failed")["error"]
    process.send_signal(signal.SIGTERM)
    assert "agent_stopped" in process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
