from __future__ import annotations

import asyncio
import gzip
import json
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agent.engine_table import find_table
from agent.pages.fetch import page_urls
from agent.pages.probe import probe
from base.errors import PageError, UnknownEngineError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

FIXTURES = Path(__file__).parents[1] / "fixtures"
KEYS = ["engine", "role", "version", "models", "signals", "by_model", "batch_sizes", "unmapped", "missing", "notes"]
Answer = str | dict[str, object] | int | list[object]
Routes = dict[str, Answer]


def page(name: str) -> str:
    path = FIXTURES / name
    return (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()


@asynccontextmanager
async def serving(routes: Routes, port: int = 0) -> AsyncIterator[str]:
    def handler(answer: Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(_request: web.Request) -> web.Response:
            if isinstance(answer, int):
                return web.Response(status=answer)
            return web.json_response(answer) if isinstance(answer, dict | list) else web.Response(text=answer)

        return handle

    app = web.Application()
    for path, answer in routes.items():
        app.router.add_get(path, handler(answer))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def probed(url: str) -> dict[str, object]:
    return await asyncio.to_thread(probe, url)


@pytest.mark.parametrize("suffix", ["", "/", "/metrics", "/metrics/"])
async def test_vllm_by_base_or_page_url(suffix: str):
    routes: Routes = {
        "/metrics": page("vllm/metrics_busy_04.txt.gz"),
        "/metrics/": page("vllm/metrics_busy_04.txt.gz"),
        "/version": {"version": "0.32.0"},
    }
    async with serving(routes) as url:
        found = await probed(url + suffix)
    assert list(found) == KEYS
    assert (found["engine"], found["version"], found["models"]) == ("vllm", "0.32.0", ["tiny"])
    assert found["signals"] == found["by_model"]["tiny"]
    assert found["signals"]["running"] == 10
    assert found["unmapped"] == found["missing"] == []
    json.dumps(found, allow_nan=False)


async def test_llamacpp_takes_its_model_from_props():
    routes: Routes = {
        "/metrics": page("llamacpp/metrics_busy.txt"),
        "/props": json.loads(page("llamacpp/props.json")),
    }
    async with serving(routes) as url:
        found = await probed(url)
    assert (found["engine"], found["version"], found["models"]) == ("llamacpp", "b0-unknown", ["tiny"])
    assert found["by_model"]["tiny"]["running"] == 2


async def test_triton_is_found_on_its_metrics_port():
    metadata = {"name": "triton", "version": "2.51.0"}
    for _ in range(20):
        async with serving({"/v2": metadata, "/metrics": 400}) as base:
            port = int(base.rpartition(":")[2])
            try:
                async with serving({"/metrics": page("triton/metrics_busy_02.txt.gz")}, port + 2) as metrics:
                    for url in (base, f"{metrics}/metrics"):
                        found = await probed(url)
                        assert (found["engine"], found["version"]) == ("triton", "2.51.0")
                        assert "vision_classifier" in found["models"]
                        assert found["by_model"]["vision_classifier"]["waiting"] == 48
                        assert found["missing"] == []
            except OSError:
                continue  # that port is taken: another pair
            else:
                return
    pytest.fail("no two free ports at a distance of two")


def test_candidates():
    usual = ["http://127.0.0.1:8000/metrics", "http://127.0.0.1:8002/metrics"]
    other = ["http://127.0.0.1:8000/prometheus/metrics", "http://127.0.0.1:8000/v1/metrics"]
    assert page_urls("127.0.0.1:8000") == [*usual, *other]
    assert page_urls("127.0.0.1:8000", "vllm") == usual
    assert page_urls("127.0.0.1:8000", "trtllm") == [*usual, other[0]]
    assert page_urls("http://h:8002/metrics") == ["http://h:8002/metrics"]
    assert page_urls("http://h/vllm", "vllm") == ["http://h/vllm", "http://h/vllm/metrics"]


async def test_trtllm_serves_its_page_beside_statistics_that_reading_takes_away():
    asked: list[str] = []
    statistics = json.loads((FIXTURES / "trtllm/serve_iteration_stats.json").read_text())
    page_of_it = 'trtllm_num_requests_running{model_name="m"} 3\n'

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response(statistics) if request.path == "/metrics" else web.Response(status=404)

    async with serving({"/metrics": statistics, "/prometheus/metrics": page_of_it}) as base:
        found = await probed(base)
    assert (found["engine"], found["signals"], found["models"]) == ("trtllm", {"running": 3}, ["m"])
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server:
        found = await probed(str(server.make_url("")))
    assert (found["engine"], found["missing"][0]) == ("trtllm", "waiting")  # type: ignore[index]
    assert asked.count("/metrics") == 1


def test_a_file_says_all_but_the_version(tmp_path: Path):
    saved = tmp_path / "page.txt"
    saved.write_text(page("triton/metrics_normal.txt.gz"))
    found = probe(str(saved))
    assert (found["engine"], found["version"]) == ("triton", None)
    assert found == probe(str(FIXTURES / "triton/metrics_normal.txt.gz"))


def test_what_the_page_lacks_is_missing_and_never_zero(tmp_path: Path):
    saved = tmp_path / "page.txt"
    text = page("vllm/metrics_busy_04.txt.gz")
    kept = [line for line in text.splitlines() if "num_preemptions_total" not in line and "kv_cache_usage" not in line]
    kept.append('vllm:brand_new{engine="0",model_name="tiny"} 1')
    saved.write_text("\n".join(kept))
    found = probe(str(saved))
    assert found["missing"] == ["kv_cache_usage_ratio", "preemptions_total"]
    assert "preemptions_total" not in found["signals"]
    assert found["unmapped"] == ["vllm:brand_new"]


def test_ranks_are_summed_and_the_fullest_cache_counts(tmp_path: Path):
    saved = tmp_path / "page.txt"
    saved.write_text(
        "".join(
            f'vllm:num_requests_running{{engine="{rank}",model_name="{model}"}} {running}\n'
            f'vllm:kv_cache_usage_perc{{engine="{rank}",model_name="{model}"}} {kv}\n'
            for rank, model, running, kv in ((0, "a", 2, 0.25), (1, "a", 3, 0.75), (0, "b", 4, 0.5))
        )
    )
    found = probe(str(saved))
    assert found["models"] == ["a", "b"]
    assert found["signals"] == {"running": 9, "kv_cache_usage_ratio": 0.75}
    assert found["by_model"] == {
        "a": {"running": 5, "kv_cache_usage_ratio": 0.75},
        "b": {"running": 4, "kv_cache_usage_ratio": 0.5},
    }


def test_malformed_lines_are_noted(tmp_path: Path):
    saved = tmp_path / "page.txt"
    saved.write_text('vllm:num_requests_running{model_name="m"} 1\nvllm:num_requests_waiting{model_name="m\n')
    found = probe(str(saved))
    assert found["signals"] == {"running": 1}
    assert any("line 2" in note for note in found["notes"])


def test_what_is_wrong_is_named(tmp_path: Path):
    with pytest.raises(PageError, match="no file"):
        probe(str(tmp_path / "absent.txt"))
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    with pytest.raises(PageError, match="empty"):
        probe(str(empty))
    page_of_words = tmp_path / "words.txt"
    page_of_words.write_text("<html>nothing here</html>")
    with pytest.raises(PageError, match="line 1"):
        probe(str(page_of_words))
    broken = tmp_path / "page.txt.gz"
    broken.write_bytes(b"no gzip")
    with pytest.raises(PageError, match="cannot read"):
        probe(str(broken))
    with pytest.raises(PageError, match="is not a URL"):
        probe("http://a:b:c/")


def test_nobody_answers():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refused
        with pytest.raises(PageError, match="cannot get http://127"):
            probe(f"http://127.0.0.1:{taken.getsockname()[1]}")


async def test_another_servers_page_is_an_unknown_engine():
    async with serving({"/metrics": "node_load1 0.5\n"}) as url:
        with pytest.raises(UnknownEngineError, match=r"node_load1.*vllm"):
            await probed(url)


async def test_a_server_without_a_page_says_its_status():
    async with serving({}) as url:
        with pytest.raises(PageError, match="404"):
            await probed(f"{url}/metrics")


@pytest.mark.parametrize("path", ["/server_info", "/get_server_info"])
async def test_sglang_tells_its_version_where_it_does_now_and_where_it_did(path: str):
    routes: Routes = {
        "/metrics": page("sglang/0.4.3_busy_queue.txt"),
        path: {"version": "0.5.23", "served_model_name": "llama", "tp_size": 8, "secret": "x"},
    }
    async with serving(routes) as url:
        assert (await probed(url))["version"] == "0.5.23"


@pytest.mark.parametrize("engine", ["tgi", "tei"])
def test_what_a_server_tells_of_its_settings_is_its_configuration(engine: str):
    told = {
        "version": "3.3.4",
        "model_id": "m",
        "model_sha": "4af",
        "max_concurrent_requests": 128,
        "docker_label": "x",
    }
    about = find_table(engine).about(told)
    assert (about.version, about.model) == ("3.3.4", "m")
    assert about.config == {"model_sha": "4af", "max_concurrent_requests": "128"}
