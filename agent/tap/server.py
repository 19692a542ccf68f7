"""Lifecycle of a tap: listen, watch the time, drain."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

import structlog

from agent.tap.client import ClientConnection
from agent.tap.listening import open_socket

if TYPE_CHECKING:
    import socket

    from agent.tap.core import Core

log = structlog.get_logger()

_TICK_SECONDS: Final = 0.2
_REST_SECONDS: Final = 1.0
"""The same while nobody is connected; who comes ends it."""
_AT_ONCE: Final = 16
"""Connections on their way in: before more are taken it is known whether these have a place."""


class TapServer:
    """Listens for clients.

    Args:
        core: Shared state.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        core.owed = self._owed
        self._connections: set[ClientConnection] = set()
        self._listener: socket.socket | None = None
        self._listening = False
        self._entering: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._came = asyncio.Event()
        self.port = 0

    async def start(self, host: str, port: int, listener: socket.socket | None = None) -> None:
        """Listen, on a socket that was handed over if there is one.

        Raises:
            PortInUseError: The port is taken or can't be bound.
        """
        self._listener = listener if listener is not None else open_socket(host, port)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._core.door.changed = self._listen
        self._listen()
        self._ticker = asyncio.get_running_loop().create_task(self._tick())

    def _listen(self) -> None:
        """Let connections in, unless so many are being turned away that there is no room to tell one more."""
        door, listener = self._core.door, self._listener
        wanted = listener is not None and not door.crowded
        if listener is None or wanted == self._listening:
            return
        self._listening = wanted
        loop = asyncio.get_running_loop()
        if wanted:
            loop.add_reader(listener, self._accept, listener)
        else:
            loop.remove_reader(listener)  # they wait in the kernel's queue, until some have left

    def _accept(self, listener: socket.socket) -> None:
        while len(self._entering) < _AT_ONCE:
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor: the next tick listens again
                asyncio.get_running_loop().remove_reader(listener)
                self._listening = False
                log.warning("tap_not_listening", error=str(error), seconds=_TICK_SECONDS)
                return
            connection.setblocking(False)
            task = asyncio.get_running_loop().create_task(self._enter(connection))
            self._entering.add(task)
            self._came.set()
            task.add_done_callback(self._entering.discard)

    async def _enter(self, connection: socket.socket) -> None:
        try:
            _, client = await asyncio.get_running_loop().connect_accepted_socket(self._connection, connection)
        except OSError:  # it is gone already
            connection.close()
        else:
            if self._core.draining and client in self._connections:
                client.drain()

    def _connection(self) -> ClientConnection:
        return ClientConnection(self._core, self._connections)

    async def stop(self) -> None:
        """Take no more connections, let open requests end within the drain time, then end them."""
        self._core.draining = True
        if (listener := self._listener) is not None:
            if self._listening:
                asyncio.get_running_loop().remove_reader(listener)
            self._listener = None
            listener.close()
        if self._entering:
            await asyncio.wait(self._entering, timeout=_TICK_SECONDS)
        for connection in list(self._connections):
            connection.drain()
        end = time.monotonic() + self._core.limits.drain_seconds
        while (self._connections or self._entering) and time.monotonic() < end:  # noqa: ASYNC110 - only at the very end
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
            seconds = _REST_SECONDS if self._nobody() else _TICK_SECONDS
            due = time.monotonic() + seconds
            if await self._somebody_came(seconds):
                self._core.open.beat()
                continue
            now = time.monotonic()
            self._core.note_lag(max(0.0, now - due))
            self._core.open.beat()
            self._core.pool.reap(now)
            self._listen()
            for connection in list(self._connections):
                try:
                    connection.check(now)
                except Exception:  # one connection's trouble is not the others'
                    self._core.counters.faults.labels("check").inc()
                    log.exception("tap_check_failed")

    def _owed(self, now: float) -> float:
        return max((connection.owed(now) for connection in self._connections), default=0.0)

    def _nobody(self) -> bool:
        return not (self._connections or self._entering or len(self._core.open)) and self._listening

    async def _somebody_came(self, within: float) -> bool:
        """Whether it was somebody who ended a rest; who is there already is not waited for."""
        if within <= _TICK_SECONDS:
            await asyncio.sleep(within)
            return False
        self._came.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                return await self._came.wait()
        return False
