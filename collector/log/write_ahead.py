"""The log as senders' requests and the store's writer see it."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from collector.log.admission import Admission
from collector.log.backlog import Backlog
from collector.log.committer import Committer
from collector.log.identities import Identities
from collector.log.open_segments import OpenSegments
from collector.log.outcomes import Outcomes
from collector.log.recovery import recover
from collector.log.segment import SIGNALS
from collector.log.segment_file import remove, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from collector.journal import Journal
    from collector.log.recovery import Recovered
    from collector.log.segment import Segment

    _Bytes = bytes  # the log's size has that name below

_REFUSED_SECONDS: Final = 1.0
"""Until a seal that the disk refused is tried again."""


class WriteAheadLog:
    """Segments of one data folder, written by one thread, consumed by one inserter per signal.

    Args:
        folder: Where segments lie.
        journal: Told of every sealed segment's requests before the segment can be removed.
        max_bytes: Bound of all segments together.
        seal_bytes: A segment is sealed before it grows beyond this.
    """

    def __init__(self, folder: Path, journal: Journal, *, max_bytes: int, seal_bytes: int) -> None:
        self._folder = folder
        self._admission = Admission(max_bytes)
        self._backlog = Backlog()
        self._identities = Identities(journal)
        self._committer = Committer()
        outcomes = Outcomes(self._committer.post, self._admission, self._backlog)
        self._open = OpenSegments(folder, self._identities, outcomes, seal_bytes=seal_bytes)

    @property
    def bytes(self) -> int:
        """Bytes of all segments on disk."""
        return self._admission.bytes

    @property
    def commits(self) -> int:
        """Syncs that made requests durable."""
        return self._open.commits

    def start(self) -> Recovered:
        """Read back what an earlier run left, then take requests; call it in the event loop's thread.

        Raises:
            OSError: The folder can't be read or written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        recovered = recover(self._folder, self._identities.found)
        self._backlog.recovered(recovered.segments)
        self._admission.grew(sum(segment.bytes for segment in recovered.segments))
        self._committer.start(self._open.commit)
        return recovered

    async def append(self, signal: str, frame: _Bytes, records: int, digest: _Bytes) -> None:
        """Return when the frame is durable.

        Raises:
            LogFullError: Nothing of the frame was kept.
            RuntimeError: The log is not started, or closed.
        """
        self._admission.reserve(signal, len(frame))
        try:
            await self._committer.append(signal, frame, records, digest)
        finally:
            self._admission.give_back(len(frame))

    async def take(self, signal: str, *, seal_seconds: Callable[[], float]) -> Segment:
        """The oldest sealed segment of a signal, sealing the open one once it is old enough; waits for data.

        How old that is, ``seal_seconds``, is asked whenever something comes, and after ``reconsider``. The same segment
        is returned until ``finished`` or ``replace``.
        """
        while (oldest := self._backlog.first(signal)) is None:
            current = self._open.of(signal)
            wait = None if current is None else current.opened + seal_seconds() - time.monotonic()
            if wait is None or wait > 0:
                await self._backlog.change(signal, wait)
                continue
            if not await self._committer.in_order(partial(self._open.seal, signal)):
                await asyncio.sleep(_REFUSED_SECONDS)
        return oldest

    def reconsider(self) -> None:
        """Ask again how old a segment may get."""
        self._backlog.wake()

    async def seal_all(self) -> None:
        """Seal every open segment now, for a drain."""
        for signal in SIGNALS:
            await self.seal(signal)

    async def seal(self, signal: str) -> None:
        """Seal a signal's open segment now."""
        await self._committer.in_order(partial(self._open.seal, signal))

    def sealed(self) -> list[Segment]:
        """Segments that wait for the store and are cut."""
        return self._backlog.waiting()

    def finished(self, segment: Segment) -> None:
        """Take a segment out of the queue: the store has it. Its file stays until ``unlink``."""
        self._backlog.finished(segment)

    async def unlink(self, segments: Sequence[Segment]) -> None:
        """Delete files of finished segments once their rows are durable in the store.

        Raises:
            OSError: The disk refuses; they may be given again.
        """
        await self._committer.in_order(partial(self._forget, segments))
        self._admission.grew(-sum(segment.bytes for segment in segments))

    async def replace(self, segment: Segment, children: Sequence[tuple[str, Sequence[_Bytes]]]) -> None:
        """Put segments of the given ids and frames in the place of one that the store can't read.

        Ids must be derived from the parent's: a crash between the two steps then repeats them with the same tokens.

        Raises:
            OSError: The disk refuses; the old one is there.
        """
        made = await self._committer.in_order(partial(replace, self._folder, segment, children))
        self._admission.grew(sum(child.bytes for child in made) - segment.bytes)
        self._backlog.replaced(segment, made)

    def pending(self, signal: str) -> int:
        """Acknowledged records that the store does not have yet."""
        return self._backlog.pending(signal)

    def quiet_seconds(self, signal: str) -> float:
        """Seconds since the last request of a signal came, infinite before the first."""
        return self._admission.quiet_seconds(signal)

    def open_bytes(self, signal: str) -> int:
        """Bytes of a signal's open segment, 0 where there is none."""
        current = self._open.of(signal)
        return 0 if current is None else current.segment.bytes

    def oldest(self) -> float | None:
        """Unix time of the oldest waiting segment, None when nothing waits."""
        return self._backlog.oldest()

    def segments(self) -> int:
        """Waiting segments, the open ones included."""
        return len(self._backlog)

    async def close(self) -> None:
        """Finish what was given, let go of the files and end the thread; the next start finds what they hold."""
        await self._committer.close()
        self._open.close()

    def _forget(self, segments: Sequence[Segment]) -> None:
        # A retry of what these hold must be known after they are gone.
        self._identities.persist()
        remove(segments)
