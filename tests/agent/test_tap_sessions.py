"""Sessions, sampling and clients that give up."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.tap.websocket import FrameWatch, Session
from base.vocabulary import Edge, Outcome
from tests.kits.request_span import to_span
from tests.kits.tap import DONE, STREAM_HEAD, Peer, answer, chunked, connect, event, one, post, replying, tap, upstream

ASK = (
    b"GET /v1/realtime HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"


def frame(payload: bytes, opcode: int = 1, *, masked: bool = False) -> bytes:
    size = len(payload)
    mask = b"\x11\x22\x33\x44" if masked else b""
    if masked:
        payload = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
    bit = 0x80 if masked else 0
    head = bytes([0x80 | opcode])
    if size < 126:
        head += bytes([bit | size])
    elif size < 65_536:
        head += bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + size.to_bytes(8, "big")
    return head + mask + payload


def closing(code: int | None, *, masked: bool = False) -> bytes:
    return frame(b"" if code is None else code.to_bytes(2, "big") + b"bye", 8, masked=masked)


@given(
    st.lists(st.integers(0, 300) | st.sampled_from([125, 126, 65_535, 65_536]), max_size=4),
    st.booleans(),
    st.sampled_from([None, 1000, 1011, 4001]),
    st.data(),
)
def test_the_closing_frame_is_found_however_the_bytes_come(
    sizes: list[int], masked: bool, code: int | None, data: st.DataObject
):
    whole = b"".join(frame(b"\x88" * size, 2, masked=masked) for size in sizes)
    stream = whole + closing(code, masked=masked) + b"\x88\x02\x03\xe8"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    watch = FrameWatch()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if end <= len(whole):
            assert watch.code is None
        watch.feed(stream[start:end])
    assert watch.code == (code or 0)


@given(st.binary(max_size=200))
def test_any_bytes_can_be_followed(data: bytes):
    FrameWatch().feed(data)


@pytest.mark.parametrize(
    ("by_client", "code", "outcome", "word"),
    [
        (True, 1000, Outcome.OK, ""),
        (True, 1001, Outcome.OK, ""),
        (True, None, Outcome.OK, ""),
        (True, 1002, Outcome.CLIENT_ABORT, "websocket_1002"),
        (False, 1000, Outcome.OK, ""),
        (False, 4001, Outcome.OK, ""),
        (False, 1001, Outcome.UPSTREAM_RESET, "websocket_1001"),
        (False, 1011, Outcome.SERVER_ERROR, "websocket_1011"),
        (False, 1012, Outcome.UPSTREAM_RESET, "websocket_1012"),
        (False, 1013, Outcome.REJECTED, "websocket_1013"),
        (False, 1008, Outcome.CLIENT_ERROR, "websocket_1008"),
    ],
)
def test_whoever_closes_first_says_why(by_client: bool, code: int | None, outcome: Outcome, word: str):
    session = Session()
    sides = [(session.client, True), (session.server, False)]
    for side, masked in sides if by_client else reversed(sides):
        session.feed(side, closing(code, masked=masked))
    assert session.outcome(client_left=True) == session.outcome(client_left=False) == (outcome, word)


async def session(script, *sends: bytes):  # noqa: ANN001
    async with upstream(script) as up, tap(up.port) as served:
        async with connect(served.port) as peer:
            await peer.send(ASK)
            await peer.head()
            await peer.send(*sends)
            if not sends:
                await peer.gone()
        return await served.memory.only()


async def test_a_session_that_the_server_drops_is_not_ok():
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH, frame(b"hello"))

    record = await session(script)
    assert (record.outcome, record.error_type) == (Outcome.UPSTREAM_RESET, "websocket_cut")
    assert (record.operation, record.status) == ("realtime", 101)
    assert record.ttft_seconds is None
    assert {pair.key: pair.value.double_value for pair in to_span(record).attributes}[Edge.E2E_SECONDS] == 0


async def test_a_session_that_its_client_drops_is_an_abort():
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH)
        await peer.gone()

    record = await session(script, frame(b"hello", masked=True))
    assert (record.outcome, record.error_type) == (Outcome.CLIENT_ABORT, "websocket_cut")


async def test_a_session_that_is_closed_is_ok():
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH, frame(b"hello"), closing(1000))
        await peer.gone()

    record = await session(script, closing(1000, masked=True))
    assert (record.outcome, record.error_type) == (Outcome.OK, "")


async def leave(begin: bytes, patience: float):
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(begin)
        asked.set()
        await peer.gone()

    async with upstream(script) as up, tap(up.port, patience_seconds=patience) as served:
        async with connect(served.port) as peer:
            await peer.send(post(b"/v1/chat/completions", b'{"model":"m","stream":true}', close=False))
            await asked.wait()
            if begin:
                await peer.reader.readuntil(begin[-4:])
        return await served.memory.only()


SOON = 1e-9  # any wait is too long
NEVER = 1e9


@pytest.mark.parametrize("begin", [b"", STREAM_HEAD, STREAM_HEAD + chunked(b": ping\n\n", end=False)])
async def test_leaving_without_a_token_after_the_limit_is_a_timeout(begin: bytes):
    record = await leave(begin, SOON)
    assert (record.outcome, record.error_type) == (Outcome.TIMEOUT, "client_timeout")
    record = await leave(begin, NEVER)
    assert (record.outcome, record.error_type) == (Outcome.CLIENT_ABORT, "")
    record = await leave(begin, 0)
    assert (record.outcome, record.error_type) == (Outcome.CLIENT_ABORT, "")


async def test_leaving_in_mid_answer_is_the_clients_choice():
    record = await leave(STREAM_HEAD + chunked(event("a"), end=False), SOON)
    assert (record.outcome, record.error_type) == (Outcome.CLIENT_ABORT, "")


async def test_leaving_before_all_was_asked_is_the_clients_choice():
    read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        read.set()
        await peer.gone()

    async with upstream(script) as up, tap(up.port, patience_seconds=SOON) as served:
        async with connect(served.port) as peer:
            await peer.send(post(b"/v1/completions", b"12345678", close=False)[:-4])
            await read.wait()
        record = await served.memory.only()
    assert record.outcome is Outcome.CLIENT_ABORT


@pytest.mark.parametrize(
    ("path", "body", "stream"),
    [
        (b"/generate_stream", b'{"inputs":"x"}', True),
        (b"/v2/models/m/generate_stream", b'{"text_input":"x","stream":false}', True),
        (b"/v2/models/m/versions/1/infer_stream", b"{}", True),
        (b"/v2/models/m/generate", b'{"text_input":"x"}', False),
        (b"/v1beta/models/g:streamGenerateContent?alt=sse", b"{}", True),
        (b"/v1beta/models/g:streamGenerateContent", b"{}", False),  # one JSON text, however slowly it comes
        (b"/v1/projects/p/models/c:streamRawPredict", b"{}", True),
        (b"/api/chat", b'{"model":"l"}', True),
        (b"/api/generate", b'{"model":"l","stream":false}', False),
        (b"/v1/chat/completions", b'{"model":"l"}', False),
    ],
)
async def test_who_left_before_any_answer_had_asked_for_a_stream(path: bytes, body: bytes, stream: bool):
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.gone()

    async with upstream(script) as up, tap(up.port) as served:
        async with connect(served.port) as peer:
            await peer.send(post(path, body, close=False))
            await asked.wait()
        record = await served.memory.only()
    assert (record.outcome, record.stream) == (Outcome.CLIENT_ABORT, stream)


CALLER = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-%s"


@pytest.mark.parametrize(
    ("flags", "sample", "sent", "caller", "unsampled"),
    [
        (b"00", True, "01", False, False),
        (b"01", True, "01", True, False),
        (b"02", True, "03", False, False),
        (b"00", False, "00", False, True),
        (b"01", False, "01", True, False),
    ],
)
async def test_an_unsampled_caller_costs_no_engine_half(
    flags: bytes, sample: bool, sent: str, caller: bool, unsampled: bool
):
    heads = []

    async def script(peer: Peer) -> None:
        head, _ = await peer.request()
        heads.append(head.decode())
        await peer.send(answer(b"{}"))

    async with upstream(script) as up, tap(up.port) as served:
        served.core.sample = sample
        async with connect(served.port) as peer:
            await peer.send(post(b"/v1/completions", b"{}", CALLER % flags, close=False))
            await peer.head()
        record = await served.memory.only()
    assert f"-{record.span_id.hex()}-{sent}\r\n" in heads[0]
    assert (record.caller_sampled, record.unsampled, record.flags) == (caller, unsampled, int(flags, 16))
    told = {pair.key: pair.value.bool_value for pair in to_span(record).attributes}
    assert told[Edge.CALLER_SAMPLED] is caller
    assert told.get(Edge.UNSAMPLED, False) is unsampled


async def test_a_trace_that_begins_here_has_no_caller():
    _, record = await one(replying(STREAM_HEAD, chunked(event("a", "stop"), DONE)))
    assert (record.caller_sampled, record.unsampled, record.flags) == (None, False, 1)
    assert Edge.CALLER_SAMPLED not in {pair.key for pair in to_span(record).attributes}
