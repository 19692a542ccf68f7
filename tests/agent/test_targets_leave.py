"""Targets come and go: who names one, what is kept of one that left, and what is told of it."""

from __future__ import annotations

import asyncio
import gc
import gzip
import types
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from agent.config import AgentConfig
from agent.roster import Roster
from agent.sidecar import CONFIGURATION, Sidecar
from agent.target import KvEvents, Target
from agent.telemetry import describe
from tests.kits.agent_fakes import FakeCollector, until

if TYPE_CHECKING:
    from collections.abc import Iterator

FIXTURES = Path(__file__).parent.parent / "fixtures"
FREE = {"health_port": 0, "otlp_http_port": None, "otlp_grpc_port": None, "flush_seconds": 0.05, "gpu": False}


def target(name: str, port: int = 9) -> Target:
    return Target(name, "chat", url=f"http://127.0.0.1:{port}")


def names(targets: list[Target]) -> list[str]:
    return [one.instance for one in targets]


def test_an_instance_leaves_when_nobody_names_it_any_more():
    roster = Roster(10)
    assert names(roster.tell("dns", [target("a", 1), target("b", 2)]).found) == ["a", "b"]
    assert names(roster.tell("kubernetes", [target("b", 2), target("c", 3)]).found) == ["c"]
    change = roster.tell("dns", [target("a", 1)])
    assert (change.left, change.found) == ([], []), "the other names it too, as it is"
    change = roster.tell("kubernetes", [])
    assert (sorted(names(change.left)), names(roster.targets)) == (["b", "c"], ["a"])
    assert roster.left == {"dns": 0, "kubernetes": 2}
    assert roster.problems() == []


def test_a_server_that_moved_leaves_and_is_found():
    roster = Roster(10)
    roster.tell("kubernetes", [target("a", 1), target("b", 2)])
    change = roster.tell("kubernetes", [target("b", 2), target("a", 3)])
    assert [one.url for one in change.left] == ["http://127.0.0.1:1"]
    assert [one.url for one in change.found] == ["http://127.0.0.1:3"]


def test_no_more_are_watched_than_the_bound_and_what_is_above_is_told():
    roster = Roster(3)
    roster.tell("dns", [target(f"d{number}", number) for number in range(1, 3)])
    roster.tell("static", [target(f"s{number}", 10 + number) for number in range(9)])
    assert names(roster.targets) == ["d1", "d2", "s0"]
    assert roster.problems() == ["8 servers are not watched: agent.max_targets is 3"]
    turned = [target(f"s{number}", 10 + number) for number in reversed(range(9))]
    assert names(roster.tell("static", turned).left) == [], "the order changes nothing"
    change = roster.tell("dns", [])
    assert (names(change.left), len(change.found)) == (["d1", "d2"], 2), "there is room for others"
    assert roster.problems() == ["6 servers are not watched: agent.max_targets is 3"]


def test_one_server_under_two_names_is_watched_once_and_two_under_one_name_are_told():
    roster = Roster(9)
    roster.tell("static", [target("a", 1), target("b", 2)])
    roster.tell("dns", [target("chat-127.0.0.1:1", 1), target("b", 3)])
    assert names(roster.targets) == ["a", "b"]
    assert roster.problems() == ["b of dns is not watched: static has another server of that name"]
    assert names(roster.tell("static", []).found) == ["chat-127.0.0.1:1", "b"]
    assert roster.problems() == []


def mentioned(root: object, word: str) -> set[str]:
    """Texts with a word in all that can be reached from an object, but for modules and classes."""
    seen, found, todo = {id(root)}, set(), [root]
    while todo:
        one = todo.pop()
        if isinstance(one, str) and word in one:
            found.add(one)
        # a dictionary of texts does not tell the collector of its keys
        for other in (*gc.get_referents(one), *(one if isinstance(one, dict) else ())):
            if id(other) not in seen and not isinstance(other, types.ModuleType | type | types.FunctionType):
                seen.add(id(other))
                todo.append(other)
    return found


def test_of_a_thousand_that_came_and_went_nothing_is_kept(tmp_path: Path):
    config = AgentConfig.model_validate(FREE | {"gpu_pages": [{"url": "http://127.0.0.1:9/metrics"}]})
    agent = Sidecar(config, tmp_path, [target("stays")])
    spans, probe, box = agent.sources["spans"], agent.sources["probe"], agent.sources["black_box"]
    host: Any = agent.sources["host"]
    try:
        for number in range(1000):
            events = KvEvents(f"tcp://churn-{number}:5557")
            one = replace(target(f"churn-{number}", 20_000 + number), kv_events=events)
            agent.tell("dns:chat", [one])
            host._engines.know({one.instance: {4_000_000 + number: "vllm"}})
            spans.intake.stats.last_seen[one.instance] = 1.0
            probe._seen[one.instance] = 1.0
            probe._judge.freezes.stepped(one.instance, 1.0)
            probe._whose._by_pid[number] = one.instance
            probe._settings._ranks[one.instance] = {0: {}}
            probe._scene.overheard.inside[one.instance] = {}
            box._answered.add(one.instance)
            assert f"churn-{number}" in agent.sources["metrics_page"].stats
            if number == 500:
                assert mentioned(agent, "churn-500"), "the search sees what is kept"
        agent.tell("dns:chat", [])
        assert names(agent.targets) == ["stays"]
        assert agent.roster.left["dns:chat"] == 1000
        assert mentioned(agent, "churn-") == set()
        assert mentioned(agent, "stays")
    finally:
        agent.outlet.reader.close()


class Server:
    """A vLLM by its page, which can be stopped."""

    async def __aenter__(self) -> Self:
        page = gzip.decompress((FIXTURES / "vllm" / "metrics_busy_02.txt.gz").read_bytes())

        async def metrics(_request: web.Request) -> web.Response:
            return web.Response(body=page, content_type="text/plain")

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.port = self.runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()


def events(collector: FakeCollector) -> Iterator[tuple[str, str, int, dict[str, str]]]:
    """(event, instance, time, attributes) of all that came."""
    for group in ExportLogsServiceRequest.FromString(collector.merged("logs")).resource_logs:
        whose = {pair.key: pair.value.string_value for pair in group.resource.attributes}
        for scope in group.scope_logs:
            for one in scope.log_records:
                told = {pair.key: pair.value.string_value for pair in one.attributes}
                yield one.event_name, whose.get("service.instance.id", ""), one.time_unix_nano, told


def newest_sample(collector: FakeCollector, instance: str) -> int:
    return max(
        (
            point.time_unix_nano
            for group in ExportMetricsServiceRequest.FromString(collector.merged("metrics")).resource_metrics
            if any(pair.value.string_value == instance for pair in group.resource.attributes)
            for scope in group.scope_metrics
            if scope.scope.name == "servescope.sample"
            for metric in scope.metrics
            for point in metric.gauge.data_points
        ),
        default=0,
    )


async def test_one_that_left_goes_silent_after_the_word_of_it_and_one_that_comes_again_is_found(tmp_path: Path):
    async with FakeCollector() as collector, Server() as stays, Server() as goes:
        settings = AgentConfig.model_validate(
            FREE | {"collector": collector.url, "host": False, "probe": False, "interval_seconds": 0.1}
        )
        agent = Sidecar(settings, tmp_path, [target("stays", stays.port)])
        stop = asyncio.Event()
        living = asyncio.create_task(agent.run(stop))
        pages: Any = agent.sources["metrics_page"]
        await until(lambda: living.done() or ("stays" in pages.stats and pages.stats["stays"].last_good > 0))

        async def own_page() -> str:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{agent.health.port}") as session:
                return await (await session.get("/metrics")).text()

        agent.tell("dns:chat", [target("goes", goes.port)])
        await until(lambda: newest_sample(collector, "goes") > 0)
        assert agent._answers("goes") is True
        assert 'instance="goes"' in await own_page()
        agent.tell("dns:chat", [])
        after = pages.stats["stays"].scrapes
        assert 'instance="goes"' not in (page := await own_page())
        assert "servescope_agent_targets 1.0" in page
        assert 'servescope_agent_targets_left_total{by="dns:chat"} 1.0' in page
        assert list(describe(agent)["targets"]) == ["stays"]
        await until(lambda: pages.stats["stays"].scrapes > after + 3)
        agent.tell("dns:chat", [target("goes", goes.port)])
        await until(lambda: [one[:2] for one in events(collector)].count(("target_found", "goes")) == 2)
        await until(lambda: [one[:2] for one in events(collector)].count(("instance_up", "goes")) == 2)
        left = [one for one in events(collector) if one[0] == "target_left"]
        stop.set()
        await living
    ((_, instance, at, told),) = left
    assert (instance, told) == ("goes", {"by": "dns:chat"})
    of_it = [one[0] for one in events(collector) if one[1] == "goes"]
    assert of_it[0] == "target_found"
    assert "instance_down" not in of_it, "one that left did not go down"
    groups = ExportMetricsServiceRequest.FromString(collector.merged("metrics")).resource_metrics
    between = [
        point.time_unix_nano
        for group in groups
        if any(pair.value.string_value == "goes" for pair in group.resource.attributes)
        for scope in group.scope_metrics
        for metric in scope.metrics
        for point in metric.gauge.data_points
    ]
    found_again = max(one[2] for one in events(collector) if one[:2] == ("target_found", "goes"))
    assert between
    assert [time_ns for time_ns in between if at < time_ns < found_again] == []


async def test_a_configuration_that_is_read_again_takes_away_what_it_has_no_longer(tmp_path: Path):
    agent = Sidecar(AgentConfig.model_validate(FREE), tmp_path, [target("a", 1), target("b", 2)])
    try:
        before = agent.sources["metrics_page"].stats["a"]
        agent.tell(CONFIGURATION, [target("a", 1), target("c", 3)])
        assert names(agent.targets) == ["a", "c"]
        assert agent.sources["metrics_page"].stats["a"] is before, "what stays loses no second"
        assert agent._answers("c") is None
    finally:
        agent.outlet.reader.close()


def test_too_many_targets_are_named_with_the_setting():
    entries = [{"instance": f"i{number}", "url": f"http://h:{number + 1}"} for number in range(4)]
    with pytest.raises(ValueError, match="are 4, and max_targets is 3: raise it"):
        AgentConfig.model_validate({"targets": entries, "max_targets": 3})
