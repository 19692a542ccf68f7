"""Segments of the spool as bytes: varint-length-delimited bodies, whole ones only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agent.spool.writer import MAX_RECORD_BYTES

_LONGEST_VARINT: Final = 5


@dataclass(frozen=True, slots=True)
class Records:
    """Whole records from an offset on. ``needs``: bytes that the first record takes, when it did not fit."""

    body: bytes
    ends: tuple[int, ...]
    needs: int


def split_records(data: bytes, offset: int, limit: int | None) -> Records:
    """Whole records at the head of ``data``, merged.

    Args:
        data: Bytes of a segment from ``offset`` on.
        offset: Where they begin in the segment.
        limit: Bound of the merged body, which holds at least one record; None for all.
    """
    parts: list[memoryview] = []
    ends: list[int] = []
    view = memoryview(data)
    position = total = 0
    while position < len(data):
        size, begin = read_length(data, position)
        if begin and not 0 < size <= MAX_RECORD_BYTES:
            break  # zeros after a power loss, or garbage: nothing can be found behind it
        stop = begin + size
        if begin == 0 or stop > len(data) or (limit is not None and parts and total + size > limit):
            return Records(b"".join(parts), tuple(ends), stop - position)
        parts.append(view[begin:stop])
        total += size
        position = stop
        ends.append(offset + stop)
    return Records(b"".join(parts), tuple(ends), 0)


def read_length(data: bytes, position: int) -> tuple[int, int]:
    """(length, where the record's bytes begin): (0, 0) when the varint is cut off, a huge length when it is garbage."""
    size = shift = 0
    for index in range(position, min(position + _LONGEST_VARINT, len(data))):
        byte = data[index]
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
            return size, index + 1
    cut_off = len(data) - position < _LONGEST_VARINT
    return (0, 0) if cut_off else (MAX_RECORD_BYTES + 1, position + _LONGEST_VARINT)
