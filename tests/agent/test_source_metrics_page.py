"""A server's page becomes samples, whatever the server does."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
import pytest

from agent.pages.page import Limits, PageReader
from agent.pages.search import PageSearch
from agent.pages.watch import Watch
from agent.sources.metrics_page import MetricsPages
from agent.target import Known, Place, Target
from base.errors import PageError, UnknownEngineError
from tests.kits.metrics_page import FIXTURES, Seen, scraping, serving, target, vllm_page

if TYPE_CHECKING:
    from agent.pages.page import Page


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


async def test_a_server_that_has_no_page_is_not_asked_everywhere_for_ever(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    there = ""

    async def read(_: PageSearch, _session: object, url: str, _key: object) -> Page:
        asked.append(url)
        if url != there:
            raise PageError(f"{url} answers 404", "Give the URL of its metrics page")
        return PageReader(Limits()).read(vllm_page().encode())

    monkeypatch.setattr(PageSearch, "_read", read)
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


async def test_an_unknown_engine_id_is_refused_at_once():
    with pytest.raises(UnknownEngineError, match="sglangg"):
        MetricsPages([Target("a", "chat", "sglangg", "http://127.0.0.1:1")])


async def test_without_targets_the_source_goes_on_waiting():
    task = asyncio.create_task(MetricsPages([]).run(Seen().emit))
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
