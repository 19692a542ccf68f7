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
import time
from binascii import hexlify
from collections.abc import Awaitable, MutableMapping
from functools import lru_cache
from typing import Any, Callable

from servescope_probe import wire
from servescope_probe.fields import (
    SAMPLED,
    TAKEN,
    draw,
    head_of,
    is_a_taps,
    is_request_id,
    sorted_out,
    span_of,
    trace,
    trace_state,
)
from servescope_probe.sender import Sender, shared

SAMPLE_VARIABLE = "SERVESCOPE_PROBE_SAMPLE"
HEAD_BYTES = 49_152
TAIL_BYTES = 8_192
_PIECES_BYTES = 24_576
_PIECES_KEPT = 512
"""Parts of pieces, two each: what tells of one is more than a small one itself."""
_STREAMS = (b"text/event-stream", b"application/x-ndjson", b"application/ndjson", b"application/jsonl")
_NAN = float("nan")
_NOBODY = bytes(8)
_HANDED = (b"-00", b"-01", b"-02", b"-03")
_BEGIN, _BEGIN_SIZE = wire.BEGIN_RECORD.pack, wire.BEGIN_BODY.size
_BODY, _BODY_SIZE = wire.BODY_RECORD.pack, wire.BODY_BODY.size
_ANSWER, _ANSWER_SIZE = wire.ANSWER_RECORD.pack, wire.ANSWER_BODY.size
_PIECES, _PIECES_SIZE = wire.PIECES_RECORD.pack, wire.PIECES_BODY.size
_PIECE, _PIECE_SIZE = wire.PIECE.pack, wire.PIECE.size
_END, _END_SIZE = wire.END_RECORD.pack, wire.END_BODY.size

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
            if not watch.ended:
                watch.over(how)

    def fault(self, error: Exception) -> None:
        """Something of ours went wrong: say so, once."""
        if not self._told:
            self._told = True
            log.warning("servescope-probe could not record a request: %s: %s", type(error).__name__, error)

    def _begin(self, scope: dict[str, Any], receive: Receive, send: Send) -> _Watch | None:
        arrived, arrived_ns = _now(), time.time_ns()
        passed: list[tuple[bytes, bytes]] = []
        taken: list[tuple[bytes, bytes]] = []
        given = b""
        for field in scope["headers"]:
            name = field[0]
            if name not in TAKEN:
                passed.append(field)
            elif name == b"x-request-id":
                given = given or field[1]
            else:
                taken.append(field)
        parents, states, hidden = sorted_out(taken) if taken else ((), (), ())
        drawn = draw()
        trace_id, parent, flags = trace(parents) if parents else (b"", b"", SAMPLED)
        if parent and is_a_taps(parent, arrived_ns):
            return None
        trace_id = trace_id or drawn[:16]
        sampled = not parent or self._sample or bool(flags & SAMPLED)
        span_id = span_of(arrived_ns, drawn[16:19])
        if not is_request_id(given):
            given = hexlify(drawn[19:])
        passed.append((b"x-request-id", given))
        if parent and states and (state := trace_state(states)):  # without its trace it says nothing
            passed.append((b"tracestate", state))
        head = head_of(scope, passed)
        passed += hidden
        handed = _HANDED[flags | SAMPLED if sampled else flags & ~SAMPLED]
        passed.append((b"traceparent", b"00-" + hexlify(trace_id) + b"-" + hexlify(span_id) + handed))
        number = next(self._numbers)
        open_now = self.open + 1
        sender = self._sender
        if sender is None:
            sender = self._sender = shared()
            sender.ask_anew()
        tell = sender.put_soon
        tell(
            _BEGIN(
                _BEGIN_SIZE + len(head), wire.EDGE_BEGIN, -1,
                number, open_now, arrived_ns, trace_id, span_id, parent or _NOBODY, flags, sampled,
            ) + head
        )  # fmt: skip
        self.open = open_now
        return _Watch(self, tell, number, arrived, dict(scope, headers=passed), receive, send)


@lru_cache(64)
def _is_stream(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() in _STREAMS


class _Watch:
    """One request on its way."""

    __slots__ = (
        "_arrived", "_body", "_body_size", "_edge", "_first", "_kept", "_last", "_left_out",
        "_number", "_pieces", "_receive", "_received", "_response_size", "_send", "_sent", "_stream", "_tail",
        "_tell", "_waited", "ended", "scope",
    )  # fmt: skip

    def __init__(
        self,
        edge: Edge,
        tell: Callable[[bytes], None],
        number: int,
        arrived: float,
        scope: dict[str, Any],
        receive: Receive,
        send: Send,
    ) -> None:
        self.scope = scope
        self._edge = edge
        self._tell = tell
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
        self._pieces: list[bytes] = []
        self._left_out = 0
        self._last = _NAN
        self._sent = 0
        self._first = _NAN
        self._response_size = 0
        self._waited = 0.0
        self.ended = False

    async def receive(self) -> Message:
        """The next message of the client."""
        began = _now()
        message = await self._receive()
        if not self.ended:
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
        if self.ended:
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
                    if self._stream and size <= _PIECES_BYTES:
                        size += _PIECE_SIZE
                        self._kept += size
                        if self._kept > _PIECES_BYTES:
                            self._tell_pieces(size)
                        self._pieces += (_PIECE(now - self._arrived, len(body)), body)
                    elif self._stream:
                        self._take_large(bytes(body), now)
                    else:
                        self._keep(bytes(body), now)
                if not message.get("more_body"):
                    self._end(wire.DONE, now)
            elif kind == "http.response.start":
                self._start(message, now)
        except Exception as error:  # noqa: BLE001 - the answer is sent, whatever becomes of the record
            if not self.ended:
                self.ended = True
                self._edge.open -= 1
            self._edge.fault(error)

    def over(self, how: int) -> None:
        """The application has returned, or raised, and the answer had no end."""
        try:
            self._end(how, _now())
        except Exception as error:  # noqa: BLE001 - as above
            self._edge.fault(error)

    def _take_body(self, message: Message, now: float) -> None:
        body = message.get("body")
        if not (self._body_size or message.get("more_body")) and len(body or b"") <= HEAD_BYTES:  # whole, as mostly
            self._received = True
            self._body_size = size = len(body or b"")
            self._tell(
                _BODY(_BODY_SIZE + size, wire.EDGE_BODY, -1, self._number, now - self._arrived, size, size)
                + (body or b"")
            )
            return
        if body:
            self._body_size += len(body)
            room = HEAD_BYTES - self._kept
            if len(body) <= room:
                self._body.append(bytes(body))
                self._kept += len(body)
            else:
                if room > 0:
                    self._body.append(bytes(body[:room]))
                    self._kept = HEAD_BYTES
                self._tail = (self._tail + body[room:][-TAIL_BYTES:])[-TAIL_BYTES:]
        if not message.get("more_body"):
            self._tell_body(now)

    def _tell_body(self, now: float) -> None:
        self._received = True
        kept, tail = self._kept, self._tail
        head = _BODY(
            _BODY_SIZE + kept + len(tail), wire.EDGE_BODY, -1, self._number, now - self._arrived, self._body_size, kept
        )
        self._tell(b"".join((head, *self._body, tail)))
        self._body, self._tail, self._kept = [], b"", 0

    def _start(self, message: Message, now: float) -> None:
        if not self._received:  # answered before the whole request was there
            self._tell_body(now)
        told = []
        for name, value in message.get("headers") or ():
            lower = name.lower()
            if lower != b"set-cookie":
                told.append(name + b": " + value + b"\r\n")
            if lower == b"content-type":
                self._stream = _is_stream(value)
        head = b"".join(told)
        self._tell(
            _ANSWER(
                _ANSWER_SIZE + len(head), wire.EDGE_HEAD, -1, self._number, now - self._arrived, message["status"]
            ) + head
        )  # fmt: skip

    def _keep(self, body: bytes, now: float) -> None:
        """Of an answer that is no stream the beginning and the end are enough."""
        room = HEAD_BYTES - self._kept
        if room > 0:
            part = body[:room]
            self._pieces += (_PIECE(now - self._arrived, len(part)), part)
            self._kept += len(part)
            self._last = now - self._arrived
            body = body[room:]
            if len(self._pieces) >= _PIECES_KEPT:
                self._tell_pieces(self._kept)
        if body:
            self._left_out += max(0, len(self._tail) + len(body) - TAIL_BYTES)
            self._tail = (self._tail + body[-TAIL_BYTES:])[-TAIL_BYTES:]

    def _take_large(self, body: bytes, now: float) -> None:
        """A chunk that takes records of its own."""
        if self._pieces:
            self._tell_pieces()
        for at in range(0, len(body), HEAD_BYTES):
            part = body[at : at + HEAD_BYTES]
            self._pieces += (_PIECE(now - self._arrived, len(part)), part)
            self._tell_pieces()

    def _tell_pieces(self, kept: int = 0) -> None:
        """Tell the pieces that are held; ``kept`` bytes will be held after it."""
        body = b"".join(self._pieces)
        self._pieces, self._kept = [], kept
        self._tell(
            _PIECES(_PIECES_SIZE + len(body), wire.EDGE_PIECES, -1, self._number, self._sent) + body
        )  # fmt: skip
        self._sent += 1

    def _end(self, how: int, now: float) -> None:
        self.ended = True
        self._edge.open -= 1
        if not self._received:
            self._tell_body(now)
        if self._tail:
            self._pieces += (
                _PIECE(_NAN, self._left_out), _PIECE(self._last, len(self._tail)), self._tail,
            )  # fmt: skip
        if self._pieces:
            self._tell_pieces()
        self._tell(
            _END(
                _END_SIZE, wire.EDGE_END, -1, self._number, how, now - self._arrived, self._first, self._waited,
                self._sent, self._response_size, self._body_size,
            )
        )  # fmt: skip
