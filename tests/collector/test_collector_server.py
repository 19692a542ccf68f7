"""The collector's life in one process: what it does when a part of it dies."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest

from collector import aside, framing, retention
from collector.auth import NOBODY
from collector.config import CollectorConfig
from collector.server import Collector
from collector.store.address import StoreAddress
from collector.store.client import Store, StoreError
from collector.writing.writer import Writer
from tests.kits.collector_process import free_port, spans

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StoreServer


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


async def started(collector: Collector, stop: asyncio.Event) -> asyncio.Task[None]:
    running = asyncio.create_task(collector.run(stop))
    async with asyncio.timeout(60):
        while not collector.port:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return running


@pytest.mark.parametrize("room", [True, False])
async def test_what_a_start_found_damaged_is_told_by_health_and_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: bool
):
    frames = [
        framing.encode(b"x" * 200, records=1, digest=bytes([n]) * framing.DIGEST_BYTES, received_ns=1) for n in range(4)
    ]
    damaged, mended = bytearray(frames[1]), bytearray(frames[2])
    damaged[9] ^= 1
    mended[0] ^= 1
    log = tmp_path / "log"
    log.mkdir()
    whole = log / "traces-00000000000000000001-00000000.seg"
    whole.write_bytes(b"".join((damaged, frames[0], mended, frames[3], frames[0][:7])))
    if not room:
        monkeypatch.setattr(aside, "DAMAGED_MAX_BYTES", 10)
    stop = asyncio.Event()
    collector = Collector(CollectorConfig(port=0, clickhouse=f"http://127.0.0.1:{free_port()}"), tmp_path)
    running = await started(collector, stop)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{collector.port}") as client:
        body = await (await client.get("/healthz")).json()
        page = await (await client.get("/metrics")).text()
    stop.set()
    await running
    counts = {"torn_bytes": 7, "damaged_requests": 1, "mended_requests": 1, "postponed_segments": 0}
    if not room:
        counts = dict.fromkeys(counts, 0) | {"postponed_segments": 1}
    assert {name: body["log"][name] for name in counts} == counts
    for name, count in counts.items():
        assert f"servescope_collector_log_{name}_total {count}.0" in page
    (problem,) = [text for text in body["problems"] if "damaged" in text]
    assert str(log / "damaged") in problem
    assert ("restart the collector" in problem) == (not room)
    assert body["ledger"]["traces"]["recovered"] == (3 if room else 0)


async def test_a_term_that_the_store_refuses_keeps_nothing_out(
    tmp_path: Path, store_server: StoreServer, monkeypatch: pytest.MonkeyPatch
):
    def refused(*_: object) -> list[str]:
        raise StoreError(497, "ACCESS_DENIED", "not enough privileges")

    monkeypatch.setattr(retention, "retain", refused)
    database = f"t_{os.urandom(6).hex()}"
    password = tmp_path / "password"
    password.write_text(store_server.owner_password)
    config = CollectorConfig(
        port=0, clickhouse=f"{store_server.url}?database={database}", user="owner", password_file=password
    )
    stop = asyncio.Event()
    collector = Collector(config, tmp_path)
    running = asyncio.create_task(collector.run(stop))
    async with asyncio.timeout(120):
        while not collector.port:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await collector.intake.take(
            "traces", spans(0, 1), as_json=False, batch="", sender=NOBODY, received_ns=time.time_ns()
        )
        while collector.log.segments():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert "not enough privileges" in collector.writer.errors["retention"]
        assert not collector.writer.blocked
        stop.set()
        await running
    with Store(StoreAddress(store_server.url, database, "owner", store_server.owner_password)) as store:
        assert store.command("SELECT count() FROM otel_traces") == "1"
        store.command(f"DROP DATABASE {database} SYNC", use_database=False)
