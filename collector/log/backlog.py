"""What was acknowledged and is not the store's yet: sealed segments in their order, and how many records wait."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING

from collector.log.segment import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from collector.log.segment import Segment


class Backlog:
    """Sealed segments by signal, and the records of those and of the open ones; belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._sealed: dict[str, deque[Segment]] = {signal: deque() for signal in SIGNALS}
        self._open: dict[str, float] = {}
        self._pending = dict.fromkeys(SIGNALS, 0)
        self._changed = {signal: asyncio.Event() for signal in SIGNALS}

    def recovered(self, segments: Iterable[Segment]) -> None:
        """Sealed segments that an earlier run left: their records are new here."""
        for segment in segments:
            self._pending[segment.signal] += segment.records
            self.sealed(segment)

    def kept(self, signal: str, records: int) -> None:
        """Records that are durable in the open segment."""
        self._open.setdefault(signal, time.time())
        self._pending[signal] += records
        self._changed[signal].set()

    def sealed(self, segment: Segment) -> None:
        """A segment that goes last, its signal's open one till now; its records are counted."""
        self._open.pop(segment.signal, None)
        self._sealed[segment.signal].append(segment)
        self._changed[segment.signal].set()

    def replaced(self, segment: Segment, children: Sequence[Segment]) -> None:
        """Segments that go where another one was."""
        waiting = self._sealed[segment.signal]
        waiting.remove(segment)
        waiting.extendleft(reversed(children))
        self._pending[segment.signal] += sum(child.records for child in children) - segment.records
        self._changed[segment.signal].set()

    def finished(self, segment: Segment) -> None:
        """A segment whose rows the store has."""
        self._sealed[segment.signal].remove(segment)
        self._pending[segment.signal] -= segment.records

    def first(self, signal: str) -> Segment | None:
        """The oldest sealed segment of a signal."""
        return self._sealed[signal][0] if self._sealed[signal] else None

    def waiting(self) -> list[Segment]:
        """Sealed segments of all signals, those of each in their order."""
        return [segment for waiting in self._sealed.values() for segment in waiting]

    def __len__(self) -> int:
        """Segments that wait, the open ones with something in them included.

        What the thread has open is no answer: it lets go of a segment before the loop hears that it is sealed.
        """
        return len(self.waiting()) + len(self._open)

    def oldest(self) -> float | None:
        """Unix time of the oldest of them, None where there is none."""
        return min([*self._open.values(), *(segment.created for segment in self.waiting())], default=None)

    def pending(self, signal: str) -> int:
        """Acknowledged records that the store does not have."""
        return self._pending[signal]

    async def change(self, signal: str, seconds: float | None) -> None:
        """Return when something of a signal was kept, sealed or replaced, after ``wake``, or after so many seconds."""
        changed = self._changed[signal]
        changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), seconds)

    def wake(self) -> None:
        """Have everybody look again who waits for a change."""
        for changed in self._changed.values():
            changed.set()
