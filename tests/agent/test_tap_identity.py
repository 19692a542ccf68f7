from __future__ import annotations

import asyncio
import gzip
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.errors import UnknownEngineError
from agent.request import RequestRecord
from agent.tap import identity
from agent.tap.counters import Counters
from agent.tap.identity import identify
from agent.tap.recorder import Recorder
from agent.vocabulary import Outcome, Resource
from tests.tap_kit import Peer, answer, upstream

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).parents[1] / "fixtures/vllm/metrics_idle.txt.gz"


async def test_asks_until_the_server_says_what_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(identity, "_FIRST_SECONDS", 0.0)
    answers = [UnknownEngineError("no"), OSError("away"), {"engine": "vllm", "version": None}]

    def ask(_url: str) -> dict[str, object]:
        reply = answers.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    told: list[dict[str, str]] = []
    await identify("http://x", told.append, ask)
    assert told == [{Resource.ENGINE: "vllm"}]
    assert not answers


async def test_finds_a_real_page():
    page = gzip.decompress(PAGE.read_bytes())

    async def script(peer: Peer) -> None:
        while True:
            head = await peer.head()
            found = b"GET /metrics " in head
            await peer.send(answer(page if found else b"{}", b"200 OK" if found else b"404 No", b"text/plain"))

    told: list[dict[str, str]] = []
    async with upstream(script) as up:
        await identify(f"http://127.0.0.1:{up.port}", told.append)
    assert told[0][Resource.ENGINE] == "vllm"


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
    recorder.learn({Resource.ENGINE: "vllm", Resource.VERSION: "8"})
    recorder.submit(RequestRecord(b"t" * 16, b"s" * 8, 1, 2, "GET", "/*", Outcome.OK), lambda: None)
    assert await asyncio.to_thread(recorder.close)
    assert done.is_set()
    (group,) = ExportTraceServiceRequest.FromString(bodies[0]).resource_spans
    assert {a.key: a.value.string_value for a in group.resource.attributes} == {
        Resource.ENGINE: "vllm",
        Resource.VERSION: "7",
    }
