"""KV cache events of a real ZeroMQ publisher: what a source makes of them."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import zmq
import zmq.asyncio
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from agent.source import Overheard
from agent.sources import kv_events
from agent.sources.kv_events import KvCacheEvents
from agent.sources.metrics_page import MetricsPages
from agent.target import KvEvents, Target
from tests.kits.kv_events import PAGE, SECRET, batch, removed, stored
from tests.kits.zmq_publisher import Publisher, context, needs_libraries, refused, running, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@given(frames=st.lists(st.binary(max_size=12), max_size=5))
def test_whatever_frames_come_no_more_is_lost_than_numbers_say(frames: list[bytes]):
    one = kv_events.Publisher(KvEvents("tcp://127.0.0.1:1"), 0)
    asyncio.run(one.take(frames, None))
    assert one.counts.lost == 0
    assert one.counts.batches + one.counts.unread >= 1


class Publishing(Publisher):
    """What publishes: numbered batches and, as vLLM has it, a ROUTER that keeps the last of them."""

    def __init__(self, context: zmq.asyncio.Context, keeps: int = 100, port: int = 0) -> None:
        super().__init__(context, f"tcp://127.0.0.1:{port or '*'}", b"kv-events")
        self.router = context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.LINGER, 0)
        self.router.bind("tcp://127.0.0.1:*")
        self.replay_endpoint = self.router.getsockopt_string(zmq.LAST_ENDPOINT)
        self.kept: deque[tuple[int, bytes]] = deque(maxlen=keeps)
        self.asked: list[int] = []
        self.serving = asyncio.create_task(self._serve())

    async def publish(self, *events: object, heard: bool = True) -> None:
        payload = batch(*events)
        self.kept.append((self.number, payload))
        await self.send(payload, heard=heard)

    async def _serve(self) -> None:
        while True:
            client, _, first = await self.router.recv_multipart()
            self.asked.append(int.from_bytes(first, "big"))
            for number, payload in list(self.kept):
                if number >= self.asked[-1]:
                    await self.router.send_multipart([client, b"", number.to_bytes(8, "big"), payload])
            await self.router.send_multipart([client, b"", (-1).to_bytes(8, "big", signed=True), b""])

    async def end(self) -> None:
        self.serving.cancel()
        await asyncio.gather(self.serving, return_exceptions=True)
        self.pub.close(0)
        self.router.close(0)


@asynccontextmanager
async def publishing(**options: Any) -> AsyncIterator[Publishing]:
    async with context() as sockets:
        made = Publishing(sockets, **options)
        try:
            yield made
        finally:
            await made.end()


@asynccontextmanager
async def listening(settings: KvEvents) -> AsyncIterator[tuple[KvCacheEvents, Overheard]]:
    overheard = Overheard()
    source = KvCacheEvents([Target("v", "chat", "vllm", kv_events=settings)], overheard)
    async with running(source):
        yield source, overheard


def only(source: KvCacheEvents) -> kv_events.Publisher:
    return source._publishers["v"][0]


async def connected(source: KvCacheEvents, publisher: Publishing) -> None:
    """Until the subscription has arrived too: of what is published before, nobody hears."""
    await until(lambda: only(source).connected)
    counts = only(source).counts
    while not counts.batches:
        await publisher.publish()
        await asyncio.sleep(0.02)


async def test_what_a_publisher_tells_stands_on_the_servers_page():
    async with publishing() as publisher, listening(KvEvents(publisher.endpoint, topic="kv")) as (source, overheard):
        await connected(source, publisher)
        for _ in range(5):
            await publisher.publish(stored(2), removed(1), stored(1, "CPU"))
        await until(lambda: only(source).counts.stored["device"] == 10)
        told = overheard.beside["v"]("engine").decode()
        assert 'servescope_kv_blocks_stored_total{engine="0",tier="device"} 10\n' in told
        assert 'servescope_kv_blocks_removed_total{engine="0",tier="device"} 5\n' in told
        assert 'servescope_kv_blocks_stored_total{engine="0",tier="host"} 5\n' in told
        assert str(SECRET) not in told
        assert list(source.problems(100.0, 0.0)) == []
        assert source.seen()["kv_events"]["v"] > 0
        source.forget([Target("v", "chat")])
        assert overheard.beside == {}


async def test_missed_batches_are_asked_for_again():
    async with publishing() as publisher:
        async with listening(KvEvents(publisher.endpoint, publisher.replay_endpoint)) as (source, _):
            await connected(source, publisher)
            missed = publisher.number
            for _ in range(3):
                await publisher.publish(stored(7), heard=False)
            await publisher.publish(stored(1))
            await until(lambda: only(source).counts.stored["device"] == 22)
            await publisher.publish(stored(1))
            await until(lambda: only(source).counts.stored["device"] == 23)
            assert (only(source).counts.replayed, only(source).counts.lost) == (3, 0)
        assert publisher.asked == [missed]


async def test_what_is_kept_nowhere_is_lost_and_counted():
    async with publishing(keeps=2) as publisher:
        async with listening(KvEvents(publisher.endpoint, publisher.replay_endpoint)) as (source, _):
            await connected(source, publisher)
            for _ in range(4):
                await publisher.publish(stored(7), heard=False)
            await publisher.publish(stored(1))
            await until(lambda: only(source).counts.stored["device"])
            assert (only(source).counts.replayed, only(source).counts.lost) == (1, 3)
            families = {tuple(one.labels.values()): one.value for one in source.metrics()[0].samples}
            assert families["v", "lost"] == 3
        async with listening(KvEvents(publisher.endpoint)) as (source, _):
            await connected(source, publisher)
            await publisher.publish(stored(7), heard=False)
            await publisher.publish(stored(1))
            await until(lambda: only(source).counts.stored["device"])
            assert only(source).counts.lost == 1


async def test_a_replay_that_does_not_answer_holds_up_for_its_time_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kv_events, "REPLAY_SECONDS", 0.2)
    async with publishing() as publisher:
        publisher.serving.cancel()
        async with listening(KvEvents(publisher.endpoint, publisher.replay_endpoint)) as (source, _):
            await connected(source, publisher)
            await publisher.publish(heard=False)
            await publisher.publish(stored(1))
            await until(lambda: only(source).counts.stored["device"])
            assert only(source).counts.lost == 1


async def test_a_publisher_that_was_started_again_counts_from_0():
    async with publishing() as publisher:
        port = int(publisher.endpoint.rpartition(":")[2])
        async with listening(KvEvents(publisher.endpoint)) as (source, overheard):
            await connected(source, publisher)
            for _ in range(50):
                await publisher.publish(stored(1))
            await until(lambda: only(source).counts.stored["device"] == 50)
            await publisher.end()
            await until(lambda: not only(source).connected)
            assert overheard.beside["v"]("engine") == b"", "of one that is not there nothing is known"
            assert list(source.problems(100.0, 0.0)) == [
                f"nobody publishes KV cache events of v at {publisher.endpoint}"
            ]
            async with publishing(port=port) as again:
                await until(lambda: only(source).connected)
                assert overheard.beside["v"]("engine") == b"", "nor whether it is the same"
                while only(source).counts.stored["device"] in {0, 50}:
                    await again.publish(stored(1))
                    await asyncio.sleep(0.02)
                counts = only(source).counts
                assert counts.stored["device"] + counts.lost <= again.number < 50
                assert b'_stored_total{engine="0",tier="device"}' in overheard.beside["v"]("engine")
                families = {tuple(one.labels.values()): one.value for one in source.metrics()[0].samples}
                assert families["v", "read"] > 50, "the agent's own counters go on"


async def test_each_rank_has_a_publisher_on_a_port_of_its_own():
    settings = KvEvents("tcp://127.0.0.1:5557", "tcp://127.0.0.1:6557", data_parallel_size=3)
    made = [kv_events.Publisher(settings, rank) for rank in range(3)]
    assert [(one.endpoint, one.replay_endpoint) for one in made][::2] == [
        ("tcp://127.0.0.1:5557", "tcp://127.0.0.1:6557"), ("tcp://127.0.0.1:5559", "tcp://127.0.0.1:6559"),
    ]  # fmt: skip


async def test_pages_take_the_counts_along(monkeypatch: pytest.MonkeyPatch):
    told: Counter[str] = Counter()

    def keep(signal: str, body: bytes) -> None:
        for one in ExportMetricsServiceRequest.FromString(body).resource_metrics if signal == "metrics" else ():
            for metric in one.scope_metrics[0].metrics:
                if metric.name in {"kv_blocks_stored_device_delta", "kv_blocks_removed_device_delta"}:
                    told[metric.name] += int(metric.sum.data_points[0].as_double)

    async def fetched(*_: object) -> bytes:
        return PAGE

    monkeypatch.setattr("agent.pages.search.fetch", fetched)
    async with publishing() as publisher, listening(KvEvents(publisher.endpoint)) as (source, overheard):
        bodies: list[bytes] = []
        overheard.pages.append(lambda page: bodies.append(page.body or b""))
        pages = MetricsPages([Target("v", "chat", "vllm", "http://127.0.0.1:9")], interval_seconds=0.05,
                             overheard=overheard)  # fmt: skip
        task = asyncio.create_task(pages.run(keep))
        await until(lambda: bodies)
        await connected(source, publisher)
        for _ in range(10):
            await publisher.publish(stored(3), removed(2))
        await until(lambda: told["kv_blocks_removed_device_delta"] == 20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert told["kv_blocks_stored_device_delta"] == 30
    assert b"servescope_kv_blocks_stored_total" in bodies[-1], "what is recorded and played again"
    assert str(SECRET).encode() not in bodies[-1]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"endpoint": "tcp://*:5557"}, "endpoint: must be tcp://host:port"),
        ({"endpoint": "http://h:1"}, "endpoint: must be tcp://host:port"),
        ({"endpoint": "tcp://h:70000"}, "endpoint: has no port"),
        ({"endpoint": "ipc:///run/kv", "data_parallel_size": 2}, "where data_parallel_size is above 1"),
        ({"endpoint": "tcp://h:1", "replay_endpoint": "h:2"}, "replay_endpoint: must be"),
        ({}, "endpoint"),
    ],
)
def test_an_address_that_is_none_is_named(given: dict[str, object], told: str, tmp_path: Path):
    refused("kv_events", given, told, tmp_path)


def test_without_the_libraries_the_fix_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    needs_libraries(kv_events, "kv_events", monkeypatch, tmp_path)
