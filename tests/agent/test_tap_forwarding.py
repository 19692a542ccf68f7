from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
from typing import TYPE_CHECKING

import aiohttp
import pytest

from base.vocabulary import Outcome
from tests.kits.tap import (
    DONE,
    PATIENCE,
    STREAM_HEAD,
    answer,
    chunked,
    connect,
    event,
    post,
    talk,
    tap,
    upstream,
)

if TYPE_CHECKING:
    from tests.kits.tap import Peer


async def test_answer_bytes_are_identical_with_extensions_and_trailers():
    body = b'5;note="x"\r\nhello\r\n1\r\n \r\n0\r\nX-Sum: abc\r\n\r\n'
    head = b"HTTP/1.1 200 Quite Fine\r\nX-A: 1\r\nContent-Type: text/plain\r\n"
    head += b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"

    async def script(peer: Peer) -> None:
        await peer.request()
        for byte in head + body:
            await peer.send(bytes([byte]))
        await peer.gone()

    async with upstream(script) as up, tap(up.port) as served:
        got = await talk(served.port, post(b"/x", b"", b"TE: trailers"))
        record = await served.memory.only()
    got_head, _, got_body = got.partition(b"\r\n\r\n")
    assert got_body == body
    assert got_head.startswith(b"HTTP/1.1 200 Quite Fine\r\nX-A: 1\r\nContent-Type: text/plain\r\nTrailer: X-Sum\r\n")
    assert record.response_bytes == 6


async def test_chunked_request_goes_through_as_it_came():
    raw = b"3;x=y\r\nabc\r\n4\r\ndefg\r\n0\r\nX-T: 1\r\n\r\n"
    seen = bytearray()

    async def script(peer: Peer) -> None:
        assert b"Transfer-Encoding: chunked\r\n" in await peer.head()
        seen.extend(await peer.reader.readexactly(len(raw)))
        await peer.send(answer(b"{}"))

    head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n"
    async with upstream(script) as up, tap(up.port) as served:
        got = await talk(served.port, head, *[bytes([b]) for b in raw])
        record = await served.memory.only()
    assert bytes(seen) == raw
    assert got.endswith(b"\r\n\r\n{}")
    assert record.request_bytes == 7


@pytest.mark.parametrize(
    ("method", "reply"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n"),
        (b"GET", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ],
)
async def test_bodyless_answers_keep_both_connections(method: bytes, reply: bytes):
    async def script(peer: Peer) -> None:
        while True:
            await peer.head()
            await peer.send(reply)

    request = method + b" /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"
    async with upstream(script) as up, tap(up.port) as served, connect(served.port) as client:
        for _ in range(3):
            await client.send(request)
            head = await client.head()
            assert head.startswith(reply.split(b"\r\n")[0])
        records = await served.memory.wait(3)
        assert up.connections == 1
    assert {r.outcome for r in records} == {Outcome.OK}
    assert {r.response_bytes for r in records} == {0}


async def test_http10_client_gets_payload_without_chunks_and_a_close():
    async def script(peer: Peer) -> None:
        assert (await peer.head()).startswith(b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:")
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(b"one", b"two"))

    async with upstream(script) as up, tap(up.port) as served:
        got = await talk(served.port, b"GET /x HTTP/1.0\r\n\r\n")
    head, _, body = got.partition(b"\r\n\r\n")
    assert body == b"onetwo"
    assert b"transfer-encoding" not in head.lower()
    assert b"Connection: close" in head


async def test_answer_that_ends_with_its_connection():
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\n", b"to the ", b"end")

    async with upstream(script) as up, tap(up.port) as served:
        got = await talk(served.port, b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        record = await served.memory.only()
    assert got.endswith(b"\r\n\r\nto the end")
    assert b"Connection: close" in got
    assert record.outcome is Outcome.OK
    assert record.response_bytes == 10


async def test_server_that_closes_each_time_gets_a_fresh_connection_each_time():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"{}", b"200 OK", b"application/json", b"Connection: close"))

    async with upstream(script) as up, tap(up.port) as served, connect(served.port) as client:
        for _ in range(3):
            await client.send(post(close=False))
            head, _ = await client.request()
            assert b"onnection: close" not in head
        assert up.connections == 3


async def test_idle_connection_that_the_server_closed_is_not_used():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"{}"))  # says keep-alive, and closes

    async with upstream(script) as up, tap(up.port) as served, connect(served.port) as client:
        for _ in range(5):
            await client.send(post(close=False))
            head, _ = await client.request()
            assert head.startswith(b"HTTP/1.1 200")
        assert up.connections == 5


async def test_get_is_repeated_when_a_reused_connection_dies_under_it():
    served_once = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        if served_once.is_set() and up.connections == 1:
            peer.reset()
            return
        await peer.send(answer(b"{}"))
        served_once.set()
        await peer.head()
        peer.reset()

    async with upstream(script) as up, tap(up.port) as served, connect(served.port) as client:
        for _ in range(2):
            await client.send(b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n")
            head, _ = await client.request()
            assert head.startswith(b"HTTP/1.1 200")
        assert up.connections == 2


async def test_100_continue_is_the_servers_to_say():
    async def script(peer: Peer) -> None:
        assert b"Expect: 100-continue\r\n" in await peer.head()
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.reader.readexactly(3) == b"abc"
        await peer.send(answer(b"{}"))

    async with upstream(script) as up, tap(up.port) as served, connect(served.port) as client:
        await client.send(post(b"/x", b"abc", b"Expect: 100-continue")[:-3])
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"abc")
        head, body = await client.request()
    assert head.startswith(b"HTTP/1.1 200")
    assert body == b"{}"


async def test_early_refusal_of_an_upload_reaches_the_client():
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer(b'{"error":{"type":"too_big"}}', b"413 Too Large"))

    body = b"x" * 4_000_000
    async with upstream(script) as up, tap(up.port) as served:
        got = await talk(served.port, post(b"/v1/completions", body)[:300_000])
        record = await served.memory.only()
    assert got.startswith(b"HTTP/1.1 413")
    assert b"Connection: close" in got
    assert (record.outcome, record.error_type, record.status) == (Outcome.CLIENT_ERROR, "too_big", 413)


async def test_big_bodies_both_ways_are_identical():
    blob = os.urandom(20_000_000)

    async def script(peer: Peer) -> None:
        _, body = await peer.request()
        await peer.send(answer(body, b"200 OK", b"application/octet-stream"))
        await peer.gone()

    async with upstream(script) as up, tap(up.port) as served, aiohttp.ClientSession() as session:
        async with session.post(f"http://127.0.0.1:{served.port}/blob", data=io.BytesIO(blob)) as reply:
            back = await reply.read()
        record = await served.memory.only()
    assert hashlib.sha256(back).digest() == hashlib.sha256(blob).digest()
    assert record.request_bytes == record.response_bytes == len(blob)


async def test_pipelined_requests_are_answered_in_order():
    async def script(peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            await peer.send(answer(b"<" + body + b">"))

    async with upstream(script) as up, tap(up.port) as served:
        requests = [post(b"/x", b"%d" % n, close=n == 4) for n in range(5)]
        got = await talk(served.port, b"".join(requests))
        assert re.findall(rb"<\d>", got) == [b"<0>", b"<1>", b"<2>", b"<3>", b"<4>"]
        assert len(await served.memory.wait(5)) == 5


async def test_websocket_passes_as_raw_bytes():
    async def script(peer: Peer) -> None:
        head = await peer.head()
        assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n" in head
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi"
        )
        assert await peer.reader.readexactly(5) == b"\x82\x03\x00\r\n"
        await peer.send(b"\x88\x00")

    request = (
        b"GET /v1/realtime HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
        b"Sec-WebSocket-Key: x\r\n\r\n"
    )
    async with upstream(script) as up, tap(up.port) as served, connect(served.port) as client:
        await client.send(request)
        assert (await client.head()).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert await client.reader.readexactly(4) == b"\x81\x02hi"
        await client.send(b"\x82\x03\x00\r\n")
        assert await client.reader.readexactly(2) == b"\x88\x00"
        record = await served.memory.only()
    assert (record.status, record.outcome, record.route) == (101, Outcome.OK, "/v1/realtime")


async def test_stream_is_not_buffered():
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD)
        for word in ("a", "b", "c"):
            await asyncio.wait_for(go_on.wait(), PATIENCE)
            go_on.clear()
            await peer.send(chunked(event(word), end=False))
        await peer.send(chunked(DONE))

    async with upstream(script) as up, tap(up.port) as served, connect(served.port) as client:
        await client.send(post())
        await client.head()
        for word in (b"a", b"b", b"c"):
            go_on.set()
            piece = await asyncio.wait_for(client.reader.readuntil(b"}\n\n\r\n"), PATIENCE)
            assert b'"text":"' + word in piece


async def test_server_that_reads_slowly_slows_its_client_down():
    read_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        peer.writer.transport.pause_reading()
        await asyncio.wait_for(read_on.wait(), PATIENCE)
        peer.writer.transport.resume_reading()
        _, body = await peer.request()
        await peer.send(answer(b"%d" % len(body)))

    size = 64_000_000
    async with upstream(script) as up, tap(up.port) as served, connect(served.port) as client:
        await client.send(post(b"/x", b"")[:-2].replace(b"Length: 0", b"Length: %d" % size) + b"\r\n")
        sent = 0
        try:
            while sent < size:
                client.writer.write(b"x" * 1_000_000)
                sent += 1_000_000
                await asyncio.wait_for(client.writer.drain(), 1.0)
        except TimeoutError:
            pass
        assert sent < size  # the tap has stopped reading long before it holds all
        read_on.set()
        while sent < size:
            client.writer.write(b"x" * 1_000_000)
            sent += 1_000_000
            await client.writer.drain()
        _, body = await client.request()
    assert body == b"%d" % size
