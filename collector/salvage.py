"""Find the requests of a segment of which the disk changed bytes: all that are whole, whatever lies between them.

A frame is followed by its length. Where a length leads nowhere or to bytes with a wrong checksum, the next footer is
looked for: where a frame with the length that this footer implies has a right checksum, only its length was damaged,
and it is mended; else what lies before the next whole frame is damaged. One pass over the bytes, however many footers
they seem to hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from collector import framing

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE: Final = 16
"""How often all bytes may be looked at for one damaged request, which may be full of what looks like footers."""
_LOOKED_THROUGH: Final = 1 << 20
"""Bytes of a damaged request within which the beginning of the next one is looked for byte by byte."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a segment.

    Attributes:
        start: Offset of its first byte.
        end: Offset behind its last byte.
        frame: The whole request in it, None where there is none.
        mended: The request is whole, its length as it lies there is not.
        ended: It reaches up to a footer: a request that had been written whole, not one that was being written.
    """

    start: int
    end: int
    frame: framing.Frame | None
    mended: bool = False
    ended: bool = True


def pieces(data: bytes) -> Iterator[Piece]:
    """Cut a segment's bytes into whole requests and what is damaged; together they are all of it, in order."""
    at = 0
    while at < len(data):
        frame = framing.frame_at(data, at)
        piece = Piece(at, frame.end, frame) if frame is not None else _next(data, at)
        yield piece
        at = piece.end


def _next(data: bytes, at: int) -> Piece:
    checksum = framing.Checksum(data, at)
    stored = framing.frame_end(data, at)
    patience = _PATIENCE * len(data)
    for end in _ends(data, at, stored):
        frame = checksum.frame_up_to(end)
        if frame is not None:
            return Piece(at, end, frame, mended=True)
        patience -= _work(data, end)
        if patience < 0:
            break
        if end == len(data) or framing.frame_at(data, end) is not None:
            return Piece(at, end, None) if (start := _begin(data, at, end)) is None else Piece(at, start, None)
    if stored is not None and framing.frame_at(data, stored) is not None:
        return Piece(at, stored, None)
    return Piece(at, len(data), None, ended=False)


def _work(data: bytes, start: int) -> int:
    end = framing.frame_end(data, start)
    return end - start if end is not None and framing.ends_frame(data, start, end) else 1


def _begin(data: bytes, at: int, end: int) -> int | None:
    """Where behind ``at`` a whole frame begins that ends at ``end``: the end of the one at ``at`` is lost too."""
    for start in range(at + 1, min(end, at + _LOOKED_THROUGH)):
        if framing.frame_end(data, start) == end and framing.frame_at(data, start) is not None:
            return start
    return None


def _ends(data: bytes, at: int, stored: int | None) -> Iterator[int]:
    """Where the frame that begins at an offset may end: at each footer, and where its length says, in order."""
    for end in framing.footer_ends(data, at):
        if stored is not None and stored < end:
            yield stored
        if stored is not None and stored <= end:
            stored = None
        yield end
    if stored is not None:
        yield stored
