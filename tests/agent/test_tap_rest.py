"""A tap without a client looks at nothing for long, and at once when one comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agent.tap import server
from tests.kits.agent_fakes import until
from tests.kits.tap import PATIENCE, connect, replying, tap, upstream

if TYPE_CHECKING:
    import pytest


async def test_a_tap_rests_until_somebody_comes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "_REST_SECONDS", 3600.0)
    async with upstream(replying(b"")) as behind, tap(behind.port) as served:
        beats = asyncio.Event()
        monkeypatch.setattr(served.core.open, "beat", beats.set)
        await asyncio.sleep(3 * server._TICK_SECONDS)
        assert not beats.is_set()
        async with asyncio.timeout(PATIENCE), connect(served.port):
            for _ in range(3):  # when it comes, and while it is there
                await beats.wait()
                beats.clear()


async def test_a_tap_that_takes_no_connections_looks_soon_whether_it_can(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "_REST_SECONDS", 3600.0)
    async with upstream(replying(b"")) as behind, tap(behind.port) as served:
        async with asyncio.timeout(PATIENCE), connect(served.port):
            await until(lambda: bool(served.server._connections))
            assert served.server._listener is not None
            asyncio.get_running_loop().remove_reader(served.server._listener)
            served.server._listening = False
        await until(lambda: served.server._listening)
