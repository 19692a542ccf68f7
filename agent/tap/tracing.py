"""W3C trace context and request ids, in and out (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from agent.entropy import draw

_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,256}")
_SAMPLED: Final = 0x01
_HEX: Final = tuple(f"{number:02x}" for number in range(0x100))
_KNOWN_FLAGS: Final = 0x03  # sampled, random
_MEMBER: Final = re.compile(
    rb"[0-9a-z][_0-9a-z*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MOST_MEMBERS: Final = 32
_MAX_STATE: Final = 512
_LONG_MEMBER: Final = 128


@dataclass(slots=True)
class TraceContext:
    """Trace of a request.

    Attributes:
        trace_id: 16 bytes.
        parent_span_id: 8 bytes of the caller's span; empty when the trace begins here.
        flags: The caller's flags; sampled when the trace begins here.
        sampled: Whether it is handed on as sampled.
    """

    trace_id: bytes
    parent_span_id: bytes
    flags: int
    sampled: bool = True

    @property
    def continued(self) -> bool:
        """Whether the caller began the trace."""
        return bool(self.parent_span_id)

    def header(self, span_id: bytes) -> bytes:
        """Value of the ``traceparent`` that the server gets, with our span as parent."""
        flags = self.flags & ~_SAMPLED | (_SAMPLED if self.sampled else 0)
        return f"00-{self.trace_id.hex()}-{span_id.hex()}-{_HEX[flags]}".encode()

    @property
    def caller_sampled(self) -> bool | None:
        """Whether the caller sampled its trace; ``None`` when the trace begins here."""
        return bool(self.flags & _SAMPLED) if self.parent_span_id else None


@dataclass(slots=True)
class Onward:
    """What of a request's identity is handed on, both ways.

    Attributes:
        trace: Its trace.
        span_id: The edge's span, parent of the server's.
        request_id: The client's, or one made here.
        named: The client gave the request id, which then stands in its head already.
    """

    trace: TraceContext
    span_id: bytes
    request_id: str
    named: bool


def read_trace_context(values: list[bytes], *, sample: bool = True) -> TraceContext:
    """Trace of the values of ``traceparent``: the caller's if there is exactly one valid value, else a new one.

    Args:
        values: As they came.
        sample: Hand on as sampled also what the caller did not sample: an engine records nothing else, and this
            request is recorded here whatever its caller does.
    """
    match = _TRACEPARENT.fullmatch(values[0]) if len(values) == 1 else None
    if match is None or match[1] == b"ff" or (match[1] == b"00" and match[5] is not None):
        return new_trace_context()
    trace_id, parent = bytes.fromhex(match[2].decode()), bytes.fromhex(match[3].decode())
    if not any(trace_id) or not any(parent):
        return new_trace_context()
    flags = int(match[4], 16) & _KNOWN_FLAGS
    return TraceContext(trace_id, parent, flags, sample or bool(flags & _SAMPLED))


def new_trace_context(trace_id: bytes = b"") -> TraceContext:
    """A trace that begins here, sampled; its id (16 random bytes) is drawn where none is given."""
    return TraceContext(trace_id or draw(16), b"", _SAMPLED)


def is_trace_state(values: list[bytes]) -> bool:
    """Whether the values of ``tracestate`` are together a list that may be handed on (Trace Context §3.3.1).

    One member that is none, or more than 32 of them, and all are discarded; empty ones count for nothing, and are no
    list by themselves: an empty field had better not be sent.
    """
    members = _members(values)
    return 0 < len(members) <= _MOST_MEMBERS and all(map(_MEMBER.fullmatch, members))


def _members(values: list[bytes]) -> list[bytes]:
    return [member for value in values for member in map(_stripped, value.split(b",")) if member]


def _stripped(member: bytes) -> bytes:
    return member.strip(b" \t")


def read_trace_state(values: list[bytes]) -> str:
    """``tracestate`` as text for the record, empty where it is discarded; the bytes are passed on untouched.

    At most 512 characters: of a longer list whole members are left out, first those of more than 128 characters, always
    from the end (Trace Context, *tracestate Limits*).
    """
    if not is_trace_state(values):
        return ""
    text = b",".join(filter(None, values))
    if len(text) > _MAX_STATE:
        text = b",".join(_shortened(_members(values)))
    return text.decode("ascii")


def _shortened(members: list[bytes]) -> list[bytes]:
    kept = members.copy()
    size = sum(map(len, kept)) + len(kept) - 1
    for least in (_LONG_MEMBER + 1, 1):
        for place in reversed(range(len(kept))):
            if size > _MAX_STATE and len(kept[place]) >= least:
                size -= len(kept.pop(place)) + 1
    return kept


def read_request_id(values: list[bytes]) -> str:
    """The client's ``X-Request-Id`` if it is usable as a name, else empty."""
    if values and _REQUEST_ID.fullmatch(values[0]) is not None:
        return values[0].decode("ascii")
    return ""


def new_request_id() -> str:
    """A request id for a client that sent none (32 hex digits)."""
    return draw(16).hex()
