"""The way into the store, with a store that behaves as it is told."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector import framing
from collector.config import CollectorConfig
from collector.journal import Journal, identity
from collector.ledger import Ledger
from collector.log.write_ahead import WriteAheadLog
from collector.quarantine import Quarantine
from collector.server import problems
from collector.store.client import StoreError, StoreUnavailable
from collector.writing import backoff, pace, settle_keeper
from collector.writing.writer import Writer
from tests.kits.collector_process import spans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

POISON = b"\xba\x3e\x06poison"  # an unknown field to upb
STUBBORN = b"stubborn"


class FakeStore:
    """Keeps rows by token as the engine does: a token seen before brings nothing."""

    def __init__(self) -> None:
        self.taken: dict[str, list[bytes]] = {}
        self.calls: list[str] = []
        self.failures: list[Exception] = []
        self.broken: dict[str, Exception] = {}
        self.readable: Callable[[bytes], bool] = lambda _: True

    def insert_segment(self, table: str, segment: Path | bytes, token: str) -> None:
        assert not isinstance(segment, bytes)
        assert table.startswith("land_")
        self.calls.append(token)
        if table in self.broken:
            raise self.broken[table]
        if self.failures:
            raise self.failures.pop(0)
        with segment.open("rb") as file:
            messages = [frame.message for frame in framing.read(file)]
        if not all(self.readable(message) for message in messages):
            raise StoreError(444, "UNKNOWN_PROTOBUF_FORMAT", "wrong wire type")
        self.taken.setdefault(token, messages)

    def names(self) -> list[str]:
        requests = (ExportTraceServiceRequest.FromString(m) for batch in self.taken.values() for m in batch)
        return sorted(s.name for r in requests for g in r.resource_spans for sc in g.scope_spans for s in sc.spans)


class Bench:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.journal = Journal(folder / "journal")
        self.log = WriteAheadLog(folder, self.journal, max_bytes=1 << 24, seal_bytes=1 << 20)
        self.store = FakeStore()
        self.ledger = Ledger()
        self.migrations: list[Exception] = []
        self.migrated = 0
        self.settled = asyncio.Event()
        self.synced = 0
        config = CollectorConfig(seal_seconds=0.05, quiet_seal_seconds=0.05, settle_seconds=0.1)
        self.writer = Writer(
            self.log,
            self.store,
            self.ledger,
            Quarantine(folder / "quarantine", max_bytes=settings.get("quarantine_max_bytes", 1 << 20)),
            config,
            migrate=self._migrate,
            settle=lambda: self.settle(),  # noqa: PLW0108 - tests put others in its place
            make_durable=lambda: self.sync(),  # noqa: PLW0108 - likewise
        )
        self.loop = asyncio.get_running_loop()
        self.log.start()
        self.work = asyncio.create_task(self.writer.run())

    def _migrate(self) -> None:
        if self.migrations:
            raise self.migrations.pop(0)
        self.migrated += 1

    def sync(self) -> None:
        self.synced += 1

    def settle(self) -> None:
        self.loop.call_soon_threadsafe(self.settled.set)

    async def give(self, body: bytes, records: int = 1, signal: str = "traces") -> None:
        digest = identity(signal, body)
        await self.log.append(
            signal, framing.encode(body, records=records, digest=digest, received_ns=1), records, digest
        )
        self.ledger.received(signal, records, len(body))

    async def drained(self) -> dict[str, int]:
        async with asyncio.timeout(60):
            while self.log.segments():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        books = self.ledger.books(self.log)["traces"]
        assert books["balance"] == 0
        return books


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(backoff, "pause", lambda _: 0.01)
    made = Bench(tmp_path)
    yield made
    made.work.cancel()
    await asyncio.gather(made.work, return_exceptions=True)
    await made.log.close()
    made.journal.close()


async def test_what_is_held_back_is_brought_in(bench: Bench):
    for signal in ("traces", "logs"):
        bench.writer.hold_back(signal, allowed=True)
    await bench.give(spans(0, 1))
    await bench.give(spans(1, 1), signal="logs")
    await asyncio.sleep(0.3)
    assert bench.store.calls == []
    async with asyncio.timeout(30):
        await bench.writer.bring_in("traces")
    assert bench.store.names() == ["n0"]
    assert bench.log.segments() == 1
    async with asyncio.timeout(30):
        await bench.writer.bring_in("logs")
    assert len(bench.store.taken) == 2
    assert bench.log.segments() == 0


async def test_what_is_held_back_goes_when_nobody_would_tell_any_more(bench: Bench):
    bench.writer.hold_back("traces", allowed=True)
    await bench.give(spans(0, 1))
    await asyncio.sleep(0.1)
    bench.writer.hold_back("traces", allowed=False)
    assert (await bench.drained())["stored"] == 1


async def test_nobody_waits_for_a_store_that_takes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pace, "BRING_IN_SECONDS", 3600)  # as a slow one is given
    bench.store.broken["land_traces"] = StoreUnavailable("away", "")
    bench.writer.hold_back("traces", allowed=True)
    await bench.give(spans(0, 1))
    async with asyncio.timeout(60):
        await bench.writer.bring_in("traces")
    assert bench.log.segments() == 1


async def test_segments_reach_the_store_and_their_files_go_when_durable(bench: Bench):
    for number in range(5):
        await bench.give(spans(number, 1))
    books = await bench.drained()
    assert bench.store.names() == [f"n{n}" for n in range(5)]
    assert (books["stored"], books["pending"]) == (5, 0)
    await bench.writer.release()
    assert bench.synced == 1
    assert list(bench.folder.glob("*.seg")) == []
    assert identity("traces", spans(99, 1)) not in bench.journal


async def test_files_stay_when_the_stores_disk_can_not_be_synced(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    def broken() -> None:
        raise OSError(5, "Input/output error")

    await bench.give(spans(0, 1))
    await bench.drained()
    with monkeypatch.context() as patch:
        patch.setattr(bench, "sync", broken)
        await bench.writer.release()
    assert len(list(bench.folder.glob("*.seg"))) == 1
    await bench.writer.release()
    assert list(bench.folder.glob("*.seg")) == []


async def test_failures_are_repeated_under_the_same_token(bench: Bench):
    bench.store.failures = [
        StoreUnavailable("the store does not answer"),
        StoreError(243, "NOT_ENOUGH_SPACE", "full"),
        StoreError(241, "MEMORY_LIMIT_EXCEEDED", "large"),
        OSError(104, "reset"),
        ValueError("anything"),
    ]
    await bench.give(spans(0, 2), records=2)
    await bench.drained()
    assert len(bench.store.calls) == 6
    assert len(set(bench.store.calls)) == 1
    assert bench.store.names() == ["n0", "n1"]
    assert bench.writer.errors == {}


async def test_each_signal_has_trouble_of_its_own(bench: Bench):
    bench.store.broken = {
        "land_metrics": StoreError(241, "MEMORY_LIMIT_EXCEEDED", "large"),
        "land_logs": StoreUnavailable("the store does not answer"),
    }
    await bench.give(b"", signal="metrics")
    await bench.give(b"", signal="logs")
    async with asyncio.timeout(60):
        while len(bench.writer.errors) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for number in range(2):
        await bench.give(spans(number, 1))
        async with asyncio.timeout(60):
            while len(bench.store.names()) <= number:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert set(bench.writer.errors) == {"metrics", "logs"}
    first, second = problems(bench.writer.errors)
    assert first.startswith("the store does not take metrics: StoreError")
    assert second == "the store does not take logs: StoreUnavailable: the store does not answer"
    text = bench.ledger.page().decode()
    for signal, up in (("traces", 1.0), ("metrics", 0.0), ("logs", 0.0)):
        assert f'servescope_collector_signal_up{{signal="{signal}"}} {up}' in text
    assert "servescope_collector_store_up 0.0" in text
    bench.store.broken = {}
    await bench.drained()
    assert bench.writer.errors == {}


def test_one_cause_is_told_once():
    gone = "StoreUnavailable: gone"
    assert problems(dict.fromkeys(("logs", "traces", "metrics"), gone)) == [
        f"the store does not take logs, metrics, traces: {gone}"
    ]
    assert problems({"schema": "x", "settle": "y", "retention": "z"}) == [
        "the store's schema can't be brought up to date: x",
        "rows are not kept as long as collector.retention_days says: z",
        "what arrives in pieces can't be put together: y",
    ]


async def test_segments_grow_while_the_store_is_away(bench: Bench):
    bench.store.failures = [StoreUnavailable("down")] * 30
    await bench.give(spans(0, 1))
    while len(bench.store.calls) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    for number in range(1, 20):
        await bench.give(spans(number, 1))
    await bench.drained()
    assert bench.store.names() == sorted(f"n{n}" for n in range(20))
    assert len(bench.store.taken) <= 3


async def test_migrations_come_first_and_again_when_tables_are_missing(bench: Bench):
    await bench.give(spans(0, 1))
    await bench.drained()
    assert bench.migrated == 1
    bench.store.failures = [StoreError(60, "UNKNOWN_TABLE", "no land_traces")]
    bench.migrations = [StoreUnavailable("down"), StoreUnavailable("down")]
    await bench.give(spans(1, 1))
    await bench.drained()
    assert bench.migrated == 2
    assert bench.store.names() == ["n0", "n1"]


async def test_requests_wait_while_migrations_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backoff, "pause", lambda _: 0.01)
    bench = Bench(tmp_path)
    bench.migrations = [StoreUnavailable("down")] * 20
    await bench.give(spans(0, 1))
    await bench.drained()
    assert bench.migrated == 1
    bench.work.cancel()
    await asyncio.gather(bench.work, return_exceptions=True)
    await bench.log.close()
    bench.journal.close()


async def test_unknown_fields_that_poison_a_segment_are_taken_out(bench: Bench):
    bench.store.readable = lambda message: POISON not in message
    for number in range(6):
        await bench.give(spans(number, 1) + (POISON if number == 3 else b""))
    books = await bench.drained()
    assert bench.store.names() == [f"n{n}" for n in range(6)]
    assert (books["stored"], books["dropped"]) == (6, 0)
    (cleaned,) = (name for name in bench.store.taken if name.endswith("-s"))
    assert cleaned.removesuffix("-s") in bench.store.calls


async def test_a_request_that_nobody_can_read_is_set_aside_alone(bench: Bench):
    bench.store.readable = lambda message: STUBBORN not in message
    for number in range(9):
        await bench.give(spans(number, 1, **({"key": STUBBORN.decode()} if number in {2, 7} else {})))
    books = await bench.drained()
    assert bench.store.names() == [f"n{n}" for n in range(9) if n not in {2, 7}]
    assert (books["stored"], books["dropped"]) == (7, 2)
    kept = sorted((bench.folder / "quarantine").glob("*.pb"))
    assert len(kept) == 2
    assert all(STUBBORN in path.read_bytes() for path in kept)
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept)
    assert bench.ledger.reasons() == {"dropped:quarantined": 2}


async def test_values_that_a_view_refuses_get_some_patience(bench: Bench):
    bench.store.failures = [StoreError(131, "TOO_LARGE_STRING_SIZE", "x")] * 3
    await bench.give(spans(0, 1))
    await bench.drained()
    assert len(set(bench.store.calls)) == 1
    bench.store.failures = [StoreError(131, "TOO_LARGE_STRING_SIZE", "x")] * 6
    bench.store.calls.clear()
    await bench.give(spans(1, 1))
    await bench.drained()
    assert bench.store.calls[5] == bench.store.calls[0]
    assert bench.store.calls[6] == bench.store.calls[0] + "-s"


async def test_a_failed_settle_is_repeated(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    outcomes: list[Exception | None] = [StoreUnavailable("down"), StoreError(241, "MEMORY_LIMIT_EXCEEDED", "x"), None]

    def settle() -> None:
        if outcome := outcomes.pop(0):
            raise outcome
        loop.call_soon_threadsafe(done.set)

    monkeypatch.setattr(bench, "settle", settle)
    await asyncio.wait_for(done.wait(), 60)
    assert "settle_errors_total 2.0" in bench.ledger.page().decode()


async def test_the_settle_job_follows_spans_and_log_records_only(bench: Bench):
    await asyncio.wait_for(bench.settled.wait(), 60)  # once at start: what an earlier run left
    bench.settled.clear()
    await bench.give(spans(0, 1), signal="metrics")
    await bench.drained()
    await asyncio.sleep(0.4)
    assert not bench.settled.is_set()
    await bench.give(spans(0, 1))
    await asyncio.wait_for(bench.settled.wait(), 60)
    bench.settled.clear()
    await asyncio.sleep(0.4)  # nothing new came: the store is left alone
    assert not bench.settled.is_set()


async def test_what_a_probe_told_is_judged_once_more_where_nothing_follows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    """Spans, metrics and rest bring no such run: the store is left alone."""
    monkeypatch.setattr(settle_keeper, "LATE_LOOK_SECONDS", 0.2)
    runs: list[float] = []
    monkeypatch.setattr(bench, "settle", lambda: runs.append(time.monotonic()))

    async def runs_of(signal: str, count: int) -> list[float]:
        runs.clear()
        await bench.give(spans(0, 1, key=os.urandom(4).hex()), signal=signal)
        async with asyncio.timeout(60):
            while len(runs) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        return list(runs)

    await runs_of("traces", 2)  # with what an earlier run may have left
    first, second = await runs_of("logs", 2)
    assert second - first >= 0.2
    assert len(await runs_of("traces", 1)) == 1


async def test_an_earlier_runs_rows_are_judged_after_a_start(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(settle_keeper, "LATE_LOOK_SECONDS", 0.2)
    for _ in range(2):
        await asyncio.wait_for(bench.settled.wait(), 60)
        bench.settled.clear()


def test_quarantine_is_bounded(tmp_path: Path):
    quarantine = Quarantine(tmp_path, max_bytes=100)
    assert quarantine.put("a", b"x" * 60, "444")
    assert not quarantine.put("b", b"x" * 60, "444")
    again = Quarantine(tmp_path, max_bytes=100)
    assert not again.put("c", b"x" * 60, "444")
    assert again.put("d", b"x" * 40, "444")


@pytest.mark.parametrize("attempt", [0, 1, 5, 50, 5000])
def test_pauses_grow_and_are_bounded(attempt: int):
    assert 0 < backoff.pause(attempt) <= 15


async def test_what_was_inserted_counts_as_settled_once_a_settling_began_after_it(bench: Bench):
    assert bench.writer.settled
    await bench.give(spans(1, 1))
    await bench.drained()
    assert not bench.writer.settled
    bench.writer.hurry()
    async with asyncio.timeout(60):
        while not bench.writer.settled:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert bench.settled.is_set()
