"""The segments that are being written, one for each signal at most.

A segment is sealed before it grows beyond its size, or when somebody wants it, so that segments grow while the store is
away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import structlog

from collector.log.admission import LogFullError
from collector.log.segment import SIGNALS
from collector.log.segment_file import SegmentFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from collector.log.committer import Append
    from collector.log.identities import Identities
    from collector.log.segment import Segment

LOG: Final = structlog.get_logger()


class Told(Protocol):
    """Who is told what became of frames and segments, in the committer's thread."""

    def kept(self, signal: str, run: Sequence[Append]) -> None:
        """Frames that are durable."""

    def refused(self, run: Sequence[Append], error: LogFullError) -> None:
        """Frames of which the disk has nothing."""

    def sealed(self, segment: Segment) -> None:
        """A segment that changes no more."""


class OpenSegments:
    """Written by the committer's thread alone; any thread may look what there is.

    Args:
        folder: Where segments lie.
        identities: Told of every durable request.
        told: Told what became of each frame.
        seal_bytes: A segment is sealed before it grows beyond this.

    Attributes:
        commits: Syncs that made frames durable.
    """

    def __init__(self, folder: Path, identities: Identities, told: Told, *, seal_bytes: int) -> None:
        self._folder = folder
        self._identities = identities
        self._told = told
        self._seal_bytes = seal_bytes
        self._files: dict[str, SegmentFile] = {}
        self.commits = 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._files)

    def of(self, signal: str) -> SegmentFile | None:
        """A signal's open segment."""
        return self._files.get(signal)

    def commit(self, group: Iterable[Append]) -> None:
        """Make a group durable: a sync for each signal in it, more where a segment is full."""
        for signal in SIGNALS:
            run: list[Append] = []
            size = 0
            for item in (i for i in group if i.signal == signal):
                current = self._files.get(signal)
                base = current.segment.bytes if current else 0
                if (base or run) and base + size + len(item.frame) > self._seal_bytes:
                    self._write(signal, run)
                    self._turn(signal)
                    run, size = [], 0
                run.append(item)
                size += len(item.frame)
            self._write(signal, run)

    def seal(self, signal: str) -> bool:
        """Let a signal's segment grow no more; False where the disk refuses even that, and it stays open."""
        current = self._files.get(signal)
        if current is None:
            return True
        try:
            current.cut()
        except OSError as error:
            self._warn("log_seal_failed", error, signal=signal)
            return False
        if not current.segment.bytes:
            del self._files[signal]
            current.discard()
            return True
        current.close()
        self._identities.sealed(current.digests)
        self._told.sealed(current.segment)
        del self._files[signal]
        try:
            self._identities.persist()
        except OSError as error:
            self._warn("journal_write_failed", error)
        return True

    def close(self) -> None:
        """Let go of the files; the next start finds what they hold."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _write(self, signal: str, run: list[Append]) -> None:
        if not run:
            return
        try:
            current = self._files.get(signal)
            if current is None:
                current = self._files[signal] = SegmentFile(self._folder, signal)
            current.append(b"".join(item.frame for item in run))
        except OSError as error:
            self._warn("log_write_failed", error, signal=signal)
            self._told.refused(run, LogFullError("disk"))
            return
        self.commits += 1
        current.segment.bodies += len(run)
        current.segment.records += sum(item.records for item in run)
        for item in run:
            self._identities.taken(item.digest)
            current.digests.append(item.digest)
        self._told.kept(signal, run)

    def _turn(self, signal: str) -> None:
        """Go on in a new segment; where the disk refuses one, the good one stays open."""
        try:
            fresh = SegmentFile(self._folder, signal)
        except OSError as error:
            self._warn("log_create_failed", error, signal=signal)
            return
        if self.seal(signal):
            self._files[signal] = fresh
        else:
            fresh.discard()

    def _warn(self, event: str, error: OSError, **about: str) -> None:
        LOG.warning(event, **about, error=error.strerror, folder=str(self._folder))
