"""Deletes the files of segments whose rows the store has, once these are on the store's disk."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from collector.log.segment import Segment

LOG: Final = structlog.get_logger()

KEEP_SECONDS: Final = 10.0
"""One sync for many segments; what is kept longer is only inserted again after a crash, and dropped."""
KEEP_BYTES: Final = 64 << 20


class Reaper:
    """Keeps stored segments until they may go.

    Args:
        unlink: Deletes their files.
        make_durable: Returns once everything inserted so far is on the store's disk; None where the store itself
            answers for that, and files go at once.
    """

    def __init__(
        self, unlink: Callable[[Sequence[Segment]], Awaitable[None]], make_durable: Callable[[], None] | None
    ) -> None:
        self._unlink = unlink
        self._make_durable = make_durable
        self._stored: list[Segment] = []
        self._came = asyncio.Event()

    def add(self, segment: Segment) -> None:
        """A segment that the store has."""
        self._stored.append(segment)
        self._came.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._came.wait()
            if self._make_durable is not None and sum(segment.bytes for segment in self._stored) < KEEP_BYTES:
                await asyncio.sleep(KEEP_SECONDS)
            self._came.clear()
            await self.release()

    async def release(self) -> None:
        """Delete the files of all that came, after making their rows durable; those that can't go are kept."""
        batch, self._stored = self._stored, []
        if not batch:
            return
        kept = batch
        try:
            if self._make_durable is not None:
                await asyncio.to_thread(self._make_durable)
            await self._unlink(batch)
            kept = []
        except OSError as error:
            # Kept files are inserted again at the next start and dropped by their tokens.
            LOG.warning("segments_kept", error=error.strerror, segments=len(batch))
        finally:
            self._stored = kept + self._stored
