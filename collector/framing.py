"""How a request lies in a segment of the log: one varint-delimited protobuf message the engine reads as it is.

Protobuf concatenation merges, so what the collector knows about a request is appended to its bytes as encoded fields
instead of being wrapped around them: ``tenant`` (15001, string: for whom the sender's key speaks), ``received_ns``
(15002, fixed64), ``batch`` (15003, string), ``sender_key_id`` (15007, string) and ``sender_peer`` (15008, string) are
columns of the landing tables. Three more end every message, at a fixed distance from its end, and
are skipped by the engine as unknown: ``records`` (15004, fixed32), ``digest`` (15006, 16 bytes: the identity under
which a repeat is recognised) and ``crc`` (15010, fixed32: CRC-32 of all bytes of the message before this field and of
the length that stands before the message). Logs hold messages that end in 15005 too: the same without the length.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from base.framed import LONGEST_VARINT, Layout, varint
from collector.auth import NOBODY, Sender

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIXED64: Final = 1
_LENGTH: Final = 2
_FIXED32: Final = 5
DIGEST_BYTES: Final = 16
FRAME_LIMIT: Final = 1 << 28
"""No message is this long: a longer length is a damaged header."""


def _tag(number: int, wire: int) -> bytes:
    return varint(number << 3 | wire)


_TENANT: Final = _tag(15001, _LENGTH)
_RECEIVED: Final = _tag(15002, _FIXED64)
_BATCH: Final = _tag(15003, _LENGTH)
_RECORDS: Final = _tag(15004, _FIXED32)
_CRC: Final = _tag(15010, _FIXED32)
_CRC_OF_MESSAGE: Final = _tag(15005, _FIXED32)
_DIGEST: Final = _tag(15006, _LENGTH) + bytes([DIGEST_BYTES])
_FOOTER: Final = struct.Struct(f"<{len(_RECORDS)}sI{len(_DIGEST)}s{DIGEST_BYTES}s{len(_CRC)}sI")
_CRC_BYTES: Final = len(_CRC) + 4
_KEY_ID: Final = _tag(15007, _LENGTH)
_PEER: Final = _tag(15008, _LENGTH)


def encode(
    body: bytes, *, records: int, digest: bytes, received_ns: int, batch: str = "", sender: Sender = NOBODY
) -> bytes:
    """One frame: length, the OTLP request and the appended fields.

    The columns are always written, empty ones too: a sender's own field of that number would count otherwise.
    """
    columns = b"".join(
        (
            _text(_TENANT, sender.tenant),
            _RECEIVED,
            received_ns.to_bytes(8, "little"),
            _text(_BATCH, batch),
            _text(_KEY_ID, sender.key_id),
            _text(_PEER, sender.peer),
            _RECORDS,
            records.to_bytes(4, "little"),
            _DIGEST,
            digest,
        )
    )
    return _sealed(body, columns)


def _sealed(body: bytes, columns: bytes) -> bytes:
    length = varint(len(body) + len(columns) + _CRC_BYTES)
    crc = zlib.crc32(length, zlib.crc32(columns, zlib.crc32(body)))
    return b"".join((length, body, columns, _CRC, crc.to_bytes(4, "little")))


def _text(tag: bytes, text: str) -> bytes:
    encoded = text.encode()
    return b"".join((tag, varint(len(encoded)), encoded))


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame found in a file.

    Attributes:
        offset: Where its length begins, in bytes from the start of the file.
        end: Where the next frame begins.
        message: The message without its length.
        records: Spans, data points or log records in it; 0 when damaged.
        digest: Identity of the request; empty when damaged.
        intact: The checksum is right.
    """

    offset: int
    end: int
    message: bytes
    records: int
    digest: bytes
    intact: bool


def read(file: BinaryIO) -> Iterator[Frame]:
    """Frames of a file one after the other, damaged ones included; ends at the first whose length can't be followed.

    The caller compares the last frame's ``end`` with the file's size: what lies beyond is a torn tail.
    """
    offset = 0
    while True:
        length, width = _read_length(file)
        if length is None:
            return
        message = file.read(length)
        if len(message) < length:
            return
        end = offset + width + length
        yield _frame(offset, end, message, width)
        offset = end


def _read_length(file: BinaryIO) -> tuple[int | None, int]:
    value = width = 0
    while True:
        byte = file.read(1)
        if not byte:
            return None, width
        value |= (byte[0] & 0x7F) << 7 * width
        width += 1
        if value > FRAME_LIMIT or width > LONGEST_VARINT:
            return None, width
        if byte[0] < 0x80:  # noqa: PLR2004
            return value, width


def _frame(offset: int, end: int, message: bytes, width: int) -> Frame:
    if len(message) >= _FOOTER.size and len(varint(len(message))) == width:
        found = _FOOTER.unpack_from(message, len(message) - _FOOTER.size)
        if _has_tags(found) and _is_right(found, zlib.crc32(memoryview(message)[:-_CRC_BYTES]), varint(len(message))):
            return Frame(offset, end, message, found[1], found[3], intact=True)
    return Frame(offset, end, message, 0, b"", intact=False)


def _has_tags(footer: tuple[Any, ...]) -> bool:
    return footer[0] == _RECORDS and footer[2] == _DIGEST and footer[4] in {_CRC, _CRC_OF_MESSAGE}


def _is_right(footer: tuple[Any, ...], crc: int, length: bytes) -> bool:
    return bool(footer[5] == (zlib.crc32(length, crc) if footer[4] == _CRC else crc))


def _looks(data: bytes, end: int) -> bool:
    return _has_tags(_FOOTER.unpack_from(data, end - _FOOTER.size))


def _make(data: bytes, offset: int, begin: int, end: int, crc: int, length: bytes) -> Frame | None:
    found = _FOOTER.unpack_from(data, end - _FOOTER.size)
    if not _is_right(found, crc, length):
        return None
    return Frame(offset, end, data[begin:end], found[1], found[3], intact=True)


LAYOUT: Final = Layout(_FOOTER.size, _CRC_BYTES, FRAME_LIMIT, _DIGEST, len(_RECORDS) + 4, _looks, _make)
"""How messages of the log end, and how they are found again."""


def columns_of(message: bytes) -> bytes:
    """The appended fields of an intact message, found from its end, to carry them over to a repaired body.

    Raises:
        ValueError: The message does not end in them.
    """
    # The columns before the fixed footer hold strings of at most a few hundred bytes each; their start is the last
    # place where their tags follow one another in the right order up to the footer.
    end = len(message) - _FOOTER.size
    start = message.rfind(_TENANT, 0, end)
    while start >= 0:
        if _columns_end(message, start) == end:
            return message[start:]
        start = message.rfind(_TENANT, 0, start)
    raise ValueError("the message does not end in the log's own fields")


def _columns_end(message: bytes, start: int) -> int:
    at = _skip_text(message, start + len(_TENANT))
    if message[at : at + len(_RECEIVED)] != _RECEIVED:
        return -1
    at += len(_RECEIVED) + 8
    if message[at : at + len(_BATCH)] != _BATCH:
        return -1
    at = _skip_text(message, at + len(_BATCH))
    # frames of a log that an older version wrote end here
    for tag in (_KEY_ID, _PEER):
        if message[at : at + len(tag)] == tag:
            at = _skip_text(message, at + len(tag))
    return at


def _skip_text(message: bytes, at: int) -> int:
    length = shift = 0
    while at < len(message):
        byte = message[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004
            return at + length
    return -1


def reframe(body: bytes, original: bytes) -> bytes:
    """A frame of a repaired ``body`` with the appended fields of the ``original`` message and a checksum of its own."""
    return _sealed(body, columns_of(original)[:-_CRC_BYTES])
