"""A request's header fields: what they say of its trace, what they hide, and the ids that are made where they say none.

https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import Any

_MAX_HEAD = 32_768
_RANDOM_BITS = 22
_RANDOM_MASK = (1 << _RANDOM_BITS) - 1
_TAPS_MS = 120_000
"""A parent span whose id holds a time so near is a tap's: for others that is one chance in twenty million."""
SAMPLED = 1
_KNOWN_FLAGS = 3
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
# As a tap judges it: one member that is none, or too many of them, and the list is not handed on.
_MEMBER = re.compile(rb"[0-9a-z][_0-9a-z*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_MOST_MEMBERS = 32
_UNREAD = (b"cookie", b"proxy-authorization")
TAKEN = frozenset((b"traceparent", b"tracestate", b"x-request-id", *_UNREAD))
_64_BITS = (1 << 64) - 1
_VISIBLE = bytes(range(0x21, 0x7F))
_REQUEST_ID_BYTES = 256
DRAWN = 16 + 3 + 16
"""Bytes of a trace id, of a span id's random part, and of a request id."""
_MANY = 100


def sorted_out(
    taken: list[tuple[bytes, bytes]],
) -> tuple[list[bytes], list[bytes], list[tuple[bytes, bytes]]]:
    """Values of ``traceparent`` and ``tracestate``, and the fields that are not read."""
    parents: list[bytes] = []
    states: list[bytes] = []
    hidden: list[tuple[bytes, bytes]] = []
    for field in taken:
        name, value = field
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
        else:
            hidden.append(field)
    return parents, states, hidden


def trace(parents: list[bytes]) -> tuple[bytes, bytes, int]:
    """Trace id, the caller's span id (both empty where the trace begins here) and flags."""
    match = _TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if match is not None and match[1] != b"ff" and not (match[1] == b"00" and match[5] is not None):
        trace_id, parent = bytes.fromhex(match[2].decode()), bytes.fromhex(match[3].decode())
        if any(trace_id) and any(parent):
            return trace_id, parent, int(match[4], 16) & _KNOWN_FLAGS
    return b"", b"", SAMPLED


def trace_state(values: list[bytes]) -> bytes:
    """The values of ``tracestate`` as one, empty where they are together no list (Trace Context §3.3.1)."""
    joined = b",".join(filter(None, values))
    members = [member for one in joined.split(b",") if (member := one.strip(b" \t"))]
    return joined if 0 < len(members) <= _MOST_MEMBERS and all(map(_MEMBER.fullmatch, members)) else b""


_ready: list[bytes] = []
os.register_at_fork(after_in_child=_ready.clear)


def draw() -> bytes:
    """`DRAWN` random bytes, drawn from the kernel for many requests at a time."""
    try:
        return _ready.pop()
    except IndexError:
        many = os.urandom(DRAWN * _MANY)
        _ready.extend([many[at : at + DRAWN] for at in range(DRAWN, len(many), DRAWN)])
        return many[:DRAWN]


def is_request_id(given: bytes) -> bool:
    """Whether it is one: 1 to 256 letters, digits and signs of ASCII."""
    return 0 < len(given) <= _REQUEST_ID_BYTES and not given.translate(None, _VISIBLE)


def span_of(now_ns: int, random: bytes) -> bytes:
    """A span's id as a tap makes it: the millisecond, and three random bytes of which 22 bits count."""
    low = int.from_bytes(random, "big") & _RANDOM_MASK
    return ((now_ns // 1_000_000 << _RANDOM_BITS) & _64_BITS | low).to_bytes(8, "big")


def is_a_taps(parent: bytes, now_ns: int) -> bool:
    """Whether a parent span is one that a tap has just made."""
    return abs((int.from_bytes(parent, "big") >> _RANDOM_BITS) - now_ns // 1_000_000) < _TAPS_MS


@lru_cache(32)
def _line(method: str, path: str | bytes, query: bytes | None) -> bytes:
    raw = path if isinstance(path, bytes) else str(path).encode("utf-8", "replace")
    return b"%b %b%b HTTP/1.1" % (str(method).encode("ascii", "replace"), raw, b"?" + query if query else b"")


def head_of(scope: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> bytes:
    """A request's line and header fields as HTTP/1.1 writes them, cut at 32 kB."""
    line = _line(scope.get("method", ""), scope.get("raw_path") or scope.get("path", "/"), scope.get("query_string"))
    head = b"\r\n".join((line, *map(b": ".join, headers), b""))
    return head if len(head) <= _MAX_HEAD else head[:_MAX_HEAD]
