"""The writer's jobs, each by itself: schema, settling, files, pace, health."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collector.config import CollectorConfig
from collector.ledger import Ledger
from collector.log.segment import Segment
from collector.writing import backoff, pace, reaper, settle_keeper
from collector.writing.health import Health
from collector.writing.pace import Pace
from collector.writing.reaper import Reaper
from collector.writing.schema_keeper import SchemaKeeper
from collector.writing.settle_keeper import SettleKeeper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

SOON = 30


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "pause", lambda _: 0.01)


@asynccontextmanager
async def running(work: Callable[[], Awaitable[None]]) -> AsyncIterator[asyncio.Task[None]]:
    task: asyncio.Task[None] = asyncio.ensure_future(work())  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(SOON):
            yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


class Tried:
    """Something that fails as often as it is told, and is counted."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.times: list[float] = []

    def __call__(self) -> None:
        self.times.append(time.monotonic())
        if self.failures:
            raise self.failures.pop(0)


def segment(name: str = "a", size: int = 10) -> Segment:
    return Segment(name, "traces", Path(name), size, 1, 1, 0.0)


async def test_the_schema_is_tried_for_until_it_is_there():
    migrate, brought = Tried(OSError("away"), ValueError("odd")), Tried()
    health = Health(Ledger())
    keeper = SchemaKeeper(migrate, health, brought)
    async with running(keeper.run):
        await keeper.there()
        assert (len(migrate.times), len(brought.times), health.errors) == (3, 1, {})


async def test_nobody_inserts_while_the_schema_can_not_be_brought():
    health = Health(Ledger())
    keeper = SchemaKeeper(Tried(*[OSError("away")] * 1000), health, lambda: None)
    waiting = asyncio.create_task(keeper.there())
    async with running(keeper.run):
        await until(lambda: bool(health.errors))
        assert health.errors == {"schema": "OSError: away"}
        assert health.blocked
        assert not waiting.done()
    waiting.cancel()


async def test_a_schema_that_the_store_lost_is_brought_again():
    migrate, brought = Tried(), Tried()
    keeper = SchemaKeeper(migrate, Health(Ledger()), brought)
    async with running(keeper.run):
        await keeper.there()
        keeper.missing()
        waiting = asyncio.create_task(keeper.there())
        await asyncio.sleep(0)
        assert not waiting.done()
        await waiting
        assert (len(migrate.times), len(brought.times)) == (2, 2)


def settling(settle: Callable[[], object], wait: float = 0.01) -> SettleKeeper:
    ledger = Ledger()
    return SettleKeeper(settle, wait, Health(ledger), ledger)


async def test_it_counts_as_settled_once_a_settling_began_after_the_insert():
    settle = Tried()
    keeper = settling(settle)
    assert keeper.settled
    keeper.inserted("traces", time.time())
    assert not keeper.settled
    async with running(keeper.run):
        await until(lambda: keeper.settled)
    assert len(settle.times) == 1


async def test_what_was_inserted_during_a_settling_is_settled_in_the_next():
    inside, may = threading.Event(), threading.Event()

    def settle() -> None:
        inside.set()
        assert may.wait(SOON)

    keeper = settling(settle)
    keeper.inserted("traces", time.time())
    async with running(keeper.run):
        await until(inside.is_set)
        keeper.inserted("traces", time.time())
        inside.clear()
        may.set()
        await until(inside.is_set)
        await until(lambda: keeper.settled)


async def test_a_settling_that_failed_is_repeated_and_told_till_then():
    settle = Tried(OSError("away"), OSError("away"))
    ledger = Ledger()
    health = Health(ledger)
    keeper = SettleKeeper(settle, 0.01, health, ledger)
    keeper.look()
    async with running(keeper.run):
        await until(lambda: keeper.last_settle is not None)
    assert (len(settle.times), health.errors) == (3, {})
    assert "settle_errors_total 2.0" in ledger.page().decode()


async def test_samples_want_no_settling_and_who_is_in_a_hurry_does_not_wait():
    settle = Tried()
    keeper = settling(settle, wait=3600)
    keeper.inserted("metrics", time.time())
    assert (keeper.last_traces, keeper.settled) == (None, True)
    keeper.inserted("logs", time.time())
    async with running(keeper.run):
        await asyncio.sleep(0.05)
        assert not settle.times
        keeper.hurry()
        await until(lambda: keeper.settled)


async def test_what_a_probe_told_is_looked_at_once_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(settle_keeper, "LATE_LOOK_SECONDS", 0.05)
    settle = Tried()
    keeper = settling(settle)
    keeper.inserted("logs", time.time())
    async with running(keeper.run):
        await until(lambda: len(settle.times) == 2)
        await asyncio.sleep(0.3)
        assert len(settle.times) == 2


class Files:
    """Deletes as it is told."""

    def __init__(self) -> None:
        self.gone: list[str] = []
        self.error: OSError | None = None

    async def unlink(self, segments: Sequence[Segment]) -> None:
        if self.error is not None:
            raise self.error
        self.gone += [one.id for one in segments]


async def test_files_go_at_once_where_the_store_answers_for_its_disk():
    files = Files()
    work = Reaper(files.unlink, None)
    async with running(work.run):
        work.add(segment("a"))
        await until(lambda: files.gone == ["a"])


async def test_one_sync_is_for_many_segments_and_for_few_that_are_large(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reaper, "KEEP_SECONDS", 0.2)
    files, sync = Files(), Tried()
    work = Reaper(files.unlink, sync)
    async with running(work.run):
        work.add(segment("a"))
        await asyncio.sleep(0.02)
        work.add(segment("b"))
        assert not sync.times
        await until(lambda: files.gone == ["a", "b"])
        assert len(sync.times) == 1
        monkeypatch.setattr(reaper, "KEEP_SECONDS", 3600)
        work.add(segment("c", reaper.KEEP_BYTES))
        await until(lambda: files.gone == ["a", "b", "c"])


@pytest.mark.parametrize("what", ["sync", "unlink"])
async def test_files_that_can_not_go_are_kept_for_the_next_time(what: str):
    error = OSError(errno.EIO, "Input/output error")
    files, sync = Files(), Tried(*[error] if what == "sync" else [])
    files.error = error if what == "unlink" else None
    work = Reaper(files.unlink, sync)
    work.add(segment("a"))
    await work.release()
    assert files.gone == []
    files.error = None
    work.add(segment("b"))
    await work.release()
    assert files.gone == ["a", "b"]


async def test_a_release_that_is_cut_off_loses_no_file():
    inside, may = threading.Event(), threading.Event()

    def sync() -> None:
        inside.set()
        assert may.wait(SOON)

    files = Files()
    work = Reaper(files.unlink, sync)
    work.add(segment("a"))
    async with running(work.release):
        await until(inside.is_set)
    may.set()
    assert files.gone == []
    await work.release()
    assert files.gone == ["a"]


class Waiting:
    """A log with segments that nobody takes out but the test."""

    def __init__(self) -> None:
        self.quiet = 0.0
        self.bytes = 300 << 10
        self.open = [segment("open")]
        self.cut = [segment("cut")]
        self.reconsidered = 0

    def quiet_seconds(self, signal: str) -> float:
        assert signal == "traces"
        return self.quiet

    def open_bytes(self, signal: str) -> int:
        assert signal == "metrics"
        return self.bytes

    def reconsider(self) -> None:
        self.reconsidered += 1

    def sealed(self) -> list[Segment]:
        return list(self.cut)

    async def seal(self, signal: str) -> None:
        assert signal == "traces"
        self.cut += self.open
        self.open = []


def paced() -> tuple[Pace, Waiting, Health]:
    log, health = Waiting(), Health(Ledger())
    config = CollectorConfig(seal_seconds=2, quiet_seal_seconds=5, unasked_seal_seconds=30)
    return Pace(log, health, config), log, health


def test_a_segment_gets_older_the_fewer_wait_for_it():
    given, log, _ = paced()
    assert [given.seal_seconds(signal) for signal in ("traces", "metrics", "logs")] == [2, 2, 2]
    log.quiet = 21
    assert [given.seal_seconds(signal) for signal in ("traces", "metrics", "logs")] == [2, 5, 5]
    given.hold_back("metrics", allowed=True)
    given.hold_back("metrics", allowed=True)
    assert [given.seal_seconds(signal) for signal in ("traces", "metrics", "logs")] == [2, 30, 5]
    assert not given.unhurried
    for signal in ("traces", "logs"):
        given.hold_back(signal, allowed=True)
    assert [given.seal_seconds(signal) for signal in ("traces", "metrics", "logs")] == [30, 30, 30]
    assert given.unhurried
    given.hold_back("traces", allowed=False)
    assert given.seal_seconds("traces") == 2
    assert log.reconsidered == 4


def test_few_metrics_that_nobody_wants_wait_longest():
    given, log, _ = paced()
    log.bytes = 100 << 10
    assert given.seal_seconds("metrics") == 2
    for signal in ("traces", "metrics", "logs"):
        given.hold_back(signal, allowed=True)
    assert [given.seal_seconds(signal) for signal in ("traces", "metrics", "logs")] == [30, 120, 30]
    log.bytes = 250 << 10  # before it is too large for the way of small ones
    assert given.seal_seconds("metrics") == 30


async def test_nobody_reads_where_no_signal_was_wanted_for_a_while(monkeypatch: pytest.MonkeyPatch):
    now = [1000.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    given, log, _ = paced()
    now[0] += 31
    assert not given.unread  # whoever reads may not be heard
    for signal in ("traces", "metrics", "logs"):
        given.hold_back(signal, allowed=True)
    assert given.unread
    assert given.call_seconds == 2
    log.cut = log.open = []
    await given.wanted("traces")
    assert not given.unread
    assert given.call_seconds == 1  # what senders gathered for nobody is older
    now[0] += 5
    assert given.call_seconds == 2
    now[0] += 20
    await given.wanted("traces")
    assert given.call_seconds == 2
    now[0] += 31
    assert given.unread
    await given.bring_in("traces")  # for itself
    assert given.unread


async def test_who_brings_in_waits_for_all_that_was_there_and_nothing_more():
    given, log, health = paced()
    async with running(partial(given.bring_in, "traces")) as work:
        await asyncio.sleep(0.01)
        log.cut += [segment("later")]
        log.cut.pop(0)
        health.well("traces")
        await asyncio.sleep(0.01)
        assert not work.done()
        log.cut.pop(0)
        health.well("traces")
        await work
    assert [one.id for one in log.cut] == ["later"]


async def test_who_brings_in_waits_neither_for_trouble_nor_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pace, "BRING_IN_SECONDS", 3600)
    given, _, health = paced()
    async with running(partial(given.bring_in, "traces")) as work:
        await asyncio.sleep(0.01)
        health.trouble("metrics", "insert_failed", OSError("away"))
        await work
    health.well("metrics")
    monkeypatch.setattr(pace, "BRING_IN_SECONDS", 0.05)
    async with asyncio.timeout(SOON):
        await given.bring_in("traces")


def test_each_trouble_is_told_until_it_goes_well():
    ledger = Ledger()
    health = Health(ledger)
    health.trouble("settle", "settle_failed", ValueError("x" * 1000))
    assert not health.blocked
    assert health.errors["settle"] == "ValueError: " + "x" * 300
    health.trouble("logs", "insert_failed", OSError("away"))
    assert health.blocked
    assert _up(ledger) == {"traces": 1.0, "metrics": 1.0, "logs": 0.0, "store": 0.0}
    health.trouble("schema", "migrate_failed", OSError("away"))
    health.well("logs")
    assert _up(ledger) == {"traces": 0.0, "metrics": 0.0, "logs": 0.0, "store": 0.0}
    health.well("schema")
    assert not health.blocked
    assert _up(ledger) == {"traces": 1.0, "metrics": 1.0, "logs": 1.0, "store": 1.0}


def _up(ledger: Ledger) -> dict[str, float]:
    found = {
        sample.labels["signal"]: sample.value
        for family in ledger.registry.collect()
        for sample in family.samples
        if sample.name == "servescope_collector_signal_up"
    }
    return found | {"store": ledger.registry.get_sample_value("servescope_collector_store_up") or 0.0}
