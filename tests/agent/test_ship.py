from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from agent.backoff import Backoff
from agent.clock_offset import ClockOffset
from agent.gathering import UNREAD_SECONDS
from agent.ship import Shipper, retry_after_seconds
from agent.spool.framing import FOOTER_BYTES
from agent.spool.reader import Lane, SpoolReader
from agent.spool.writer import SpoolWriter
from base import signing
from tests.kits.agent_fakes import FakeCollector, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEY = b"k" * 32


@asynccontextmanager
async def shipping(spool: Path, url: str, *, key: bytes | None = None) -> AsyncIterator[Shipper]:
    reader = SpoolReader(spool)
    shipper = Shipper(reader, url, key=key, flush_seconds=0.02, longest_wait_seconds=0.1)
    task = asyncio.create_task(shipper.run())
    try:
        yield shipper
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        reader.close()


async def test_every_record_arrives_signed_and_under_its_signal(tmp_path: Path):
    writer = SpoolWriter(tmp_path / "agent")
    writer.append("traces", b"t1")
    writer.append("metrics", b"m1")
    writer.append("traces", b"t2")
    async with FakeCollector() as collector, shipping(tmp_path, collector.url, key=KEY):
        await until(lambda: bool(collector.accepted["traces"] and collector.accepted["metrics"]))
    assert (collector.merged("traces"), collector.merged("metrics")) == (b"t1t2", b"m1")
    for headers in collector.headers:
        raw = bytes.fromhex(headers["raw"])
        paths = ("/v1/traces", "/v1/metrics")
        keys = {signing.key_id(KEY): KEY}
        now = int(time.time() * 1000)
        assert any(signing.verify(keys, "POST", path, headers, raw, now_ms=now) is None for path in paths)


async def test_records_written_while_shipping_arrive_too(tmp_path: Path):
    writer = SpoolWriter(tmp_path / "tap-a", segment_bytes=100)
    async with FakeCollector() as collector, shipping(tmp_path, collector.url):
        for number in range(100):
            writer.append("traces", b"%03d;" % number)
            await asyncio.sleep(0)
        await until(lambda: len(collector.merged("traces")) == 400)
    assert sorted(collector.merged("traces").split(b";")[:-1]) == [b"%03d" % number for number in range(100)]


async def test_what_the_collector_says_of_readers_is_heeded(tmp_path: Path):
    writer = SpoolWriter(tmp_path / "agent")
    async with FakeCollector() as collector, shipping(tmp_path, collector.url) as shipper:
        said = {signing.HEADER_UNREAD: "1"}
        collector.answer = lambda *_: web.Response(headers=said)
        writer.append("traces", b"t1")
        await until(lambda: shipper._gathering.seconds == UNREAD_SECONDS)
        said.clear()
        writer.append("traces", b"t2")
        await until(lambda: shipper._gathering.seconds < UNREAD_SECONDS)
        assert shipper.stats.batches["traces"] == 2


async def test_lanes_look_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    turns: list[set[str]] = [set()]
    loop, lanes = asyncio.get_running_loop(), 4

    def look(lane: Lane) -> None:
        if not turns[-1]:  # all that is woken in this turn of the loop comes before
            loop.call_soon(turns.append, set())
        turns[-1].add(lane.producer)

    monkeypatch.setattr(Lane, "next_batch", look)
    reader = SpoolReader(tmp_path)
    shipper = Shipper(reader, "http://127.0.0.1:9", key=None, flush_seconds=0.2)
    for number in range(lanes):
        (tmp_path / f"tap-{number}" / "traces").mkdir(parents=True)
    first, *others = reader.lanes()
    async with shipper._session() as session:
        tasks = [asyncio.create_task(shipper._ship_lane(session, first))]
        for lane in others:
            await asyncio.sleep(0.03)
            tasks.append(asyncio.create_task(shipper._ship_lane(session, lane)))
        begun = len(turns)
        await until(lambda: sum(map(len, turns[begun:])) > 10 * lanes)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    reader.close()
    assert sum(len(turn) == lanes for turn in turns[begun:]) >= 5


async def test_a_retry_carries_the_same_bytes_and_id(tmp_path: Path):
    writer = SpoolWriter(tmp_path / "agent")
    async with FakeCollector(fail_share=0.5) as collector, shipping(tmp_path, collector.url) as shipper:
        for number in range(60):
            writer.append("logs", b"%02d;" % number)
            await asyncio.sleep(0.01)
        await until(lambda: len(collector.merged("logs")) == 180 and not shipper.reader.lanes()[0].pending_bytes())
    assert all(len(bodies) == 1 for bodies in collector.bodies.values())
    assert shipper.stats.errors["http_503"] > 0
    assert shipper.stats.last_error == ""


@pytest.mark.parametrize("status", [400, 413])
async def test_a_poisoned_record_is_set_aside_and_the_rest_goes_on(tmp_path: Path, status: int):
    writer = SpoolWriter(tmp_path / "agent")
    for body in (b"a", b"b", b"POISON", b"c", b"d"):
        writer.append("traces", body)

    def answer(_signal: str, body: bytes, _batch: str) -> web.Response | None:
        return web.Response(status=status, text="bad") if b"POISON" in body else None

    async with FakeCollector() as collector:
        collector.answer = answer
        async with shipping(tmp_path, collector.url) as shipper:
            await until(lambda: collector.merged("traces") == b"abcd")
            (lane,) = shipper.reader.lanes()
            await until(lambda: lane.pending_bytes() == 0)
    assert lane.dropped == {"rejected": 1}
    assert collector.requests < 12


async def test_retry_after_is_honoured(tmp_path: Path):
    SpoolWriter(tmp_path / "agent").append("traces", b"a")
    times: list[float] = []

    def answer(_signal: str, _body: bytes, _batch: str) -> web.Response | None:
        times.append(time.monotonic())
        return web.Response(status=429, headers={"Retry-After": "1"}) if len(times) == 1 else None

    async with FakeCollector() as collector:
        collector.answer = answer
        async with shipping(tmp_path, collector.url):
            await until(lambda: len(times) == 2)
    assert times[1] - times[0] >= 1.0


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_what_may_heal_is_kept_and_said(tmp_path: Path, status: int):
    SpoolWriter(tmp_path / "agent").append("traces", b"a")
    async with FakeCollector() as collector:
        collector.answer = lambda _signal, _body, _batch: web.Response(status=status, text="no\nway")
        async with shipping(tmp_path, collector.url) as shipper:
            await until(lambda: shipper.stats.errors[f"http_{status}"] >= 2)
            assert shipper.stats.last_error == f"{collector.url}: http_{status}: no way"
            collector.answer = lambda _signal, _body, _batch: None
            await until(lambda: collector.merged("traces") == b"a")


async def test_a_collector_that_is_not_there_is_waited_for(tmp_path: Path):
    SpoolWriter(tmp_path / "agent").append("traces", b"a")
    collector = FakeCollector()
    await collector.__aenter__()
    await collector.stop()
    async with shipping(tmp_path, collector.url) as shipper:
        await until(lambda: shipper.stats.errors["unreachable"] >= 2)
        await collector.start_again()
        await until(lambda: collector.merged("traces") == b"a")
    await collector.stop()


async def test_drain_sends_what_is_left_and_gives_up_in_time(tmp_path: Path):
    writer = SpoolWriter(tmp_path / "agent")
    writer.append("traces", b"a")
    reader = SpoolReader(tmp_path)
    async with FakeCollector() as collector:
        assert await Shipper(reader, collector.url, key=None).drain(20) == 0
        assert collector.merged("traces") == b"a"
        writer.append("traces", b"bc")
        collector.answer = lambda _signal, _body, _batch: web.Response(status=503)
        assert await Shipper(reader, collector.url, key=None).drain(0.3) == len(b"bc") + 1 + FOOTER_BYTES
    reader.close()


async def test_a_partial_success_is_counted(tmp_path: Path):
    SpoolWriter(tmp_path / "agent").append("traces", b"a")
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 3
    reader = SpoolReader(tmp_path)
    async with FakeCollector() as collector:
        collector.answer = lambda _signal, _body, _batch: web.Response(body=response.SerializeToString())
        shipper = Shipper(reader, collector.url, key=None)
        await shipper.drain(20)
    assert shipper.stats.partly_rejected == 3
    reader.close()


async def test_the_clock_offset_is_measured(tmp_path: Path):
    SpoolWriter(tmp_path / "agent").append("traces", b"a")
    reader = SpoolReader(tmp_path)
    async with FakeCollector() as collector:
        collector.skew_ns = 90_000_000_000
        shipper = Shipper(reader, collector.url, key=None)
        await shipper.drain(20)
    assert shipper.stats.clock_offset_seconds == pytest.approx(90, abs=5)
    reader.close()


async def test_a_lane_that_breaks_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    SpoolWriter(tmp_path / "agent").append("traces", b"a")
    real, calls = Lane.next_batch, []

    def broken_once(lane: Lane) -> object:
        calls.append(lane)
        if len(calls) == 1:
            raise RuntimeError("a fault of ours")
        return real(lane)

    monkeypatch.setattr(Lane, "next_batch", broken_once)
    async with FakeCollector() as collector, shipping(tmp_path, collector.url) as shipper:
        await until(lambda: collector.merged("traces") == b"a")
    assert shipper.stats.errors["lane"] == 1


def test_the_shortest_round_trip_is_believed():
    offset = ClockOffset()
    assert offset.add(0, 2_000_000_000, 1_500_000_000) == 0.5
    assert offset.add(0, 1_000_000, 100_500_000) == pytest.approx(0.1)
    assert offset.add(0, 9_000_000_000, 0) == pytest.approx(0.1)


def test_backoff_grows_is_bounded_and_begins_anew():
    backoff = Backoff(first=1.0, longest=8.0)
    bounds = [max(0.0, backoff.failed()) for _ in range(50)]
    assert max(bounds) <= 8.0
    assert bounds[0] <= 1.0
    assert len(set(bounds)) > 40, "full jitter"
    assert backoff.failed(at_least=100.0) >= 100.0
    backoff.succeeded()
    assert backoff.failed() <= 1.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", 0.0),
        ("99999", 300.0),
        ("", 0.0),
        ("soon", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
    ],
)
def test_retry_after_takes_seconds_and_dates(value: str, seconds: float):
    assert retry_after_seconds(value, now=60.0) == seconds
