"""Bodies as far as they are looked at: the first and last bytes of each, and JSON read forgivingly."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

HEAD_BYTES: Final = 65_536
"""A body up to this size is parsed; of a longer one only its first and last bytes are looked at."""
TAIL_BYTES: Final = 8_192
SURE_ERRORS: Final = (ValueError, RecursionError)
"""What ``json.loads`` raises on bad input."""
_QUICK: Final = msgspec.json.Decoder().decode
_NOT_QUICK: Final = (msgspec.MsgspecError, *SURE_ERRORS)


class BodySample:
    """The first and last bytes of a body, within bounds.

    Attributes:
        size: Bytes that went by.
    """

    __slots__ = ("_limit", "_tail", "head", "size")

    def __init__(self, limit: int = HEAD_BYTES) -> None:
        self.head: bytes | bytearray = b""
        self.size = 0
        self._limit = limit
        self._tail = b""

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        size = len(piece)
        self.size += size
        kept = self.head
        if not kept and size <= self._limit:
            self.head = piece  # most bodies come in one piece, of which no copy is made
            return
        room = self._limit - len(kept)
        if isinstance(kept, bytes):
            kept = self.head = bytearray(kept)
        if size <= room:
            kept += piece
            return
        if room > 0:
            kept += piece[:room]
            piece = piece[room:]
        self._tail = (self._tail + piece)[-TAIL_BYTES:]

    def left_out(self, size: int) -> None:
        """So many bytes of the middle went by that nobody kept."""
        self.size += size

    def is_whole(self) -> bool:
        """Whether nothing was left out."""
        return self.size == len(self.head)

    @property
    def torn(self) -> bool:
        """Whether this is all there is, and no JSON text."""
        return self.is_whole() and self.size > 0 and self.json() is None and bytes(self.head).strip() != b"null"

    @property
    def tail(self) -> bytes:
        """The last bytes."""
        return (bytes(self.head[-TAIL_BYTES:]) + self._tail)[-TAIL_BYTES:]

    def json(self) -> Any:
        """The body as JSON, ``None`` when it isn't or was cut."""
        head = self.head
        if not head or not self.is_whole():
            return None
        try:
            return _QUICK(head)
        except _NOT_QUICK:
            return loads(bytes(head))


def parse(data: bytes | bytearray) -> Any:
    """JSON in UTF-8 as ``json.loads`` reads it, which is asked where the stricter reader refuses a text.

    Raises:
        ValueError: It is none.
        RecursionError: It is too deep.
    """
    try:
        return _QUICK(data)
    except _NOT_QUICK:  # NaN, half a surrogate pair, a number beyond a double's: the library takes them
        return json.loads(data.decode())


def loads(text: bytes) -> Any:
    """JSON as ``json.loads`` reads it; ``None`` for what is none."""
    try:
        return json.loads(text)
    except SURE_ERRORS:
        return None
