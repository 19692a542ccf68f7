"""Memory and places of a tap: what one client can take of them, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING

import pytest

from agent.tap.config import TapLimits
from agent.tap.limits import Limits
from agent.tap.places import RESERVED_DESCRIPTORS, places
from base.vocabulary import Outcome
from tests.kits.tap import (
    PATIENCE,
    STREAM_HEAD,
    Peer,
    Tap,
    answer,
    chunked,
    connect,
    event,
    post,
    replying,
    talk,
    tap,
    upstream,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.tap.client import ClientConnection

GET = b"GET /v1/models HTTP/1.1\r\nHost: tap\r\n\r\n"
UPGRADE = (
    b"GET /v1/realtime HTTP/1.1\r\nHost: tap\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def refused(served: Tap, reason: str) -> float:
    found = served.core.counters.registry.get_sample_value(
        "servescope_tap_connections_refused_total", {"reason": reason}
    )
    return found or 0.0


def only_connection(served: Tap) -> ClientConnection:
    (connection,) = served.server._connections
    return connection


async def until_empty(served: Tap) -> None:
    await until(lambda: not served.server._connections)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def fill(served: Tap, client: socket.socket) -> int:
    """Ask, one request after the other and reading nothing, until the tap can't hand an answer over."""
    loop = asyncio.get_running_loop()
    asked = 0
    while True:
        await loop.sock_sendall(client, GET)
        asked += 1
        await served.memory.wait(asked)
        if only_connection(served).full and only_connection(served).exchange is None:
            return asked


async def test_requests_behind_an_answer_that_nobody_takes_are_left_in_the_socket():
    async with upstream(replying(answer(b"x" * 60_000))) as up, tap(up.port) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.setblocking(False)
            await fill(served, client)
            connection = only_connection(served)
            sent, most = 0, 64_000_000
            async with asyncio.timeout(PATIENCE):
                while sent < most:
                    try:
                        sent += client.send(GET * 1_000)
                    except BlockingIOError:
                        if not connection._reading:
                            break
                    await asyncio.sleep(0)
            assert sent < most
            assert len(connection._pending) < 1_000_000


@pytest.mark.parametrize(
    "times", [{"client_stall_seconds": 0.4}, {"keep_alive_seconds": 0.2, "client_stall_seconds": 0.4}]
)
async def test_client_that_never_takes_its_last_answer_loses_its_place(times: dict[str, float]):
    async with upstream(replying(answer(b"x" * 60_000))) as up, tap(up.port, **times) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.setblocking(False)
            await fill(served, client)
            await until_empty(served)
        assert served.core.counters.registry.get_sample_value("servescope_tap_stuck_clients_total") == 1


async def test_client_that_takes_an_answer_slowly_keeps_its_place():
    body = b"x" * 5_000_000
    async with upstream(replying(answer(body))) as up, tap(up.port, client_stall_seconds=2.0) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(client, GET)
            got = 0
            while got < len(body):
                piece = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 100_000), PATIENCE)
                assert piece
                got += len(piece)
                await asyncio.sleep(0.06)  # 50 pieces: longer than the limit in all, a piece never is
        record = await served.memory.only()
    assert record.outcome is Outcome.OK


@pytest.mark.parametrize("close", [b"Connection: close", b"connection: x, Close"])
async def test_request_behind_connection_close_is_not_executed(close: bytes):
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            heads.append((await peer.request())[0])
            await peer.send(answer(b"x" * 200_000))

    first = b"GET /first HTTP/1.1\r\nHost: a\r\n" + close + b"\r\n\r\n"
    loop = asyncio.get_running_loop()
    async with upstream(script) as up, tap(up.port) as served:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", served.port))
            async with asyncio.timeout(PATIENCE):
                while not served.server._connections:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            transport = only_connection(served)._transport
            assert transport is not None
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
            await loop.sock_sendall(client, first + GET)
            got = b""
            while piece := await asyncio.wait_for(loop.sock_recv(client, 10_000), PATIENCE):
                got += piece
        await until_empty(served)
        assert len(served.memory.records) == got.count(b"HTTP/1.1 ") == 1
    assert len(heads) == 1
    assert len(got) > 200_000


async def test_http10_request_without_keep_alive_is_the_last():
    async with upstream(replying(answer(b"{}"))) as up, tap(up.port) as served:
        got = await talk(served.port, b"GET / HTTP/1.0\r\n\r\n" + GET)
        assert len(await served.memory.wait()) == 1
        assert up.connections == 1
    assert got.count(b"HTTP/1.1 ") == 1


async def test_endless_interim_answers_wait_for_a_client_that_reads():
    stopped = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        for _ in range(4_000):
            try:
                await asyncio.wait_for(
                    peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: <" + b"x" * 10_000 + b">\r\n\r\n"), 2
                )
            except TimeoutError:
                stopped.set()
                return

    async with upstream(script) as up, tap(up.port) as served, connect(served.port) as client:
        client.writer.transport.pause_reading()
        await client.send(GET)
        await asyncio.wait_for(stopped.wait(), PATIENCE)


# --- tunnels


async def shout(peer: Peer) -> None:
    """Switch protocols, then say everything back."""
    await peer.head()
    await peer.send(SWITCHED)
    while data := await peer.reader.read(65_536):
        await peer.send(data)


async def test_tunnels_beyond_their_places_are_answered_503():
    async with upstream(shout) as up, tap(up.port, max_tunnels=1) as served:
        async with connect(served.port) as one:
            await one.send(UPGRADE)
            assert (await one.head()).startswith(b"HTTP/1.1 101 ")
            async with connect(served.port) as two:
                await two.send(UPGRADE)
                head = await two.head()
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1" in head
            assert refused(served, "tunnels") == 1
        await served.memory.wait(2)
        async with connect(served.port) as three:
            await three.send(UPGRADE)
            assert (await three.head()).startswith(b"HTTP/1.1 101 ")
        await served.memory.wait(3)
        assert served.core.tunnels == 0
    assert up.connections == 2


@pytest.mark.parametrize("reply", [answer(b"no", b"403 Forbidden"), b"", b"rubbish\r\n\r\n"])
async def test_a_tunnel_that_never_was_gives_its_place_back(reply: bytes):
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(reply)

    async with upstream(script) as up, tap(up.port, max_tunnels=1) as served:
        for number in range(3):
            async with connect(served.port) as client:
                await client.send(UPGRADE)
                assert not (await client.head()).startswith(b"HTTP/1.1 503 ")
            await served.memory.wait(number + 1)
        assert served.core.tunnels == 0


async def test_idle_tunnel_is_ended():
    async with upstream(shout) as up, tap(up.port, tunnel_idle_seconds=0.3) as served, connect(served.port) as client:
        await client.send(UPGRADE)
        await client.head()
        await client.send(b"ping")
        assert await asyncio.wait_for(client.reader.readexactly(4), PATIENCE) == b"ping"
        assert await asyncio.wait_for(client.reader.read(), PATIENCE) == b""
        await until_empty(served)
        assert served.core.tunnels == 0
        assert (await served.memory.only()).outcome is Outcome.OK


async def test_tunnel_whose_client_takes_nothing_is_cut():
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCHED)
        while True:
            await peer.send(b"x" * 100_000)

    async with upstream(script) as up, tap(up.port, client_stall_seconds=0.4) as served, connect(served.port) as client:
        client.writer.transport.pause_reading()
        await client.send(UPGRADE)
        await served.memory.wait()
        await until_empty(served)


# --- time limits that are the server's to set


async def test_a_server_may_take_its_time_unless_asked_for():
    for limits in (Limits(), TapLimits().limits()):
        assert (limits.first_byte_seconds, limits.stall_seconds) == (0, 0)

    asked, go = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await asyncio.wait_for(go.wait(), PATIENCE)
        await peer.send(STREAM_HEAD, chunked(event("a"), end=False), b"0\r\n\r\n")

    async with upstream(script) as up, tap(up.port) as served, connect(served.port) as client:
        await client.send(post())
        await asyncio.wait_for(asked.wait(), PATIENCE)
        only_connection(served).check(time.monotonic() + 100_000)
        go.set()
        got = await asyncio.wait_for(client.reader.readuntil(b"0\r\n\r\n"), PATIENCE)
    assert got.startswith(b"HTTP/1.1 200 ")


# --- descriptors


def test_places_keep_descriptors_back_for_the_spool():
    assert places(4_096, 20_000) == 4_096
    assert places(4_096, 1_024) == (1_024 - RESERVED_DESCRIPTORS) // 2
    assert places(10, 1_024) == 10
    assert places(10, 16) == 1


async def test_connections_beyond_the_places_get_a_whole_answer_each():
    async with upstream(replying(answer(b"{}"))) as up, tap(up.port, max_connections=1) as served:
        async with connect(served.port) as one:
            await one.send(post(close=False))
            await one.request()
            for request in (post(b"/v1/completions", b"x" * 300_000), GET):
                got = await talk(served.port, request)
                assert got.startswith(b"HTTP/1.1 503 ")
                assert got.endswith(b'"code": 503}}')
                assert b"Retry-After: 1" in got
        assert refused(served, "connections") == 2
        assert not served.core.door.waiting


def ask_late(port: int, count: int) -> list[bytes]:
    """Connect all before the first of them asks, in two pieces, as a client that gives up when it can't send."""
    answers = []
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)) for _ in range(count)
        ]
        for client in clients:
            got = b""
            try:
                client.sendall(GET[:20])
                time.sleep(0.001)
                client.sendall(GET[20:])
                while data := client.recv(65_536):
                    got += data
            except OSError as error:
                got = repr(error).encode()
            answers.append(got)
    return answers


@pytest.mark.parametrize("crowd", [100, pytest.param(300, marks=pytest.mark.heavy)])
async def test_a_crowd_beyond_the_places_is_told_so_to_the_last(crowd: int):
    async def never(_: Peer) -> None:
        await asyncio.Event().wait()

    async with upstream(never) as up, tap(up.port, max_connections=1) as served, connect(served.port) as first:
        await first.send(GET)
        answers = await asyncio.to_thread(ask_late, served.port, crowd)
        assert [got for got in answers if not (got.startswith(b"HTTP/1.1 503 ") and got.endswith(b"}}"))] == []
        assert refused(served, "connections") == crowd
        first.writer.close()
        await until_empty(served)
        async with connect(served.port) as after:  # whoever comes when there is a place again is let in
            await after.send(GET)
            await until(lambda: len(served.server._connections) == 1)
