"""How old a segment gets before it is inserted: few inserts where nobody waits for rows, soon where somebody does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final, Protocol

from collector.landing import SMALL_BYTES
from collector.log.segment import SIGNALS

if TYPE_CHECKING:
    from collector.config import CollectorConfig
    from collector.log.segment import Segment
    from collector.writing.health import Health

QUIET_SECONDS: Final = 20.0
"""Without spans for so long, samples and log records have time."""
BRING_IN_SECONDS: Final = 5.0
FEW_SAMPLES_TIMES: Final = 4
"""So many times as long as others few metrics are held back: nobody judges by their coming late, and a small insert
costs what a smaller one does."""
SILENCE_SECONDS: Final = 30.0
"""After so long without a call for any signal, nobody reads."""
_WAKING_SECONDS: Final = 4.0
"""After the first call of a reader, what senders gathered for nobody is under way so long."""
_FEW_BYTES: Final = SMALL_BYTES * 7 // 8
"""What comes within a second shall not make a segment too large for the cheaper way."""


class Waiting(Protocol):
    """What is needed of ``collector.log.write_ahead.WriteAheadLog``."""

    def quiet_seconds(self, signal: str) -> float:
        """Seconds since the last request of a signal came."""

    def open_bytes(self, signal: str) -> int:
        """Bytes of a signal's open segment."""

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
        self._read = self._woken = time.monotonic()

    @property
    def unhurried(self) -> bool:
        """Whether ``wanted`` is called when rows are, of whatever signal: till then few inserts will do."""
        return self._unhurried.issuperset(SIGNALS)

    @property
    def unread(self) -> bool:
        """Whether rows were wanted of no signal for a while, as far as is known: senders need not hurry."""
        return self.unhurried and self._silent(time.monotonic())

    @property
    def call_seconds(self) -> float:
        """From one call to the next, at least: fewer while what comes is older, since senders did not hurry."""
        waking = time.monotonic() - self._woken < _WAKING_SECONDS
        return self._config.seal_seconds / 2 if waking else self._config.seal_seconds

    def seal_seconds(self, signal: str) -> float:
        """How old a signal's segment may get now."""
        if signal in self._unhurried:
            few = signal == "metrics" and self._log.open_bytes(signal) < _FEW_BYTES
            held = self._config.unasked_seal_seconds * (FEW_SAMPLES_TIMES if few else 1)
            return max(self._config.seal_seconds, held)
        quiet = signal != "traces" and self._log.quiet_seconds("traces") > QUIET_SECONDS
        return max(self._config.seal_seconds, self._config.quiet_seal_seconds if quiet else 0.0)

    def hold_back(self, signal: str, *, allowed: bool) -> None:
        """Say whether ``wanted`` will be called when rows of a signal are."""
        if allowed is (signal in self._unhurried):
            return
        if allowed:
            self._unhurried.add(signal)
        else:
            self._unhurried.discard(signal)
        self._log.reconsider()

    async def wanted(self, signal: str) -> None:
        """Somebody reads of a signal: ``bring_in``."""
        now = time.monotonic()
        if self._silent(now):
            self._woken = now
        self._read = now
        await self.bring_in(signal)

    def _silent(self, now: float) -> bool:
        return now - self._read > SILENCE_SECONDS

    async def bring_in(self, signal: str) -> None:
        """Return when the store has all of a signal that was taken before; earlier where it is away, or slow."""
        await self._log.seal(signal)
        wanted = {segment.id for segment in self._log.sealed() if segment.signal == signal}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BRING_IN_SECONDS):
                while wanted.intersection(segment.id for segment in self._log.sealed()) and not self._health.blocked:
                    await self._health.news()
