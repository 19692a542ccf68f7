"""A bounded, crash-safe queue on disk between the processes that record and the one that ships.

A *producer* (the agent itself, each tap) appends OTLP request bodies to segments of its own below
``spool/<producer>/<signal>/``, a signal being ``traces``, ``metrics`` or ``logs``. A segment is a file of
varint-length-delimited bodies, so it can be read by any protobuf tool; each ends in a field with its checksum. The
agent tails every producer's segments.

What makes it safe:

- One ``write(2)`` a record: what ``append`` has returned ``True`` for outlives a kill -9 of its writer (it is in the
  page cache). Power loss may cost the last seconds: a serving process must not wait for a disk.
- A writer holds a lock (``flock``) on its live segment. A segment that nobody locks is sealed; a torn record at the
  end of a sealed segment belongs to a writer that died and is skipped, counted. So is a record of which the disk has
  changed bytes, alone; one whose length alone is damaged is sent.
- The reader persists the plan of a batch (segment, start, end, id) before it is sent and moves on only after the
  acknowledgement: a retry after a crash carries the same bytes under the same id.
- Bounds: a writer refuses records above ``max_bytes``; well before that the reader gives up the oldest sealed
  segments, which only it can do with an exact count of what was never sent.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, get_args

import structlog

from agent.spool.framing import CHECKED, MAX_RECORD_BYTES, seal
from base import locks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SpoolSignal = Literal["traces", "metrics", "logs"]
SIGNALS: Final[tuple[str, ...]] = get_args(SpoolSignal)
SUFFIX: Final = ".seg"
DEFAULT_MAX_BYTES: Final = 512_000_000
_RETRY_SECONDS: Final = 1.0
_PRODUCER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

log = structlog.get_logger()


def producer_folder(spool: Path, producer: str) -> Path:
    """Folder of a producer below ``DIR/spool``; other characters than letters, digits, ``._-`` become ``_``.

    Raises:
        ValueError: The name is empty or starts with a dot after the replacement.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", producer)[:100]
    if not _PRODUCER.fullmatch(name):
        raise ValueError(f"producer {producer!r} can't name a folder")
    return spool / name


class SpoolWriter:
    """Appends bodies of one producer; safe to call from several threads; never raises into serving.

    Args:
        folder: ``DIR/spool/<producer>``; made when the first record comes.
        max_bytes: Bound on what may lie in one signal's folder.
        segment_bytes: A segment that reaches this size is sealed.
        segment_seconds: A segment of this age is sealed at the next record.
        begun: Told the signal and the path of each new segment before its first record; an ``OSError`` of its own is
            said in the log and changes nothing.

    Attributes:
        written: Records appended, by signal.
        dropped: Records refused, by reason: ``full`` (the bound), ``disk`` (no space, no permission), ``too_large``.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int = DEFAULT_MAX_BYTES,
        *,
        segment_bytes: int = 4_000_000,
        segment_seconds: float = 60.0,
        begun: Callable[[str, Path], None] | None = None,
    ) -> None:
        self.folder = folder
        self.written: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._begun = begun
        self._open: dict[str, _LiveSegment] = {}
        self._lock = threading.Lock()
        self._failing = False

    def append(self, signal: SpoolSignal, body: bytes) -> bool:
        """Append one serialized OTLP export request.

        Returns:
            Whether the record is in the spool; ``False`` is counted in ``dropped``.
        """
        if not body:
            return True
        if len(body) > MAX_RECORD_BYTES:
            return self._drop("too_large")
        record = seal(body)
        with self._lock:
            try:
                now = time.monotonic()
                segment = self._open.get(signal)
                if segment is None or now >= segment.sure_until or segment.size >= self._segment_bytes:
                    segment = self._look(signal, segment, now)
                if segment.size + len(record) > segment.room:
                    return self._drop("full")
                segment.write(record)
            except OSError as error:
                return self._drop("disk", error)
            self.written[signal] += 1
            self._failing = False
            return True

    def close(self) -> None:
        """Seal the live segments."""
        with self._lock:
            for segment in self._open.values():
                segment.close()
            self._open.clear()

    def _look(self, signal: str, live: _LiveSegment | None, now: float) -> _LiveSegment:
        """The segment to write to, looked at: it may be due, and what else lies in its folder changes."""
        if live is None or live.is_due(self._segment_bytes, self._segment_seconds, now):
            live = self._begin(signal, live)
        live.look(self._segment_seconds, self._max_bytes, now)
        return live

    def _begin(self, signal: str, live: _LiveSegment | None) -> _LiveSegment:
        """A new segment in place of the live one, or that one where none can be had and it will do."""
        try:
            fresh = _LiveSegment(self.folder / signal)
        except OSError:
            if live is None or not live.is_whole:
                raise
            live.put_off()  # no descriptor or no room for a file: the open one still takes records
            return live
        if live is not None:
            live.close()
        self._open[signal] = fresh
        if self._begun is not None:
            try:
                self._begun(signal, fresh.path)
            except OSError as error:
                log.warning("spool_segment_not_followed", segment=str(fresh.path), error=str(error))
        return fresh

    def _drop(self, reason: str, error: OSError | None = None) -> Literal[False]:
        self.dropped[reason] += 1
        if not self._failing:  # once per spell: the counter tells the rest
            self._failing = True
            log.warning("spool_refused_record", folder=str(self.folder), reason=reason, error=str(error or ""))
        return False


class _LiveSegment:
    """The segment that this process is writing: locked, append only.

    Attributes:
        size: Bytes in it.
        room: Bytes that it may hold, for what else lies in its folder.
        sure_until: Until then (monotonic seconds) neither its age nor its room need be looked at again.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = f"{time.time_ns():020d}-{os.getpid()}"
        hidden = folder / f".{name}"
        self.path = folder / f"{name}{CHECKED}{SUFFIX}"
        self._folder = folder
        self._descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            # Locked before it shows under its name: a reader can't take it for one whose writer is gone.
            locks.hold(self._descriptor)
            hidden.rename(self.path)
        except OSError:
            os.close(self._descriptor)
            hidden.unlink(missing_ok=True)
            raise
        self.size = 0
        self._born = time.monotonic()
        self._due_after = 0.0
        self._measured_at = float("-inf")
        self._others = 0
        self._torn = False
        self.sure_until = self._measured_at
        self.room = 0

    @property
    def is_whole(self) -> bool:
        return not self._torn

    def put_off(self) -> None:
        self._due_after = time.monotonic() + _RETRY_SECONDS

    def is_due(self, segment_bytes: int, segment_seconds: float, now: float) -> bool:
        aged = self.size >= segment_bytes or now - self._born >= segment_seconds
        return self._torn or (self.size > 0 and aged and now >= self._due_after)

    def look(self, segment_seconds: float, max_bytes: int, now: float) -> None:
        if now - self._measured_at >= _RETRY_SECONDS:
            self._others = folder_bytes(self._folder) - self.size
            self._measured_at = now
        self.room = max_bytes - self._others
        self.sure_until = min(self._born + segment_seconds, self._measured_at + _RETRY_SECONDS)

    def write(self, record: bytes) -> None:
        written = os.write(self._descriptor, record)
        if written != len(record):  # the disk took a part: take it back, or it would swallow the next record
            self._torn = True
            self.sure_until = float("-inf")
            os.ftruncate(self._descriptor, self.size)
            self._torn = False
            raise OSError(f"{written} of {len(record)} bytes written")
        self.size += written

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closing releases the lock; there is nothing to flush
            os.close(self._descriptor)


def folder_bytes(folder: Path) -> int:
    """Bytes in the segments of one signal's folder; 0 when it does not exist."""
    total = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX):
                with contextlib.suppress(FileNotFoundError):  # the reader is done with it
                    total += entry.stat().st_size
    return total
