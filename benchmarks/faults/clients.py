"""Clients that send what was drawn and write down what they saw: the truth that answers are held against."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import socket
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from aiohttp.connector import AddrInfoType

    from benchmarks.faults.asks import Ask

_SMALL_BYTES: Final = 4096
_TIMEOUT: Final = aiohttp.ClientTimeout(total=120)


@dataclass
class Clients:
    """Open-loop clients of one run.

    Args:
        urls: Base URLs, one for each server.
        name: Prefix of request ids.
        seed: Of the trace ids.
    """

    urls: Sequence[str]
    name: str
    seed: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    change: Callable[[Ask], Ask] = lambda ask: ask
    _open: set[asyncio.Task[None]] = field(default_factory=set, repr=False)
    _session: aiohttp.ClientSession | None = field(default=None, repr=False)
    _slow: aiohttp.ClientSession | None = field(default=None, repr=False)
    _draw: random.Random = field(default_factory=lambda: random.Random(0), repr=False)  # noqa: S311
    _number: int = 0

    async def __aenter__(self) -> Self:
        self._draw = random.Random(self.seed)  # noqa: S311 - ids of a run, not secrets
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=_TIMEOUT)
        # Little is taken in ahead: the rest waits in the kernel and at whoever sends it.
        self._slow = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, socket_factory=_small), timeout=_TIMEOUT, read_bufsize=512
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        for session in (self._session, self._slow):
            if session is not None:
                await session.close()

    async def play(self, asks: Sequence[Ask], start: float) -> None:
        """Send each at its moment; ``change`` is applied as it goes out.

        Args:
            asks: In order of time.
            start: Monotonic seconds of the timeline's beginning.
        """
        for ask in asks:
            await asyncio.sleep(max(0.0, start + ask.at - time.monotonic()))
            self.send(self.change(ask))

    async def flood(self, draw: Callable[[], Ask], seconds: float, *, at_once: int) -> None:
        """Keep so many requests in flight for a while; then let them end."""
        end = time.monotonic() + seconds

        async def one() -> None:
            while time.monotonic() < end:
                await self.sent(draw())

        await asyncio.gather(*(one() for _ in range(at_once)))

    def send(self, ask: Ask) -> None:
        """Send without waiting."""
        task = asyncio.create_task(self.sent(ask))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def drained(self, seconds: float) -> bool:
        """Wait until nothing is in flight; whether it came to that."""
        if not self._open:
            return True
        _, left = await asyncio.wait(self._open, timeout=seconds)
        return not left

    async def sent(self, ask: Ask) -> None:
        """Send, again where it fails and that was asked for, and note each try."""
        for _ in range(ask.retries + 1):
            if await self._once(ask):
                return

    async def _once(self, ask: Ask) -> bool:
        session = self._slow if ask.reads else self._session
        assert session is not None  # noqa: S101 - entered
        number, self._number = self._number, self._number + 1
        trace = f"{self._draw.getrandbits(128) | 1:032x}"
        row: dict[str, Any] = {
            "n": number, "request_id": f"{self.name}-{number:05d}", "tenant": ask.tenant, "role": ask.role,
            "traceparent": f"00-{trace}-{self._draw.getrandbits(64) | 1:016x}-01",
            "path": ask.path, "stream": ask.stream, "t": round(time.time(), 6), "at": round(ask.at, 6),
            "status": 0, "outcome": "disconnected", "ttft": None, "e2e": None,
        }  # fmt: skip
        headers = {
            "x-tenant-id": ask.tenant, "x-request-id": row["request_id"], "traceparent": row["traceparent"],
        }  # fmt: skip
        begun = time.perf_counter()
        try:
            async with session.post(self.urls[ask.where] + ask.path, json=ask.body, headers=headers) as response:
                row["status"] = response.status
                first = True
                while piece := await response.content.readany():
                    if first:
                        row["ttft"], first = round(time.perf_counter() - begun, 6), False
                    if ask.reads:
                        await asyncio.sleep(ask.reads * max(1, piece.count(b"data: ")))
                row["outcome"] = "ok" if response.status == HTTPStatus.OK else "http_error"
        except TimeoutError:
            row["outcome"] = "client_timeout"
        except aiohttp.ClientConnectorError:
            row["outcome"] = "connect_error"
        except (aiohttp.ClientError, ConnectionError):
            row["outcome"] = "disconnected"
        finally:
            row["e2e"] = round(time.perf_counter() - begun, 6)
            self.rows.append(row)
        if row["outcome"] != "ok":
            await asyncio.sleep(0.01)
        return bool(row["outcome"] == "ok")

    def write(self, path: Path) -> None:
        """Write what was seen, in the order in which it was sent."""
        with gzip.open(path, "wt") as lines:
            for row in sorted(self.rows, key=lambda row: row["n"]):
                lines.write(json.dumps(row) + "\n")


async def until_up(url: str, seconds: float) -> None:
    """Wait until a URL answers 200.

    Raises:
        TimeoutError: It did not.
    """
    deadline = time.monotonic() + seconds
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        while time.monotonic() < deadline:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, ConnectionError):
                async with session.get(url) as response:
                    if response.status == HTTPStatus.OK:
                        return
            await asyncio.sleep(0.25)
    raise TimeoutError(f"{url} did not answer in {seconds:.0f} s")


def _small(address: AddrInfoType) -> socket.socket:
    made = socket.socket(address[0], address[1], address[2])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BYTES)
    return made
