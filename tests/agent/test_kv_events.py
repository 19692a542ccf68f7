"""KV cache events of a real ZeroMQ publisher, laid out as vLLM lays them out."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections import Counter, deque
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import zmq
import zmq.asyncio
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from agent import kv_wire
from agent.config import AgentConfig
from agent.engine_table import find_table
from agent.kv_events import Counts, page_lines, tier_of
from agent.pages import lines
from agent.pages.page import PageReader
from agent.pages.samples import Sampler
from agent.source import Overheard, Scene
from agent.sources import kv_events
from agent.sources.kv_events import KvCacheEvents
from agent.sources.metrics_page import MetricsPages
from agent.target import KvEvents, Place, Target
from base.errors import ConfigError
from base.vocabulary import Signal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PAGE = gzip.decompress((Path(__file__).parents[1] / "fixtures/vllm/metrics_busy_04.txt.gz").read_bytes())
SECRET = 770_077_007
"""Token id and hash that nothing may keep."""
SOON = 20.0


def stored(blocks: int, medium: str | None = "GPU") -> dict[str, Any]:
    return {
        "type": "BlockStored", "block_hashes": [SECRET] * blocks, "parent_block_hash": None,
        "token_ids": [SECRET] * 16 * blocks, "block_size": 16, "lora_id": None, "medium": medium, "lora_name": None,
        "extra_keys": [None] * blocks, "group_idx": 0, "kv_cache_spec_kind": "full_attention",
    }  # fmt: skip


def removed(blocks: int, medium: str | None = "GPU") -> dict[str, Any]:
    return {"type": "BlockRemoved", "block_hashes": [b"\x00" * 32] * blocks, "medium": medium, "group_idx": 0}


CLEARED = {"type": "AllBlocksCleared"}


def as_array(event: dict[str, Any]) -> list[Any]:
    """The same as a publisher of up to 0.23 lays it out."""
    return list(event.values())


def batch(*events: object, rank: int | None = 0) -> bytes:
    return msgspec.msgpack.encode([1795954647.5, list(events), rank])


def counted(payload: bytes) -> Counts:
    counts = Counts("0")
    kv_wire.add(payload, counts)
    return counts


EVENTS = (stored(3), removed(2), stored(5, "CPU"), removed(1, "CPU"), stored(1, "disk"), CLEARED)


@pytest.mark.parametrize(
    "payload",
    [
        batch(*EVENTS, rank=3),
        batch(*map(as_array, EVENTS), rank=3),
        msgspec.msgpack.encode({"ts": 1.5, "events": list(EVENTS), "data_parallel_rank": 3}),
    ],
    ids=["maps", "arrays", "all maps"],
)
def test_blocks_are_counted_by_where_they_lie(payload: bytes):
    counts = counted(payload)
    assert counts.stored == {"device": 3, "host": 5, "other": 1}
    assert counts.removed == {"device": 2, "host": 1}
    assert (counts.clears, counts.batches, counts.unread, counts.rank) == (1, 1, 0, "3")


def test_publishers_of_one_medium_named_none():
    assert counted(batch(["BlockStored", [1, 2], None, [3], 16, None], ["BlockRemoved", [1]])).stored == {"device": 2}
    assert counted(batch({"type": "BlockRemoved", "block_hashes": [1]}, rank=None)).removed == {"device": 1}
    assert counted(msgspec.msgpack.encode([1.0, [as_array(CLEARED)]])).clears == 1
    assert [tier_of(one) for one in (None, "gpu", "CPU_PINNED", "EXTERNAL")] == ["device", "device", "host", "other"]


def test_an_event_that_cannot_be_read_spoils_no_other():
    counts = counted(batch(stored(1), {"type": "BlockMoved"}, 5, ["BlockStored"], {"no": "type"}, [], removed(4)))
    assert (counts.stored["device"], counts.removed["device"], counts.unread) == (1, 4, 5)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["type", "block_hashes", "medium"]), inner)
    ),
    max_leaves=8,
)


@given(st.binary() | ANY.map(msgspec.msgpack.encode))
def test_whatever_comes_is_counted_or_unread(payload: bytes):
    counts = counted(payload)
    assert counts.batches + counts.unread >= 1


@given(st.lists(ANY))
def test_whatever_events_a_batch_has_it_is_a_batch(events: list[Any]):
    counts = counted(batch(*events))
    assert counts.batches == 1
    assert counts.unread <= len(events)


def test_a_deep_message_is_unread():
    assert counted(b"\x91" * 100_000).unread == 1
    assert counted(b"\x93\x00" + b"\x91" * 100_000).unread == 1


@given(frames=st.lists(st.binary(max_size=12), max_size=5))
def test_whatever_frames_come_no_more_is_lost_than_numbers_say(frames: list[bytes]):
    one = kv_events.Publisher(KvEvents("tcp://127.0.0.1:1"), 0)
    asyncio.run(one.take(frames, None))
    assert one.counts.lost == 0
    assert one.counts.batches + one.counts.unread >= 1


class Publishing:
    """What publishes: PUB with numbered batches and, as vLLM has it, a ROUTER that keeps the last of them."""

    def __init__(self, context: zmq.asyncio.Context, keeps: int = 100, port: int = 0) -> None:
        self.pub, self.router = context.socket(zmq.PUB), context.socket(zmq.ROUTER)
        for socket in (self.pub, self.router):
            socket.setsockopt(zmq.LINGER, 0)
        self.pub.bind(f"tcp://127.0.0.1:{port or '*'}")
        self.router.bind("tcp://127.0.0.1:*")
        self.endpoint = self.pub.getsockopt_string(zmq.LAST_ENDPOINT)
        self.replay_endpoint = self.router.getsockopt_string(zmq.LAST_ENDPOINT)
        self.kept: deque[tuple[int, bytes]] = deque(maxlen=keeps)
        self.number = 0
        self.asked: list[int] = []
        self.serving = asyncio.create_task(self._serve())

    async def publish(self, *events: object, heard: bool = True) -> None:
        payload = batch(*events)
        self.kept.append((self.number, payload))
        if heard:
            await self.pub.send_multipart([b"kv-events", self.number.to_bytes(8, "big"), payload])
        self.number += 1

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
    context = zmq.asyncio.Context()
    made = Publishing(context, **options)
    try:
        yield made
    finally:
        await made.end()
        context.destroy(0)


@asynccontextmanager
async def listening(settings: KvEvents) -> AsyncIterator[tuple[KvCacheEvents, Overheard]]:
    overheard = Overheard()
    source = KvCacheEvents([Target("v", "chat", "vllm", kv_events=settings)], overheard)
    task = asyncio.create_task(source.run(lambda _signal, _body: None))
    try:
        yield source, overheard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 - the state is of several tasks
            await asyncio.sleep(0.01)


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


def samples_of(*told: list[Counts]) -> list[dict[str, dict[Signal, float]]]:
    """Of each page, increases by rank; of a page without ranks under ""."""
    reader, sampler = PageReader(), Sampler(find_table("vllm"))
    pages = [reader.read(lines.after(PAGE, page_lines(counts, "engine"))) for counts in told]
    return [{one.key.dp_rank: dict(one.deltas) for one in sampler.sample(page).samples} for page in pages]


def test_counts_are_part_of_the_engines_own_sample():
    one, more = Counts("0"), Counts("0")
    one.stored["device"] = 4
    more.stored["device"], more.removed["device"], more.clears = 9, 2, 1
    before, first, second = samples_of([], [one], [more])
    assert list(before) == list(first) == list(second) == ["0"], "no sample of their own"
    assert first["0"][Signal.KV_BLOCKS_STORED_DEVICE_TOTAL] == 4
    assert second["0"][Signal.KV_BLOCKS_STORED_DEVICE_TOTAL] == 5
    assert second["0"][Signal.KV_BLOCKS_REMOVED_DEVICE_TOTAL] == 2
    assert second["0"][Signal.KV_CACHE_CLEARS_TOTAL] == 1


def test_a_rank_that_no_page_knows_makes_no_sample_either():
    one = Counts("7")
    one.stored["device"] = 4
    before, after = samples_of([], [one])
    assert list(before) == list(after) == ["0"]
    assert after["0"][Signal.KV_BLOCKS_STORED_DEVICE_TOTAL] == 4


async def test_pages_take_the_counts_along(monkeypatch: pytest.MonkeyPatch):
    told: Counter[str] = Counter()

    def keep(signal: str, body: bytes) -> None:
        for one in ExportMetricsServiceRequest.FromString(body).resource_metrics if signal == "metrics" else ():
            for metric in one.scope_metrics[0].metrics:
                if metric.name in {"kv_blocks_stored_device_delta", "kv_blocks_removed_device_delta"}:
                    told[metric.name] += int(metric.sum.data_points[0].as_double)

    async def fetched(*_: object) -> bytes:
        return PAGE

    monkeypatch.setattr("agent.pages.watch.fetch", fetched)
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
    from agent.config import load  # noqa: PLC0415

    target = {"instance": "v", "url": "http://h:1", "kv_events": given}
    (tmp_path / "c.yaml").write_text(json.dumps({"agent": {"targets": [target]}}))
    with pytest.raises(ConfigError, match=re.escape(told)):
        load(tmp_path / "c.yaml", {})


def test_without_the_libraries_the_fix_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    target = {"instance": "v", "url": "http://h:1", "kv_events": {"endpoint": "tcp://h:1"}}
    config = AgentConfig.model_validate({"targets": [target]})
    targets = [one.target() for one in config.targets]
    scene = Scene(config, Place(), targets, lambda _instance: None, tmp_path)
    assert kv_events.source(scene) is not None
    monkeypatch.setattr(kv_events, "available", lambda: False)
    with pytest.raises(ConfigError, match=r"servescope\[kv-events\]"):
        kv_events.source(scene)
