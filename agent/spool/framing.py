"""Segments of the spool as bytes: bodies with their lengths in front, whole ones only.

A body is followed by an unknown protobuf field of its message (15011, 8 bytes: a mark, then the CRC-32 of the body and
of the length in front). Segments that hold it say so in their names; those of older versions hold bodies alone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from zlib import crc32

from base.framed import CUT_OFF, Layout, varint

MAX_RECORD_BYTES: Final = 9_000_000
"""Largest body a record may hold; a length above it in a segment is taken for damage. It leaves room for what is added
to a body of the largest size that is received."""
CHECKED: Final = "-crc"
"""Ends the names of segments whose records have checksums, before the suffix."""
_MARK: Final = varint(15011 << 3 | 2) + b"\x08" + b"spol"
_varint: Final = lru_cache(maxsize=4_096)(varint)
_CRC: Final = struct.Struct("<I")
FOOTER_BYTES: Final = len(_MARK) + _CRC.size


@dataclass(frozen=True, slots=True)
class Record:
    """A whole record. ``body``: as it was appended; ``end``: offset behind it."""

    body: bytes
    end: int


@dataclass(frozen=True, slots=True)
class Records:
    """Whole records from an offset on, merged.

    Attributes:
        body: Theirs, one after the other.
        ends: Offset behind each.
        needs: Bytes that the first record takes, when it did not fit.
    """

    body: bytes
    ends: tuple[int, ...]
    needs: int


def seal(body: bytes) -> bytes:
    """A record: length, body and checksum."""
    length = _varint(len(body) + FOOTER_BYTES)
    marked = body + _MARK
    return length + marked + _CRC.pack(crc32(length, crc32(marked)))


def is_checked(name: str) -> bool:
    """Whether the records of a segment of this file name have checksums."""
    return name.partition(".")[0].endswith(CHECKED)


def _looks(data: bytes, end: int) -> bool:
    return data.startswith(_MARK, end - FOOTER_BYTES)


def _make(data: bytes, _offset: int, begin: int, end: int, crc: int, length: bytes) -> Record | None:
    right = _CRC.unpack_from(data, end - _CRC.size)[0] == crc32(length, crc)
    return Record(data[begin : end - FOOTER_BYTES], end) if right else None


def _is_whole(view: memoryview, position: int, begin: int, stop: int) -> bool:
    """What ``LAYOUT.frame_at`` finds out, for records in order, which nearly all are."""
    crc_at = stop - _CRC.size
    if crc_at - len(_MARK) < begin or view[crc_at - len(_MARK) : crc_at] != _MARK:
        return False
    crc = crc32(view[position:begin], crc32(view[begin:crc_at]))
    return bool(_CRC.unpack_from(view, crc_at)[0] == crc)


LAYOUT: Final = Layout(FOOTER_BYTES, _CRC.size, MAX_RECORD_BYTES + FOOTER_BYTES, _MARK, 0, _looks, _make)
"""How checked records end, and how they are found again."""


def split_records(data: bytes, offset: int, limit: int | None, *, checked: bool) -> Records:
    """Whole records at the head of ``data``, merged; up to the first that is not.

    Args:
        data: Bytes of a segment from ``offset`` on.
        offset: Where they begin in the segment.
        limit: Bound of the merged body, which holds at least one record; None for all.
        checked: They have checksums, see ``is_checked``.
    """
    parts: list[memoryview] = []
    ends: list[int] = []
    view = memoryview(data)
    position = total = 0
    while position < len(data):
        size, begin = LAYOUT.length_at(data, position)
        if (size, begin) != CUT_OFF and not 0 < size <= LAYOUT.limit:
            break  # zeros after a power loss, or garbage
        stop = begin + size
        if begin == 0 or stop > len(data) or (limit is not None and parts and total + size > limit):
            return Records(b"".join(parts), tuple(ends), stop - position)
        if checked and not _is_whole(view, position, begin, stop):
            break
        parts.append(view[begin : stop - FOOTER_BYTES] if checked else view[begin:stop])
        total += size
        position = stop
        ends.append(offset + stop)
    return Records(b"".join(parts), tuple(ends), 0)
