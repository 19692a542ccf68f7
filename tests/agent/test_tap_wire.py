"""Raw requests as they come, whole and byte by byte: what reaches the server, what comes back, what is recorded."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from pathlib import Path
from typing import Any, Final

import pytest

from agent.tap.framing import ChunkedBody
from tests.kits.tap import (
    DONE,
    PATIENCE,
    STREAM_HEAD,
    Memory,
    Peer,
    answer,
    chunked,
    connect,
    event,
    post,
    tap,
    upstream,
)

CASES: Final[list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent.parent / "fixtures" / "tap" / "requests.json").read_text()
)
STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def parsed(data: bytes) -> list[list[str]]:
    """Requests in the bytes that a server got, by a reader that is simple because the tap's output is."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n")[0].split(b" ")
        fields = head.lower()
        body = b""
        if (length := re.search(rb"\r\ncontent-length: (\d+)", fields)) is not None:
            body, data = data[: int(length[1])], data[int(length[1]) :]
        elif b"transfer-encoding: chunked" in fields:
            reader = ChunkedBody()
            consumed, pieces = reader.feed(data)
            assert reader.done
            body, data = b"".join(pieces), data[consumed:]
        found.append([method.decode(), target.decode(), body.decode("latin1")])
    return found


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
async def test_every_reader_sees_the_same_requests(case: dict[str, Any], split: bool):
    got_by_server: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            head = await peer.head()
            body = b""
            if b"chunked" in head.lower():
                while not body.endswith(b"\r\n\r\n") or not ends(body):
                    body += await asyncio.wait_for(peer.reader.read(1), PATIENCE)
            elif (length := re.search(rb"(?i)content-length: *(\d+)", head)) is not None:
                body = await peer.reader.readexactly(int(length[1]))
            got_by_server.append(head + body)
            await peer.send(answer(b"{}"))

    raw = case["raw"].encode("latin1")
    async with upstream(script) as up, tap(up.port) as served, connect(served.port) as client:
        transport_socket = client.writer.get_extra_info("socket")
        transport_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in [raw[i : i + 1] for i in range(len(raw))] if split else [raw]:
            client.writer.write(piece)
            await asyncio.sleep(0)
        got = b""
        async with asyncio.timeout(PATIENCE):
            while len(STATUS.findall(got)) < len(case["statuses"]):
                piece = await client.reader.read(65_536)
                assert piece, got
                got += piece
        records = await served.memory.wait(len(case["statuses"]))
        client.writer.write_eof()
        rest = await asyncio.wait_for(client.reader.read(), PATIENCE)
    assert [int(status) for status in STATUS.findall(got + rest)] == case["statuses"]
    assert [request for data in got_by_server for request in parsed(data)] == case["seen"]
    assert sorted(r.status for r in records if r.status is not None) == sorted(case["statuses"])
    assert len(records) == len(case["statuses"])


def ends(body: bytes) -> bool:
    reader = ChunkedBody()
    reader.feed(body)
    return reader.done


async def test_what_the_record_says_of_64_streams_is_what_their_clients_saw():
    gap, tokens = 0.01, 12

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD)
        for number in range(tokens):
            await asyncio.sleep(gap)
            await peer.send(chunked(event(f"t{number}"), end=False))
        await peer.send(chunked(DONE))

    async def ask(port: int, name: str) -> tuple[str, list[float], float]:
        async with connect(port) as client:
            began = time.monotonic()
            body = b'{"model":"tiny","stream":true}'
            await client.send(post(b"/v1/completions", body, b"X-Request-Id: " + name.encode()))
            await client.head()
            times = []
            for number in range(tokens):
                await asyncio.wait_for(client.reader.readuntil(b"t%d" % number), PATIENCE)
                times.append(time.monotonic() - began)
            await asyncio.wait_for(client.reader.readuntil(b"[DONE]"), PATIENCE)
            return name, times, time.monotonic() - began

    memory = Memory()
    async with upstream(script) as up, tap(up.port, memory=memory) as served:
        seen = await asyncio.gather(*(ask(served.port, f"s{number}") for number in range(64)))
        await memory.wait(64)
    by_name = {record.request_id: record for record in memory.records}
    assert len(by_name) == 64
    for name, times, whole in seen:
        record = by_name[name]
        assert record.completion_tokens == tokens
        assert record.itl_gaps == tokens - 1
        # All three run on one loop here, so what one sees later than another is at most what the loop was late.
        assert record.ttft_seconds is not None
        assert -0.1 < times[0] - record.ttft_seconds < 3.0
        assert record.e2e_seconds is not None
        assert -0.1 < whole - record.e2e_seconds < 3.0
        assert record.itl_mean_seconds is not None
        assert record.itl_mean_seconds == pytest.approx((times[-1] - times[0]) / (tokens - 1), abs=0.3)
