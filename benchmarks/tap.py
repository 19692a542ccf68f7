"""What the tap adds: the same traffic straight to a scripted server and through the tap, in turns, in one run.

Half of the requests are streams of paced events, half are whole answers; the server works for no time at all, so the
way is what is measured. Every event carries the server's clock (one machine, one monotonic clock): its age when the
client has it is the transit time. Machinery for comparison: the plainest streaming proxy on aiohttp, which records
nothing.

    python -m benchmarks.tap [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import re
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import psutil
import uvloop
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterator

RATE: Final = 100
"""Requests a second, half of them streams."""
EVENTS: Final = 30
PACE_SECONDS: Final = 0.01
BLOCK_SECONDS: Final = 2.0
IDLE_STREAMS: Final = 1_000
P50_GOAL: Final = 0.001
P99_GOAL: Final = 0.005
IDLE_GOAL_BYTES: Final = 60_000_000
_STAMP: Final = re.compile(rb'" t(\d+)"')
_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_END: Final = b"0\r\n\r\n"
_WHOLE: Final = (
    b'{"id":"cmpl-1","object":"text_completion","model":"tiny","t":%d,"choices":[{"index":0,"text":" ok","finish_'
    b'reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":1}}\n'
)
_EVENT: Final = (
    b'data: {"id":"cmpl-1","object":"text_completion","created":1795487340,"model":"tiny","choices":[{"index":0,'
    b'"text":" t%d","logprobs":null,"finish_reason":null,"stop_reason":null}]}\n\n'
)


class _Server(asyncio.Protocol):
    """The scripted server: answers at once; a stream's events follow at their pace (``x-hang``: never end)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer, 0, end)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < size:
                return
            request, self._buffer = self._buffer[:size], self._buffer[size:]
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        if b'"stream":true' not in request:
            body = _WHOLE % time.monotonic_ns()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            self._transport.write(head + body)
            return
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        self._transport.write(head + self._event())
        if b"x-hang" not in request.lower():
            asyncio.get_running_loop().call_later(PACE_SECONDS, self._next, EVENTS - 1)

    def _event(self) -> bytes:
        data = _EVENT % time.monotonic_ns()
        return b"%x\r\n%s\r\n" % (len(data), data)

    def _next(self, left: int) -> None:
        if self._transport.is_closing():
            return
        if left:
            self._transport.write(self._event())
            asyncio.get_running_loop().call_later(PACE_SECONDS, self._next, left - 1)
        else:
            self._transport.write(b"e\r\ndata: [DONE]\n\n\r\n" + _END)


def serve(port: int) -> None:
    """Run the scripted server (a process of its own)."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", port, backlog=2_048)
        await server.serve_forever()

    uvloop.run(run())


def serve_aiohttp_proxy(port: int, upstream: str) -> None:
    """Run the plainest streaming proxy on aiohttp (a process of its own)."""

    async def run() -> None:
        session = aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=0))

        async def handle(request: web.Request) -> web.StreamResponse:
            async with session.post(upstream + request.path, data=request.content, headers=request.headers) as answer:
                kept = {k: v for k, v in answer.headers.items() if k.lower() != "transfer-encoding"}
                response = web.StreamResponse(status=answer.status, headers=kept)
                await response.prepare(request)
                async for data in answer.content.iter_any():
                    await response.write(data)
                await response.write_eof()
                return response

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=2_048).start()
        await asyncio.Event().wait()

    uvloop.run(run())


@dataclass
class Seen:
    """What clients saw on one way; seconds."""

    first: list[float] = field(default_factory=list)
    """From the request sent to a stream's first event."""
    whole: list[float] = field(default_factory=list)
    """From the request sent to the whole answer (the tap lets it go when its record is in the spool)."""
    transit: list[float] = field(default_factory=list)
    """Age of an event when it arrives."""
    failed: int = 0


class _Client(asyncio.Protocol):
    def __init__(self) -> None:
        self.done: asyncio.Future[None] | None = None
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def send(self, seen: Seen, stream: bool, request: bytes) -> asyncio.Future[None]:
        self._seen = seen
        self._stream = stream
        self._waiting = True
        self._rest = b""
        self.done = asyncio.get_running_loop().create_future()
        self._sent = time.monotonic_ns()
        self.transport.write(request)
        return self.done

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if self._waiting:
            self._waiting = False
            (self._seen.first if self._stream else self._seen.whole).append((now - self._sent) / 1e9)
        if self._stream:
            self._seen.transit += [(now - int(stamp)) / 1e9 for stamp in _STAMP.findall(data)]
        self._rest = (self._rest + data)[-5:]
        if self._rest == _END if self._stream else self._rest.endswith(b"}\n"):
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self.done is not None and not self.done.done():
            self._seen.failed += 1
            self._finish()

    def _finish(self) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_result(None)


def request_bytes(*, stream: bool, more: str = "") -> bytes:
    """A completion request as an SDK sends it, about 700 bytes."""
    words = "the quick brown fox " * 20
    body = json.dumps({"model": "tiny", "prompt": words, "stream": stream}, separators=(",", ":"))
    return (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nAccept: */*\r\n"
        f"Authorization: Bearer sk-benchmark\r\nUser-Agent: bench\r\n{more}Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


class Load:
    """Open-loop traffic to one port."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[_Client] = []
        self.seen = Seen()
        self._requests = [request_bytes(stream=False), request_bytes(stream=True)]

    async def block(self, seconds: float, rate: float = RATE) -> None:
        """Send at a fixed rate, whatever comes back; wait for the last answer."""
        begin = time.monotonic()
        tasks = []
        for number in range(int(seconds * rate)):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            tasks.append(asyncio.create_task(self._one(number % 2 == 1)))
        await asyncio.gather(*tasks)

    async def _one(self, stream: bool) -> None:
        client = self._idle.pop() if self._idle else None
        if client is None or client.transport.is_closing():
            _, client = await asyncio.get_running_loop().create_connection(_Client, "127.0.0.1", self._port)
        await client.send(self.seen, stream, self._requests[stream])
        self._idle.append(client)

    def close(self) -> None:
        """Close the connections."""
        for client in self._idle:
            client.transport.close()


def quantile(values: list[float], share: float) -> float:
    """Nearest-rank quantile."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def child(target: Any, *arguments: Any) -> Iterator[psutil.Process]:
    """A function in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments, daemon=True)
    process.start()
    try:
        yield psutil.Process(int(process.pid or 0))
    finally:
        process.kill()
        process.join()


@contextlib.contextmanager
def tap(upstream_port: int, port: int, folder: str) -> Iterator[psutil.Process]:
    """The tap as users run it."""
    command = [sys.executable, "-m", "agent.tap", "--instance", "bench", "--deployment", "bench", "--engine", "vllm"]
    command += ["--upstream", f"http://127.0.0.1:{upstream_port}", "--port", str(port)]
    command += ["--spool", f"{folder}/spool", "--keys", f"{folder}/keys"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield psutil.Process(int(process.pid or 0))
        finally:
            process.kill()


async def wait_for_port(port: int) -> None:
    """Wait until something listens."""
    for _ in range(600):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise TimeoutError(f"nothing listens on port {port}")


def cpu(process: psutil.Process) -> float:
    """CPU seconds used so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def idle_streams(port: int, process: psutil.Process, count: int) -> float:
    """Memory that open, silent streams add to a process, bytes."""
    before = process.memory_info().rss
    request = request_bytes(stream=True, more="X-Hang: 1\r\n")
    clients: list[_Client] = []
    for _ in range(count):
        _, client = await asyncio.get_running_loop().create_connection(_Client, "127.0.0.1", port)
        client.send(Seen(), True, request)
        clients.append(client)
    await asyncio.sleep(1.0)
    added = process.memory_info().rss - before
    for client in clients:
        client.transport.abort()
    return float(added)


def figure(
    name: str, value: float, unit: str, reference: str, reference_value: float, goal: float | None
) -> dict[str, Any]:
    """One figure; lower is better."""
    return {
        "name": name,
        "value": round(value, 9),
        "unit": unit,
        "reference": reference,
        "reference_value": round(reference_value, 9),
        "ratio": round(value / reference_value, 4) if reference_value else None,
        "goal": goal,
        "met": None if goal is None else value <= goal,
    }


async def measure(*, quick: bool) -> list[dict[str, Any]]:
    """Run all blocks and make the figures."""
    rounds = 3 if quick else 10
    server_port, tap_port, other_port = free_port(), free_port(), free_port()
    url = f"http://127.0.0.1:{server_port}"
    with (
        tempfile.TemporaryDirectory() as folder,
        child(serve, server_port),
        tap(server_port, tap_port, folder) as tap_process,
        child(serve_aiohttp_proxy, other_port, url) as other_process,
    ):
        ways = {"direct": Load(server_port), "tap": Load(tap_port), "aiohttp": Load(other_port)}
        for port in (server_port, tap_port, other_port):
            await wait_for_port(port)
        for load in ways.values():  # connections, caches, first records
            await load.block(0.5)
            load.seen = Seen()
        before = {"tap": cpu(tap_process), "aiohttp": cpu(other_process)}
        for number in range(rounds):
            order = list(ways) if number % 2 else list(reversed(ways))
            for name in order:
                await ways[name].block(BLOCK_SECONDS)
        used = {"tap": cpu(tap_process) - before["tap"], "aiohttp": cpu(other_process) - before["aiohttp"]}
        for load in ways.values():
            load.close()
        idle = IDLE_STREAMS // (10 if quick else 1)
        added = {
            "tap": await idle_streams(tap_port, tap_process, idle),
            "aiohttp": await idle_streams(other_port, other_process, idle),
        }
    if failed := {name: load.seen.failed for name, load in ways.items() if load.seen.failed}:
        raise RuntimeError(f"requests failed: {failed}")
    return figures({name: load.seen for name, load in ways.items()}, used, added, idle)


def figures(seen: dict[str, Seen], used: dict[str, float], added: dict[str, float], idle: int) -> list[dict[str, Any]]:
    """The figures of a run."""
    out = []
    for what, name_of in (("first_event", "first"), ("whole_answer", "whole"), ("event_transit", "transit")):
        times: dict[str, list[float]] = {way: getattr(s, name_of) for way, s in seen.items()}
        for share, goal in ((0.5, P50_GOAL), (0.99, P99_GOAL)):
            direct = quantile(times["direct"], share)
            for way in ("tap", "aiohttp"):
                name = f"{way}_added_{what}_p{round(share * 100)}"
                value = quantile(times[way], share) - direct
                out.append(figure(name, value, "s", "the same traffic without a proxy, its own time", direct, goal))
    counts = {way: len(seen[way].first) + len(seen[way].whole) for way in used}
    each = {way: used[way] / counts[way] for way in used}
    bare = "a bare aiohttp streaming proxy that records nothing"
    out.append(figure("tap_cpu_per_request", each["tap"], "s", bare, each["aiohttp"], each["aiohttp"]))
    memory_goal = IDLE_GOAL_BYTES * idle / IDLE_STREAMS
    out.append(figure(f"tap_memory_of_{idle}_idle_streams", added["tap"], "bytes", bare, added["aiohttp"], memory_goal))
    return out


def main() -> None:
    """Print one JSON object a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, fewer idle streams")
    parser.add_argument("--json", action="store_true", help="the only form there is")
    options = parser.parse_args()
    for line in uvloop.run(measure(quick=options.quick)):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
