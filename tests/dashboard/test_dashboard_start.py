"""What is wrong is told at the dashboard's start, in one line, before anything is served."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import uvicorn
from streamlit.web import bootstrap

from dashboard.__main__ import _serve
from dashboard.config import DashboardConfig

ROOT = Path(__file__).parents[2]


def start(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dashboard", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--data", "{}/none"), 1, "none is not there. Give that of a Servescope, or --clickhouse URL"),
        (("--clickhouse", "db:8123"), 1, "'db:8123' is no address of a ClickHouse store"),
        (("--clickhouse", "http://u:secret@db:x"), 1, "'http://db:x' is no address of a ClickHouse store"),
        (("--slos", "{}/slos.yaml"), 1, "slos.yaml:1: slos[0].sli: is missing"),
        (("--config", "{}/servescope.yaml"), 1, "servescope.yaml:2: dashboard.refresh_seconds: must be greater"),
        (("--refresh", "0.1"), 2, "--refresh"),
        (("--host", "192.0.2.1"), 1, "cannot listen on 192.0.2.1:8501"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, words: tuple[str, ...], code: int, told: str):
    (tmp_path / "slos.yaml").write_text("slos: [{name: a, target: 0.9}]")
    (tmp_path / "servescope.yaml").write_text("dashboard:\n  refresh_seconds: 0\n")
    done = start(*(word.format(tmp_path) for word in words))
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_named(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = start("--data", tmp_path, "--port", port)
    assert done.returncode == 1
    assert f"servescope dashboard: cannot listen on 127.0.0.1:{port}" in done.stderr


async def test_the_server_looks_twice_a_second_whether_it_should_stop(monkeypatch: pytest.MonkeyPatch):
    async def answer(_scope: object, _receive: object, _send: object) -> None:
        """Nobody asks."""

    looks: list[int] = []
    monkeypatch.setattr(uvicorn.Server, "main_loop", uvicorn.Server.main_loop)
    monkeypatch.setattr(bootstrap, "_install_config_watchers", None)
    monkeypatch.setattr(bootstrap, "run", lambda *_, **__: None)
    monkeypatch.setattr(bootstrap, "load_config_options", lambda **_: None)
    monkeypatch.setattr("dashboard.warm.up", lambda: None)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    _serve(DashboardConfig())
    server = uvicorn.Server(uvicorn.Config(answer, port=0, lifespan="off", log_level="critical"))
    tick = server.on_tick

    async def seen(counter: int) -> bool:
        looks.append(counter)
        server.should_exit = len(looks) == 3
        return await tick(counter)

    monkeypatch.setattr(server, "on_tick", seen)
    begun = time.monotonic()
    await server.main_loop()
    assert (looks, server.server_state.default_headers[0][0]) == ([0, 5, 10], b"date")
    assert time.monotonic() - begun >= 1.0


def test_no_file_of_streamlits_is_looked_at_again_and_again(monkeypatch: pytest.MonkeyPatch):
    watched: list[str] = []
    monkeypatch.setattr(uvicorn.Server, "main_loop", uvicorn.Server.main_loop)
    monkeypatch.setattr(bootstrap, "_install_config_watchers", bootstrap._install_config_watchers)
    monkeypatch.setattr(bootstrap, "watch_file", lambda path, *_, **__: watched.append(path))
    monkeypatch.setattr(bootstrap, "run", lambda *_, **__: bootstrap._install_config_watchers({}))
    monkeypatch.setattr(bootstrap, "load_config_options", lambda **_: None)
    monkeypatch.setattr("dashboard.warm.up", lambda: None)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    _serve(DashboardConfig())
    assert not watched
