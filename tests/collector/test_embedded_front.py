"""Connections and heads: nobody's may cost the others their answers."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from collector.embedded.front import Front

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.kits.store_process import StoreServer

PING = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def exchange(server: StoreServer, sent: bytes) -> bytes:
    """Everything that comes back until the connection ends."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(sent)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


def test_a_path_of_many_parts_holds_nobody_up(store_server: StoreServer):
    path = b"/a" * 400_000
    answer = exchange(store_server, b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert exchange(store_server, PING).endswith(b"\r\n\r\nOk.\n")


def test_a_url_has_so_many_parameters(store_server: StoreServer):
    head = b"GET /?query=SELECT+1" + b"&a" * 1000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = exchange(store_server, head)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"The URL has more than 1000 parameters" in answer


@pytest.mark.parametrize("more", ["", "&enable_http_compression=1", "&wait_end_of_query=1"])
def test_a_head_request_gets_no_body(store_server: StoreServer, more: str):
    head = "HEAD /?query=SELECT+number+FROM+numbers(400000)" + more
    answer = exchange(
        store_server, f"{head} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n".encode() + PING
    )
    first, _, second = answer.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert second.startswith(b"HTTP/1.1 200 OK\r\n")
    assert second.endswith(b"\r\n\r\nOk.\n")


def test_a_head_request_tells_how_its_query_ended(store_server: StoreServer):
    head = b"HEAD /?query=SELECT+throwIf(number=900000)+FROM+numbers(1000000)+SETTINGS+max_block_size=1000"
    answer = exchange(store_server, head + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"X-ClickHouse-Exception-Code: 395" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        (b"Origin: http://[bad", b"403", b"497"),
        (b"Origin: http://\xff", b"400", b"36"),
        (b"X-Servescope-Reader: \xff", b"400", b"36"),
        (b"X-ClickHouse-User: \xff", b"400", b"36"),
        (b"X-ClickHouse-Key: \xff", b"400", b"36"),
        (b"X-ClickHouse-Database: \xff", b"400", b"36"),
        (b"X-ClickHouse-Query-Id: \xff", b"400", b"36"),
        (b"X-ClickHouse-Query-Id: " + b"a" * 1025, b"400", b"36"),
    ],
)
def test_a_header_that_can_not_be_read_is_named(store_server: StoreServer, line: bytes, status: bytes, code: bytes):
    head = b"GET /?query=SELECT+1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + line + b"\r\n\r\n"
    answer = exchange(store_server, head)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"X-ClickHouse-Exception-Code: " + code + b"\r\n" in answer


def test_a_query_id_that_no_header_can_hold_is_refused(store_server: StoreServer):
    for text in (b"a%00b", b"a%0d%0aX-Forged:+1"):
        head = b"GET /?query=SELECT+1&query_id=" + text + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        answer = exchange(store_server, head)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"query_id has signs that can't be printed" in answer


@asynccontextmanager
async def listening(**bounds: float) -> AsyncIterator[int]:
    async def answer(_request: web.BaseRequest) -> web.Response:
        return web.Response(text="Ok.\n")

    runner = web.ServerRunner(Front(answer, **bounds))  # type: ignore[arg-type]
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    try:
        yield listener.getsockname()[1]
    finally:
        await runner.cleanup()


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(), 10) == b""
    except ConnectionResetError:
        return True


async def test_a_head_that_does_not_come_is_not_waited_for():
    async with listening(head_seconds=0.2) as port:
        for begun in (b"", b"GET /ping HTTP/1.1\r\nHost: "):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begun)
            assert await ended(reader)
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in await reader.readuntil(b"Ok.\n")
            await asyncio.sleep(0.3)
        writer.close()


async def test_idle_connections_make_room_those_that_never_asked_first():
    async with listening(idle=3) as port:
        asked = await asyncio.open_connection("127.0.0.1", port)
        asked[1].write(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asked[0].readuntil(b"Ok.\n")
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        for reader, writer in silent[:3]:
            assert await ended(reader)
            writer.close()
        for reader, writer in (asked, *silent[3:]):
            writer.write(PING)
            assert b"Ok.\n" in await reader.read()
            writer.close()
