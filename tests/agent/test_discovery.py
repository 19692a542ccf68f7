from __future__ import annotations

import contextlib
import gzip
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from agent.discovery import local, static
from agent.target import Target
from base.errors import ConfigError

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
    monkeypatch.setattr(local, "listening_ports", lambda: set(servers.values()))
    found = {target.engine: target for target in await local.find_local()}
    assert set(found) == {"vllm", "triton"}
    assert found["vllm"].instance == f"vllm-{servers['vllm']}"
    assert type(found["vllm"].engine) is type(found["vllm"].deployment) is str, "they go into files"
    assert found["vllm"].url == f"http://127.0.0.1:{servers['vllm']}"
    assert found["triton"].metrics_url == f"http://127.0.0.1:{servers['triton']}/metrics"
    assert found["triton"].url == f"http://127.0.0.1:{servers['triton'] - 2}", "Triton's API is two ports below"


async def test_what_is_known_or_ours_is_left_alone(servers: dict[str, int], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local, "listening_ports", lambda: set(servers.values()))
    known = Target("mine", "mine", url=f"http://localhost:{servers['vllm']}")
    assert await local.find_local(known=[known], skip_ports={servers["triton"]}) == []


async def test_listening_ports_are_those_of_other_processes(servers: dict[str, int]):
    assert not local.listening_ports() & set(servers.values())


async def test_a_server_that_listens_later_is_found_and_others_are_seldom_asked(
    servers: dict[str, int], monkeypatch: pytest.MonkeyPatch
):
    asked: list[int] = []

    async def look(_session: object, _gate: object, port: int) -> None:
        asked.append(port)

    listening = {servers["somebody"]}
    monkeypatch.setattr(local, "listening_ports", lambda: listening)
    clock = 1000.0
    monkeypatch.setattr(local.time, "monotonic", lambda: clock)
    new_servers = local.NewServers()
    with monkeypatch.context() as quiet:
        quiet.setattr(local, "_look", look)
        for clock in (1000.0, 1010.0, 1299.0, 1310.0, 1800.0, 1920.0, 1930.0):  # noqa: B007 - the clock itself
            await new_servers.find(known=[])
    assert len(asked) == 4, "while it is young, and ten minutes later"
    listening.add(servers["vllm"])
    clock = 1940.0
    (found,) = await new_servers.find(known=[])
    assert found.instance == f"vllm-{servers['vllm']}"
    assert await new_servers.find(known=[found]) == []


def test_a_tap_is_no_server():
    """Its process is told by its command line: it shows the page of the server behind it."""
    listen = (
        "import socket, time; s = socket.create_server(('127.0.0.1', 0)); "
        "print(s.getsockname()[1], flush=True); time.sleep(60)"
    )
    with contextlib.ExitStack() as stack:
        ports = []
        for words in ([], ["-m", "agent.tap"]):
            process = stack.enter_context(
                subprocess.Popen([sys.executable, "-c", listen, *words], stdout=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            ports.append(int(process.stdout.readline()))
        assert [port in local.listening_ports() for port in ports] == [True, False]


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
    target = static.target_of(text)
    assert (target.instance, target.url, target.metrics_url, target.engine) == (instance, url, metrics_url, None)


def test_a_second_target_of_one_name_gets_another():
    assert static.target_of("http://h:1", {"h-1", "h-1-2"}).instance == "h-1-3"


@pytest.mark.parametrize("text", ["", "ftp://h:1", "http://", "http://h:port"])
def test_what_is_no_url_is_named(text: str):
    with pytest.raises(ConfigError, match="--target"):
        static.target_of(text)
