"""Edge spans packed by hand, from the fields that a record declares: the bytes that protobuf's own encoder would give.

A tap makes one for each request on the loop that serves all of them, and building messages there costs several times
what writing their bytes does. Field numbers are those of OTLP (``opentelemetry/proto/trace/v1/trace.proto``).
"""

from __future__ import annotations

import struct
from functools import lru_cache, partial
from itertools import compress, groupby, starmap
from operator import call, is_not, itemgetter
from typing import TYPE_CHECKING, Any, Final

from agent.otlp.request import FIELDS, RequestRecord
from base.vocabulary import SCOPE_EDGE, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from agent.otlp.request import Field

CALM: Final = frozenset({Outcome.OK, Outcome.CLIENT_ABORT, Outcome.CLIENT_ERROR})
"""Outcomes that are no error of the span."""
MAX_TEXT: Final = 256
"""Longest text of an attribute, in characters: names come from clients and servers, and the store keeps them all."""
_FIXED64: Final = struct.Struct("<Q").pack
_TIMES: Final = struct.Struct("<cQcQ").pack
_TRACE_BYTES: Final = 16
_SPAN_BYTES: Final = 8
_FIXED32: Final = struct.Struct("<I").pack
_KIND_SERVER: Final = b"\x30\x02"
_STATUS_ERROR: Final = b"\x7a\x02\x18\x02"
_SPAN_ATTRIBUTE: Final = b"\x4a"
_RESOURCE_ATTRIBUTE: Final = b"\x0a"


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_LONGEST: Final = 10
_MADE: Final = 2_048
_SHORT: Final = tuple(_varint(number) for number in range(_MADE))
"""What is made in advance; where a step more is felt it is looked up without one."""


def _size(length: int) -> bytes:
    return _SHORT[length] if length < _MADE else _varint(length)


def _bytes(tag: bytes, value: bytes) -> bytes:
    return tag + _size(len(value)) + value


class _Word:
    """A key of an attribute, encoded once."""

    __slots__ = ("_false", "_key", "_numbers", "_texts", "_true", "seconds")

    def __init__(self, key: str) -> None:
        self._key = _bytes(b"\x0a", key.encode()) + b"\x12"
        double = _SPAN_ATTRIBUTE + _size(len(self._key) + 10) + self._key + b"\x09\x21"
        self.seconds: Callable[[float], bytes] = partial(struct.Struct(f"<{len(double)}sd").pack, double)
        flag = _SPAN_ATTRIBUTE + _size(len(self._key) + 3) + self._key + b"\x02\x10"
        self._true, self._false = flag + b"\x01", flag + b"\x00"
        # What stands before a number and a text depends on how long they are alone.
        self._numbers = tuple(self._value(b"\x18" + bytes(size))[: -size or None] for size in range(_LONGEST + 1))
        self._texts: dict[int, bytes] = {}

    def text(self, value: str) -> bytes:
        if not value:
            return b""
        text = value[:MAX_TEXT].encode()
        if (before := self._texts.get(len(text))) is None:
            whole = self._value(_bytes(b"\x0a", text))
            before = self._texts[len(text)] = whole[: len(whole) - len(text)]
        return before + text

    def number(self, value: int) -> bytes:
        digits = _SHORT[value] if 0 <= value < _MADE else _varint(value)
        return self._numbers[len(digits)] + digits

    def flag(self, value: bool) -> bytes:
        return self._true if value else self._false

    def texts(self, values: Iterable[str]) -> bytes:
        each = b"".join(_bytes(b"\x0a", _bytes(b"\x0a", value[:MAX_TEXT].encode())) for value in values)
        return self._value(_bytes(b"\x2a", each))

    def _value(self, value: bytes) -> bytes:
        body = self._key + _size(len(value)) + value
        return _SPAN_ATTRIBUTE + _size(len(body)) + body


_SCOPE: Final = _bytes(b"\x0a", _bytes(b"\x0a", SCOPE_EDGE.encode()))


def to_otlp(record: RequestRecord, resource: Mapping[str, str]) -> bytes:
    """Serialized ``ExportTraceServiceRequest`` that holds one edge span.

    Args:
        record: The request.
        resource: Attributes of the target, keys from ``vocabulary.Resource``; empty values are left out.

    Raises:
        ValueError: A text can't be encoded, or a number is below 0.
    """
    return to_otlp_many((record,), resource)


def to_otlp_many(records: Iterable[RequestRecord], resource: Mapping[str, str]) -> bytes:
    """Serialized ``ExportTraceServiceRequest`` that holds an edge span for each record of one target.

    Args:
        records: The requests.
        resource: Attributes of the target; empty values are left out.

    Raises:
        ValueError: A text can't be encoded, or a number is below 0.
    """
    return enclose([pack_span(record) for record in records], pack_resource(resource))


def enclose(spans: Iterable[bytes], resource: bytes) -> bytes:
    """Serialized ``ExportTraceServiceRequest`` of packed spans (``pack_span``) and their target (``pack_resource``)."""
    parts = [_SCOPE]
    for span in spans:
        length = len(span)
        parts += (b"\x12", _SHORT[length] if length < _MADE else _varint(length), span)
    group = b"".join(parts)
    length = len(group)
    within = b"\x12" + (_SHORT[length] if length < _MADE else _varint(length))
    return b"".join((b"\x0a", _size(len(resource) + len(within) + length), resource, within, group))


def pack_resource(attributes: Mapping[str, str]) -> bytes:
    """A target as it stands before its spans: attributes with keys from ``vocabulary.Resource``, empty ones left out.

    Raises:
        ValueError: A text can't be encoded.
    """
    return _resource(tuple(attributes.items()))


@lru_cache(maxsize=64)
def _resource(items: tuple[tuple[str, str], ...]) -> bytes:
    out = []
    for key, value in items:
        if value:
            text = _bytes(b"\x0a", value[:MAX_TEXT].encode())
            out.append(_bytes(_RESOURCE_ATTRIBUTE, _bytes(b"\x0a", key.encode()) + _bytes(b"\x12", text)))
    return _bytes(b"\x0a", b"".join(out)) if out else b""


@lru_cache(maxsize=1_024)
def _name(method: str, route: str) -> bytes:
    return _bytes(b"\x2a", f"{method} {route}".encode()) + _KIND_SERVER


def _ids(trace_id: bytes, span_id: bytes) -> bytes:
    """Ids that are not there or not as long as they should be."""
    return (_bytes(b"\x0a", trace_id) if trace_id else b"") + (_bytes(b"\x12", span_id) if span_id else b"")


def _times(start_ns: int, end_ns: int) -> bytes:
    """Times that are not there or not in their order."""
    end_ns = max(start_ns, end_ns)
    start = b"\x39" + _FIXED64(start_ns) if start_ns else b""
    return start + b"\x41" + _FIXED64(end_ns) if end_ns else start


def pack_span(record: RequestRecord) -> bytes:
    """The edge span of a record, its fields in the order of their numbers.

    Raises:
        ValueError: A text can't be encoded, or a number is below 0.
    """
    if record.e2e_seconds is None:
        record = record._replace(e2e_seconds=record.whole_seconds)
    trace_id, span_id, start_ns, end_ns, outcome, method, route, parent, state, flags = record[:10]
    whole = len(trace_id) == _TRACE_BYTES and len(span_id) == _SPAN_BYTES
    out = [b"\x0a\x10", trace_id, b"\x12\x08", span_id] if whole else [_ids(trace_id, span_id)]
    if state:
        out.append(_bytes(b"\x1a", state.encode()))
    if parent:
        out.append(_bytes(b"\x22", parent))
    out.append(_name(method, route))
    if 0 < start_ns < end_ns:
        out.append(_TIMES(b"\x39", start_ns, b"\x41", end_ns))
    else:
        out.append(_times(start_ns, end_ns))
    for add in _ADDS:
        add(record, out)
    if outcome not in CALM:
        out.append(_STATUS_ERROR)
    if flags:
        out += (b"\x85\x01", _FIXED32(flags))
    return b"".join(out)


def _put(field: Field) -> Callable[[Any], bytes]:
    word = _Word(field.wire.key)
    kinds: dict[str, Callable[[Any], bytes]] = {
        "text": word.text, "texts": word.texts, "number": word.number, "seconds": word.seconds, "flag": word.flag,
    }  # fmt: skip
    put = kinds[field.kind]
    if field.bare or field.kind == "text":
        return put
    return lambda value: put(value) if value else b""


class _Run:
    """Fields that follow one another, and how their values become bytes."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._puts = [_put(field) for field in fields]
        self._nones = [None] * len(self._puts)
        places = [RequestRecord._fields.index(field.name) for field in fields]
        read = itemgetter(*places)
        self._values: Callable[[RequestRecord], tuple[Any, ...]] = read if len(places) > 1 else lambda one: (read(one),)

    def add(self, record: RequestRecord, out: list[bytes]) -> None:
        """Append what the record says."""
        out += self._said(self._values(record))

    def _said(self, values: tuple[Any, ...]) -> Iterator[bytes]:
        known = map(is_not, values, self._nones)
        return starmap(call, compress(zip(self._puts, values, strict=True), known))  # a loop in C: most are unknown


class _Alike(_Run):
    """The same of fields in which few requests differ: what was said before is not encoded again."""

    def __init__(self, fields: Sequence[Field]) -> None:
        super().__init__(fields)
        self._remembered = lru_cache(maxsize=4_096)(self._encode)

    def add(self, record: RequestRecord, out: list[bytes]) -> None:
        """Append what the record says."""
        out.append(self._remembered(self._values(record)))

    def _encode(self, values: tuple[Any, ...]) -> bytes:
        return b"".join(self._said(values))


_ADDS: Final = [
    (_Alike if alike else _Run)(tuple(fields)).add for alike, fields in groupby(FIELDS, lambda field: field.wire.alike)
]
