from __future__ import annotations

import asyncio
import json

import pytest

from base.vocabulary import Outcome
from tests.kits.tap import (
    DONE,
    PATIENCE,
    STREAM_HEAD,
    Peer,
    chunked,
    connect,
    event,
    one,
    post,
    replying,
    talk,
    tap,
    upstream,
)


async def test_client_that_leaves_stops_the_server():
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, chunked(event("a"), end=False))
        await peer.gone()
        left.set()

    async with upstream(script) as up, tap(up.port) as served:
        async with connect(served.port) as client:
            await client.send(post())
            await client.reader.readuntil(b"}\n\n\r\n")
        await asyncio.wait_for(left.wait(), PATIENCE)
        record = await served.memory.only()
    assert (record.outcome, record.status, record.completion_tokens) == (Outcome.CLIENT_ABORT, 200, 1)
    assert record.tokens_counted
    assert not served.core.pool.take()


async def test_client_that_leaves_while_queued_stops_the_server():
    asked, left = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.gone()
        left.set()

    async with upstream(script) as up, tap(up.port) as served:
        async with connect(served.port) as client:
            await client.send(post())
            await asyncio.wait_for(asked.wait(), PATIENCE)
        await asyncio.wait_for(left.wait(), PATIENCE)
        record = await served.memory.only()
    assert (record.outcome, record.status, record.ttft_seconds) == (Outcome.CLIENT_ABORT, None, None)


async def test_client_that_leaves_in_mid_upload():
    asked, left = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        asked.set()
        await peer.gone()
        left.set()

    async with upstream(script) as up, tap(up.port) as served:
        async with connect(served.port) as client:
            await client.send(post(b"/v1/completions", b"x" * 1000)[:-500])
            await asyncio.wait_for(asked.wait(), PATIENCE)
        await asyncio.wait_for(left.wait(), PATIENCE)
        record = await served.memory.only()
    assert (record.outcome, record.request_bytes) == (Outcome.CLIENT_ABORT, 500)


async def test_client_that_leaves_after_the_last_event_was_served():
    finish = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, chunked(event("a", "stop"), DONE, end=False))
        await peer.gone()
        finish.set()

    async with upstream(script) as up, tap(up.port) as served:
        async with connect(served.port) as client:
            await client.send(post())
            await client.reader.readuntil(b"[DONE]\n\n")
        await asyncio.wait_for(finish.wait(), PATIENCE)
        assert (await served.memory.only()).outcome is Outcome.OK


@pytest.mark.parametrize(
    ("sent", "status", "error_type"),
    [
        (b"", 502, "upstream_closed"),
        (b"HTTP/1.1 200 OK\r\ncontent", 502, "answer_cut"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", 200, "answer_cut"),
        (STREAM_HEAD + chunked(event("a"), end=False), 200, "answer_cut"),
        (STREAM_HEAD + b"9\r\nabc", 200, "answer_cut"),
    ],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_server_that_dies(sent: bytes, status: int, error_type: str, reset: bool):
    passed_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        if status == 200:
            await asyncio.wait_for(passed_on.wait(), PATIENCE)
        if reset:
            peer.reset()

    async with upstream(script) as up, tap(up.port) as served, connect(served.port) as client:
        await client.send(post())
        if status == 200:
            await client.head()
            passed_on.set()
            rest = await asyncio.wait_for(client.reader.read(-1), PATIENCE)
            assert not rest.endswith(b"0\r\n\r\n")
        else:
            head, body = await client.request()
            assert head.startswith(b"HTTP/1.1 502 ")
            assert json.loads(body)["error"]["message"]
            assert str(up.port).encode() not in head + body
        record = await served.memory.only()
    assert (record.outcome, record.status) == (Outcome.UPSTREAM_RESET, status)
    assert record.error_type in {error_type, "upstream_reset"}


async def test_server_that_is_not_there():
    async with upstream(replying()) as up:
        port = up.port
    async with tap(port) as served:
        got = await talk(served.port, post(b"/v1/chat/completions", b'{"model":"m"}'))
        record = await served.memory.only()
    assert got.startswith(b"HTTP/1.1 502 ")
    assert str(port).encode() not in got
    assert b"127.0.0.1" not in got
    assert (record.outcome, record.status, record.error_type) == (Outcome.UNREACHABLE, 502, "connect_refused")
    assert record.request_model == "m"


async def test_server_that_does_not_answer_in_time():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    got, record = await one(script, first_byte_seconds=0.3)
    assert got.startswith(b"HTTP/1.1 504 ")
    assert (record.outcome, record.status, record.error_type) == (Outcome.TIMEOUT, 504, "first_byte_timeout")


async def test_server_that_stalls_in_mid_answer():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, chunked(event("a"), end=False))
        await peer.gone()

    got, record = await one(script, stall_seconds=0.3)
    assert not got.endswith(b"0\r\n\r\n")
    assert (record.outcome, record.status, record.error_type) == (Outcome.TIMEOUT, 200, "stall_timeout")
