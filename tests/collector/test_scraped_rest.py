"""Where nobody sends what others scraped, nothing wakes up to look for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from collector.auth import NOBODY
from collector.ledger import Ledger
from collector.scraped import derive
from collector.scraped.derive import Deriver

if TYPE_CHECKING:
    import pytest

SOON = 30


async def test_nothing_is_looked_for_before_something_came(monkeypatch: pytest.MonkeyPatch):
    looks = 0
    yielding = asyncio.sleep

    async def tick(_seconds: float) -> None:
        nonlocal looks
        looks += 1
        await yielding(0)

    monkeypatch.setattr(derive.asyncio, "sleep", tick)
    intake: Any = None  # nothing is handed on
    ledger = Ledger()
    given = Deriver(intake, ledger)
    work = asyncio.create_task(given.run())
    try:
        for _ in range(20):
            await yielding(0)
        assert not looks
        given.look(b"vllm:num_requests_running \xff", NOBODY)
        async with asyncio.timeout(SOON):
            while not ledger.registry.get_sample_value("servescope_collector_derive_errors_total"):
                await yielding(0)
        for _ in range(20):
            await yielding(0)
        before = looks
        for _ in range(20):
            await yielding(0)
        assert looks == before
    finally:
        work.cancel()
