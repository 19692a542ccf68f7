"""Files of the log: one that is being written, durable or not at all, and those that take a sealed one's place."""

from __future__ import annotations

import os
import time
import uuid
from typing import TYPE_CHECKING

from collector import framing, landing
from collector.aside import sync_folder, write_synced
from collector.log.segment import SUFFIX, Segment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


class SegmentFile:
    """The segment of a signal that is being written; belongs to one thread.

    Args:
        folder: Where it is made.
        signal: ``traces``, ``metrics`` or ``logs``.

    Attributes:
        segment: What is on the disk of it.
        opened: Monotonic time at which it was begun.
        digests: Identities of the requests in it.

    Raises:
        OSError: The disk refuses; no file is left.
    """

    def __init__(self, folder: Path, signal: str) -> None:
        name = f"{signal}-{time.time_ns():020d}-{landing.MARK}{uuid.uuid4().hex[:8]}"
        path = folder / f"{name}{SUFFIX}"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            sync_folder(folder)
        except OSError:
            os.close(self._descriptor)
            path.unlink(missing_ok=True)
            raise
        self.segment = Segment(name, signal, path, 0, 0, 0, time.time())
        self.opened = time.monotonic()
        self.digests: list[bytes] = []
        self._torn = False

    def append(self, data: bytes) -> None:
        """Write data and wait until the disk has them.

        Raises:
            OSError: The disk refuses; nothing of them stays.
        """
        self.cut()
        self._torn = True
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fdatasync(self._descriptor)
        except OSError:
            self.cut()
            raise
        self._torn = False
        self.segment.bytes += len(data)

    def cut(self) -> None:
        """Take back what follows the last acknowledged byte: it would make the engine refuse the whole segment.

        Raises:
            OSError: The disk refuses; it is tried again the next time.
        """
        if self._torn:
            os.ftruncate(self._descriptor, self.segment.bytes)
            self._torn = False

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def discard(self) -> None:
        """Let go of the file and remove it."""
        self.close()
        self.segment.path.unlink(missing_ok=True)


def replace(folder: Path, segment: Segment, children: Sequence[tuple[str, Sequence[bytes]]]) -> list[Segment]:
    """Put files of the given ids and frames in the place of a sealed one; they are synced before it goes.

    Raises:
        OSError: The disk refuses; the old one is there.
    """
    made = []
    for name, frames in children:
        path = folder / f"{name}{SUFFIX}"
        write_synced(path, frames)
        with path.open("rb") as file:
            found = list(framing.read(file))
        size = path.stat().st_size
        records = sum(frame.records for frame in found)
        made.append(Segment(name, segment.signal, path, size, records, len(found), segment.created))
    sync_folder(folder)
    segment.path.unlink(missing_ok=True)
    sync_folder(folder)
    return made


def remove(segments: Iterable[Segment]) -> None:
    """Delete files whose rows are durable in the store; one that is gone is no fault.

    Raises:
        OSError: The disk refuses; those that are left may be given again.
    """
    for segment in segments:
        segment.path.unlink(missing_ok=True)
