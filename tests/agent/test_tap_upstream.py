"""A connection to the server that breaks under a write: what the server had said before is an answer still."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from agent.tap.upstream import Pool

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWER = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


class Exchange:
    """Takes what happens, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.over = asyncio.Event()

    def answer_bytes(self, data: bytes) -> None:
        self.told.append(data)

    def upstream_lost(self, exc: Exception | None) -> None:
        self.told.append(type(exc))
        self.over.set()

    def upstream_full(self) -> None:
        pass

    def upstream_has_room(self) -> None:
        pass


async def broken(said: bytes, *, reading: bool = True) -> list[Any]:
    """A server that says something, reads nothing and closes, so that the next write meets its reset."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pool = Pool("http", "127.0.0.1", listener.getsockname()[1], connect_seconds=5, idle_seconds=60, max_idle=1)
        connection = await pool.connect()
        peer, _ = listener.accept()
        with contextlib.closing(peer):
            exchange = connection.exchange = Exchange()
            connection.read_on(reading)
            connection.write(b"POST /x HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
            assert peer.recv(1) == b"P"
            peer.sendall(said)
        connection.write(b"x")
        await asyncio.wait_for(exchange.over.wait(), 20)
    return exchange.told


@LOOPS
def test_an_answer_that_came_before_the_reset_is_read(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        *answer, lost = runner.run(broken(ANSWER))
    assert b"".join(answer) == ANSWER
    assert issubclass(lost, OSError)


@LOOPS
def test_a_reset_without_an_answer_is_a_lost_connection(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        (lost,) = runner.run(broken(b""))
    assert issubclass(lost, OSError)


@LOOPS
def test_what_the_client_has_no_room_for_is_not_read(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        (lost,) = runner.run(broken(ANSWER, reading=False))
    assert issubclass(lost, OSError)
