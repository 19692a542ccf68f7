"""Where the body of a message ends: readers that are fed bytes as they come, in any pieces.

A reader says how many of the bytes belong to the message and which of them are payload. The proxy forwards the
message's bytes as they are (chunk sizes, extensions and trailers included), so that nothing is rewritten on the way.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Protocol

from agent.tap.head import HttpFault

_CHUNK_LINE: Final = re.compile(rb"([0-9a-fA-F]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_PLAIN_SIZE: Final = re.compile(rb"[0-9a-fA-F]{1,15}\r\n")
_TRAILER: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
_MAX_CHUNK_LINE: Final = 1_024
_MAX_TRAILERS: Final = 16_384
_CHUNK_END: Final = 2  # CR LF after a chunk's data


class BodyReader(Protocol):
    """Reads one body.

    Attributes:
        done: The body has ended.
    """

    done: bool

    def feed(self, data: bytes) -> tuple[int, list[bytes]]:
        """Take bytes of the message.

        Returns:
            How many of them belong to this message, and the payload in them. Bytes after that count are not ours.

        Raises:
            HttpFault: The framing is malformed (400).
        """
        ...


class LengthBody:
    """A body of a stated length."""

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0

    def feed(self, data: bytes) -> tuple[int, list[bytes]]:
        """See ``BodyReader``."""
        size = len(data)
        if size > self.left:
            data = data[: self.left]
            size = self.left
        self.left -= size
        self.done = self.left == 0
        return size, [data] if size else []


class UntilClose:
    """A body that ends with its connection (``done`` is set by whoever sees that)."""

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes) -> tuple[int, list[bytes]]:
        """See ``BodyReader``."""
        return len(data), [data] if data else []


class ChunkedBody:
    """A body in chunks, with trailers (RFC 9112 §7.1); stricter than the grammar where servers disagree."""

    def __init__(self) -> None:
        self.done = False
        self._line = b""  # an unfinished line
        self._left = 0  # bytes of the current chunk to come, with its CR LF
        self._in_trailers = False
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> tuple[int, list[bytes]]:
        """See ``BodyReader``."""
        at = 0
        size = len(data)
        if not (self._left or self._line or self._in_trailers):  # nearly always one whole chunk, as it was written
            lines = _size_lines(size)
            if data.startswith(lines) and data.endswith(b"\r\n"):
                return size, [data[len(lines[0]) : -_CHUNK_END]]
        payload: list[bytes] = []
        while at < size and not self.done:
            if self._left:
                at = self._take_chunk(data, at, payload)
                continue
            end = data.find(b"\n", at)
            if (after := self._take_whole_chunk(data, at, end, payload)) > 0:
                at = after
                continue
            if end < 0:
                self._keep_line(data[at:])
                return size, payload
            line = self._line + data[at : end + 1]
            self._line = b""
            at = end + 1
            self._take_line(line)
        return at, payload

    def _take_whole_chunk(self, data: bytes, at: int, end: int, payload: list[bytes]) -> int:
        """The short way for a plain chunk that is all here: index after it, or 0 to go the long way."""
        if self._line or self._in_trailers or _PLAIN_SIZE.fullmatch(data, at, end + 1) is None:
            return 0
        start = end + 1
        stop = start + int(data[at : end - 1], 16)
        if stop == start or data[stop : stop + 2] != b"\r\n":
            return 0
        payload.append(data[start:stop])
        return stop + _CHUNK_END

    def _take_chunk(self, data: bytes, at: int, payload: list[bytes]) -> int:
        body_left = self._left - _CHUNK_END
        if body_left > 0:
            piece = data[at : at + body_left]
            payload.append(piece)
            self._left -= len(piece)
            return at + len(piece)
        if data[at] != b"\r\n"[_CHUNK_END - self._left]:
            raise HttpFault(400, "chunk", "a chunk is longer than its size")
        self._left -= 1
        return at + 1

    def _take_line(self, line: bytes) -> None:
        if len(line) > _MAX_CHUNK_LINE and not self._in_trailers:
            raise HttpFault(400, "chunk", "a chunk's size line is too long")
        if not line.endswith(b"\r\n"):
            raise HttpFault(400, "chunk", "a line of the body's framing does not end in CR LF")
        text = line[:-2]
        if self._in_trailers:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _MAX_TRAILERS:
                raise HttpFault(400, "trailers", "the trailers are too long")
            if not text:
                self.done = True
            elif _TRAILER.fullmatch(text) is None:
                raise HttpFault(400, "trailers", "a trailer field is malformed")
            return
        match = _CHUNK_LINE.fullmatch(text)
        if match is None:
            raise HttpFault(400, "chunk", "a chunk's size is malformed")
        length = int(match[1], 16)
        if length:
            self._left = length + _CHUNK_END
        else:
            self._in_trailers = True

    def _keep_line(self, rest: bytes) -> None:
        self._line += rest
        if len(self._line) > (_MAX_TRAILERS if self._in_trailers else _MAX_CHUNK_LINE):
            raise HttpFault(400, "chunk", "a line of the body's framing is too long")


@lru_cache(maxsize=2_048)
def _size_lines(total: int) -> tuple[bytes, ...]:
    """The plain size line of a chunk that takes ``total`` bytes with its framing, in either case; none for no size."""
    for digits in range(1, len(f"{total:x}") + 1):
        size = total - digits - 2 * _CHUNK_END
        if size > 0 and len(line := b"%x\r\n" % size) == digits + _CHUNK_END:
            return line, line.upper()
    return ()
