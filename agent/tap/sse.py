"""Server-sent events out of a byte stream that comes in any pieces; bounded, and never wrong about where one ends."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MAX_EVENT_BYTES: Final = 262_144
"""A longer event is passed over unread (it still counts as one)."""

# A CR at the very end may be half of a CR LF: it is no line end before the next byte is known.
_LINE_END: Final = rb"(?:\r\n|\n|\r(?!\n|\Z))"
_BOUNDARY: Final = re.compile(_LINE_END + _LINE_END)
_LINES: Final = re.compile(rb"\r\n|\n|\r")
_BARE_ERROR: Final = re.compile(rb'\{\s*"(?:errors?|detail|object"\s*:\s*"error)"')
_OVERLAP: Final = 3
_BOM: Final = b"\xef\xbb\xbf"


class SseEvent(NamedTuple):
    """One event.

    Attributes:
        name: The field ``event``, empty if absent; ``error`` for one that has a field ``error`` of its own.
        data: The fields ``data``, joined by line feeds; ``None`` for an event that was too long to read.
        end: Bytes of the stream up to the end of this event, its empty line included.
    """

    name: bytes
    data: bytes | None
    end: int


class SseSplitter:
    """Splits a stream of payload bytes into events."""

    def __init__(self) -> None:
        self._buffer = b""
        self._scanned = 0
        self._offset = 0  # bytes of the stream before the buffer
        self._too_long = False

    def feed(self, data: bytes) -> list[SseEvent]:
        """Take the next bytes; returns the events that they complete."""
        buffer = self._buffer + data if self._buffer else data
        start = 0
        scan = self._scanned
        events: list[SseEvent] = []
        while (match := _BOUNDARY.search(buffer, scan)) is not None:
            self._emit(buffer[start : match.start()], self._offset + match.end(), events)
            start = scan = match.end()
        rest = buffer[start:]
        self._offset += start
        if len(rest) > MAX_EVENT_BYTES:
            self._too_long = True
            self._offset += len(rest) - _OVERLAP
            rest = rest[-_OVERLAP:]
        self._buffer = rest
        self._scanned = max(0, len(rest) - _OVERLAP)
        return events

    def skip(self, size: int) -> bool:
        """Pass over an event of so many bytes that is known already; ``False`` in the middle of another."""
        if self._buffer or self._too_long:
            return False
        self._offset += size
        return True

    def finish(self) -> list[SseEvent]:
        """The stream has ended: what stands after the last empty line, which may be an event torn in two."""
        events: list[SseEvent] = []
        self._emit(self._buffer, self._offset + len(self._buffer), events)
        self._buffer = b""
        return events

    def _emit(self, block: bytes, end: int, events: list[SseEvent]) -> None:
        if self._too_long:
            self._too_long = False
            events.append(SseEvent(b"", None, end))
            return
        if len(block) > MAX_EVENT_BYTES:
            events.append(SseEvent(b"", None, end))
            return
        if block.startswith(b"data: ") and b"\n" not in block and b"\r" not in block:  # nearly all of them
            events.append(SseEvent(b"", block[6:], end))
            return
        name = b""
        data: list[bytes] = []
        for line in _LINES.split(block.removeprefix(_BOM)):
            field, _, value = line.partition(b":")
            if field == b"data":
                data.append(value.removeprefix(b" "))
            elif field == b"event":
                name = value.removeprefix(b" ")
            elif (
                field.strip().lower() == b"error"
            ):  # no field of the standard's: how llama.cpp tells of a failure after the head
                events.append(SseEvent(b"error", value.removeprefix(b" "), end))
            elif _BARE_ERROR.match(line) is not None:  # JSON without a field: written by who knew of no stream
                events.append(SseEvent(b"error", line, end))
        if data or name == b"error":
            events.append(SseEvent(name, b"\n".join(data), end))


class LineSplitter:
    """Splits a stream of payload bytes into lines, each an event (``application/x-ndjson``)."""

    def __init__(self) -> None:
        self._buffer = b""
        self._offset = 0
        self._too_long = False

    def feed(self, data: bytes) -> list[SseEvent]:
        """Take the next bytes; returns the lines that they complete."""
        *lines, rest = (self._buffer + data).split(b"\n")
        events: list[SseEvent] = []
        for line in lines:
            self._offset += len(line) + 1
            if self._too_long or line.strip():
                events.append(SseEvent(b"", None if self._too_long else line.strip(), self._offset))
            self._too_long = False
        if len(rest) > MAX_EVENT_BYTES:
            self._too_long = True
            self._offset += len(rest)
            rest = b""
        self._buffer = rest
        return events

    def skip(self, size: int) -> bool:
        """Pass over an event of so many bytes that is known already; ``False`` in the middle of another."""
        if self._buffer or self._too_long:
            return False
        self._offset += size
        return True

    def finish(self) -> list[SseEvent]:
        """The stream has ended: what stands after the last line end."""
        rest, self._buffer = self._buffer, b""
        return [SseEvent(b"", rest.strip(), self._offset + len(rest))] if rest.strip() else []
