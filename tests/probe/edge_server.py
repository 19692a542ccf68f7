"""A server in small behind an edge, and the requests that both edges are compared by."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import uvicorn

from tests.kits.agent_fakes import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Call = Callable[[aiohttp.ClientSession, str], Awaitable[None]]


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


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
    elif model == "silent":
        return
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
    ask(15, model="silent"),
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
