"""A way to receive is one file: put beside the others it listens, and what it takes is durable and counted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import pytest

from base.found import NotFoundError
from collector import receivers
from collector.config import CollectorConfig
from collector.server import Collector
from tests.kits.collector_process import free_port

if TYPE_CHECKING:
    from pathlib import Path

RECEIVER = """
import asyncio
import time

from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from collector.auth import NOBODY
from collector.receiver import Receiver


class Lines(Receiver):
    def __init__(self, scene):
        self.intake = scene.intake
        self.port = scene.config.port_of_lines

    def routes(self):
        return [web.post("/lines", self.posted)]

    async def open(self):
        self.server = await asyncio.start_server(self.connected, "127.0.0.1", self.port)

    async def close(self):
        self.server.close()

    async def posted(self, request):
        await self.take(await request.read())
        return web.Response()

    async def connected(self, reader, writer):
        await self.take(await reader.readline())
        writer.write(b"taken\\n")
        writer.close()

    async def take(self, line):
        now = time.time_ns()
        body = ExportLogsServiceRequest()
        record = body.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=now)
        record.body.string_value = line.decode().strip()
        await self.intake.take(
            "logs", body.SerializeToString(), as_json=False, batch="", sender=NOBODY, received_ns=now
        )


def receiver(scene):
    return Lines(scene) if hasattr(scene.config, "port_of_lines") else None
"""


class WithLines(CollectorConfig):
    """The settings of a collector that has such a receiver."""

    port_of_lines: int


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "receivers"
    found.mkdir()
    monkeypatch.setattr(receivers, "__path__", [*receivers.__path__, str(found)])
    return found


async def test_a_way_to_receive_is_one_file(folder: Path, tmp_path: Path):
    (folder / "lines.py").write_text(RECEIVER)
    (folder / "_shared.py").write_text("raise RuntimeError('nobody imports it')\n")
    lines, away = free_port(), f"http://127.0.0.1:{free_port()}"
    collector = Collector(WithLines(port=0, clickhouse=away, port_of_lines=lines), tmp_path)
    stop = asyncio.Event()
    running = asyncio.create_task(collector.run(stop))
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            while not collector.port:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert (await session.post(f"http://127.0.0.1:{collector.port}/lines", data=b"by HTTP")).status == 200
            reader, writer = await asyncio.open_connection("127.0.0.1", lines)
            writer.write(b"by a port of its own\n")
            assert await reader.readline() == b"taken\n"
            writer.close()
            health = await (await session.get(f"http://127.0.0.1:{collector.port}/healthz")).json()
    finally:
        stop.set()
        await running
    assert health["ledger"]["logs"]["received"] == 2
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", lines)


async def test_one_that_the_configuration_does_not_want_is_left_out(folder: Path, tmp_path: Path):
    (folder / "lines2.py").write_text(RECEIVER)
    collector = Collector(CollectorConfig(port=0, clickhouse=f"http://127.0.0.1:{free_port()}"), tmp_path)
    stop = asyncio.Event()
    running = asyncio.create_task(collector.run(stop))
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while not collector.port:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (await session.post(f"http://127.0.0.1:{collector.port}/lines", data=b"x")).status == 404
        stop.set()
        await running


async def test_a_file_that_makes_none_is_named(folder: Path, tmp_path: Path):
    (folder / "empty_receiver.py").write_text("")
    collector = Collector(CollectorConfig(port=0, clickhouse=f"http://127.0.0.1:{free_port()}"), tmp_path)
    with pytest.raises(NotFoundError, match=r"empty_receiver\.py has no receiver"):
        await collector.run(asyncio.Event())
