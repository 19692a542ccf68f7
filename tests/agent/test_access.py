"""A server whose pages want a key: it can be given one, says so without one, and no key is ever shown."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from click.testing import CliRunner
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from agent.access import Access, KeyWantedError
from agent.config import load
from agent.pages.probe import probe
from agent.sources.metrics_page import MetricsPages
from agent.tap.config import read_config
from agent.target import Target
from base.errors import ConfigError, PageError
from servescope.cli import main
from servescope.config_file import read_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PAGE = "# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 1\n"
KEY = "k3y-of-the-page"


class Keyed:
    """llama-server with --api-key: all pages but /health want it."""

    def __init__(self, header: str, value: str, status: int) -> None:
        self.header, self.value, self.status = header, value, status
        self.leads_to = ""
        self.seen: list[dict[str, str]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append({name.lower(): value for name, value in request.headers.items()})
        if request.headers.get(self.header) != self.value:
            return web.json_response({"error": {"message": "Invalid API Key"}}, status=self.status)
        if self.leads_to:
            return web.Response(status=307, headers={"Location": self.leads_to})
        if request.path == "/props":
            return web.json_response({"build_info": "b1"})
        return web.Response(text=PAGE)


@asynccontextmanager
async def keyed(header: str = "Authorization", value: str = f"Bearer {KEY}", status: int = 401) -> AsyncIterator[Keyed]:
    server = Keyed(header, value, status)
    app = web.Application()
    for path in ("/metrics", "/props"):
        app.router.add_get(path, server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("status", [401, 403])
async def test_without_a_key_the_error_says_that_one_is_wanted(status: int):
    async with keyed(status=status) as server:
        address = server.url.partition("://")[2]
        for url in (server.url, f"{server.url}/metrics", f"http://user:{KEY}@{address}"):
            with pytest.raises(KeyWantedError) as caught:
                await asyncio.to_thread(probe, url)
            told = str(caught.value)
            assert str(status) in told
            assert ("it wants a key" in told) != ("user and password" in told)
            assert "key_file" in told
            assert "--key-file" in told
            assert KEY not in told
            assert "Give the URL" not in told


@pytest.mark.parametrize(
    ("header", "value", "given"),
    [
        ("Authorization", f"Bearer {KEY}", []),
        ("Authorization", f"Basic {KEY}", []),
        ("X-Api-Key", KEY, ["--key-header", "x-api-key"]),
    ],
)
@pytest.mark.parametrize("where", ["file", "variable"])
async def test_probe_takes_a_key(
    header: str, value: str, given: list[str], where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    key = value if value.startswith("Basic") else KEY
    (tmp_path / "key").write_text(f"{key}\n")
    monkeypatch.setenv("PAGE_KEY", key)
    place = ["--key-file", str(tmp_path / "key")] if where == "file" else ["--key-env", "PAGE_KEY"]
    async with keyed(header, value) as server:
        answer = await asyncio.to_thread(CliRunner().invoke, main, ["probe", server.url, *place, *given])
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    assert (found["engine"], found["version"], found["signals"]["running"]) == ("llamacpp", "b1", 1)
    assert KEY not in answer.output


async def test_a_key_that_is_not_taken_is_told_so_and_not_shown(tmp_path: Path):
    (tmp_path / "key").write_text("wr0ng")
    async with keyed() as server:
        with pytest.raises(KeyWantedError, match="does not take the key") as caught:
            await asyncio.to_thread(lambda: probe(server.url, access=Access(tmp_path / "key")))
    assert "wr0ng" not in str(caught.value)


async def test_a_key_follows_no_redirect(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAGE_KEY", KEY)
    async with keyed("X-Api-Key", KEY) as server, keyed("X-Api-Key", KEY) as stranger:
        server.leads_to = f"{stranger.url}/metrics?token=t0ken"
        with pytest.raises(PageError, match="Give the URL that it leads to") as caught:
            await asyncio.to_thread(
                lambda: probe(f"{server.url}/metrics", access=Access(variable="PAGE_KEY", header="X-Api-Key"))
            )
    assert stranger.seen == []
    assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "", "two\nlines", "k\u00e9y", "a\tb"])
def test_what_is_no_key_is_told_by_its_setting(content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_SUCH", raising=False)
    path = tmp_path / "s3cret-name"
    if content is not None:
        path.write_text(content)
    with pytest.raises(KeyWantedError, match="key_file") as caught:
        Access(path).headers()
    assert "s3cret-name" not in str(caught.value)
    with pytest.raises(KeyWantedError, match="key_env") as caught:
        Access(variable="NO_SUCH").headers()
    assert "NO_SUCH" not in str(caught.value)


async def test_the_agent_uses_a_key_that_is_exchanged_while_it_runs(tmp_path: Path):
    events: list[tuple[str, str]] = []
    news = asyncio.Event()

    def emit(signal: str, body: bytes) -> None:
        if signal == "logs":
            for logs in ExportLogsServiceRequest.FromString(body).resource_logs:
                events.extend((one.event_name, one.body.string_value) for one in logs.scope_logs[0].log_records)
            news.set()

    async def until(name: str) -> str:
        async with asyncio.timeout(30):
            while not (told := [text for event, text in events if event == name]):
                news.clear()
                await news.wait()
        return told[0]

    path = tmp_path / "key"
    path.write_text("wr0ng")
    async with keyed() as server:
        target = Target("a", "d", url=server.url, access=Access(path))
        pages = MetricsPages([target], interval_seconds=0.05)
        task = asyncio.create_task(pages.run(emit))
        told = await until("instance_down")
        assert "401" in told
        assert "does not take the key" in told
        assert "wr0ng" not in told
        assert "401" in pages.stats["a"].last_error
        path.write_text(KEY)
        await until("instance_up")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert pages.stats["a"].last_error == ""
        assert pages.known("a").version == "b1"


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("key_env: sk-s3cret", "c.yaml:5: agent.targets[0].key_env: must be the name of an environment variable"),
        ("key_env: 123s3cret", "c.yaml:5: agent.targets[0].key_env: must be the name"),
        ("key_file: s3cret", "c.yaml:5: agent.targets[0].key_file: the file can't be read"),
        ("{key_file: c.yaml, key_env: s3cret}", "key_env: give key_file or key_env, not both"),
        ("key_header: host", "agent.targets[0].key_header: must be the name of a header"),
        ("key_header: 's3cret: x'", "agent.targets[0].key_header: must be the name of a header"),
        ("key: s3cret", "agent.targets[0].key: no such field"),
    ],
)
def test_a_wrong_setting_is_told_by_line_and_field_without_its_value(lines: str, fault: str, tmp_path: Path):
    path = tmp_path / "c.yaml"
    own = lines.strip("{}").replace(", ", "\n      ")
    path.write_text(f"agent:\n  targets:\n    - instance: a\n      url: http://h:1\n      {own}\n")
    with pytest.raises(ConfigError) as caught:
        read_settings(path, files=True)
    assert fault in str(caught.value)
    assert "s3cret" not in str(caught.value).replace(str(tmp_path), "")


def test_the_reference_reaches_agent_and_tap(tmp_path: Path):
    path = tmp_path / "c.yaml"
    path.write_text("agent: {targets: [{instance: a, url: 'http://h:1', key_file: f, key_header: x-api-key}]}\n")
    expected = load(path).targets[0].target().access
    assert expected
    assert read_config(path, "a").access == expected
    assert not read_config(path, "b").access
