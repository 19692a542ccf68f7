"""Listening to what engines publish over ZeroMQ, a socket for each data-parallel rank, and knowing who is there.

The libraries are those of the extra ``kv-events``; nothing of them is imported where nobody publishes.
"""

from __future__ import annotations

import asyncio
import importlib.util
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE_SECONDS: Final = 15.0
"""Time without a publisher that is a problem."""
NUMBER_BYTES: Final = 8
FRAMES: Final = 3
"""Of a message: topic, number (big-endian), body."""
LONGEST: Final = 16 * 1024 * 1024
"""Bytes of a message; a longer one ends the connection."""
_AGAIN_SECONDS: Final = 5.0
_WAITING: Final = 10_000
"""Messages that wait in a socket; the publisher drops what is beyond."""

log = structlog.get_logger()


class Publisher(Protocol):
    """Who is listened to, and what is done with what he says."""

    @property
    def endpoint(self) -> str:
        """ZeroMQ address at which he publishes."""

    @property
    def topic(self) -> str:
        """What topics must begin with."""

    def is_there(self, connected: bool, /) -> None:
        """He came, or went."""

    async def take(self, frames: Sequence[bytes], context: Any, /) -> None:
        """A message; ``context`` is for sockets of one's own."""


def available() -> bool:
    """Whether the libraries of the extra ``kv-events`` are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("msgspec", "zmq"))


def with_rank(endpoint: str, rank: int) -> str:
    """Where the publisher of a rank is: at the port that lies as far behind as the rank."""
    if not endpoint or not rank:
        return endpoint
    host, _, port = endpoint.rpartition(":")
    return f"{host}:{int(port) + rank}"


class Subscriptions:
    """Tasks that listen, by instance; whoever is added before they run is listened to when they do."""

    def __init__(self) -> None:
        self._publishers: dict[str, Sequence[Publisher]] = {}
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._context: Any = None

    def add(self, instance: str, publishers: Sequence[Publisher]) -> None:
        """Listen to a server's publishers."""
        self._publishers[instance] = publishers
        self._listen_to(instance)

    def drop(self, instance: str) -> None:
        """Listen to a server's publishers no longer."""
        self._publishers.pop(instance, None)
        for task in self._tasks.pop(instance, ()):
            task.cancel()

    async def run(self) -> None:
        """Listen until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._group:
                for instance in self._publishers:
                    self._listen_to(instance)
                await asyncio.Event().wait()
        finally:
            self._group = None
            self._tasks.clear()
            if self._context is not None:
                self._context.destroy(0)
                self._context = None

    def _listen_to(self, instance: str) -> None:
        if self._group is not None and available():
            self._tasks[instance] = [
                self._group.create_task(self._listen(one), name=f"subscription {one.endpoint}")
                for one in self._publishers[instance]
            ]

    async def _listen(self, publisher: Publisher) -> None:
        import zmq.asyncio  # noqa: PLC0415 - for those who have publishers

        self._context = self._context or zmq.asyncio.Context()
        while True:
            try:
                await _follow(publisher, self._context)
            except Exception:  # a fault of one must stop no other
                log.exception("subscription_failed", endpoint=publisher.endpoint)
            await asyncio.sleep(_AGAIN_SECONDS)


async def _follow(publisher: Publisher, context: Any) -> None:
    """Read until cancelled."""
    import zmq  # noqa: PLC0415 - for those who have publishers
    from zmq.utils.monitor import parse_monitor_message  # noqa: PLC0415

    socket = context.socket(zmq.SUB)
    for option, value in ((zmq.LINGER, 0), (zmq.RCVHWM, _WAITING), (zmq.MAXMSGSIZE, LONGEST),
                          (zmq.RECONNECT_IVL_MAX, 5_000)):  # fmt: skip
        socket.setsockopt(option, value)
    socket.setsockopt_string(zmq.SUBSCRIBE, publisher.topic)
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
    try:
        socket.connect(publisher.endpoint)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_read(publisher, socket, context))
            while True:
                told = parse_monitor_message(await monitor.recv_multipart())
                publisher.is_there(told["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED)
    finally:
        publisher.is_there(False)
        socket.disable_monitor()
        socket.close(0)


async def _read(publisher: Publisher, socket: Any, context: Any) -> None:
    while True:
        await publisher.take(await socket.recv_multipart(), context)
