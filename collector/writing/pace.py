"""How old a segment gets before it is inserted: few inserts where nobody waits for rows, soon where somebody does."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Protocol

from collector.log.segment import SIGNALS

if TYPE_CHECKING:
    from collector.config import CollectorConfig
    from collector.log.segment import Segment
    from collector.writing.health import Health

QUIET_SECONDS: Final = 20.0
"""Without spans for so long, samples and log records have time."""
BRING_IN_SECONDS: Final = 5.0


class Waiting(Protocol):
    """What is needed of ``collector.log.write_ahead.WriteAheadLog``."""

    def quiet_seconds(self, signal: str) -> float:
        """Seconds since the last request of a signal came."""

    def reconsider(self) -> None:
        """Ask again how old a segment may get."""

    def sealed(self) -> list[Segment]:
        """Segments that wait for the store and are cut."""

    async def seal(self, signal: str) -> None:
        """Seal a signal's open segment now."""


class Pace:
    """Hurried from the start: a signal is held back only while somebody has said that he calls for its rows.

    Args:
        log: Where rows wait.
        health: Nobody waits for a store that takes nothing.
        config: Ages.
    """

    def __init__(self, log: Waiting, health: Health, config: CollectorConfig) -> None:
        self._log = log
        self._health = health
        self._config = config
        self._unhurried: set[str] = set()

    @property
    def unhurried(self) -> bool:
        """Whether ``bring_in`` is called when rows are wanted, of whatever signal: till then few inserts will do."""
        return self._unhurried.issuperset(SIGNALS)

    def seal_seconds(self, signal: str) -> float:
        """How old a signal's segment may get now."""
        if signal in self._unhurried:
            return max(self._config.seal_seconds, self._config.unasked_seal_seconds)
        quiet = signal != "traces" and self._log.quiet_seconds("traces") > QUIET_SECONDS
        return max(self._config.seal_seconds, self._config.quiet_seal_seconds if quiet else 0.0)

    def hold_back(self, signal: str, *, allowed: bool) -> None:
        """Say whether ``bring_in`` will be called when rows of a signal are wanted."""
        if allowed is (signal in self._unhurried):
            return
        if allowed:
            self._unhurried.add(signal)
        else:
            self._unhurried.discard(signal)
        self._log.reconsider()

    async def bring_in(self, signal: str) -> None:
        """Return when the store has all of a signal that was taken before; earlier where it is away, or slow."""
        await self._log.seal(signal)
        wanted = {segment.id for segment in self._log.sealed() if segment.signal == signal}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BRING_IN_SECONDS):
                while wanted.intersection(segment.id for segment in self._log.sealed()) and not self._health.blocked:
                    await self._health.news()
