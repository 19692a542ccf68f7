"""The collector's way in without its writer, for tests of what a sender is answered and what lies in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from collector import framing
from collector.config import CollectorConfig
from collector.intake import Intake
from collector.journal import Journal
from collector.ledger import Ledger
from collector.log.write_ahead import WriteAheadLog
from collector.receivers.otlp_http import OtlpHttp

if TYPE_CHECKING:
    from pathlib import Path

    from collector.auth import Door

PROTOBUF = {"Content-Type": "application/x-protobuf"}
KEY = b"k" * 32


class Way:
    """A receiver with everything behind it but the writer."""

    def __init__(self, folder: Path, door: Door, **settings: Any) -> None:
        self.config = CollectorConfig(**settings)
        self.journal = Journal(folder / "journal")
        self.ledger = Ledger()
        self.log = WriteAheadLog(
            folder, self.journal, max_bytes=self.config.log_max_bytes, seal_bytes=self.config.seal_bytes
        )
        self.intake = Intake(self.config, self.log, self.journal, self.ledger)
        self.unread = False
        application = web.Application()
        receiver = OtlpHttp(self.config, door, self.intake, self.ledger, lambda: self.unread)
        application.add_routes(receiver.routes())
        self.client = TestClient(TestServer(application), auto_decompress=False)
        self.client.server.skip_url_asserts = True

    async def start(self) -> Way:
        self.log.start()
        await self.client.server.start_server(auto_decompress=False)
        return self

    async def post(self, body: bytes, signal: str = "traces", **headers: str) -> tuple[int, bytes, Any]:
        named = PROTOBUF | {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.post(f"/v1/{signal}", data=body, headers=named) as answer:
            return answer.status, await answer.read(), answer.headers

    async def logged(self, signal: str = "traces") -> list[framing.Frame]:
        segment = await self.log.take(signal, seal_seconds=lambda: 0)
        return read_frames(segment.path)

    def books(self, signal: str = "traces") -> dict[str, int]:
        books = self.ledger.books(self.log)[signal]
        assert books["balance"] == 0
        return books


def read_frames(path: Path) -> list[framing.Frame]:
    with path.open("rb") as file:
        return list(framing.read(file))
