"""Messages in a file, each with its length in front and a checksum at its end, and what damage leaves of them.

The checksum is of the message and of its length. Where a length leads nowhere or to bytes with a wrong checksum, the
next footer is looked for: where a message with the length that this footer implies has a right checksum, only its
length was damaged, and it is mended; else what lies before the next whole message is damaged. One pass over the bytes,
however many footers they seem to hold.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONGEST_VARINT: Final = 5
CUT_OFF: Final = (0, 0)
_PATIENCE: Final = 16
"""How often all bytes may be looked at for one damaged message, which may be full of what looks like footers."""
_LOOKED_THROUGH: Final = 1 << 20
"""Bytes of a damaged message within which the beginning of the next one is looked for byte by byte."""


class Ending(Protocol):
    """What is known of a whole message; more in each kind of file."""

    @property
    def end(self) -> int:
        """Offset behind its last byte."""


F = TypeVar("F", bound=Ending)


@dataclass(frozen=True, slots=True)
class Piece(Generic[F]):
    """A stretch of a file.

    Attributes:
        start: Offset of its first byte.
        end: Offset behind its last byte.
        frame: The whole message in it, None where there is none.
        mended: The message is whole, its length as it lies there is not.
        ended: It reaches up to a footer: a message that had been written whole, not one that was being written.
    """

    start: int
    end: int
    frame: F | None
    mended: bool = False
    ended: bool = True


@dataclass(frozen=True, slots=True)
class Layout(Generic[F]):
    """How messages of one kind of file end.

    Attributes:
        footer_bytes: What every message ends in.
        crc_bytes: The last of these, which the checksum does not cover.
        limit: No message is longer; a longer length is damaged.
        mark: Bytes by which a footer is found.
        mark_at: Their offset in the footer.
        looks: Whether what looks like a footer lies before an offset, which it fits in front of.
        make: From data, offsets of length, message and end, checksum of what it covers but the length, and the bytes of
            the right length: the whole message, or None where the checksum is wrong.
    """

    footer_bytes: int
    crc_bytes: int
    limit: int
    mark: bytes
    mark_at: int
    looks: Callable[[bytes, int], bool]
    make: Callable[[bytes, int, int, int, int, bytes], F | None]

    def length_at(self, data: bytes, offset: int) -> tuple[int, int]:
        """A message's length and where it begins.

        ``CUT_OFF`` where the data end first, a length beyond the limit where it is none.
        """
        value = 0
        for index in range(offset, min(offset + LONGEST_VARINT, len(data))):
            value |= (data[index] & 0x7F) << 7 * (index - offset)
            if data[index] < 0x80 or value > self.limit:  # noqa: PLR2004 - the last byte of a varint
                return value, index + 1
        return CUT_OFF if len(data) - offset < LONGEST_VARINT else (self.limit + 1, offset + LONGEST_VARINT)

    def frame_end(self, data: bytes, offset: int) -> int | None:
        """Where the message whose length lies at an offset ends by it; None where that can't be followed."""
        length, begin = self.length_at(data, offset)
        end = begin + length
        return None if not begin or length > self.limit or end > len(data) else end

    def frame_at(self, data: bytes, offset: int) -> F | None:
        """The whole message whose length lies at an offset, None where there is none."""
        end = self.frame_end(data, offset)
        if end is None or not self._ends_frame(data, offset, end):
            return None
        return _Checksum(self, data, offset).frame_up_to(end, length=data[offset : offset + LONGEST_VARINT])

    def pieces(self, data: bytes) -> Iterator[Piece[F]]:
        """Cut bytes into whole messages and what is damaged; together they are all of it, in order."""
        at = 0
        while at < len(data):
            frame = self.frame_at(data, at)
            piece = Piece(at, frame.end, frame) if frame is not None else self._next(data, at)
            yield piece
            at = piece.end

    def _ends_frame(self, data: bytes, offset: int, end: int) -> bool:
        return end - offset > self.footer_bytes and self.looks(data, end)

    def _footer_ends(self, data: bytes, start: int) -> Iterator[int]:
        """Offsets behind whatever looks like the footer of a message that begins at ``start`` or later."""
        at = start + self.mark_at
        while (at := data.find(self.mark, at)) >= 0:
            end = at - self.mark_at + self.footer_bytes
            if end <= len(data) and self.looks(data, end):
                yield end
            at += 1

    def _next(self, data: bytes, at: int) -> Piece[F]:
        checksum = _Checksum(self, data, at)
        stored = self.frame_end(data, at)
        patience = _PATIENCE * len(data)
        for end in self._ends(data, at, stored):
            frame = checksum.frame_up_to(end)
            if frame is not None:
                return Piece(at, end, frame, mended=True)
            patience -= self._work(data, end)
            if patience < 0:
                break
            if end == len(data) or self.frame_at(data, end) is not None:
                return Piece(at, end, None) if (start := self._begin(data, at, end)) is None else Piece(at, start, None)
        if stored is not None and self.frame_at(data, stored) is not None:
            return Piece(at, stored, None)
        return Piece(at, len(data), None, ended=False)

    def _work(self, data: bytes, start: int) -> int:
        end = self.frame_end(data, start)
        return end - start if end is not None and self._ends_frame(data, start, end) else 1

    def _begin(self, data: bytes, at: int, end: int) -> int | None:
        """Where behind ``at`` a whole message begins that ends at ``end``: the end of the one at ``at`` is lost too."""
        for start in range(at + 1, min(end, at + _LOOKED_THROUGH)):
            if self.frame_end(data, start) == end and self.frame_at(data, start) is not None:
                return start
        return None

    def _ends(self, data: bytes, at: int, stored: int | None) -> Iterator[int]:
        """Where the message at an offset may end: at each footer, and where its length says, in order."""
        for end in self._footer_ends(data, at):
            if stored is not None and stored < end:
                yield stored
            if stored is not None and stored <= end:
                stored = None
            yield end
        if stored is not None:
            yield stored


class _Checksum(Generic[F]):
    """Asks whether a whole message, but for its length, lies between an offset and each of several later ones.

    Every byte is looked at once, however many ends are tried, if these come in order.
    """

    def __init__(self, layout: Layout[F], data: bytes, start: int) -> None:
        self._layout = layout
        self._data = data
        self._start = start
        self._upto = {width: (start + width, 0) for width in range(1, LONGEST_VARINT + 1)}

    def frame_up_to(self, end: int, length: bytes | None = None) -> F | None:
        """The whole message that ends there; ``length`` asks that these bytes begin with its own."""
        layout = self._layout
        for width in self._upto:
            size = end - self._start - width
            own = varint(size) if size >= layout.footer_bytes else b""
            if len(own) != width or size > layout.limit or (length is not None and not length.startswith(own)):
                continue
            at, crc = self._upto[width]
            crc = zlib.crc32(memoryview(self._data)[at : end - layout.crc_bytes], crc)
            self._upto[width] = (end - layout.crc_bytes, crc)
            if layout.looks(self._data, end):
                frame = layout.make(self._data, self._start, self._start + width, end, crc, own)
                if frame is not None:
                    return frame
        return None


def varint(value: int) -> bytes:
    """Protobuf's base-128 encoding of a non-negative integer."""
    if 0x80 <= value < 0x4000:  # noqa: PLR2004 - two bytes, as nearly all
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
