from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Any

import pytest

from agent.otlp.request import RequestRecord
from agent.tap import account as account_module
from agent.tap.counters import Counters
from agent.tap.recorder import Recorder
from base.vocabulary import Outcome
from tests.kits.tap import (
    DONE,
    PATIENCE,
    STREAM_HEAD,
    Memory,
    Peer,
    chunked,
    connect,
    event,
    post,
    serve_both,
    talk,
    tap,
    upstream,
)

RECORD = RequestRecord(b"t" * 16, b"s" * 8, 1, 2, Outcome.OK, "GET", "/*")


# --- the recording breaks, serving does not


class BrokenSpool:
    def __init__(self, how: str) -> None:
        self.how = how
        self.block = threading.Event()
        self.bodies: list[bytes] = []

    def append(self, _signal: str, body: bytes) -> bool:
        if self.how == "raises":
            raise RuntimeError("spool is gone")
        if self.how == "slows down and hangs" and not self.bodies:
            time.sleep(0.1)
        elif "hangs" in self.how:
            self.block.wait(PATIENCE)
        if self.how == "full":
            return False
        self.bodies.append(body)
        return True

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("how", "inline"),
    [
        ("hangs", False),
        *[(how, i) for how in ("raises", "slows down and hangs", "full", "works") for i in (True, False)],
    ],
)  # only the thread can take a spool that hangs at once
async def test_answers_come_whatever_the_spool_does(how: str, inline: bool):
    spool = BrokenSpool(how)
    counters = Counters()
    recorder = Recorder(spool, {}, counters, hold_seconds=0.2, inline=inline)
    recorder.start(asyncio.get_running_loop())
    async with upstream(serve_both) as up, tap(up.port, memory=recorder) as served:
        for _ in range(5):
            for body in (b"{}", b'{"stream":true}'):
                got = await talk(served.port, post(b"/v1/completions", body))
                assert got.endswith((b'"tiny"}', b"0\r\n\r\n"))
    if "hangs" in how:
        late = 10 - (how != "hangs")
        assert counters.registry.get_sample_value("servescope_tap_records_late_total") == late
    spool.block.set()
    assert await asyncio.to_thread(recorder.close)
    written = counters.registry.get_sample_value("servescope_tap_records_written_total")
    lost = sum(
        counters.registry.get_sample_value("servescope_tap_records_lost_total", {"reason": r}) or 0
        for r in ("fault", "spool", "backlog")
    )
    assert written + lost == 10
    assert (lost == 10) is (how in {"raises", "full"})


async def test_backlog_of_records_is_bounded_and_counted():
    spool = BrokenSpool("hangs")
    counters = Counters()
    recorder = Recorder(spool, {}, counters, hold_seconds=60, capacity=10, inline=False)
    recorder.start(asyncio.get_running_loop())
    released = []
    for _ in range(50):
        recorder.submit(RECORD, lambda: released.append(1))
    lost = counters.registry.get_sample_value("servescope_tap_records_lost_total", {"reason": "backlog"})
    assert lost >= 39
    assert len(released) == lost
    spool.block.set()
    assert await asyncio.to_thread(recorder.close)
    assert len(spool.bodies) == 50 - lost


@pytest.mark.parametrize("name", ["AnswerWatch", "read_request", "RequestRecord"])
async def test_recording_code_that_raises_is_counted_and_not_seen(name: str, monkeypatch: pytest.MonkeyPatch):
    def explode(*_: object, **__: object) -> None:
        raise KeyError("a prompt nobody may read")

    monkeypatch.setattr(account_module, name, explode)
    async with upstream(serve_both) as up, tap(up.port) as served:
        for body in (b"{}", b'{"stream":true}'):
            got = await talk(served.port, post(b"/v1/completions", body))
            assert got.startswith(b"HTTP/1.1 200")
            assert got.endswith((b'"tiny"}', b"0\r\n\r\n"))
        faults = served.core.counters.faults.collect()[0].samples
    assert sum(s.value for s in faults if s.name.endswith("_total")) == 2


async def test_watch_that_raises_in_mid_stream(monkeypatch: pytest.MonkeyPatch):
    def explode(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("agent.tap.facts.Facts.read", explode)
    async with upstream(serve_both) as up, tap(up.port) as served:
        got = await talk(served.port, post(b"/v1/completions", b'{"stream":true}'))
        record = await served.memory.only()
    assert got.endswith(chunked(event("a"), end=False) + chunked(event("b", "stop"), end=False) + chunked(DONE))
    assert record.outcome is Outcome.OK


# --- peers that misbehave


async def test_slow_loris_is_cut_off_and_others_are_served():
    async with upstream(serve_both) as up, tap(up.port, head_seconds=0.5) as served:
        async with connect(served.port) as slow:
            await slow.send(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nX: ")

            async def drip() -> None:
                with contextlib.suppress(ConnectionError):
                    while True:
                        await slow.send(b"y")
                        await asyncio.sleep(0.05)

            dripping = asyncio.create_task(drip())
            assert (await talk(served.port, post())).startswith(b"HTTP/1.1 200")
            got = await asyncio.wait_for(slow.reader.read(-1), PATIENCE)
            dripping.cancel()
        records = await served.memory.wait(2)
    assert got.startswith(b"HTTP/1.1 408 ")
    assert [r.error_type for r in records if r.status == 408] == ["head_timeout"]


async def test_body_that_never_comes():
    async with upstream(serve_both) as up, tap(up.port, client_stall_seconds=0.3) as served:
        got = await talk(served.port, post(b"/v1/completions", b"x" * 50)[:-10])
        record = await served.memory.only()
    assert got.startswith(b"HTTP/1.1 408 ")
    assert (record.outcome, record.error_type) == (Outcome.CLIENT_ERROR, "body_timeout")


async def test_reader_that_never_reads_is_bounded_then_let_go():
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n")
        piece = chunked(b"x" * 100_000, end=False)
        with contextlib.suppress(ConnectionError):
            for _ in range(2_000):
                await peer.send(piece)
        left.set()

    async with upstream(script) as up, tap(up.port, client_stall_seconds=0.5) as served, connect(served.port) as client:
        client.writer.transport.pause_reading()
        await client.send(post())
        await asyncio.wait_for(left.wait(), PATIENCE)
        record = await served.memory.only()
    assert (record.outcome, record.error_type) == (Outcome.CLIENT_ABORT, "slow_reader")
    assert record.response_bytes < 100_000_000  # what fits into sockets, not what the server had


async def test_connections_over_the_bound_are_turned_away():
    async with upstream(serve_both) as up, tap(up.port, max_connections=2) as served:
        async with connect(served.port) as one, connect(served.port) as two:
            for client in (one, two):
                await client.send(post(close=False))
                await client.request()
            assert (await talk(served.port)).startswith(b"HTTP/1.1 503 ")
        async with asyncio.timeout(PATIENCE):
            while not (await talk(served.port, post())).startswith(b"HTTP/1.1 200 "):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_idle_client_is_closed():
    async with upstream(serve_both) as up, tap(up.port, keep_alive_seconds=0.3) as served:
        got = await talk(served.port, post(close=False))
    assert got.startswith(b"HTTP/1.1 200 ")


async def test_many_aborts_at_every_stage_leave_nothing_behind():
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(STREAM_HEAD)
            for _ in range(20):
                await peer.send(chunked(event("a"), end=False))
                await asyncio.sleep(0.001)
            await peer.send(chunked(DONE))

    request = post(b"/v1/completions", b'{"model":"tiny","stream":true}', close=False)
    begun = 0
    async with upstream(script) as up, tap(up.port) as served:
        for stage in range(1, 120, 7):
            async with connect(served.port) as client:
                await client.send(request[: len(request) * stage // 40])
                begun += stage >= 40
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(client.reader.readexactly(stage * 20), 0.02)
        async with asyncio.timeout(PATIENCE):
            while served.server._connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert served.core.counters.registry.get_sample_value("servescope_tap_active_requests") == 0
        assert served.core.counters.registry.get_sample_value("servescope_tap_connections") == 0
        assert len(served.memory.records) >= begun


async def test_drain_lets_open_requests_end_then_ends_the_rest():
    finish, hang = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        _, body = await peer.request()
        await peer.send(STREAM_HEAD, chunked(event("a"), end=False))
        await asyncio.wait_for((hang if b"hang" in body else finish).wait(), PATIENCE)
        await peer.send(chunked(DONE))

    memory = Memory()
    async with upstream(script) as up, tap(up.port, memory=memory, drain_seconds=1.0) as served:
        async with connect(served.port) as good, connect(served.port) as bad, connect(served.port):
            for client, body in ((good, b"{}"), (bad, b"hang")):
                await client.send(post(b"/v1/completions", body, close=False))
                await client.head()
            stopping = asyncio.create_task(served.server.stop())
            await asyncio.sleep(0)
            finish.set()
            assert (await good.reader.read(-1)).endswith(b"0\r\n\r\n")
            assert not (await bad.reader.read(-1)).endswith(b"0\r\n\r\n")
            await stopping
        hang.set()
    assert {(r.outcome, r.error_type) for r in memory.records} == {
        (Outcome.OK, ""),
        (Outcome.SERVER_ERROR, "tap_shutdown"),
    }


async def test_who_was_let_in_before_a_drain_is_served():
    async with upstream(serve_both) as up, tap(up.port, drain_seconds=PATIENCE) as served:
        async with connect(served.port) as new, connect(served.port) as begun, connect(served.port) as silent:
            await begun.send(b"POST /v1/completions HTTP/1.1\r\n")
            async with asyncio.timeout(PATIENCE):
                while len(served.server._connections) < 3 or not any(c._pending for c in served.server._connections):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            stopping = asyncio.create_task(served.server.stop())
            await asyncio.sleep(0)
            await new.send(post(b"/v1/completions", b"{}"))
            await begun.send(post(b"/v1/completions", b"{}").partition(b"\r\n")[2])
            for peer in (new, begun):
                got = await asyncio.wait_for(peer.reader.read(), PATIENCE)
                assert got.startswith(b"HTTP/1.1 200")
                assert b"\r\nConnection: close\r\n" in got
                assert got.endswith(b'"tiny"}')
            assert await asyncio.wait_for(silent.reader.read(), PATIENCE) == b""
            await asyncio.wait_for(stopping, PATIENCE)
        assert len(await served.memory.wait(2)) == 2


async def test_who_is_still_on_the_way_in_as_a_drain_begins_is_served(monkeypatch: pytest.MonkeyPatch):
    loop, held = asyncio.get_running_loop(), asyncio.Event()
    let_in = loop.connect_accepted_socket

    async def late(factory: Any, sock: Any) -> Any:
        await asyncio.wait_for(held.wait(), PATIENCE)
        return await let_in(factory, sock)

    async with upstream(serve_both) as up, tap(up.port, drain_seconds=PATIENCE) as served:
        monkeypatch.setattr(loop, "connect_accepted_socket", late)
        async with connect(served.port) as asking, connect(served.port) as silent:
            await asking.send(post(b"/v1/completions", b"{}", close=False))
            async with asyncio.timeout(PATIENCE):
                while len(served.server._entering) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            stopping = asyncio.create_task(served.server.stop())
            await asyncio.sleep(0.5)  # longer than it waits for them alone
            held.set()
            assert (await asyncio.wait_for(asking.reader.read(), PATIENCE)).endswith(b'"tiny"}')
            assert await asyncio.wait_for(silent.reader.read(), PATIENCE) == b""
            await asyncio.wait_for(stopping, PATIENCE)
