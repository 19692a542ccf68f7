from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.otlp.request import RequestRecord
from agent.pages.probe import probe
from agent.tap import identity
from agent.tap.counters import Counters
from agent.tap.identity import identify
from agent.tap.recorder import Recorder
from agent.tap.upstream import Pool
from base.errors import UnknownEngineError
from base.vocabulary import Outcome, Resource
from tests.kits.tap import Peer, answer, upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PAGE = Path(__file__).parents[1] / "fixtures/vllm/metrics_idle.txt.gz"


Told = asyncio.Queue[dict[str, str]]


@contextlib.asynccontextmanager
async def identifying(
    url: str, ask: Callable[[str], dict[str, Any]] = probe
) -> AsyncIterator[tuple[asyncio.Event, Told]]:
    away, told = asyncio.Event(), Told()
    task = asyncio.create_task(identify(url, away, told.put_nowait, ask))
    try:
        async with asyncio.timeout(20):
            yield away, told
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_FIRST_SECONDS", 0.0)


@pytest.mark.usefixtures("_at_once")
async def test_asks_until_the_server_says_what_it_is():
    answers = [UnknownEngineError("no"), OSError("away"), {"engine": "vllm", "version": None}]

    def ask(_url: str) -> dict[str, Any]:
        reply = answers.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async with identifying("http://x", ask) as (_, told):
        assert await told.get() == {Resource.ENGINE: "vllm"}
        await asyncio.sleep(0.05)
    assert told.empty()
    assert not answers


@pytest.mark.usefixtures("_at_once")
async def test_a_server_that_was_away_is_asked_again_and_only_news_is_told():
    versions = iter(["0.23.0", "0.23.0", "0.24.0"])
    asked: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def ask(_url: str) -> dict[str, Any]:
        loop.call_soon_threadsafe(asked.put_nowait, None)
        return {"engine": "vllm", "version": next(versions)}

    async with identifying("http://x", ask) as (away, told):
        for _ in range(2):
            await asked.get()
            away.set()
        found = [await told.get(), await told.get()]
    assert [attributes[Resource.VERSION] for attributes in found] == ["0.23.0", "0.24.0"]
    assert told.empty()


async def test_a_connection_that_cannot_be_made_says_that_the_server_is_away():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        pool = Pool("http", "127.0.0.1", taken.getsockname()[1], connect_seconds=5, idle_seconds=4, max_idle=1)
        with pytest.raises(OSError, match="Connect call failed"):
            await pool.connect()
    assert pool.away.is_set()


async def test_finds_a_real_page():
    page = gzip.decompress(PAGE.read_bytes())

    async def script(peer: Peer) -> None:
        while True:
            head = await peer.head()
            found = b"GET /metrics " in head
            await peer.send(answer(page if found else b"{}", b"200 OK" if found else b"404 No", b"text/plain"))

    async with upstream(script) as up, identifying(f"http://127.0.0.1:{up.port}") as (_, told):
        assert (await told.get())[Resource.ENGINE] == "vllm"


async def test_what_was_learnt_is_on_later_records_and_what_was_given_wins():
    bodies: list[bytes] = []
    done = threading.Event()

    class Spool:
        def append(self, _signal: str, body: bytes) -> bool:
            bodies.append(body)
            return True

        def close(self) -> None:
            done.set()

    recorder = Recorder(Spool(), {Resource.ENGINE: "", Resource.VERSION: "7"}, Counters())
    recorder.start(asyncio.get_running_loop())
    recorder.learn({Resource.ENGINE: "triton", Resource.VERSION: "8"})
    recorder.learn({Resource.ENGINE: "vllm", Resource.VERSION: "9"})
    recorder.submit(RequestRecord(b"t" * 16, b"s" * 8, 1, 2, Outcome.OK, "GET", "/*"), lambda: None)
    assert await asyncio.to_thread(recorder.close)
    assert done.is_set()
    (group,) = ExportTraceServiceRequest.FromString(bodies[0]).resource_spans
    assert {a.key: a.value.string_value for a in group.resource.attributes} == {
        Resource.ENGINE: "vllm",
        Resource.VERSION: "7",
    }
