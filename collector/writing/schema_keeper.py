"""Has the store's schema brought up to date before anything is inserted, and again when the store has lost it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from collector.writing import backoff
from collector.writing.health import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.writing.health import Health


class SchemaKeeper:
    """Either the schema is there, or it is wanted and tried for until it is.

    Args:
        migrate: Brings it up to date; may fail in any way.
        health: Told of ``schema``.
        brought: Called whenever it is there.
    """

    def __init__(self, migrate: Callable[[], object], health: Health, brought: Callable[[], None]) -> None:
        self._migrate = migrate
        self._health = health
        self._brought = brought
        self._there = asyncio.Event()
        self._wanted = asyncio.Event()
        self._wanted.set()

    async def there(self) -> None:
        """Return while the schema is there, as far as is known."""
        await self._there.wait()

    def missing(self) -> None:
        """The store has lost it."""
        self._there.clear()
        self._wanted.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._wanted.wait()
            await self._bring()
            self._health.well(SCHEMA)
            self._wanted.clear()
            self._there.set()
            self._brought()

    async def _bring(self) -> None:
        attempt = 0
        while True:
            try:
                await asyncio.to_thread(self._migrate)
            except Exception as error:  # noqa: BLE001 - whatever it is, the log goes on taking requests
                self._health.trouble(SCHEMA, "migrate_failed", error, attempt)
                attempt += 1
                await asyncio.sleep(backoff.pause(attempt))
            else:
                return
