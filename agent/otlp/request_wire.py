"""Edge spans packed by hand: the bytes that protobuf's own encoder would give for ``agent.otlp.request.to_span``.

A tap makes one for each request on the loop that serves all of them, and building messages there costs several times
what writing their bytes does. Field numbers are those of OTLP (``opentelemetry/proto/trace/v1/trace.proto``).
"""

from __future__ import annotations

import struct
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from base.vocabulary import SCOPE_EDGE, Edge, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.otlp.request import RequestRecord

CALM: Final = frozenset({Outcome.OK, Outcome.CLIENT_ABORT, Outcome.CLIENT_ERROR})
"""Outcomes that are no error of the span."""
MAX_TEXT: Final = 256
"""Longest text of an attribute, in characters: names come from clients and servers, and the store keeps them all."""
_NS: Final = 1_000_000_000
_DOUBLE: Final = struct.Struct("<d").pack
_FIXED64: Final = struct.Struct("<Q").pack
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
_SHORT: Final = tuple(_varint(number) for number in range(2_048))


def _size(length: int) -> bytes:
    return _SHORT[length] if length < 2_048 else _varint(length)  # noqa: PLR2004 - what is made in advance


def _bytes(tag: bytes, value: bytes) -> bytes:
    return tag + _size(len(value)) + value


class _Word:
    """A key of an attribute, encoded once."""

    __slots__ = ("_double", "_false", "_key", "_numbers", "_texts", "_true")

    def __init__(self, key: str) -> None:
        self._key = _bytes(b"\x0a", key.encode()) + b"\x12"
        self._double = _SPAN_ATTRIBUTE + _size(len(self._key) + 10) + self._key + b"\x09\x21"
        flag = _SPAN_ATTRIBUTE + _size(len(self._key) + 3) + self._key + b"\x02\x10"
        self._true, self._false = flag + b"\x01", flag + b"\x00"
        # What stands before a number and a text depends on how long they are alone.
        self._numbers = tuple(self._value(b"\x18" + bytes(size))[: -size or None] for size in range(_LONGEST + 1))
        self._texts: dict[int, bytes] = {}

    def text(self, value: str) -> bytes:
        text = value[:MAX_TEXT].encode()
        if (before := self._texts.get(len(text))) is None:
            whole = self._value(_bytes(b"\x0a", text))
            before = self._texts[len(text)] = whole[: len(whole) - len(text)]
        return before + text

    def number(self, value: int) -> bytes:
        digits = _SHORT[value] if 0 <= value < 2_048 else _varint(value)  # noqa: PLR2004 - what is made in advance
        return self._numbers[len(digits)] + digits

    def seconds(self, value: float) -> bytes:
        return self._double + _DOUBLE(value)

    def flag(self, value: bool) -> bytes:
        return self._true if value else self._false

    def texts(self, values: Iterable[str]) -> bytes:
        each = b"".join(_bytes(b"\x0a", _bytes(b"\x0a", value[:MAX_TEXT].encode())) for value in values)
        return self._value(_bytes(b"\x2a", each))

    def _value(self, value: bytes) -> bytes:
        body = self._key + _size(len(value)) + value
        return _SPAN_ATTRIBUTE + _size(len(body)) + body


_TEXTS: Final = tuple(
    _Word(key)
    for key in (
        Edge.METHOD,
        Edge.ROUTE,
        Edge.OPERATION,
        Edge.REQUEST_MODEL,
        Edge.RESPONSE_MODEL,
        Edge.TENANT,
        Edge.ERROR_TYPE,
    )
)
_TEXTS_OF: Final = attrgetter("method", "route", "operation", "request_model", "response_model", "tenant", "error_type")
_STATES_OF: Final = attrgetter("status", "stream", "tokens_counted", "caller_sampled", "unsampled", "finish_reasons")
_RESPONSE_ID: Final = _Word(Edge.RESPONSE_ID)
_REQUEST_ID: Final = _Word(Edge.REQUEST_ID)
_STATUS: Final = _Word(Edge.STATUS)
_NUMBERS: Final = {
    "prompt_tokens": _Word(Edge.INPUT_TOKENS),
    "completion_tokens": _Word(Edge.OUTPUT_TOKENS),
    "cached_tokens": _Word(Edge.CACHED_TOKENS),
    "request_bytes": _Word(Edge.REQUEST_BYTES),
    "response_bytes": _Word(Edge.RESPONSE_BYTES),
}
_GAP_SECONDS: Final = {
    "itl_mean_seconds": _Word(Edge.ITL_MEAN_SECONDS),
    "itl_p50_seconds": _Word(Edge.ITL_P50_SECONDS),
    "itl_p99_seconds": _Word(Edge.ITL_P99_SECONDS),
    "itl_max_seconds": _Word(Edge.ITL_MAX_SECONDS),
}
_NUMBERS_OF: Final = attrgetter(*_NUMBERS)
_GAP_SECONDS_OF: Final = attrgetter(*_GAP_SECONDS)
_OUTCOMES: Final = {outcome: _Word(Edge.OUTCOME).text(outcome.value) for outcome in Outcome}
_GAPS: Final = _Word(Edge.GAPS)
_EDGE_SECONDS: Final = _Word(Edge.EDGE_SECONDS)
_TTFT_SECONDS: Final = _Word(Edge.TTFT_SECONDS)
_E2E_SECONDS: Final = _Word(Edge.E2E_SECONDS)
_STREAM: Final = _Word(Edge.STREAM)
_TOKENS_COUNTED: Final = _Word(Edge.TOKENS_COUNTED).flag(value=True)
_CALLER_SAMPLED: Final = _Word(Edge.CALLER_SAMPLED)
_UNSAMPLED: Final = _Word(Edge.UNSAMPLED).flag(value=True)
_FINISH_REASONS: Final = _Word(Edge.FINISH_REASONS)
_SCOPE: Final = _bytes(b"\x0a", _bytes(b"\x0a", SCOPE_EDGE.encode()))


def e2e_seconds(record: RequestRecord) -> float:
    """End-to-end time of a record, from its start and end where it names none."""
    if record.e2e_seconds is not None:
        return record.e2e_seconds
    return max(record.end_ns - record.start_ns, 0) / _NS


def pack(records: Iterable[RequestRecord], resource: Mapping[str, str]) -> bytes:
    """Serialized ``ExportTraceServiceRequest`` that holds an edge span for each record of one target.

    Args:
        records: The requests.
        resource: Attributes of the target; empty values are left out.

    Raises:
        ValueError: A text can't be encoded, or a number is below 0.
    """
    spans = b"".join(_bytes(b"\x12", pack_span(record)) for record in records)
    group = _resource(tuple(resource.items())) + _bytes(b"\x12", _SCOPE + spans)
    return _bytes(b"\x0a", group)


@lru_cache(maxsize=64)
def _resource(items: tuple[tuple[str, str], ...]) -> bytes:
    out = []
    for key, value in items:
        if value:
            text = _bytes(b"\x0a", value[:MAX_TEXT].encode())
            out.append(_bytes(_RESOURCE_ATTRIBUTE, _bytes(b"\x0a", key.encode()) + _bytes(b"\x12", text)))
    return _bytes(b"\x0a", b"".join(out)) if out else b""


@lru_cache(maxsize=4_096)
def _texts(outcome: Outcome, values: tuple[str, ...]) -> bytes:
    """Attributes of what few requests differ in."""
    return _OUTCOMES[outcome] + b"".join(word.text(value) for word, value in zip(_TEXTS, values, strict=True) if value)


@lru_cache(maxsize=1_024)
def _states(
    status: int | None,
    stream: bool,
    tokens_counted: bool,
    caller_sampled: bool | None,
    unsampled: bool,
    finish_reasons: tuple[str, ...],
) -> bytes:
    """More of them."""
    out = b"" if status is None else _STATUS.number(status)
    out += _STREAM.flag(stream)
    if tokens_counted:
        out += _TOKENS_COUNTED
    if caller_sampled is not None:
        out += _CALLER_SAMPLED.flag(caller_sampled)
    if unsampled:
        out += _UNSAMPLED
    return out + (_FINISH_REASONS.texts(finish_reasons) if finish_reasons else b"")


@lru_cache(maxsize=1_024)
def _name(method: str, route: str) -> bytes:
    return _bytes(b"\x2a", f"{method} {route}".encode()) + _KIND_SERVER


def pack_span(record: RequestRecord) -> bytes:
    """The edge span of a record, its fields in the order of their numbers."""
    out = [_bytes(b"\x0a", record.trace_id) if record.trace_id else b""]
    if record.span_id:
        out.append(_bytes(b"\x12", record.span_id))
    if record.trace_state:
        out.append(_bytes(b"\x1a", record.trace_state.encode()))
    if record.parent_span_id:
        out.append(_bytes(b"\x22", record.parent_span_id))
    out.append(_name(record.method, record.route))
    if record.start_ns:
        out.append(b"\x39" + _FIXED64(record.start_ns))
    if end_ns := max(record.end_ns, record.start_ns):
        out.append(b"\x41" + _FIXED64(end_ns))
    _attributes(record, out)
    if record.outcome not in CALM:
        out.append(_STATUS_ERROR)
    if record.flags:
        out.append(b"\x85\x01" + _FIXED32(record.flags))
    return b"".join(out)


def _attributes(record: RequestRecord, out: list[bytes]) -> None:
    out.append(_texts(record.outcome, _TEXTS_OF(record)))
    out.append(_states(*_STATES_OF(record)))
    if record.response_id:
        out.append(_RESPONSE_ID.text(record.response_id))
    if record.request_id:
        out.append(_REQUEST_ID.text(record.request_id))
    for word, number in zip(_NUMBERS.values(), _NUMBERS_OF(record), strict=True):
        if number is not None:
            out.append(word.number(number))
    if record.itl_gaps:
        out.append(_GAPS.number(record.itl_gaps))
    if record.edge_seconds is not None:
        out.append(_EDGE_SECONDS.seconds(record.edge_seconds))
    if record.ttft_seconds is not None:
        out.append(_TTFT_SECONDS.seconds(record.ttft_seconds))
    out.append(_E2E_SECONDS.seconds(e2e_seconds(record)))
    for word, seconds in zip(_GAP_SECONDS.values(), _GAP_SECONDS_OF(record), strict=True):
        if seconds is not None:
            out.append(word.seconds(seconds))
