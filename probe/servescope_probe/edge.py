"""ASGI middleware: what each request felt, without a proxy (``vllm serve --middleware servescope_probe.Edge``).

It reads nothing: the request's head, the beginning and end of its body, and the pieces of its answer with their times
go to the agent, which makes the same record of them as a tap does, with the same code. Like a tap it is the parent of
the server's span, so that both halves of the request meet: the application sees its ``traceparent`` and, where the
client sent none, its ``X-Request-Id``. A request that a tap has recorded is passed on as it is.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import time
from collections.abc import Awaitable, MutableMapping
from typing import Any, Callable

from servescope_probe import wire
from servescope_probe.sender import GATHER_SECONDS, Sender, shared

SAMPLE_VARIABLE = "SERVESCOPE_PROBE_SAMPLE"
HEAD_BYTES = 49_152
TAIL_BYTES = 8_192
_PIECES_BYTES = 24_576
_MAX_HEAD = 32_768
_NS = 1_000_000_000
_RANDOM_BITS = 22
_TAPS_MS = 120_000
"""A parent span whose id holds a time so near is a tap's: for others that is one chance in twenty million."""
_SAMPLED = 1
_KNOWN_FLAGS = 3
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
# As a tap judges it: one member that is none, or too many of them, and the list is not handed on.
_MEMBER = re.compile(rb"[0-9a-z][_0-9a-z*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_MOST_MEMBERS = 32
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,256}")
_STREAMS = (b"text/event-stream", b"application/x-ndjson", b"application/ndjson", b"application/jsonl")
_UNREAD = frozenset((b"cookie", b"proxy-authorization"))
_NAN = float("nan")
_64_BITS = (1 << 64) - 1
_NOBODY = bytes(8)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_now = time.perf_counter

log = logging.getLogger("servescope_probe")


class Edge:
    """The middleware.

    Args:
        app: The application behind it.
        sender: Where records go; the process's own by default.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], sender: Sender | None = None) -> None:
        self.app = app
        self.open = 0
        self._numbers = itertools.count()
        self._sample = os.environ.get(SAMPLE_VARIABLE, "1") not in ("0", "false", "no")
        self._sender = sender
        self._told = False
        self._due = False

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request; all but ``http`` passes as it is."""
        watch = None
        if scope.get("type") == "http":
            try:
                watch = self._begin(scope, receive, send)
            except Exception as error:  # noqa: BLE001 - the request is served, whatever becomes of its record
                self.fault(error)
        if watch is None:
            await self.app(scope, receive, send)
            return
        how = wire.CUT
        try:
            await self.app(watch.scope, watch.receive, watch.send)
            how = wire.FAILED  # unless it has answered: the server says 500 in its place, as when it raises
        except asyncio.CancelledError:
            raise
        except BaseException:
            how = wire.FAILED
            raise
        finally:
            watch.over(how)

    def fault(self, error: Exception) -> None:
        """Something of ours went wrong: say so, once."""
        if not self._told:
            self._told = True
            log.warning("servescope-probe could not record a request: %s: %s", type(error).__name__, error)

    def _begin(self, scope: dict[str, Any], receive: Receive, send: Send) -> _Watch | None:
        arrived, arrived_ns = _now(), time.time_ns()
        parents: list[bytes] = []
        states: list[bytes] = []
        hidden: list[tuple[bytes, bytes]] = []
        given = b""
        passed: list[tuple[bytes, bytes]] = []
        for field in scope["headers"]:
            name = field[0]
            if name == b"traceparent":
                parents.append(field[1])
            elif name == b"tracestate":
                states.append(field[1])
            elif name == b"x-request-id":
                given = given or field[1]
            elif name in _UNREAD:
                hidden.append(field)
            else:
                passed.append(field)
        trace_id, parent, flags = _trace(parents)
        if parent and _is_a_taps(parent, arrived_ns):
            return None
        sampled = not parent or self._sample or bool(flags & _SAMPLED)
        random = int.from_bytes(_draw(3), "big") & ((1 << _RANDOM_BITS) - 1)
        span_id = (((arrived_ns // 1_000_000) << _RANDOM_BITS) & _64_BITS | random).to_bytes(8, "big")
        if not given or not _REQUEST_ID.fullmatch(given):
            given = _draw(16).hex().encode()
        passed.append((b"x-request-id", given))
        if parent and states and (state := _trace_state(states)):  # without its trace it says nothing
            passed.append((b"tracestate", state))
        head = _head(scope, passed)
        passed += hidden
        handed = flags & ~_SAMPLED | (_SAMPLED if sampled else 0)
        passed.append((b"traceparent", f"00-{trace_id.hex()}-{span_id.hex()}-{handed:02x}".encode()))
        number = next(self._numbers)
        begin = wire.BEGIN_BODY.pack(
            number, self.open + 1, arrived_ns, trace_id, span_id, parent or _NOBODY, flags, sampled
        )
        self.tell(wire.EDGE_BEGIN, [begin, head])
        self.open += 1
        return _Watch(self, number, arrived, dict(scope, headers=passed), receive, send)

    def tell(self, kind: int, bodies: list[bytes]) -> None:
        """Send a record with others of the same moment."""
        sender = self._sender
        if sender is None:
            sender = self._sender = shared()
        sender.put_later(kind, bodies)
        if not self._due:
            self._due = self._flush_later()
            if not self._due:
                self._flush()

    def _flush_later(self) -> bool:
        try:
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self._flush)
        except RuntimeError:  # another event loop than asyncio's
            return False
        return True

    def _flush(self) -> None:
        self._due = False
        try:
            if self._sender is not None:
                self._sender.flush()
                # The agent is busy, and perhaps no other request comes: it would take this one to be open still.
                self._due = self._sender.holds and self._flush_later()
        except Exception as error:  # noqa: BLE001 - nothing of ours may be felt by the server
            self.fault(error)


class _Watch:
    """One request on its way."""

    __slots__ = (
        "_arrived", "_body", "_body_size", "_edge", "_ended", "_first", "_kept", "_left_out", "_number",
        "_pieces", "_receive", "_received", "_response_size", "_send", "_sent", "_stream", "_tail",
        "_waited", "scope",
    )  # fmt: skip

    def __init__(
        self,
        edge: Edge,
        number: int,
        arrived: float,
        scope: dict[str, Any],
        receive: Receive,
        send: Send,
    ) -> None:
        self.scope = scope
        self._edge = edge
        self._number = number
        self._arrived = arrived
        self._receive = receive
        self._send = send
        self._body: list[bytes] = []
        self._kept = 0
        self._tail = b""
        self._body_size = 0
        self._received = False
        self._stream = False
        self._pieces: list[tuple[float, bytes]] = []
        self._left_out = 0
        self._sent = 0
        self._first = _NAN
        self._response_size = 0
        self._waited = 0.0
        self._ended = False

    async def receive(self) -> Message:
        """The next message of the client."""
        began = _now()
        message = await self._receive()
        if not self._ended:
            try:
                if message["type"] == "http.request":
                    now = _now()
                    if not self._received:
                        self._waited += now - began
                        self._take_body(message, now)
                elif message["type"] == "http.disconnect":
                    self._end(wire.LEFT, _now())
            except Exception as error:  # noqa: BLE001 - the message goes on, whatever becomes of the record
                self._edge.fault(error)
        return message

    async def send(self, message: Message) -> None:  # noqa: C901 - it is called for each chunk: one call less
        """A message of the application."""
        if self._ended:
            await self._send(message)
            return
        began = _now()
        await self._send(message)
        now = _now()
        try:
            kind = message["type"]
            if kind == "http.response.body":
                body = message.get("body") or b""
                self._waited += now - began
                if body:
                    if not self._response_size:
                        self._first = now - self._arrived
                    size = len(body)
                    self._response_size += size
                    if self._stream:
                        self._kept += size
                        self._pieces.append((now, body))
                        if self._kept > _PIECES_BYTES:
                            self._tell_pieces()
                    else:
                        self._keep(bytes(body), now)
                if not message.get("more_body"):
                    self._end(wire.DONE, now)
            elif kind == "http.response.start":
                self._start(message, now)
        except Exception as error:  # noqa: BLE001 - the answer is sent, whatever becomes of the record
            if not self._ended:
                self._ended = True
                self._edge.open -= 1
            self._edge.fault(error)

    def over(self, how: int) -> None:
        """The application has returned, or raised."""
        if not self._ended:
            try:
                self._end(how, _now())
            except Exception as error:  # noqa: BLE001 - as above
                self._edge.fault(error)

    def _take_body(self, message: Message, now: float) -> None:
        body = message.get("body") or b""
        if body:
            self._body_size += len(body)
            room = HEAD_BYTES - self._kept
            if room > 0:
                self._body.append(bytes(body[:room]))
                self._kept += min(room, len(body))
                body = body[room:]
            if body:
                self._tail = (self._tail + body[-TAIL_BYTES:])[-TAIL_BYTES:]
        if not message.get("more_body"):
            self._tell_body(now)

    def _tell_body(self, now: float) -> None:
        self._received = True
        head = wire.BODY_BODY.pack(self._number, now - self._arrived, self._body_size, self._kept)
        self._edge.tell(wire.EDGE_BODY, [head, *self._body, self._tail])
        self._body, self._tail, self._kept = [], b"", 0

    def _start(self, message: Message, now: float) -> None:
        if not self._received:  # answered before the whole request was there
            self._tell_body(now)
        told = [wire.ANSWER_BODY.pack(self._number, now - self._arrived, message["status"])]
        for name, value in message.get("headers") or ():
            if name.lower() != b"set-cookie":
                told += (name, b": ", value, b"\r\n")
            if name == b"content-type" or name.lower() == b"content-type":
                self._stream = value.partition(b";")[0].strip().lower() in _STREAMS
        self._edge.tell(wire.EDGE_HEAD, told)

    def _keep(self, body: bytes, now: float) -> None:
        """Of an answer that is no stream the beginning and the end are enough."""
        room = HEAD_BYTES - self._kept
        if room > 0:
            self._pieces.append((now, body[:room]))
            self._kept += min(room, len(body))
            body = body[room:]
        if body:
            self._left_out += max(0, len(self._tail) + len(body) - TAIL_BYTES)
            self._tail = (self._tail + body[-TAIL_BYTES:])[-TAIL_BYTES:]

    def _tell_pieces(self) -> None:
        pieces, self._pieces, self._kept = self._pieces, [], 0
        arrived, pack = self._arrived, wire.PIECE.pack
        out: list[bytes] = [wire.PIECES_BODY.pack(self._number, self._sent)]
        size = 0
        for when, body in pieces:
            for at in range(0, len(body), HEAD_BYTES):
                part = body[at : at + HEAD_BYTES] if len(body) > HEAD_BYTES else body
                if size + len(part) > HEAD_BYTES:
                    self._edge.tell(wire.EDGE_PIECES, out)
                    self._sent += 1
                    out, size = [wire.PIECES_BODY.pack(self._number, self._sent)], 0
                out.append(pack(when - arrived, len(part)))
                out.append(part)
                size += len(part)
        if self._tail:
            out += (pack(_NAN, self._left_out), pack(pieces[-1][0] - arrived, len(self._tail)), self._tail)
        if size:
            self._edge.tell(wire.EDGE_PIECES, out)
            self._sent += 1

    def _end(self, how: int, now: float) -> None:
        self._ended = True
        self._edge.open -= 1
        if not self._received:
            self._tell_body(now)
        if self._pieces:
            self._tell_pieces()
        end = wire.END_BODY.pack(
            self._number, how, now - self._arrived, self._first, self._waited, self._sent, self._response_size,
            self._body_size,
        )  # fmt: skip
        self._edge.tell(wire.EDGE_END, [end])


def _trace(parents: list[bytes]) -> tuple[bytes, bytes, int]:
    """Trace id, the caller's span id (empty where the trace begins here) and flags."""
    match = _TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if match is not None and match[1] != b"ff" and not (match[1] == b"00" and match[5] is not None):
        trace_id, parent = bytes.fromhex(match[2].decode()), bytes.fromhex(match[3].decode())
        if any(trace_id) and any(parent):
            return trace_id, parent, int(match[4], 16) & _KNOWN_FLAGS
    return _draw(16), b"", _SAMPLED


def _trace_state(values: list[bytes]) -> bytes:
    """The values of ``tracestate`` as one, empty where they are together no list (Trace Context §3.3.1)."""
    joined = b",".join(filter(None, values))
    members = [member for one in joined.split(b",") if (member := one.strip(b" \t"))]
    return joined if 0 < len(members) <= _MOST_MEMBERS and all(map(_MEMBER.fullmatch, members)) else b""


_pool = bytearray()
os.register_at_fork(after_in_child=_pool.clear)


def _draw(size: int) -> bytes:
    """Random bytes, drawn from the kernel many at a time."""
    if len(_pool) < size:
        _pool.extend(os.urandom(4_096))
    drawn = bytes(_pool[-size:])
    del _pool[-size:]
    return drawn


def _is_a_taps(parent: bytes, now_ns: int) -> bool:
    return abs((int.from_bytes(parent, "big") >> _RANDOM_BITS) - now_ns // 1_000_000) < _TAPS_MS


def _head(scope: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> bytes:
    path = scope.get("raw_path") or str(scope.get("path", "/")).encode("utf-8", "replace")
    query = scope.get("query_string") or b""
    target = path + b"?" + query if query else path
    method = str(scope.get("method", "")).encode("ascii", "replace")
    head = b"\r\n".join([method + b" " + target + b" HTTP/1.1", *map(b": ".join, headers), b""])
    return head if len(head) <= _MAX_HEAD else head[:_MAX_HEAD]
