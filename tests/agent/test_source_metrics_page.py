from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from agent.pages.page import Limits, PageReader
from agent.pages.watch import Watch
from agent.sources.metrics_page import MetricsPages
from agent.target import Known, Place, Target
from base.errors import PageError, UnknownEngineError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from agent.pages.page import Page

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


async def test_samples_carry_target_model_and_increase():
    async with serving() as (server,), scraping([target(server)]) as (seen, source):
        await seen.until(lambda: seen.samples)
        server.page = vllm_page("after")
        await seen.until(lambda: any(values.get("generation_tokens_delta") for values in seen.of("a")))
        whose, first = seen.samples[0]
        assert whose["service.name"] == "chat"
        assert whose["servescope.engine"] == "vllm"
        assert whose["servescope.model"] == "tiny"
        assert whose["servescope.dp_rank"] == "0"
        assert whose["service.version"] == "0.32.0"
        assert whose["cloud.region"] == "eu-west-1"
        assert first["up"] == 1
        assert first["running"] == 10
        assert "generation_tokens_delta" not in first
        moved = [values for values in seen.of("a") if values.get("generation_tokens_delta")]
        assert [values["generation_tokens_delta"] for values in moved] == [332]
        assert moved[0]["itl_seconds"] == 332
        assert moved[0]["interval_seconds"] > 0
        assert source.stats["a"].failures == 0
        finished = sum(values.get("requests_finished_delta", 0.0) for values in seen.of("a"))
        assert finished > 0
        assert source.known("a") == Known("vllm", "0.32.0", "tiny", finished)
    assert seen.names()[:2] == ["instance_up", "instance_config"]
    (config,) = [details for name, _, details, _ in seen.events if name == "instance_config"]
    assert config["num_gpu_blocks"] == "8192"


async def test_down_and_up_again_is_told_once_each():
    async with serving() as (server,), scraping([target(server)]) as (seen, source):
        await seen.until(lambda: seen.samples)
        server.page = None
        await seen.until(lambda: sum(values["up"] == 0 for values in seen.of("a")) >= 3)
        whose, values = seen.samples[-1]
        assert values == {"up": 0}
        assert whose["servescope.model"] == "tiny"
        server.page = vllm_page()
        await seen.until(lambda: seen.of("a")[-1]["up"] == 1)
        assert source.stats["a"].failures >= 3
    ups_and_downs = [name for name in seen.names() if name in {"instance_up", "instance_down"}]
    assert ups_and_downs == ["instance_up", "instance_down", "instance_up"]
    firsts = [details.get("first") for name, _, details, _ in seen.events if name == "instance_up"]
    assert firsts == ["true", None]
    assert any("503" in message for name, message, _, _ in seen.events if name == "instance_down")


async def test_what_never_answered_is_down():
    async with serving() as (server,):
        gone = Target("a", "chat", "vllm", server.url)
    async with scraping([gone]) as (seen, _):
        await seen.until(lambda: len(seen.of("a")) >= 2)
    assert seen.names() == ["instance_down"]
    assert all(values == {"up": 0} for values in seen.of("a"))


async def test_a_hung_server_is_never_asked_twice_at_once_and_stops_nobody():
    async with serving(2) as (hung, well):
        hung.hang.clear()
        async with scraping([target(hung, "hung"), target(well, "well")]) as (seen, _):
            await seen.until(lambda: len(seen.of("well")) >= 8)
        assert hung.asked == 1
        assert hung.most_at_once == 1
        assert seen.of("hung") == []


async def test_a_server_is_asked_once_an_interval_and_what_was_missed_is_not_caught_up():
    loop = asyncio.get_running_loop()
    async with serving() as (server,):
        begun = loop.time()
        async with scraping([target(server)]) as (seen, _):
            await seen.until(lambda: len(seen.of("a")) >= 4)
            server.hang.clear()
            await asyncio.sleep(0.5)
            server.hang.set()
            so_far = len(seen.of("a"))
            await seen.until(lambda: len(seen.of("a")) >= so_far + 4)
            turns = (loop.time() - begun) / 0.05
        # Ten intervals passed while it hung; only a lower bound of time is asked, so a busy machine does no harm.
        assert server.asked <= turns - 8 + 2


async def test_a_hung_server_is_down_after_the_timeout():
    async with serving() as (server,):
        server.hang.clear()
        async with scraping([target(server)], timeout_seconds=0.2) as (seen, _):
            await seen.until(lambda: seen.samples)
    assert seen.samples[0][1] == {"up": 0}
    assert seen.events[0][2] == {"reason": "no answer in time"}


async def test_a_restart_is_noticed_by_the_start_time():
    async with serving() as (server,), scraping([target(server)]) as (seen, _):
        await seen.until(lambda: seen.samples)
        assert server.page is not None
        server.page = server.page.replace(
            "process_start_time_seconds 1.79548712635e+09", "process_start_time_seconds 1.8e+09"
        )
        server.about = {"version": "0.33.0"}
        await seen.until(lambda: "version_changed" in seen.names())
        await seen.until(lambda: seen.samples[-1][0]["service.version"] == "0.33.0")
        restarted = [values for values in seen.of("a") if values.get("generation_tokens_delta")]
        assert [values["generation_tokens_delta"] for values in restarted] == [13378]
    assert seen.names().count("instance_restarted") == 1
    (change,) = [details for name, _, details, _ in seen.events if name == "version_changed"]
    assert change == {"from": "0.32.0", "to": "0.33.0"}


async def test_a_changed_configuration_is_told_with_what_changed():
    async with serving() as (server,), scraping([target(server)]) as (seen, _):
        await seen.until(lambda: "instance_config" in seen.names())
        assert server.page is not None
        server.page = server.page.replace('num_gpu_blocks="8192"', 'num_gpu_blocks="40"')
        await seen.until(lambda: seen.names().count("instance_config") == 2)
    (change,) = [details for name, _, details, _ in seen.events if name == "config_changed"]
    assert change == {"num_gpu_blocks": "8192 → 40"}


async def test_a_broken_contract_is_told_once_and_so_is_its_end():
    async with serving() as (server,), scraping([target(server)]) as (seen, _):
        await seen.until(lambda: seen.of("a"))
        server.page = vllm_page().replace("vllm:num_preemptions_total", "vllm:num_evicted_total")
        await seen.until(lambda: seen.names().count("contract_broken") == 2)
        count = len(seen.of("a"))
        await seen.until(lambda: len(seen.of("a")) > count + 5)
        assert "preemptions_total" not in seen.of("a")[-1]
        server.page = vllm_page()
        await seen.until(lambda: "contract_mended" in seen.names())
    told = [(details["kind"], details["what"]) for name, _, details, _ in seen.events if name == "contract_broken"]
    assert told == [("unknown", "vllm:num_evicted_total"), ("gone", "preemptions_total")]


async def test_what_hands_requests_on_is_a_router_unless_its_owner_says_otherwise():
    page = "litellm_in_flight_requests 3\n"
    for given, role in (("both", "router"), ("prefill", "prefill")):
        async with serving() as (server,):
            server.page = page
            asked = replace(target(server), engine=None, role=given)
            async with scraping([asked]) as (seen, _):
                await seen.until(lambda: seen.of("a"))
                whose, values = seen.samples[-1]
        assert (whose["servescope.role"], whose["servescope.engine"], values["running"]) == (role, "litellm", 3)


async def test_malformed_lines_are_told_once_and_the_rest_is_read():
    async with serving() as (server,), scraping([target(server)]) as (seen, source):
        server.page = vllm_page() + "broken{\n"
        await seen.until(lambda: len(seen.of("a")) >= 4)
        assert source.stats["a"].malformed_lines >= 1
    assert seen.names().count("page_malformed") == 1
    assert seen.of("a")[-1]["running"] == 10


@pytest.mark.parametrize("by", ["base URL", "page URL"])
async def test_a_page_of_an_unknown_engine_is_up_and_named_once(by: str):
    async with serving() as (server,):
        server.page = "node_load1 1\n"
        page_url = (
            Target("a", "chat", None, metrics_url=f"{server.url}/metrics") if by == "page URL" else target(server)
        )
        async with scraping([page_url]) as (seen, source):
            await seen.until(lambda: len(seen.of("a")) >= 3)
            assert set(seen.of("a")[-1]) == {"up", "scrape_seconds"}
            assert source.stats["a"].unknown_pages >= 3
            # The server behind it may be replaced by one that is known.
            server.page = vllm_page()
            await seen.until(lambda: "running" in seen.of("a")[-1])
    assert seen.names()[:2] == ["instance_up", "engine_unknown"]
    assert seen.names().count("engine_unknown") == 1


async def test_statistics_that_are_told_only_once_are_left_to_whoever_reads_them():
    async with serving() as (server,):
        server.page = '[{"iter": 7, "numActiveRequests": 1}]'
        async with scraping([target(server)]) as (seen, source):
            await seen.until(lambda: len(seen.of("a")) >= 5)
            asked = server.asked
            told = source.stats["a"].last_error
    assert asked == 1
    assert "told to one reader only" in told
    assert seen.names() == ["instance_down"]


async def test_llamacpp_has_its_model_from_props():
    async with serving() as (server,):
        server.page = (FIXTURES / "llamacpp/metrics_busy.txt").read_text()
        server.about = json.loads((FIXTURES / "llamacpp/props.json").read_text())
        async with scraping([target(server)]) as (seen, _):
            await seen.until(lambda: seen.samples)
    whose, values = seen.samples[0]
    assert whose["servescope.model"] == "tiny"
    assert whose["servescope.engine"] == "llamacpp"
    assert "servescope.dp_rank" not in whose
    assert values["generation_tokens_total"] == 68280
    (config,) = [details for name, _, details, _ in seen.events if name == "instance_config"]
    assert config["total_slots"] == "4"
    assert not any("chat_template" in key for key in config)


async def test_a_changed_setting_that_only_props_tells_is_a_change_too():
    async with serving() as (server,):
        server.page = (FIXTURES / "llamacpp/metrics_busy.txt").read_text()
        server.about = {"build_info": "b1", "model_alias": "tiny", "total_slots": 4}
        async with scraping([target(server)]) as (seen, _):
            await seen.until(lambda: "instance_config" in seen.names())
            server.about = {"build_info": "b1", "model_alias": "tiny", "total_slots": 8}
            server.page = None
            await seen.until(lambda: "instance_down" in seen.names())
            server.page = (FIXTURES / "llamacpp/metrics_busy.txt").read_text()
            await seen.until(lambda: seen.names().count("instance_config") == 2)
    (change,) = [details for name, _, details, _ in seen.events if name == "config_changed"]
    assert change == {"total_slots": "4 → 8"}


async def test_a_server_that_has_no_page_is_not_asked_everywhere_for_ever(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    there = ""

    async def read(_: Watch, _session: object, url: str, _key: object) -> Page:
        asked.append(url)
        if url != there:
            raise PageError(f"{url} answers 404", "Give the URL of its metrics page")
        return PageReader(Limits()).read(vllm_page().encode())

    monkeypatch.setattr(Watch, "_read", read)
    watch, seen = Watch(Target("a", "chat", url="http://127.0.0.1:9"), Place(), Limits()), Seen()
    async with aiohttp.ClientSession() as session:

        async def turns(count: int) -> int:
            before = len(asked)
            for _ in range(count):
                await watch.scrape(session, seen.emit)
            return len(asked) - before

        places = await turns(1)
        assert places > 1
        first = watch.stats.last_error
        await turns(29)
        assert await turns(60) == 58 + 2 * places
        assert watch.stats.last_error == first
        there = asked[places - 1]
        await turns(places)
        assert (watch.stats.last_error, watch.engine) == ("", "vllm")
        assert await turns(5) == 5


async def test_another_engine_in_the_same_place_is_recognised():
    async with serving() as (server,), scraping([target(server)]) as (seen, _):
        await seen.until(lambda: seen.samples)
        server.page = (FIXTURES / "llamacpp/metrics_busy.txt").read_text()
        server.about = {"build_info": "b1", "model_alias": "tiny"}
        await seen.until(lambda: seen.samples[-1][0]["servescope.engine"] == "llamacpp")
        assert seen.of("a")[-1]["running"] == 2


async def test_an_unknown_engine_id_is_refused_at_once():
    with pytest.raises(UnknownEngineError, match="sglangg"):
        MetricsPages([Target("a", "chat", "sglangg", "http://127.0.0.1:1")])


async def test_without_targets_the_source_goes_on_waiting():
    task = asyncio.create_task(MetricsPages([]).run(Seen().emit))
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_repeated_series_are_told_once_and_counted_once():
    page = 'vllm:num_requests_running{engine="0",model_name="x"} 2\n'
    async with serving() as (server,), scraping([target(server)]) as (seen, _):
        server.page = page + page.replace('engine="0",model_name="x"', 'model_name="x",engine="0"')
        await seen.until(lambda: sum(values.get("running") == 2 for values in seen.of("a")) >= 3)
    (told,) = [message for name, message, _, _ in seen.events if name == "page_malformed"]
    assert "1 repeat a series" in told
    assert "line 2: the same series as line 1" in told


async def test_a_version_that_is_unloaded_is_no_restart():
    def versions(**finished: int) -> str:
        lines = [f'nv_inference_request_success{{model="m",version="{name}"}} {n}\n' for name, n in finished.items()]
        return "".join(lines)

    async with serving() as (server,):
        server.page = versions(v1=5000, v2=400)
        async with scraping([target(server, engine="triton")]) as (seen, _):
            await seen.until(lambda: seen.of("a"))
            server.page = versions(v2=403)
            await seen.until(lambda: seen.of("a")[-1].get("requests_finished_total") == 403)
            server.page = versions(v2=405, v3=1)
            await seen.until(lambda: seen.of("a")[-1].get("requests_finished_total") == 406)
    assert sum(values.get("requests_finished_delta", 0) for values in seen.of("a")) == 6
    assert "instance_restarted" not in seen.names()
