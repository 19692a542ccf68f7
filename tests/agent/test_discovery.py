from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from agent import discovery
from agent.errors import ConfigError
from agent.sources.source import Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture
async def servers() -> AsyncIterator[dict[str, int]]:
    """Port by engine of servers that show a real page, and of one that is no model server."""
    pages = {
        "vllm": gzip.decompress((FIXTURES / "vllm" / "metrics_idle.txt.gz").read_bytes()),
        "triton": gzip.decompress((FIXTURES / "triton" / "metrics_idle.txt.gz").read_bytes()),
        "somebody": b"go_goroutines 7\n",
    }
    runners, ports = [], {}
    for name, page in pages.items():

        async def metrics(_request: web.Request, page: bytes = page) -> web.Response:
            return web.Response(body=page, content_type="text/plain")

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        ports[name] = runner.addresses[0][1]
    yield ports
    for runner in runners:
        await runner.cleanup()


async def test_model_servers_are_found_by_their_pages(servers: dict[str, int], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(discovery, "listening_ports", lambda: set(servers.values()))
    found = {target.engine: target for target in await discovery.find_local()}
    assert set(found) == {"vllm", "triton"}
    assert found["vllm"].instance == f"vllm-{servers['vllm']}"
    assert found["vllm"].url == f"http://127.0.0.1:{servers['vllm']}"
    assert found["triton"].metrics_url == f"http://127.0.0.1:{servers['triton']}/metrics"
    assert found["triton"].url == f"http://127.0.0.1:{servers['triton'] - 2}", "Triton's API is two ports below"


async def test_what_is_known_or_ours_is_left_alone(servers: dict[str, int], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(discovery, "listening_ports", lambda: set(servers.values()))
    known = Target("mine", "mine", url=f"http://localhost:{servers['vllm']}")
    assert await discovery.find_local(known=[known], skip_ports={servers["triton"]}) == []


async def test_listening_ports_are_those_of_other_processes(servers: dict[str, int]):
    assert not discovery.listening_ports() & set(servers.values())


@pytest.mark.parametrize(
    ("text", "instance", "url", "metrics_url"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1-8000", "http://127.0.0.1:8000", ""),
        ("127.0.0.1:8000/", "127.0.0.1-8000", "http://127.0.0.1:8000", ""),
        ("vllm-a=http://gpu1:8000/v1", "vllm-a", "http://gpu1:8000/v1", ""),
        ("https://gpu1/metrics", "gpu1-https", "", "https://gpu1/metrics"),
        ("http://h:1/metrics?a=b", "h-1", "", "http://h:1/metrics?a=b"),
    ],
)
def test_a_target_is_named_on_the_command_line(text: str, instance: str, url: str, metrics_url: str):
    target = discovery.target_of(text)
    assert (target.instance, target.url, target.metrics_url, target.engine) == (instance, url, metrics_url, None)


def test_a_second_target_of_one_name_gets_another():
    assert discovery.target_of("http://h:1", {"h-1", "h-1-2"}).instance == "h-1-3"


@pytest.mark.parametrize("text", ["", "ftp://h:1", "http://", "http://h:port"])
def test_what_is_no_url_is_named(text: str):
    with pytest.raises(ConfigError, match="--target"):
        discovery.target_of(text)
