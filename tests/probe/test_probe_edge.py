"""The middleware's rows are the tap's: the same application, the same requests, the same records field by field."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import uvicorn
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
from tests.probe.probe_kit import Listener, Mailbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    Call = Callable[[aiohttp.ClientSession, str], Awaitable[None]]

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
MEASURED = TIMES - {"trace_id", "request_id"}
WHEN = {"start_ns", "end_ns", "span_id"}


async def application(  # noqa: C901, PLR0912 - a server in small, case by case
    scope: dict[str, Any], receive: Any, send: Any
) -> None:
    """An OpenAI-compatible server in small: what it does is told by the model's name."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    asked = json.loads(body) if body[:1] == b"{" else {}
    model = asked.get("model", "")

    async def start(status: int, kind: str, *more: tuple[bytes, bytes]) -> None:
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode()), *more]}
        )

    async def whole(status: int, answer: dict[str, Any]) -> None:
        text = json.dumps(answer).encode()
        await start(status, "application/json", (b"content-length", str(len(text)).encode()))
        await send({"type": "http.response.body", "body": text})

    if scope["path"] == "/health":
        await start(200, "text/plain")
        await send({"type": "http.response.body", "body": b"ok"})
    elif scope["path"] != "/v1/chat/completions":
        await whole(404, {"detail": "Not Found"})
    elif model == "refused":
        await whole(400, {"error": {"message": "too long", "type": "BadRequestError", "code": 400}})
    elif model == "full":
        await whole(429, {"error": {"message": "too many requests", "type": "overloaded", "code": 429}})
    elif model == "broken":
        raise RuntimeError("broken on purpose")
    elif asked.get("stream"):
        await start(200, "text/event-stream; charset=utf-8")
        for number in range(asked.get("pieces", 5)):
            delta = {"role": "assistant", "content": ""} if number == 0 else {"content": f" t{number}"}
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            event = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "model": model, "choices": [choice]}
            await send(
                {"type": "http.response.body", "body": b"data: %s\n\n" % json.dumps(event).encode(), "more_body": True}
            )
            await asyncio.sleep(0.002 if asked.get("pieces", 5) <= 30 else 0)
            if model == "cut" and number == 3:
                raise RuntimeError("cut on purpose")
        if model == "endless":
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        last = {"id": "chatcmpl-7", "model": model, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        usage = {"id": "chatcmpl-7", "model": model, "choices": []}
        usage |= {"usage": {"prompt_tokens": 11, "completion_tokens": asked.get("pieces", 5) - 1, "total_tokens": 15}}
        for event in (last, usage)[: 1 + bool(asked.get("usage", True))]:
            await send(
                {"type": "http.response.body", "body": b"data: %s\n\n" % json.dumps(event).encode(), "more_body": True}
            )
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    else:
        message = {"role": "assistant", "content": "x" * asked.get("length", 20)}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        usage = {"prompt_tokens": 11, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 8}}
        await whole(200, {"id": "chatcmpl-9", "model": model, "choices": [choice], "usage": usage})


def ask(number: int, path: str = "/v1/chat/completions", leave: int = 0, **body: Any) -> Call:
    """A request with an id, and of one tenant or another."""

    async def call(session: aiohttp.ClientSession, url: str) -> None:
        headers = {"X-Request-Id": f"r-{number}"}
        headers |= {"X-Tenant-Id": "acme"} if number % 2 else {"Authorization": f"Bearer key-{number % 3}"}
        if number % 4 == 0:
            headers["traceparent"] = TRACE
        with contextlib.suppress(aiohttp.ClientError):
            async with session.post(url + path, json=body, headers=headers) as response:
                seen = 0
                async for _ in response.content:
                    seen += 1
                    if leave and seen >= leave:
                        response.close()
                        return

    return call


async def _look(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(f"{url}/health") as response:
        assert response.status == 200


PROMPT = "A prompt that is long. " * 8_000
CALLS: list[Call] = [
    ask(1, model="tiny"),
    ask(2, model="tiny", stream=True),
    ask(3, model="tiny", stream=True, usage=False, pieces=30),
    ask(4, model="tiny", stream=True, pieces=2_000),
    ask(5, model="tiny", length=400_000),
    ask(6, model="tiny", length=60_000),
    ask(7, model="refused"),
    ask(8, model="full"),
    ask(9, "/v1/nonsense", model="tiny"),
    ask(10, model="broken"),
    ask(11, model="cut", stream=True),
    ask(12, model="tiny", messages=[{"role": "user", "content": PROMPT}], stream=True),
    ask(13, model="endless", stream=True, leave=10),
    ask(14, "/v1/chat/completions?x=1", model="tiny"),
    _look,
]
RECORDED = len(CALLS) - 1


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    # A connection that the server closes while it is taken again has its client ask twice.
    config = uvicorn.Config(app, port=0, lifespan="off", log_level="critical", timeout_keep_alive=120)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def drive(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        for call in CALLS:
            await call(session, url)


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
        if name == "r-10":  # the server's own words of a failure come after the middleware
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
