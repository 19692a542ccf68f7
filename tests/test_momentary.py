"""A collector for the moment of one command, beside a Servescope that runs over the same folder."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from pathlib import Path

import momentary
from agent import replaying
from tests.store_process import start_store

SMALL = Path(__file__).parent / "fixtures" / "recording_small"


def test_a_replay_into_another_store_leaves_the_running_collectors_log_alone(tmp_path: Path):
    facts = {"pid": os.getpid(), "urls": {"store": "http://127.0.0.1:1", "otlp": "http://127.0.0.1:1"}}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    (tmp_path / "log").mkdir()
    with (tmp_path / "lock").open("w") as folder, (tmp_path / "log" / "lock").open("w") as log:
        fcntl.flock(folder, fcntl.LOCK_EX)
        fcntl.flock(log, fcntl.LOCK_EX)
        assert momentary.running(tmp_path) == facts
        store = start_store(tmp_path / "other")
        try:
            url = store.url.replace("://", f"://owner:{store.owner_password}@")
            with momentary.collector(tmp_path, url, print) as (otlp, keys):
                report = asyncio.run(replaying.replay(SMALL, otlp, keys=keys))
            assert store.ask("SELECT count() FROM requests WHERE has_edge = 1") == f"{report['requests']}\n"
        finally:
            store.stop()
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["lock"]
