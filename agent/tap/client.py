"""A client's connection: reads one request after the other, hands each to an exchange."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

from agent.tap.account import Account
from agent.tap.exchange import Exchange
from agent.tap.faults import SHUTDOWN
from agent.tap.head import HttpFault, find_end, parse_request
from agent.tap.places import TurnedAway
from agent.tap.sockets import ClientSocket

if TYPE_CHECKING:
    from agent.tap.core import Core

_AHEAD_BYTES: Final = 65_536
"""Bytes of later requests that are read while one is in flight; reading goes on so that a client's leaving is seen."""
_LINGER_BYTES: Final = 1 << 24
_LINGER_SECONDS: Final = 2.0
_WAIT_SECONDS: Final = 600.0
_ASK_SECONDS: Final = 1.0
"""How long a tap that is shutting down waits for the request of a client that it has let in."""
_CLOSE_SECONDS: Final = 30.0
"""How long a client may take nothing of what a closing connection still has for it."""


class ClientConnection(asyncio.Protocol):
    """One client connection.

    Args:
        core: Shared state.
        connections: The open connections; this one adds and removes itself.

    Attributes:
        exchange: The request in flight, if any.
        full: The client does not take our bytes for now.
        arrived: When the current request's first byte came, monotonic seconds.
    """

    def __init__(self, core: Core, connections: set[ClientConnection]) -> None:
        self._core = core
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._socket: ClientSocket | None = None
        self._pending = bytearray()
        self._seen = 0
        self._holds: set[str] = set()
        self._reading = True
        self._closing = False
        self._closed = False
        self._trailed = False
        self._waiting = 0
        self._taken_at = 0.0
        self._lingered: int | None = None
        self._idle_since = time.monotonic()
        self._arrived_ns = 0
        self._free_since = float("-inf")  # a new connection may have waited to be accepted, its request with it
        self.arrived = 0.0
        self.exchange: Exchange | None = None
        self.full = False

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)
        if len(self._connections) >= self._core.limits.max_connections:
            refusal = TurnedAway(self._core.door)
            self._closed = True
            self._transport.set_protocol(refusal)
            refusal.connection_made(transport)
            return
        self._transport.set_write_buffer_limits(high=0)  # to know when bytes are in the client's socket
        self._socket = ClientSocket(self._transport)
        self._connections.add(self)
        self._core.counters.connections.inc()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._lingered is not None:
            self._lingered += len(data)
            if self._lingered > _LINGER_BYTES:
                self._abort()
            return
        exchange = self.exchange
        if self._closed:
            return
        if exchange is None:
            if not self._pending:
                self._clock_in(read=True)
            if self.full:
                self._keep(data)
                return
            if self._pending or data.startswith(b"\r\n"):
                self._pending += data
                self._next_request()
            else:
                self._read_head(data)
        elif exchange.tunnel:
            exchange.client_tunnel(data)
        elif not exchange.request_done:
            self._feed_body(exchange, data)
        else:
            self._keep(data)

    def eof_received(self) -> bool:
        """See asyncio."""
        self._leave()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """See asyncio."""
        self._leave()
        self._closed = True
        self._pending.clear()
        if self._socket is not None:
            self._socket.forget()
        if self in self._connections:
            self._connections.discard(self)
            self._core.counters.connections.dec()

    def pause_writing(self) -> None:
        """See asyncio."""
        self.full = True

    def resume_writing(self) -> None:
        """See asyncio."""
        self.full = False
        if self.exchange is not None:
            self.exchange.client_has_room()
        elif not self._closed:
            self.hold_reading("ahead", False)
            self._next_request()

    # --- for the exchange

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def is_behind(self) -> bool:
        """Whether the client has not taken what was sent so far, by its own doing."""
        return self.full or (self._socket is not None and self._socket.is_behind())

    def has_unsent(self) -> bool:
        """Whether something of what was sent has not left for the client."""
        return self.full or (self._socket is not None and self._socket.has_unsent())

    def hold_reading(self, why: str, hold: bool) -> None:
        """Stop reading while at least one reason holds."""
        if hold:
            self._holds.add(why)
        else:
            self._holds.discard(why)
        self._read_on(not self._holds)

    def flush_into_tunnel(self) -> None:
        """The server switched protocols: what the client sent ahead belongs to it."""
        if self.exchange is not None and self._pending:
            ahead = bytes(self._pending)
            self._pending.clear()
            self.exchange.client_tunnel(ahead)
        self.hold_reading("ahead", False)

    def exchange_over(self, *, keep: bool, drain: bool) -> None:
        """The answer is handed over.

        Args:
            keep: The connection may carry another request.
            drain: The client may still be sending a request that nobody wants any more.
        """
        self.exchange = None
        self._holds.clear()
        if not self._reading:
            self._read_on(True)
        if drain or (self._trailed and not keep):
            self._linger()
        elif not keep or self._core.draining or self._closing:
            self._close()
        else:
            self._idle_since = self._free_since = time.monotonic()
            if self._pending:
                self._clock_in()
                self._next_request()

    def cut_off(self, *, hard: bool) -> None:
        """Close in mid-answer; ``hard`` sends a reset, for answers whose end is their connection's end."""
        self.exchange = None
        if hard:
            if self._socket is not None:
                self._socket.reset_on_close()
            self._abort()
        else:
            self._close()

    # --- for the server

    def check(self, now: float) -> None:
        """End what takes too long (``now`` on the monotonic clock)."""
        limits = self._core.limits
        if self._is_stuck(now):
            self._let_go()
        elif self._closed or self._waiting:
            return
        elif self._lingered is not None:
            if now - self._idle_since > _LINGER_SECONDS:
                self._abort()
        elif self.exchange is not None:
            self.exchange.check(now)
        elif self._pending:
            if 0 < limits.head_seconds < now - self.arrived:
                self._refuse(HttpFault(408, "head_timeout", "the request's head did not come in time"))
        elif 0 < limits.keep_alive_seconds < now - self._idle_since or (self._closing and not self._may_ask(now)):
            self._close()

    def owed(self, now: float) -> float:
        """For how long the server has sent nothing of an answer that it owes, 0 where it owes none."""
        return self.exchange.owed(now) if self.exchange is not None else 0.0

    def _is_stuck(self, now: float) -> bool:
        """Whether the client has taken nothing for too long of the bytes that wait for it here."""
        waiting = self._transport.get_write_buffer_size() if self._transport is not None else 0
        if not waiting or not self._waiting or waiting < self._waiting:
            self._taken_at = now
        self._waiting = waiting
        limit = self._core.limits.client_stall_seconds
        if self._closed or self._lingered is not None:
            limit = min(limit or _CLOSE_SECONDS, _CLOSE_SECONDS)
        return 0 < limit < now - self._taken_at

    def _let_go(self) -> None:
        exchange, self.exchange = self.exchange, None
        self._core.counters.stuck.inc()
        if exchange is not None:
            exchange.client_gone("slow_reader")
        self.cut_off(hard=True)

    def drain(self) -> None:
        """Close when the request in flight is over, at once if there is none and none is on its way."""
        self._closing = True
        if self.exchange is None and not self._may_ask(time.monotonic()):
            self._close()

    def _may_ask(self, now: float) -> bool:
        """Whether a request has begun, or lies unread in the socket, or may follow from who was just let in."""
        new = self._free_since == float("-inf") and now - self._idle_since < _ASK_SECONDS
        return new or bool(self._pending) or (self._socket is not None and self._socket.has_bytes())

    def shut(self) -> None:
        """Close now, whatever is open."""
        if self.exchange is not None:
            self.exchange.fail(SHUTDOWN)
        else:
            self._abort()

    # --- within

    def _clock_in(self, *, read: bool = False) -> None:
        """A request is here; just ``read``, it may have waited in the socket, back to the answer before it."""
        now = self.arrived = time.monotonic()
        self._arrived_ns = time.time_ns()
        waited = 0.0 if self._socket is None else self._socket.waited_seconds()
        if read and waited > 0:
            self.arrived = max(now - min(waited, _WAIT_SECONDS), self._free_since)
            self._arrived_ns -= int((now - self.arrived) * 1e9)

    def _keep(self, data: bytes) -> None:
        if self.exchange is not None and self.exchange.is_last:
            self._trailed = True  # RFC 9112 §9.6: what follows a request that closes is nobody's
            return
        self._pending += data
        if len(self._pending) > _AHEAD_BYTES:
            self.hold_reading("ahead", True)

    def _next_request(self) -> None:
        if self.exchange is not None or self.full or self._closed or self._lingered is not None:
            return  # an answer that is not taken yet: the next one would only pile up behind it
        pending = self._pending
        while pending[:2] == b"\r\n":  # RFC 9112 §2.2: empty lines before a request are passed over
            del pending[:2]
            self._seen = 0
        if pending:
            self._read_head(pending)

    def _read_head(self, data: bytes | bytearray) -> None:
        """Begin the request whose head is here: what is pending, or the bytes that came when nothing was."""
        pending = self._pending
        try:
            end = find_end(data, self._seen)
            if end < 0:
                self._seen = len(data)
                if data is not pending:
                    pending += data
                return
            self._seen = 0
            head = parse_request(bytes(data[:end]))
        except HttpFault as fault:
            self._refuse(fault)
            return
        body = bytes(data[end:])
        pending.clear()
        account = Account(self._core, head, self.arrived, self._arrived_ns)
        self.exchange = exchange = Exchange(self._core, self, head, account)
        try:
            consumed = exchange.start(body)
        except HttpFault as fault:
            exchange.refuse(fault)
            return
        if consumed < len(body):
            self._keep(body[consumed:])

    def _feed_body(self, exchange: Exchange, data: bytes) -> None:
        try:
            consumed = exchange.request_bytes(data)
        except HttpFault as fault:
            exchange.refuse(fault)
            return
        if consumed < len(data):
            self._keep(data[consumed:])

    def _refuse(self, fault: HttpFault) -> None:
        self._pending.clear()
        account = Account(self._core, None, self.arrived, self._arrived_ns)
        self.exchange = Exchange(self._core, self, None, account)
        self.exchange.refuse(fault)

    def _leave(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def _linger(self) -> None:
        """Half-close, and read on for a moment: a reset would take the answer from a client that still sends."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._pending.clear()
        self._lingered = 0
        self._idle_since = time.monotonic()
        if transport.can_write_eof():
            transport.write_eof()

    def _close(self) -> None:
        self._closed = True
        self._pending.clear()
        if self._transport is not None:
            self._transport.close()

    def _abort(self) -> None:
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    def _read_on(self, reading: bool) -> None:
        if reading != self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()
