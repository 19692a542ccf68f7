"""Readers' demand for rows that a collector still holds: it is told that somebody reads, who waits a moment for it.

However little comes, an insert costs what the analysis of its views costs. So a collector that listens here may hold
rows back for long, and brings them in when they are wanted. Each signal has a demand of its own.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

PATIENCE_SECONDS: Final = 1.0
"""The longest that a reader waits for rows; what comes later it does not see."""
LISTEN_SECONDS: Final = 25.0
"""After so long a collector is told that nobody reads, so that neither side holds a connection that is dead."""


class Demand:
    """Brings readers and collectors together; lives on the event loop."""

    def __init__(self) -> None:
        self._listening: set[asyncio.Future[bool]] = set()
        self._pause = 0.0
        self._begun = float("-inf")
        self._expected = float("-inf")
        self._missed = False
        self._owing = 0
        self._supplied: asyncio.Event | None = None
        self._closed = False

    async def supplied(self) -> None:
        """Return when the tables have what came until a pause ago, or when that takes too long.

        At once where no collector listens, and within a pause of the call before.
        """
        if self._supplied is None:
            now = time.monotonic()
            if (not self._listening and now > self._expected) or now - self._begun < self._pause:
                return
            self._begun = now
            self._supplied = asyncio.Event()
            self._missed = not self._listening
            self._owing = max(1, self._tell(wanted=True))
        under_way = self._supplied
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await under_way.wait()
        except TimeoutError:
            if self._supplied is under_way:
                self._end()

    async def wanted(self, pause: float, *, done: bool) -> bool:
        """Wait until somebody reads; False where nobody did for a while.

        Args:
            pause: Seconds from one call to the next, at least.
            done: The collector was told so the last time, and has brought in what it held.
        """
        if done and self._owing:
            self._owing -= 1
            if not self._owing:
                self._end()
        if self._closed:
            return False
        self._pause = pause
        if self._missed:
            self._missed = False
            return True
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._listening.add(told)
        try:
            async with asyncio.timeout(LISTEN_SECONDS):
                return await told
        except TimeoutError:
            # it comes back at once, and whoever reads meanwhile must not miss it
            self._expected = time.monotonic() + PATIENCE_SECONDS
            return False
        finally:
            self._listening.discard(told)

    def close(self) -> None:
        """Send everybody away: the store stops."""
        self._closed = True
        self._tell(wanted=False)
        self._end()

    def _tell(self, *, wanted: bool) -> int:
        waiting = [told for told in self._listening if not told.done()]
        for told in waiting:
            told.set_result(wanted)
        self._listening = set()
        return len(waiting)

    def _end(self) -> None:
        self._owing = 0
        self._missed = False
        if self._supplied is not None:
            self._supplied.set()
            self._supplied = None
