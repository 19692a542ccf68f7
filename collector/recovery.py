"""What a start finds in the log: segments to insert again, tails to cut, damage to set aside."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from collector import framing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOG: Final = structlog.get_logger()

SUFFIX: Final = ".seg"


@dataclass(slots=True)
class Segment:
    """A file of the log.

    Attributes:
        id: Its name and the token of its insert.
        signal: ``traces``, ``metrics`` or ``logs``.
        path: Where it lies.
        bytes: Its length.
        records: Spans, data points or log records in it.
        bodies: Requests in it.
        created: Unix time at which it was begun.
    """

    id: str
    signal: str
    path: Path
    bytes: int
    records: int
    bodies: int
    created: float


@dataclass(slots=True)
class Recovered:
    """Result of ``recover``.

    Attributes:
        segments: Sealed segments, oldest first.
        torn_bytes: Bytes cut from tails; they were never acknowledged.
        damaged: Requests set aside because their checksum is wrong: the disk changed acknowledged bytes.
    """

    segments: list[Segment] = field(default_factory=list)
    torn_bytes: int = 0
    damaged: int = 0


def recover(folder: Path, seen: Callable[[bytes], None]) -> Recovered:
    """Seal every segment of an earlier run, cutting torn tails.

    A damaged frame that others follow is no torn tail: it is copied to ``damaged/`` and the rest is kept.

    Args:
        folder: Folder of the segments.
        seen: Called with the identity of every request found.

    Raises:
        OSError: The folder can't be read or written.
    """
    result = Recovered()
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        segment = _recover_one(path, seen, result)
        if segment is not None:
            result.segments.append(segment)
    if result.torn_bytes or result.damaged:
        LOG.warning("log_repaired", torn_bytes=result.torn_bytes, damaged_requests=result.damaged, folder=str(folder))
    return result


def _recover_one(path: Path, seen: Callable[[bytes], None], result: Recovered) -> Segment | None:
    stat = path.stat()
    size = stat.st_size
    good_end = records = bodies = 0
    suspects: list[tuple[int, int]] = []
    damaged: list[tuple[int, int]] = []
    with path.open("rb") as file:
        for frame in framing.read(file):
            if not frame.intact:
                suspects.append((frame.offset, frame.end))
                continue
            damaged, suspects = damaged + suspects, []
            seen(frame.digest)
            good_end, records, bodies = frame.end, records + frame.records, bodies + 1
    if good_end == 0:
        _set_aside(path, [(0, size)] if size else [])
        result.torn_bytes += size
        path.unlink()
        return None
    if good_end < size:
        result.torn_bytes += size - good_end
        os.truncate(path, good_end)
    if damaged:
        result.damaged += len(damaged)
        _set_aside(path, damaged)
        _drop(path, damaged)
        good_end = path.stat().st_size
    return Segment(path.stem, path.stem.partition("-")[0], path, good_end, records, bodies, stat.st_mtime)


def _set_aside(path: Path, ranges: list[tuple[int, int]]) -> None:
    if not ranges:
        return
    target = path.parent / "damaged" / path.name
    target.parent.mkdir(exist_ok=True)
    with path.open("rb") as source, target.open("wb") as file:
        for start, end in ranges:
            source.seek(start)
            file.write(source.read(end - start))


def _drop(path: Path, ranges: list[tuple[int, int]]) -> None:
    temporary = path.with_suffix(".tmp")
    with path.open("rb") as source, temporary.open("wb") as file:
        at = 0
        for start, end in [*ranges, (path.stat().st_size, 0)]:
            source.seek(at)
            file.write(source.read(start - at))
            at = end
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
