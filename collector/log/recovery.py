"""What a start finds in the log: segments to insert again, tails to cut, damage to set aside."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from base.framed import varint
from collector import framing
from collector.aside import Aside, AsideError, sync_folder, write_synced
from collector.log.segment import SUFFIX, Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

LOG: Final = structlog.get_logger()


@dataclass(slots=True)
class Recovered:
    """Result of ``recover``.

    Attributes:
        segments: Sealed segments, oldest first.
        torn_bytes: Bytes of tails without an end: of requests that were being written and were not acknowledged.
        damaged: Requests set aside because their checksum is wrong: the disk changed acknowledged bytes.
        mended: Requests whose length alone was damaged: they are whole again.
        postponed: Files left as they are for the next start, since what is damaged could not be set aside.
    """

    segments: list[Segment] = field(default_factory=list)
    torn_bytes: int = 0
    damaged: int = 0
    mended: int = 0
    postponed: int = 0

    def figures(self) -> dict[str, int]:
        """Counts of what was wrong, by their names on the health page."""
        return {
            "torn_bytes": self.torn_bytes,
            "damaged_requests": self.damaged,
            "mended_requests": self.mended,
            "postponed_segments": self.postponed,
        }

    def problems(self, folder: Path) -> list[str]:
        """Sentences about what somebody should know, or do something about; ``folder`` is the log's."""
        found = []
        if self.damaged:
            found.append(
                f"the disk has changed bytes of {self.damaged} acknowledged requests: they are not stored, "
                f"what is left of them is in {folder / 'damaged'}"
            )
        if self.postponed:
            found.append(
                f"{self.postponed} damaged files of the log wait for the next start, since what is damaged could not "
                f"be set aside: move away what is in {folder / 'damaged'}, or free some disk, and restart the collector"
            )
        return found


def recover(folder: Path, seen: Callable[[bytes], None]) -> Recovered:
    """Seal every segment of an earlier run.

    What is no whole request is copied to ``damaged/`` and synced before anything is cut; all whole requests stay,
    those behind it too.

    Args:
        folder: Folder of the segments.
        seen: Called with the identity of every request found.

    Raises:
        OSError: The folder or a file can't be read.
    """
    result = Recovered()
    aside = Aside(folder / "damaged")
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            segment = _recover_one(path, seen, result, aside)
        except AsideError as error:
            result.postponed += 1
            LOG.warning("segment_postponed", file=path.name, error=str(error), folder=str(folder))
            continue
        if segment is not None:
            result.segments.append(segment)
    if result.torn_bytes or result.damaged or result.mended:
        LOG.warning(
            "log_repaired",
            torn_bytes=result.torn_bytes,
            damaged_requests=result.damaged,
            mended_requests=result.mended,
            folder=str(folder),
        )
    return result


def _recover_one(path: Path, seen: Callable[[bytes], None], result: Recovered, aside: Aside) -> Segment | None:
    modified = path.stat().st_mtime
    data = path.read_bytes()
    found = list(framing.LAYOUT.pieces(data))
    broken = [piece for piece in found if piece.frame is None]
    whole = [piece.frame for piece in found if piece.frame is not None]
    mended = sum(piece.mended for piece in found)
    for piece in broken:
        kind = "damaged" if piece.ended else "tail"
        aside.put(f"{path.stem}-{piece.start}.{kind}", data[piece.start : piece.end])
    if not whole:
        path.unlink()
        sync_folder(path.parent)
    elif broken or mended:
        _rewrite(path, [varint(len(frame.message)) + frame.message for frame in whole])
    for frame in whole:
        seen(frame.digest)
    result.torn_bytes += sum(piece.end - piece.start for piece in broken if not piece.ended)
    result.damaged += sum(piece.ended for piece in broken)
    result.mended += mended
    if not whole:
        return None
    size = len(data) - sum(piece.end - piece.start for piece in broken)
    records = sum(frame.records for frame in whole)
    return Segment(path.stem, path.stem.partition("-")[0], path, size, records, len(whole), modified)


def _rewrite(path: Path, frames: Iterable[bytes]) -> None:
    # The sealed file's name is its token: whether the store has all of it already is the store's to know.
    temporary = path.with_suffix(".tmp")
    try:
        write_synced(temporary, frames)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise AsideError(f"{path.name} can't be written anew: {error.strerror}") from error
