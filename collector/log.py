"""The write-ahead log: what was acknowledged is on disk, in files the engine reads as they are.

Per signal there is one open segment at most. A thread of its own takes whatever requests wait, appends them, calls
``fdatasync`` once for all of them and only then lets them be acknowledged (group commit). A segment is sealed when it
is large or when the writer wants it and it is old enough, so that segments grow while the store is away. A sealed
segment is never cut again: its id is the token by which the store knows a repeated insert.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from collector.recovery import Segment, recover
from collector.segment_file import SegmentFile, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from collector.journal import Journal
    from collector.recovery import Recovered

LOG: Final = structlog.get_logger()

SIGNALS: Final = ("traces", "metrics", "logs")
_GROUP_LIMIT: Final = 32 << 20
"""Bytes that one group commit takes together at most."""


class LogFullError(Exception):
    """The log can't take a request now: it is over its bound (``bound``) or the disk refused the write (``disk``)."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(slots=True)
class _Append:
    signal: str
    frame: bytes
    records: int
    digest: bytes
    done: asyncio.Future[None]


@dataclass(slots=True)
class _Task:
    """Work that must run in order with the appends."""

    run: Callable[[], object]
    done: asyncio.Future[object]


class WriteAheadLog:
    """Segments of one data folder, written by one thread, consumed by one writer per signal.

    Args:
        folder: Where segments lie.
        journal: Told of every sealed segment's requests before the segment can be removed.
        max_bytes: Bound of all segments together.
        seal_bytes: A segment is sealed before it grows beyond this.
    """

    def __init__(self, folder: Path, journal: Journal, *, max_bytes: int, seal_bytes: int) -> None:
        self._folder = folder
        self._journal = journal
        self._max_bytes = max_bytes
        self._seal_bytes = seal_bytes
        self._queue: queue.SimpleQueue[_Append | _Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log-commit")
        self._open: dict[str, SegmentFile] = {}
        self._sealed: dict[str, deque[Segment]] = {signal: deque() for signal in SIGNALS}
        self._changed: dict[str, asyncio.Event] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unpersisted: list[bytes] = []
        self._reserved = 0
        self._pending = dict.fromkeys(SIGNALS, 0)
        self._touched = dict.fromkeys(SIGNALS, -math.inf)
        self.bytes = 0
        self.commits = 0

    def start(self) -> Recovered:
        """Read back what an earlier run left, then take requests; call it in the event loop's thread.

        Raises:
            OSError: The folder can't be read or written.
        """
        self._loop = asyncio.get_running_loop()
        self._changed = {signal: asyncio.Event() for signal in SIGNALS}
        self._folder.mkdir(parents=True, exist_ok=True)
        recovered = recover(self._folder, self._remember)
        for segment in recovered.segments:
            self._sealed[segment.signal].append(segment)
            self._changed[segment.signal].set()
            self._pending[segment.signal] += segment.records
            self.bytes += segment.bytes
        self._thread.start()
        return recovered

    def _remember(self, digest: bytes) -> None:
        # A crash may have come before the identity was written, and the next one may come after the segment is gone.
        self._journal.add(digest)
        self._unpersisted.append(digest)

    async def append(self, signal: str, frame: bytes, records: int, digest: bytes) -> None:
        """Return when the frame is durable.

        Raises:
            LogFullError: Nothing of the frame was kept.
        """
        if self._loop is None:
            raise RuntimeError("the log is not started")
        if self.bytes + self._reserved + len(frame) > self._max_bytes:
            raise LogFullError("bound")
        done: asyncio.Future[None] = self._loop.create_future()
        self._reserved += len(frame)
        self._touched[signal] = time.monotonic()
        try:
            self._queue.put(_Append(signal, frame, records, digest, done))
            # A sender that hangs up must not undo what the thread is about to make durable.
            await asyncio.shield(done)
        finally:
            self._reserved -= len(frame)

    async def take(self, signal: str, *, seal_seconds: float) -> Segment:
        """The oldest sealed segment of a signal, sealing the open one once it is old enough; waits for data.

        The same segment is returned until ``remove`` or ``replace``.
        """
        while True:
            self._changed[signal].clear()
            if self._sealed[signal]:
                return self._sealed[signal][0]
            current = self._open.get(signal)
            wait = None if current is None else current.opened + seal_seconds - time.monotonic()
            if wait is not None and wait <= 0:
                await self._in_order(lambda: self._seal(signal))
                if self._open.get(signal) is current:  # the disk refuses even that
                    await asyncio.sleep(1)
                continue
            try:
                await asyncio.wait_for(self._changed[signal].wait(), wait)
            except TimeoutError:
                continue

    async def seal_all(self) -> None:
        """Seal every open segment now, for a drain."""
        for signal in SIGNALS:
            await self._in_order(lambda signal=signal: self._seal(signal))  # type: ignore[misc]

    def finished(self, segment: Segment) -> None:
        """Take a segment out of the queue: the store has it. Its file stays until ``unlink``."""
        self._sealed[segment.signal].remove(segment)
        self._pending[segment.signal] -= segment.records

    async def unlink(self, segments: Sequence[Segment]) -> None:
        """Delete files of finished segments once their rows are durable in the store."""
        await self._in_order(lambda: self._unlink(segments))
        self.bytes -= sum(s.bytes for s in segments)

    async def replace(self, segment: Segment, children: Sequence[tuple[str, Sequence[bytes]]]) -> None:
        """Put segments of the given ids and frames in the place of one that the store can't read.

        Ids must be derived from the parent's: a crash between the two steps then repeats them with the same tokens.
        """
        made = [
            s for s in await self._in_order(lambda: replace(self._folder, segment, children)) if isinstance(s, Segment)
        ]
        waiting = self._sealed[segment.signal]
        waiting.remove(segment)
        waiting.extendleft(reversed(made))
        self.bytes += sum(s.bytes for s in made) - segment.bytes
        self._pending[segment.signal] += sum(s.records for s in made) - segment.records
        self._changed[segment.signal].set()

    def pending(self, signal: str) -> int:
        """Acknowledged records that the store does not have yet."""
        return self._pending[signal]

    def quiet_seconds(self, signal: str) -> float:
        """Seconds since the last request of a signal came, infinite before the first."""
        return time.monotonic() - self._touched[signal]

    def oldest(self) -> float | None:
        """Unix time of the oldest waiting segment, None when nothing waits."""
        times = [waiting[0].created for waiting in self._sealed.values() if waiting]
        times += [current.segment.created for current in list(self._open.values())]
        return min(times, default=None)

    def segments(self) -> int:
        """Waiting segments, the open ones included."""
        return sum(len(waiting) for waiting in self._sealed.values()) + len(self._open)

    async def close(self) -> None:
        """Finish what was queued, seal what is open and end the thread."""
        if self._loop is None or not self._thread.is_alive():
            return
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        for current in self._open.values():
            current.close()
        self._open.clear()

    async def _in_order(self, run: Callable[[], object]) -> list[object]:
        if self._loop is None:
            raise RuntimeError("the log is not started")
        done: asyncio.Future[object] = self._loop.create_future()
        self._queue.put(_Task(run, done))
        result = await done
        return result if isinstance(result, list) else []

    # Everything below runs in the thread.
    def _run(self) -> None:
        while True:
            group: list[_Append] = []
            size = 0
            item = self._queue.get()
            while isinstance(item, _Append):
                group.append(item)
                size += len(item.frame)
                if size >= _GROUP_LIMIT or self._queue.empty():
                    break
                item = self._queue.get()
            self._commit(group)
            if item is None:
                return
            if isinstance(item, _Task):
                self._run_task(item)

    def _run_task(self, task: _Task) -> None:
        try:
            result = task.run()
        except Exception as error:  # noqa: BLE001 - handed to the one who waits for it
            self._post(_fail, [task.done], error)
        else:
            self._post(_succeed, [task.done], result)

    def _commit(self, group: list[_Append]) -> None:
        for signal in SIGNALS:
            run: list[_Append] = []
            size = 0
            for item in (i for i in group if i.signal == signal):
                current = self._open.get(signal)
                base = current.segment.bytes if current else 0
                if (base or run) and base + size + len(item.frame) > self._seal_bytes:
                    self._write(signal, run)
                    self._turn(signal)
                    run, size = [], 0
                run.append(item)
                size += len(item.frame)
            self._write(signal, run)

    def _write(self, signal: str, run: list[_Append]) -> None:
        if not run:
            return
        futures: list[asyncio.Future[object]] = [item.done for item in run]  # type: ignore[misc]
        try:
            current = self._open.get(signal)
            if current is None:
                current = self._open[signal] = SegmentFile(self._folder, signal)
            current.append(b"".join(item.frame for item in run))
        except OSError as error:
            LOG.warning("log_write_failed", signal=signal, error=error.strerror, folder=str(self._folder))
            self._post(_fail, futures, LogFullError("disk"))
            return
        self.commits += 1
        current.segment.bodies += len(run)
        current.segment.records += (records := sum(item.records for item in run))
        for item in run:
            self._journal.add(item.digest)
            current.digests.append(item.digest)
        self._post(self._committed, signal, sum(len(item.frame) for item in run), records, futures)

    def _turn(self, signal: str) -> None:
        """Go on in a new segment; where the disk refuses one, the good one stays open."""
        try:
            fresh = SegmentFile(self._folder, signal)
        except OSError as error:
            LOG.warning("log_create_failed", signal=signal, error=error.strerror, folder=str(self._folder))
            return
        if self._seal(signal):
            self._open[signal] = fresh
        else:
            fresh.discard()

    def _seal(self, signal: str) -> bool:
        current = self._open.get(signal)
        if current is None:
            return True
        try:
            current.cut()
        except OSError as error:
            LOG.warning("log_seal_failed", signal=signal, error=error.strerror, folder=str(self._folder))
            return False
        if not current.segment.bytes:
            del self._open[signal]
            current.discard()
            return True
        current.close()
        self._unpersisted += current.digests
        self._post(self._enqueue, current.segment)
        # Counted twice for a moment, rather than for a moment not at all.
        del self._open[signal]
        try:
            self._persist()
        except OSError as error:
            LOG.warning("journal_write_failed", error=error.strerror, folder=str(self._folder))
        return True

    def _persist(self) -> None:
        self._journal.persist(self._unpersisted)
        self._unpersisted = []

    def _unlink(self, segments: Sequence[Segment]) -> None:
        # A retry of what these hold must be known after they are gone.
        self._persist()
        for segment in segments:
            segment.path.unlink(missing_ok=True)

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(call, *arguments)

    # Back in the event loop.

    def _committed(self, signal: str, size: int, records: int, futures: list[asyncio.Future[object]]) -> None:
        self.bytes += size
        self._pending[signal] += records
        self._changed[signal].set()
        _succeed(futures, None)

    def _enqueue(self, segment: Segment) -> None:
        self._sealed[segment.signal].append(segment)
        self._changed[segment.signal].set()


def _succeed(futures: list[asyncio.Future[object]], result: object) -> None:
    for future in (one for one in futures if not one.done()):
        future.set_result(result)


def _fail(futures: list[asyncio.Future[object]], error: Exception) -> None:
    for future in (one for one in futures if not one.done()):
        future.set_exception(error)
