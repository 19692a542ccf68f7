"""Lifecycle of a tap: listen, watch the time, drain."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import structlog

from agent.tap.client import ClientConnection
from agent.tap.listening import BACKLOG, in_use

if TYPE_CHECKING:
    import socket

    from agent.tap.core import Core

log = structlog.get_logger()

_TICK_SECONDS: Final = 0.2


class TapServer:
    """Listens for clients.

    Args:
        core: Shared state.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._connections: set[ClientConnection] = set()
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self, host: str, port: int, listener: socket.socket | None = None) -> None:
        """Listen, on a socket that was handed over if there is one.

        Raises:
            PortInUseError: The port is taken or can't be bound.
        """
        loop = asyncio.get_running_loop()
        if listener is not None:
            self._server = await loop.create_server(self._connection, sock=listener, backlog=BACKLOG)
        else:
            try:
                self._server = await loop.create_server(self._connection, host, port, backlog=BACKLOG)
            except OSError as error:
                raise in_use(host, port, error) from error
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._ticker = loop.create_task(self._tick())

    def _connection(self) -> ClientConnection:
        return ClientConnection(self._core, self._connections)

    async def stop(self) -> None:
        """Take no more connections, let open requests end within the drain time, then end them."""
        self._core.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.drain()
        end = time.monotonic() + self._core.limits.drain_seconds
        while self._connections and time.monotonic() < end:  # noqa: ASYNC110 - only at the very end
            await asyncio.sleep(_TICK_SECONDS / 4)
        if self._connections:
            log.warning("tap_cut_off_open_requests", connections=len(self._connections))
            for connection in list(self._connections):
                connection.shut()
            await asyncio.sleep(_TICK_SECONDS)
        if self._ticker is not None:
            self._ticker.cancel()
        self._core.pool.close()

    async def _tick(self) -> None:
        while True:
            due = time.monotonic() + _TICK_SECONDS
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic()
            self._core.note_lag(max(0.0, now - due))
            self._core.open.beat()
            self._core.pool.reap(now)
            for connection in list(self._connections):
                try:
                    connection.check(now)
                except Exception:  # one connection's trouble is not the others'
                    self._core.counters.faults.labels("check").inc()
                    log.exception("tap_check_failed")
