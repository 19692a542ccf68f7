"""Connections to the model server: kept alive between requests, one request at a time on each."""

from __future__ import annotations

import asyncio
import select
import ssl
from typing import TYPE_CHECKING, Final, cast

from agent.tap.sockets import keep_alive, left_unread

if TYPE_CHECKING:
    from agent.tap.ends import AnswerEnd

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class UpstreamConnection(asyncio.Protocol):
    """One connection to the server; hands all that happens to the exchange that uses it.

    Attributes:
        exchange: The request in flight, if any.
        reused: It has carried a request before.
        full: The server does not take our bytes for now.
        reading: Its bytes are read.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self.reading = True
        self._poll: select.poll | None = None
        self.exchange: AnswerEnd | None = None
        self.reused = False
        self.full = False
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=0)  # to know when bytes have left us
        keep_alive(self._transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self.exchange is not None:
            self.exchange.answer_bytes(data)
        else:
            self._pool.discard(self)  # an answer to nothing

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        if exc is not None and self._transport is not None and self.exchange is not None and self.reading:
            # A server that refuses an upload early closes before it has read all: its answer lies before the reset.
            unread = left_unread(self._transport)
            if unread:
                self.exchange.answer_bytes(unread)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.upstream_lost(exc)
        else:
            self._pool.discard(self)

    def pause_writing(self) -> None:
        """See asyncio."""
        self.full = True
        if self.exchange is not None:
            self.exchange.upstream_full()

    def resume_writing(self) -> None:
        """See asyncio."""
        self.full = False
        if self.exchange is not None:
            self.exchange.upstream_has_room()

    def write(self, data: bytes) -> None:
        """Send bytes to the server."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def read_on(self, reading: bool) -> None:
        """Stop or go on reading: the kernel's window then slows the server down."""
        if reading != self.reading and self._transport is not None and not self._transport.is_closing():
            self.reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def abort(self) -> None:
        """Close at once: the server sees its client leave."""
        self.exchange = None
        if self._transport is not None:
            self._transport.abort()

    def is_usable(self) -> bool:
        """Whether a new request may be sent on it."""
        return self._transport is not None and not self._transport.is_closing() and not self.full

    def is_silent(self) -> bool:
        """Whether nothing waits to be read: an idle connection that has something to say was closed by the server."""
        if self._poll is None:
            transport = self._transport
            if transport is None or transport.get_extra_info("ssl_object") is not None:
                return transport is not None
            self._poll = select.poll()
            descriptor = transport.get_extra_info("socket").fileno()
            self._poll.register(descriptor, select.POLLIN | select.POLLHUP | select.POLLERR)
        return not self._poll.poll(0)


class Pool:
    """Connections to one server.

    Args:
        scheme: ``http`` or ``https``.
        host: Name or address.
        port: ``None`` for the scheme's own.
        base: Path that is put in front of every request's, "" for none; without a slash at its end.
        connect_seconds: Longest that a connect may take.
        idle_seconds: An idle connection is closed after this; keep it below the server's own (uvicorn: 5 s), so that
            a request never meets a connection that the server is about to close.
        max_idle: Connections kept idle.

    Attributes:
        away: Set when a connection could not be made.
    """

    def __init__(
        self,
        scheme: str,
        host: str,
        port: int | None,
        *,
        base: str = "",
        connect_seconds: float,
        idle_seconds: float,
        max_idle: int,
    ) -> None:
        self.host = host
        self.port = port or _DEFAULT_PORTS[scheme]
        authority = f"{f'[{host}]' if ':' in host else host}:{self.port}"
        self.url = f"{scheme}://{authority}{base}"
        self.authority, self.base = authority.encode(), base.encode()
        self._ssl = ssl.create_default_context() if scheme == "https" else None
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._max_idle = max_idle
        self._idle: list[UpstreamConnection] = []
        self.away = asyncio.Event()

    def take(self) -> UpstreamConnection | None:
        """An idle connection that is still good, newest first."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable() and connection.is_silent():
                connection.reused = True
                return connection
            connection.abort()
        return None

    async def connect(self) -> UpstreamConnection:
        """A fresh connection.

        Raises:
            OSError: It can't be made (``TimeoutError``: not in time).
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self),
                    self.host,
                    self.port,
                    ssl=self._ssl,
                    server_hostname=self.host if self._ssl is not None else None,
                )
        except OSError:
            self.away.set()
            raise
        return connection

    def give_back(self, connection: UpstreamConnection, now: float) -> None:
        """Keep a connection whose exchange ended cleanly."""
        connection.exchange = None
        if not connection.reading:
            connection.read_on(True)
        if connection.is_usable() and len(self._idle) < self._max_idle:
            connection.idle_since = now
            self._idle.append(connection)
        else:
            connection.abort()

    def discard(self, connection: UpstreamConnection) -> None:
        """Forget an idle connection."""
        if connection in self._idle:
            self._idle.remove(connection)
        connection.abort()

    def reap(self, now: float) -> None:
        """Close connections that were idle for too long (``now`` on the loop's clock)."""
        while self._idle and now - self._idle[0].idle_since > self._idle_seconds:
            self._idle.pop(0).abort()

    def close(self) -> None:
        """Close all idle connections."""
        while self._idle:
            self._idle.pop().abort()
