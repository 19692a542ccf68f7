"""Values of OTLP that nest deeper than protobuf reads: what lies too deep is left out, the request around it is kept.

Lists and maps are the one thing of OTLP that holds itself. A parser in C gives up a whole request for one value that
nests beyond its bound, and says no more than that; so a request that it refused is looked through once, by its bytes,
and tried again without what was too deep.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from google.protobuf.message import DecodeError

from base.framed import varint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

MAX_DEPTH: Final = 100
"""Messages inside one another, the request itself not counted, that protobuf's parsers read unless they are told
otherwise. In a log's body these are 48 lists or 32 maps, in an attribute of a span 47 or 31."""
REACH: Final[Mapping[str, int]] = {"array_value": 2, "kvlist_value": 3}
"""Messages from a value to those that it holds, by the field in which it holds them."""
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES: Final = 10


@dataclass(slots=True)
class Cuts:
    """What was left out of a request.

    Attributes:
        count: Lists and maps that lay too deep; their place holds no value.
    """

    count: int = 0

    def text(self) -> str:
        """What was done, for the sender; empty where nothing was."""
        if not self.count:
            return ""
        lie = "1 list or map lay" if self.count == 1 else f"{self.count} lists and maps lay"
        return f"{lie} more than {MAX_DEPTH} messages deep; only what is around is kept: nest less, or send it as text"


def parse(body: bytes, message: Message, cuts: Cuts) -> None:
    """Fill an empty export request from its bytes, without the lists and maps that lie too deep.

    Args:
        body: The request as protobuf.
        message: Of its kind.
        cuts: Counts what was left out.

    Raises:
        DecodeError: It is no such request.
    """
    try:
        message.ParseFromString(body)
    except DecodeError:
        try:
            shallow = _cut(body, 0, len(body), cast("Descriptor", message.DESCRIPTOR), 0, cuts)
        except (IndexError, ValueError):
            shallow = None
        if shallow is None:
            cuts.count = 0
            raise
        message.ParseFromString(shallow)


class _Inner(NamedTuple):
    """The message that a field holds, and how far below lies what it reaches, 0 where it holds no values."""

    descriptor: Descriptor
    reach: int


@cache
def _messages(descriptor: Descriptor) -> Mapping[int, _Inner]:
    return {
        field.number: _Inner(field.message_type, REACH.get(field.name, 0))
        for field in descriptor.fields
        if field.message_type is not None
    }


def _cut(body: bytes, start: int, end: int, descriptor: Descriptor, depth: int, cuts: Cuts) -> bytes | None:
    """A message's bytes without what lies too deep in it; None where nothing does.

    Raises:
        IndexError, ValueError: These are no such bytes.
    """
    inner = _messages(descriptor)
    pieces: list[bytes] = []
    at = kept = start
    while at < end:
        tag_at = at
        tag, at = _varint(body, at)
        kind = tag & 7
        if kind == _DELIMITED:
            size, at = _varint(body, at)
            if at + size > end:
                raise ValueError("a field ends behind its message")
            held = inner.get(tag >> 3)
            if held is not None and depth + held.reach > MAX_DEPTH:
                pieces.append(body[kept:tag_at])
                kept = at + size
                cuts.count += 1
            elif held is not None and (less := _cut(body, at, at + size, held.descriptor, depth + 1, cuts)) is not None:
                pieces += (body[kept:tag_at], varint(tag), varint(len(less)), less)
                kept = at + size
            at += size
        elif kind == _VARINT:
            _, at = _varint(body, at)
        elif kind in {_FIXED64, _FIXED32}:
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("a field of a kind that OTLP has not")
    if at != end:
        raise ValueError("a message ends within a field")
    return b"".join((*pieces, body[kept:end])) if pieces else None


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """A number and the place behind it."""
    value = body[at]
    if value < 0x80:  # noqa: PLR2004 - most are a single byte
        return value, at + 1
    value &= 0x7F
    for place in range(1, _VARINT_BYTES):
        byte = body[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:  # noqa: PLR2004 - the last byte has no high bit
            return value, at + place + 1
    raise ValueError("a number has no end")
