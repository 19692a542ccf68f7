"""Scripted servers, raw clients and an in-process tap for the tap's tests."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.tap.core import Core
from agent.tap.counters import Counters
from agent.tap.limits import Limits
from agent.tap.server import TapServer
from agent.tap.tenants import BoundedNames, Tenants
from agent.tap.upstream import Pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from agent.otlp.request import RequestRecord

    Script = Callable[["Peer"], Awaitable[None]]

PATIENCE = 30.0
SALT = b"salt"
TIMES = {
    "start_ns",
    "end_ns",
    "edge_seconds",
    "ttft_seconds",
    "e2e_seconds",
    "span_id",
    "trace_id",
    "itl_mean_seconds",
    "itl_p50_seconds",
    "itl_p99_seconds",
    "itl_max_seconds",
    "request_id",
}


class Peer:
    """One connection as a scripted server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.left = asyncio.Event()

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)

    async def request(self) -> tuple[bytes, bytes]:
        head = await self.head()
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return head, await self.reader.readexactly(length)

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the other side is gone."""
        with contextlib.suppress(OSError):
            while await asyncio.wait_for(self.reader.read(65536), PATIENCE):
                pass

    def reset(self) -> None:
        self.writer.transport.abort()


class Upstream:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections = 0
        self.failures: list[BaseException] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.script(Peer(reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.failures.append(error)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def upstream(script: Script) -> AsyncIterator[Upstream]:
    up = Upstream(script)
    server = await asyncio.start_server(up.serve, "127.0.0.1", 0, limit=1 << 24)
    up.port = server.sockets[0].getsockname()[1]
    try:
        yield up
    finally:
        server.close()
    assert not up.failures, up.failures


class Memory:
    """Records kept; ``hold`` keeps answers back until ``let_go``."""

    def __init__(self, *, hold: bool = False) -> None:
        self.records: list[RequestRecord] = []
        self.hold = hold
        self.waiting: list[Callable[[], None]] = []
        self.changed = asyncio.Event()

    def submit(self, record: RequestRecord, release: Callable[[], None]) -> None:
        self.records.append(record)
        self.changed.set()
        if self.hold:
            self.waiting.append(release)
        else:
            release()

    async def wait(self, count: int = 1) -> list[RequestRecord]:
        async with asyncio.timeout(PATIENCE):
            while len(self.records) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.records

    async def only(self) -> RequestRecord:
        (record,) = await self.wait()
        return record

    def let_go(self) -> None:
        waiting, self.waiting = self.waiting, []
        for release in waiting:
            release()


@dataclasses.dataclass
class Tap:
    port: int
    core: Core
    memory: Memory
    server: TapServer


@contextlib.asynccontextmanager
async def tap(upstream_port: int, *, memory: Memory | None = None, **options: Any) -> AsyncIterator[Tap]:
    memory = memory or Memory()
    names = options.pop("names", {})
    tenants = options.pop("tenants", 1000)
    probes = options.pop("record_probes", False)
    idle = options.pop("idle_seconds", 60.0)
    base = options.pop("base", "")
    limits = Limits(**{"drain_seconds": 1.0, **options})
    core = Core(
        pool=Pool(
            "http",
            "127.0.0.1",
            upstream_port,
            base=base,
            connect_seconds=limits.connect_seconds,
            idle_seconds=idle,
            max_idle=64,
        ),
        records=memory,
        counters=Counters(),
        tenants=Tenants(
            SALT, header="x-tenant-id", key_header="authorization", names=names, bound=BoundedNames(tenants)
        ),
        models=BoundedNames(1000),
        limits=limits,
        record_probes=probes,
    )
    server = TapServer(core)
    await server.start("127.0.0.1", 0)
    try:
        yield Tap(server.port, core, memory, server)
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def connect(port: int) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def talk(port: int, *pieces: bytes) -> bytes:
    """Send bytes, read until the other side closes."""
    async with connect(port) as peer:
        with contextlib.suppress(ConnectionError):
            await peer.send(*pieces)
        got = b""
        with contextlib.suppress(ConnectionError):
            while data := await asyncio.wait_for(peer.reader.read(1 << 20), PATIENCE):
                got += data
        return got


def post(
    path: bytes = b"/v1/completions", body: bytes = b'{"model":"tiny"}', *fields: bytes, close: bool = True
) -> bytes:
    lines = [
        b"POST " + path + b" HTTP/1.1",
        b"Host: tap",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        *fields,
    ]
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join([*lines, b"", body])


def answer(body: bytes, status: bytes = b"200 OK", kind: bytes = b"application/json", *fields: bytes) -> bytes:
    lines = [b"HTTP/1.1 " + status, b"content-type: " + kind, b"content-length: %d" % len(body), *fields, b"", body]
    return b"\r\n".join(lines)


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + (b"0\r\n\r\n" if end else b"")


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def event(text: str, finish: str | None = None) -> bytes:
    reason = f'"{finish}"' if finish else "null"
    return (
        f'data: {{"id":"cmpl-1","model":"tiny","choices":[{{"index":0,"text":"{text}","finish_reason":{reason}}}]}}\n\n'
    ).encode()


DONE = b"data: [DONE]\n\n"


def timeless(record: RequestRecord) -> dict[str, Any]:
    return {k: v for k, v in record._asdict().items() if k not in TIMES}


def spooled(spool: Path) -> list[Any]:
    """Edge spans in a spool, in order."""
    spans: list[Any] = []
    for path in sorted(spool.glob("*/traces/*.seg")):
        data = path.read_bytes()
        at = 0
        while at < len(data):
            size = shift = 0
            while True:
                byte = data[at]
                at += 1
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            request = ExportTraceServiceRequest.FromString(data[at : at + size])
            at += size
            spans += [s for r in request.resource_spans for g in r.scope_spans for s in g.spans]
    return spans


def tap_command(folder: Path, upstream_port: int) -> list[str]:
    return [
        sys.executable, "-m", "agent.tap", "--instance", "one", "--deployment", "shop", "--engine", "vllm",
        "--upstream", f"http://127.0.0.1:{upstream_port}",
        "--spool", str(folder / "spool"), "--keys", str(folder / "keys"),
    ]  # fmt: skip


def attribute(span: Any, key: str) -> Any:
    for item in span.attributes:
        if item.key == key:
            return getattr(item.value, item.value.WhichOneof("value"))
    return None


@contextlib.asynccontextmanager
async def tap_process(
    upstream_port: int, folder: Path, *arguments: str, before: Callable[[], None] | None = None
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A real tap process; yields it and its port. ``before`` runs in it before the program."""
    process = await asyncio.create_subprocess_exec(
        *tap_command(folder, upstream_port), "--port", "0", *arguments,
        stderr=asyncio.subprocess.PIPE, preexec_fn=before,
    )  # fmt: skip
    try:
        port = 0
        while not port:
            line = (await asyncio.wait_for(process.stderr.readline(), PATIENCE)).decode()
            assert line, "the tap ended before it listened"
            if "tap_started" in line:
                port = int(json.loads(line)["port"])
        yield process, port
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def replying(*pieces: bytes, close: bool = False) -> Script:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(*pieces)
            if close:
                return

    return script


async def one(script: Script, request: bytes | None = None, **options: Any) -> tuple[bytes, RequestRecord]:
    async with upstream(script) as up, tap(up.port, **options) as served:
        got = await talk(served.port, request or post())
        return got, await served.memory.only()


async def serve_both(peer: Peer) -> None:
    """Answers whole or as a stream, as it is asked."""
    while True:
        _, body = await peer.request()
        if b'"stream":true' in body:
            await peer.send(STREAM_HEAD, chunked(event("a"), end=False), chunked(event("b", "stop"), end=False))
            await peer.send(chunked(DONE, end=False))
            await peer.send(b"0\r\n\r\n")
        else:
            await peer.send(answer(b'{"id":"whole","model":"tiny"}'))
