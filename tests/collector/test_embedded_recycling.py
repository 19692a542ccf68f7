"""Between the order to recycle and the process's next life whoever asks is told so."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING
from unittest.mock import AsyncMock, Mock

import aiohttp

from collector.embedded import recycle, serve
from collector.embedded.http import Gateway
from collector.embedded.limits import Limits
from collector.embedded.recycle import Life, Past, Recycle

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_health_says_recycling_from_the_order_until_what_was_begun_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked, ended, replaced = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def drain(_seconds: float) -> None:
        asked.set()
        await ended.wait()

    async def well() -> None:
        return None

    runner = Mock(recycle=Recycle(Past()), check=well, drain=drain, close=AsyncMock(return_value=True))
    runner.figures.return_value, runner.writes.damage = {}, ""
    runner.engine.limits = Limits()
    monkeypatch.setattr(recycle, "begin_again", lambda *_: replaced.set())
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    life = Life(str(tmp_path), "127.0.0.1", "", listener.fileno(), 0, Past())
    gateway = Gateway(runner, tmp_path, "", "127.0.0.1")
    living = asyncio.create_task(serve._until_told(runner, gateway, life, listener))
    url = "http://{}:{}/healthz".format(*listener.getsockname())

    async def health() -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, json.loads(await answer.text())["status"]

    assert await health() == (200, "ok")
    runner.recycle.order("a query does not end")
    await asked.wait()
    for _ in range(3):
        assert await health() == (503, "recycling")
    assert not replaced.is_set(), "what was begun has not ended"
    ended.set()
    await asyncio.wait_for(living, 60)
    assert replaced.is_set()
