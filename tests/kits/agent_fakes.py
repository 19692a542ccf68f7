"""A collector that answers as it is told and remembers what it was sent."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Self

import zstandard
from aiohttp import web

from base import signing

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class FakeCollector:
    """``async with FakeCollector() as collector``: listens on a free loopback port, ``collector.url``.

    ``answer`` decides each request's status from (signal, body, batch id); ``fail_share`` fails that share of the
    requests with 503 *after* half of them have been stored, as a lost acknowledgement would.
    """

    def __init__(self, *, fail_share: float = 0.0, seed: int = 7, port: int = 0) -> None:
        self.requests = 0
        self.bodies: dict[str, set[bytes]] = defaultdict(set)
        self.accepted: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[str, bytes, str], web.Response | None] = lambda _signal, _body, _batch: None
        self.skew_ns = 0
        self._fail_share = fail_share
        self._random = random.Random(seed)
        self._port = port
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64_000_000)
        app.router.add_post("/v1/{signal}", self._receive)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0, auto_decompress=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.url = f"http://127.0.0.1:{self._port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def start_again(self) -> None:
        await self.__aenter__()

    def merged(self, signal: str) -> bytes:
        """Accepted bodies, each batch id once, in order of acceptance."""
        seen: dict[str, bytes] = {}
        for batch, body in self.accepted[signal]:
            seen.setdefault(batch, body)
        return b"".join(seen.values())

    async def _receive(self, request: web.Request) -> web.Response:
        raw = await request.read()
        body = zstandard.decompress(raw) if request.headers.get("Content-Encoding") == "zstd" else raw
        signal = request.match_info["signal"]
        batch = request.headers.get(signing.HEADER_BATCH, "")
        self.requests += 1
        self.headers.append(dict(request.headers) | {"raw": raw.hex()})
        self.bodies[batch].add(body)
        stamp = {signing.HEADER_RECEIVED: str(time.time_ns() + self.skew_ns)}
        told = self.answer(signal, body, batch)
        if told is not None:
            return told
        if self._random.random() < self._fail_share:
            if self._random.random() < 0.5:
                self.accepted[signal].append((batch, body))
            return web.Response(status=503, headers={"Retry-After": "0"})
        self.accepted[signal].append((batch, body))
        return web.Response(body=b"", content_type="application/x-protobuf", headers=stamp)


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the state is another process's or a library's
            await asyncio.sleep(0.01)
