"""Readers whose answers fit into the kernel's buffers: what of their slowness the tap can tell, and whom it costs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING

from agent.tap import exchange, sockets
from agent.tap.exchange import Exchange
from agent.tap.sockets import ClientSocket
from base.vocabulary import Outcome
from tests.kits.tap import DONE, PATIENCE, STREAM_HEAD, Peer, Tap, chunked, event, post, tap, upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import pytest

SMALL = 4_096
PIECES = 100
TEXT = "x" * 1_000
LATE = 0.5
"""Seconds for which a client does not read an answer that is whole."""


class Server:
    """Streams an answer that fits into the tap's send buffer; its end comes when ``end`` is set."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.answers = 0

    async def serve(self, peer: Peer) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await peer.request()
                await peer.send(STREAM_HEAD)
                for _ in range(PIECES):
                    await peer.send(chunked(event(TEXT), end=False))
                await asyncio.wait_for(self.end.wait(), PATIENCE)
                await peer.send(chunked(DONE))
                self.answers += 1


@contextlib.asynccontextmanager
async def reader_of(port: int, *, small: bool = True) -> AsyncIterator[tuple[socket.socket, Callable[..., object]]]:
    """A client's bare socket, and how it reads up to so many ends of answers."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        if small:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))

        async def read(answers: int = 1) -> bytes:
            got = b""
            async with asyncio.timeout(PATIENCE):
                while got.count(b"\r\n0\r\n\r\n") < answers:
                    piece = await loop.sock_recv(client, 65_536)
                    if not piece:
                        break
                    got += piece
            return got

        yield client, read


async def behind(served: Tap) -> None:
    """Wait until a client has left an answer's beginning in the tap's socket for long enough."""
    async with asyncio.timeout(PATIENCE):
        while not any(connection.is_behind() for connection in served.server._connections):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def held(served: Tap, server: Server) -> None:
    """Let an answer end whose client is behind, and wait until it waits for that."""
    await behind(served)
    server.end.set()
    async with asyncio.timeout(PATIENCE):
        while not any(c.exchange is not None and c.exchange._look is not None for c in served.server._connections):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_an_answer_that_fits_the_buffers_is_over_when_its_client_has_taken_it():
    server = Server()
    async with upstream(server.serve) as up, tap(up.port) as served, reader_of(served.port) as (client, read):
        await asyncio.get_running_loop().sock_sendall(client, post(close=False))
        await held(served, server)
        assert not any(connection.full for connection in served.server._connections)  # it fits: nothing waits here
        assert not served.memory.records
        await asyncio.sleep(LATE)
        got = await read()
        record = await served.memory.only()
    assert got.count(TEXT.encode()) == PIECES
    assert got.endswith(chunked(DONE))
    assert record.outcome is Outcome.OK
    assert LATE * 0.9 < record.edge_seconds < record.e2e_seconds
    assert record.itl_gaps == PIECES - 1
    assert record.itl_max_seconds < record.e2e_seconds - LATE * 0.9  # the server's gaps are the server's


async def test_who_reads_at_once_waits_for_nothing(monkeypatch: pytest.MonkeyPatch):
    waits: list[Exchange] = []
    monkeypatch.setattr(Exchange, "_look_later", waits.append)
    monkeypatch.setattr(f"{__name__}.PIECES", 20)
    server = Server()
    server.end.set()
    async with (
        upstream(server.serve) as up,
        tap(up.port) as served,
        reader_of(served.port, small=False) as (client, read),
    ):
        for _ in range(2):
            await asyncio.get_running_loop().sock_sendall(client, post(close=False))
            assert (await read()).endswith(chunked(DONE))
        records = await served.memory.wait(2)
    assert [record.outcome for record in records] == [Outcome.OK] * 2
    assert not waits


async def test_what_the_clients_own_buffer_takes_is_read_for_all_that_is_known(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(f"{__name__}.PIECES", 20)
    server = Server()
    server.end.set()
    async with upstream(server.serve) as up, tap(up.port) as served, reader_of(served.port, small=False) as (client, _):
        await asyncio.get_running_loop().sock_sendall(client, post(close=False))
        record = await served.memory.only()  # nobody has read a byte
    assert record.outcome is Outcome.OK


async def test_a_request_behind_a_slow_one_begins_when_that_is_taken():
    server = Server()
    async with upstream(server.serve) as up, tap(up.port) as served, reader_of(served.port) as (client, read):
        await asyncio.get_running_loop().sock_sendall(client, post(close=False) * 2)
        await held(served, server)
        assert server.answers == 1
        await asyncio.sleep(LATE)
        got = await read(2)
        first, second = await served.memory.wait(2)
        assert up.connections == 1  # the server's connection was free meanwhile
    assert got.count(TEXT.encode()) == 2 * PIECES
    assert got.count(DONE) == 2
    assert first.edge_seconds > LATE * 0.9
    assert second.start_ns >= first.end_ns


async def test_who_leaves_before_the_answer_is_taken_has_left():
    server = Server()
    async with upstream(server.serve) as up, tap(up.port) as served, reader_of(served.port) as (client, _):
        await asyncio.get_running_loop().sock_sendall(client, post(close=False))
        await held(served, server)
        client.close()
        record = await served.memory.only()
    assert record.outcome is Outcome.CLIENT_ABORT
    assert record.edge_seconds > 0


async def test_the_wait_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exchange, "_BEHIND_SECONDS", 0.2)
    server = Server()
    async with upstream(server.serve) as up, tap(up.port) as served, reader_of(served.port) as (client, read):
        await asyncio.get_running_loop().sock_sendall(client, post(close=False))
        await behind(served)
        server.end.set()
        record = await served.memory.only()  # nobody has read a byte
        assert (await read()).endswith(chunked(DONE))  # and nothing is lost
    assert record.outcome is Outcome.OK
    assert record.edge_seconds > 0.2


async def test_a_tap_that_is_stopped_makes_the_record_of_what_waits():
    server = Server()
    async with (
        upstream(server.serve) as up,
        tap(up.port, drain_seconds=0.1) as served,
        reader_of(served.port) as (client, _),
    ):
        await asyncio.get_running_loop().sock_sendall(client, post(close=False))
        await held(served, server)
        await served.server.stop()
        record = await served.memory.only()
    assert record.outcome is Outcome.OK


async def test_where_the_kernel_does_not_tell_nothing_waits(monkeypatch: pytest.MonkeyPatch):
    server = Server()
    async with upstream(server.serve) as up, tap(up.port) as served, reader_of(served.port) as (client, _):
        await asyncio.get_running_loop().sock_sendall(client, post(close=False))
        await behind(served)
        monkeypatch.setattr(sockets, "_TCP_INFO", struct.Struct("=52xI88xI28xQ700x"))
        server.end.set()
        record = await served.memory.only()  # nobody has read a byte
    assert record.outcome is Outcome.OK


async def test_a_socket_that_is_not_tcp_is_not_behind():
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    transport.write(b"x" * 10_000)
    beside = ClientSocket(transport)
    assert not beside.is_behind()
    assert not beside.has_unsent()
    assert beside.waited_seconds() == 0
    beside.forget()
    transport.close()
    theirs.close()
