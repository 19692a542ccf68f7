"""The collector's life in one process: what it does when a part of it dies."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from collector.config import CollectorConfig
from collector.server import Collector
from collector.writer import Writer
from tests.collector_process import free_port

if TYPE_CHECKING:
    from pathlib import Path


def commit_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "log-commit"]


async def test_a_collector_whose_writer_died_ends_so_that_it_can_be_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async def dies(_: Writer) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Writer, "run", dies)
    config = CollectorConfig(port=0, clickhouse=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(RuntimeError, match="a fault of ours"):
        await asyncio.wait_for(Collector(config, tmp_path).run(asyncio.Event()), 60)
    assert commit_threads() == []


async def test_a_stop_ends_it_cleanly_without_a_store(tmp_path: Path):
    stop = asyncio.Event()
    collector = Collector(CollectorConfig(port=0, clickhouse=f"http://127.0.0.1:{free_port()}"), tmp_path)
    running = asyncio.create_task(collector.run(stop))
    async with asyncio.timeout(60):
        while not collector.port:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        stop.set()
        await running
    assert commit_threads() == []
