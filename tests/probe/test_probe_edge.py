"""The middleware's rows are the tap's: the same application, the same requests, the same records field by field."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from servescope_probe import Edge, wire
from servescope_probe.sender import GATHER_SECONDS

from agent.otlp.request import RequestRecord
from agent.probe import datagram
from agent.probe.requests import Ended, Requests, books
from agent.tap.config import TenantConfig
from agent.tap.limits import Limits
from base.vocabulary import Outcome
from tests.kits.agent_fakes import until
from tests.kits.tap import SALT, TIMES, tap
from tests.kits.trace_states import STATES
from tests.probe.edge_server import RECORDED, TRACE, application, ask, drive, serving
from tests.probe.probe_kit import Listener, Mailbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEASURED = TIMES - {"trace_id", "request_id"}
WHEN = {"start_ns", "end_ns", "span_id"}


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[Mailbox]:
    box = Mailbox(tmp_path / "probe.sock")
    yield box
    box.close()


async def records_of_the_tap() -> list[RequestRecord]:
    async with serving(application) as url, tap(int(url.rpartition(":")[2])) as one:
        await drive(f"http://127.0.0.1:{one.port}")
        return list(await one.memory.wait(RECORDED))


async def records_of_the_middleware(mailbox: Mailbox) -> list[RequestRecord]:
    edge = Edge(application, mailbox.sender())
    ended: list[Ended] = []
    requests = Requests(books(SALT, TenantConfig(), Limits()), ended.append)

    def read() -> bool:
        edge._sender.flush()
        for told in mailbox.datagrams():
            for record in told.records:
                requests.take(told.process, record, 0.0)
        return len(ended) >= RECORDED

    async with serving(edge) as url:
        work = asyncio.create_task(drive(url))
        while not work.done():  # as an agent would: a socket holds little
            read()
            await asyncio.sleep(0.01)
        await work
        await until(read)
    assert edge.open == 0
    assert edge._sender.dropped == 0
    assert requests.told == {"recorded": RECORDED, "unrecorded": 1}
    return [one.record for one in ended]


async def test_both_edges_make_the_same_records(mailbox: Mailbox):
    through_tap = {record.request_id: record for record in await records_of_the_tap()}
    inside = {record.request_id: record for record in await records_of_the_middleware(mailbox)}
    assert through_tap.keys() == inside.keys()
    for name, expected in through_tap.items():
        record = inside[name]
        left_out = set(MEASURED)
        if record.caller_sampled is None:
            left_out.add("trace_id")  # drawn at random
        if name in {"r-10", "r-15"}:  # the server's own words of a failure come after the middleware
            left_out.add("response_bytes")
        for field in RequestRecord._fields:
            if field not in left_out:
                assert getattr(record, field) == getattr(expected, field), (name, field)
            elif field in MEASURED - WHEN:
                assert (getattr(record, field) is None) == (getattr(expected, field) is None), (name, field)
        assert abs(record.start_ns - expected.start_ns) < 120e9
        assert int.from_bytes(record.span_id) >> 22 == record.start_ns // 1_000_000
    assert inside["r-4"].parent_span_id.hex() == "b7ad6b7169203331"
    assert inside["r-4"].completion_tokens == 1_999
    assert inside["r-13"].outcome is Outcome.CLIENT_ABORT
    assert inside["r-11"].outcome is Outcome.UPSTREAM_RESET
    assert {one.tenant for one in inside.values()} >= {"acme"}
    assert not any("key-" in one.tenant for one in inside.values())


async def test_the_server_continues_the_trace_and_names_the_request(mailbox: Mailbox):
    seen: list[dict[bytes, bytes]] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"]))
        await application(scope, receive, send)

    edge = Edge(app, mailbox.sender())
    async with serving(edge) as url, aiohttp.ClientSession() as session:
        await ask(4, model="tiny")(session, url)
        await session.post(f"{url}/v1/chat/completions", json={"model": "tiny"})
        await until(lambda: edge.open == 0)
    ended: list[Ended] = []
    requests = Requests(books(SALT, TenantConfig(), Limits()), ended.append)
    for told in mailbox.datagrams():
        for record in told.records:
            requests.take(told.process, record, 0.0)
    for headers, one in zip(seen, ended, strict=True):
        version, trace, parent, flags = headers[b"traceparent"].split(b"-")
        assert (version, flags) == (b"00", b"01")
        assert trace.decode() == one.record.trace_id.hex()
        assert parent.decode() == one.record.span_id.hex()
        assert headers[b"x-request-id"].decode() == one.record.request_id


@pytest.mark.parametrize(("sent", "arrived"), STATES)
async def test_a_trace_state_is_judged_as_a_tap_does(mailbox: Mailbox, sent: list[bytes], arrived: list[bytes]):
    def states(lines: list[bytes]) -> list[bytes]:
        named = [line.partition(b":") for line in lines]
        return [value.strip() for name, _, value in named if name.lower() == b"tracestate"]

    seen: list[dict[str, Any]] = []

    async def inner(scope: dict[str, Any], _: Any, __: Any) -> None:
        seen.append(scope)

    edge = Edge(inner, mailbox.sender())
    for parents in ([(b"traceparent", TRACE.encode())], []):
        fields = [*parents, *((b"tracestate", value) for value in states(sent))]
        await edge({"type": "http", "method": "POST", "path": "/x", "headers": fields}, None, None)  # type: ignore[arg-type]
    continued, begun = ([value for name, value in scope["headers"] if name == b"tracestate"] for scope in seen)
    assert continued == states(arrived)
    assert begun == []


async def test_a_request_that_waits_is_known_to_wait(mailbox: Mailbox):
    """Nothing else may happen behind an engine that froze."""
    edge = Edge(application, mailbox.sender())
    asked, told = asyncio.Event(), []

    async def receive() -> dict[str, Any]:
        if asked.is_set():
            await asyncio.Event().wait()
        while not any(record.kind == wire.EDGE_BEGIN for record in told):  # its body comes later
            await asyncio.sleep(0.01)
            told.extend(mailbox.records())
        asked.set()
        return {"type": "http.request", "body": b'{"model": "endless"}', "more_body": False}

    async def app(_scope: dict[str, Any], receive: Any, _send: Any) -> None:
        await receive()
        await receive()

    edge.app = app
    headers = [(b"host", b"x")]
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "query_string": b"", "headers": headers}
    task = asyncio.create_task(edge(scope, receive, None))  # type: ignore[arg-type]

    def arrived() -> bool:
        told.extend(mailbox.records())
        return [record.kind for record in told] == [wire.EDGE_BEGIN, wire.EDGE_BODY]

    await until(arrived)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_the_last_words_reach_an_agent_that_was_busy(mailbox: Mailbox):
    """No request comes after them: the agent would wait for this one's end, and take the engine for frozen."""
    crowd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with crowd, contextlib.suppress(BlockingIOError):
        crowd.connect(str(mailbox.path))
        while True:
            crowd.send(b"x" * 1_000)
    edge = Edge(application, mailbox.sender())
    async with serving(edge) as url, aiohttp.ClientSession() as session:
        await ask(1, model="tiny")(session, url)
        await until(lambda: edge.open == 0)
        told: list[datagram.Record] = []

        def ended() -> bool:
            told.extend(record for data in mailbox.raw() if data[:1] != b"x" for record in datagram.read(data).records)
            return bool(told) and told[-1].kind == wire.EDGE_END

        await asyncio.sleep(3 * GATHER_SECONDS)  # it tries in vain
        await until(ended)
    assert [record.kind for record in told] == [
        wire.EDGE_BEGIN,
        wire.EDGE_BODY,
        wire.EDGE_HEAD,
        wire.EDGE_PIECES,
        wire.EDGE_END,
    ]


async def test_cookies_do_not_go_to_the_agent(mailbox: Mailbox):
    async def app(_scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"Set-Cookie", b"session=secret"), (b"content-type", b"text/plain"), (b"set-cookie", b"b=secret")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    edge = Edge(app, mailbox.sender())
    async with serving(edge) as url, aiohttp.ClientSession(cookies={"mine": "secret"}) as session:
        async with session.get(f"{url}/v1/models") as response:
            assert response.headers.getall("Set-Cookie") == ["session=secret", "b=secret"]
        await until(lambda: edge.open == 0)
    edge._sender.flush()
    told = b"".join(mailbox.raw())
    assert b"text/plain" in told
    assert b"secret" not in told


async def test_what_a_tap_has_recorded_is_passed_on_as_it_is(mailbox: Mailbox):
    edge = Edge(application, mailbox.sender())
    async with serving(edge) as url, tap(int(url.rpartition(":")[2])) as one, aiohttp.ClientSession() as session:
        await ask(1, model="tiny")(session, f"http://127.0.0.1:{one.port}")
        await one.memory.only()
    edge._sender.flush()
    assert mailbox.records() == []


async def test_lost_pieces_leave_times_and_sizes(mailbox: Mailbox):
    edge = Edge(application, mailbox.sender())
    async with serving(edge) as url, aiohttp.ClientSession() as session:
        await ask(1, model="tiny", stream=True, pieces=400)(session, url)
        await until(lambda: edge.open == 0)
    ended: list[Ended] = []
    requests = Requests(books(SALT, TenantConfig(), Limits()), ended.append)
    lost = False
    for told in mailbox.datagrams():
        for record in told.records:
            if record.kind == wire.EDGE_PIECES and not lost:
                lost = True
                continue
            requests.take(told.process, record, 0.0)
    (one,) = ended
    assert lost
    assert requests.told["incomplete"] == 1
    assert (one.record.outcome, one.record.status, one.record.completion_tokens) == (Outcome.OK, 200, None)
    assert one.record.response_bytes > 40_000
    assert one.record.stream
    assert one.record.ttft_seconds is not None
    assert one.record.ttft_seconds < one.record.whole_seconds


@pytest.mark.parametrize(("sizes", "kind"), [
    ([1] * 30_000, b"text/event-stream"),
    ([1] * 30_000, b"application/json"),
    ([7, 24_576, 24_577, 49_152, 49_153, 200_000, 3], b"text/event-stream"),
    ([7, 49_144, 2, 9_000, 200_000, 3], b"application/json"),
])  # fmt: skip
async def test_pieces_of_any_size_are_told_whole(mailbox: Mailbox, sizes: list[int], kind: bytes):
    async def app(_scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        for size in sizes:
            await send({"type": "http.response.body", "body": b"x" * size, "more_body": True})
            edge._sender.flush()
            told.extend(mailbox.records())
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    async def send(_message: dict[str, Any]) -> None:
        return

    told: list[datagram.Record] = []
    edge = Edge(app, mailbox.sender())
    await edge({"type": "http", "method": "POST", "path": "/x", "headers": [(b"host", b"x")]}, receive, send)
    edge._sender.flush()
    told += mailbox.records()
    assert edge._sender.dropped == 0
    pieces = [datagram.read_pieces(one.body) for one in told if one.kind == wire.EDGE_PIECES]
    assert [one.place for one in pieces] == list(range(len(pieces)))
    assert sum(len(data) + left_out for one in pieces for _, data, left_out in one.pieces) == sum(sizes)


async def test_requests_of_a_dead_process_end(mailbox: Mailbox):
    edge = Edge(application, mailbox.sender())
    gate = asyncio.Event()
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not gate.is_set():
            gate.set()
            return {"type": "http.request", "body": b'{"model": "endless", "stream": true}', "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    headers = [(b"host", b"x"), (b"content-type", b"application/json"), (b"x-request-id", b"r-1")]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"", "headers": headers}
    task = asyncio.create_task(edge(scope, receive, send))
    await until(lambda: len(messages) == 6)
    edge._sender.flush()
    ended: list[Ended] = []
    requests = Requests(books(SALT, TenantConfig(), Limits()), ended.append)
    for told in mailbox.datagrams():
        for record in told.records:
            requests.take(told.process, record, 100.0)
    assert (len(requests), ended) == (1, [])
    requests.sweep(130.0, gone={datagram.Process("vllm-a", os.getpid())})
    (one,) = ended
    assert (one.record.outcome, one.record.error_type) == (Outcome.UPSTREAM_RESET, "answer_cut")
    assert one.record.whole_seconds >= 30.0
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("scope", [{"type": "http"}, {"type": "http", "headers": [7]}, {"type": "lifespan"}])
async def test_a_scope_it_does_not_know_is_served(mailbox: Mailbox, scope: dict[str, Any]):
    served = []

    async def app(given: dict[str, Any], _receive: Any, _send: Any) -> None:
        served.append(given)

    edge = Edge(app, mailbox.sender())
    for _ in range(2):
        await edge(scope, None, None)  # type: ignore[arg-type]
    assert served == [scope, scope]
    assert edge.open == 0


async def test_an_agent_that_chokes_is_not_felt(tmp_path: Path, mailbox: Mailbox):
    """Whatever the sender does, the answer is the application's, and the application's faults are its own."""

    class Broken:
        def put(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("no")

    edge = Edge(application, Broken())  # type: ignore[arg-type]
    async with (
        serving(edge) as url,
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json={"model": "tiny"}) as response,
    ):
        assert (await response.json())["usage"]["completion_tokens"] == 4
    listener = Listener(tmp_path)
    for junk in (b"", b"SVSP", os.urandom(300), wire.HEAD.pack(wire.MAGIC, 1, 0, 3, 1, 0, 0), _record(9), _record(3)):
        listener.source.take(junk, 0.0)
    assert listener.source.malformed == {"foreign": 3, "cut": 2, "kind": 1}


def _record(kind: int) -> bytes:
    return wire.HEAD.pack(wire.MAGIC, 1, 0, 1, 1, 0, 0) + wire.RECORD.pack(2, kind, -1) + b"ab"


def test_an_event_loop_that_ended_too_soon_holds_up_no_later_one(mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch):
    """One process, one sender: who serves again in another loop is heard all the same."""
    sender = mailbox.sender()
    monkeypatch.setattr("servescope_probe.edge.shared", lambda: sender)

    async def answered() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"{}"}

        async def send(_message: Any) -> None:
            return

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
        await Edge(app)(scope, receive, send)

    async def heard() -> None:
        await answered()
        told: list[datagram.Record] = []

        def ended() -> bool:
            told.extend(mailbox.records())
            return [record.kind for record in told].count(wire.EDGE_END) == 2

        await until(ended)

    asyncio.run(answered())  # it ends before what it was asked is due
    asyncio.run(heard())
