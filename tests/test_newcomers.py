"""The look for servers that start later: one that fails ends nothing."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from servescope.launch import newcomers

if TYPE_CHECKING:
    import pytest

    from agent.target import Target


async def test_the_next_look_follows_one_that_failed(monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    looks = 0
    enough = asyncio.Event()

    async def look(*_: object, **__: object) -> list[Target]:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise OSError(28, "No space left on device")
        enough.set()
        return []

    monkeypatch.setattr(newcomers, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(newcomers.NewServers, "find", look)
    plan = cast("Any", SimpleNamespace(settings={"agent": {"targets": []}}, urls={}))
    watching = asyncio.create_task(newcomers.watch(plan, cast("Any", None), said.append, tap=True))
    await asyncio.wait_for(enough.wait(), 10)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    assert said == ["a look for new servers failed: [Errno 28] No space left on device"]
