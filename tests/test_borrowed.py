"""A collector for the moment of one command, beside a Servescope that runs over the same folder."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.recording import replay as replaying
from servescope.launch import borrowed
from servescope.launch.running import running
from tests.kits.health import health_server
from tests.kits.store_process import start_store

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = Path(__file__).parent / "fixtures" / "recording_small"


@pytest.mark.heavy
def test_a_replay_into_another_store_leaves_the_running_collectors_log_alone(tmp_path: Path):
    facts = {"pid": os.getpid(), "urls": {"store": "http://127.0.0.1:1", "otlp": "http://127.0.0.1:1"}}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    (tmp_path / "log").mkdir()
    with (tmp_path / "lock").open("w") as folder, (tmp_path / "log" / "lock").open("w") as log:
        fcntl.flock(folder, fcntl.LOCK_EX)
        fcntl.flock(log, fcntl.LOCK_EX)
        assert running(tmp_path) == facts
        store = start_store(tmp_path / "other")
        try:
            url = store.url.replace("://", f"://owner:{store.owner_password}@")
            with borrowed.collector(tmp_path, url, print) as (otlp, keys):
                report = asyncio.run(replaying.replay(SMALL, otlp, keys=keys))
            assert store.ask("SELECT count() FROM requests WHERE has_edge = 1") == f"{report['requests']}\n"
        finally:
            store.stop()
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["lock"]


@pytest.fixture
def idle() -> Iterator[str]:
    """URL of a collector that has nothing to do."""
    health = {"ledger": {}, "store": {"last_traces": None, "last_settle": None, "error": ""}}
    with health_server(health) as url:
        yield url


def test_a_command_that_meets_a_servescope_in_mid_start_waits_and_uses_it(tmp_path: Path, idle: str):
    used: list[str] = []

    def command() -> None:
        with borrowed.collector(tmp_path, "http://127.0.0.1:1", print) as (otlp, _):
            used.append(otlp)

    with (tmp_path / "lock").open("w") as folder, (tmp_path / "turn").open("w") as turn:
        fcntl.flock(folder, fcntl.LOCK_EX)
        fcntl.flock(turn, fcntl.LOCK_EX)
        asking = threading.Thread(target=command, daemon=True)
        asking.start()
        time.sleep(0.5)
        assert not used
        facts = {"pid": os.getpid(), "urls": {"store": "http://127.0.0.1:1", "otlp": idle}}
        (tmp_path / "run.json").write_text(json.dumps(facts))
        asking.join(30)
    assert used == [idle]
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.heavy
def test_a_replay_beside_a_store_that_runs_alone_is_in_its_tables(tmp_path: Path):
    store = start_store(tmp_path)
    try:
        (tmp_path / "run.json").write_text(json.dumps({"pid": os.getpid(), "urls": {"store": store.url}}))
        with (tmp_path / "lock").open("w") as folder:
            fcntl.flock(folder, fcntl.LOCK_EX)
            with borrowed.collector(tmp_path, "", print) as (otlp, keys):
                report = asyncio.run(replaying.replay(SMALL, otlp, keys=keys))
        assert store.ask("SELECT count() FROM requests WHERE has_edge = 1") == f"{report['requests']}\n"
    finally:
        store.stop()
