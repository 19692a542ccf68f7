"""A segment's way into a store that answers as it is told: again, divided, after the schema, or stored."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collector import framing
from collector.ledger import Ledger
from collector.log.segment import Segment
from collector.log.segment_file import SegmentFile
from collector.quarantine import Quarantine
from collector.store.client import StoreError, StoreUnavailable
from collector.store.said import NO_SCHEMA
from collector.writing import backoff
from collector.writing.divider import Divider
from collector.writing.health import Health
from collector.writing.inserter import UNFIT, UNFIT_PATIENCE, UNREADABLE, Inserter, Refusal, judge
from collector.writing.schema_keeper import SchemaKeeper
from tests.kits.collector_process import spans

if TYPE_CHECKING:
    from collections.abc import Sequence

SOON = 30
AWAY = StoreUnavailable("the store does not answer")


def test_what_is_done_follows_from_the_stores_code():
    assert {judge(code, 0) for code in UNREADABLE} == {Refusal.DIVIDE}
    assert {judge(code, 99) for code in NO_SCHEMA} == {Refusal.MIGRATE}
    assert {judge(code, UNFIT_PATIENCE - 1) for code in UNFIT} == {Refusal.REPEAT}
    assert {judge(code, UNFIT_PATIENCE) for code in UNFIT} == {Refusal.DIVIDE}
    assert judge(241, 99) is Refusal.REPEAT
    assert len(UNREADABLE | UNFIT | NO_SCHEMA) == len(UNREADABLE) + len(UNFIT) + len(NO_SCHEMA)


class Bench:
    """An inserter between a queue of segments and a store that fails as often as it is told."""

    def __init__(self) -> None:
        self.waiting = [Segment(name, "traces", Path(name), 1, 1, 1, 0.0) for name in ("a", "b")]
        self.failures: list[Exception] = []
        self.unreadable: list[OSError] = []
        self.calls: list[tuple[str, str]] = []
        self.divided: list[str] = []
        self.migrated = 0
        self.troubles: list[str] = []
        self.ledger = Ledger()
        self.health = Health(self.ledger)
        self.schema = SchemaKeeper(self._migrate, self.health, lambda: None)
        self.done = asyncio.Event()
        self.inserter = Inserter(
            "traces", self._take, self, self.schema,
            divide=self._divide, stored=self._gone, health=self.health, ledger=self.ledger,
        )  # fmt: skip

    def insert_segment(self, table: str, segment: Path, token: str) -> None:
        self.calls.append((table, token))
        assert segment.name == token
        self.troubles.append(self.health.errors.get("traces", ""))
        if self.failures:
            raise self.failures.pop(0)

    async def _take(self) -> Segment:
        if self.unreadable:
            raise self.unreadable.pop(0)
        if not self.waiting:
            self.done.set()
            await asyncio.Event().wait()
        return self.waiting[0]

    async def _divide(self, segment: Segment, _: StoreError) -> None:
        self.divided.append(segment.id)
        self._gone(segment)

    def _gone(self, segment: Segment) -> None:
        assert self.waiting.pop(0) is segment

    def _migrate(self) -> None:
        self.migrated += 1

    async def run(self) -> list[str]:
        """Tokens in the order of their inserts."""
        tasks = [asyncio.create_task(self.schema.run()), asyncio.create_task(self.inserter.run())]
        try:
            await asyncio.wait_for(self.done.wait(), SOON)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert {table for table, _ in self.calls} == {"land_traces"}
        return [token for _, token in self.calls]

    def count(self, code: str) -> float:
        found = self.ledger.registry.get_sample_value(
            "servescope_collector_insert_errors_total", {"signal": "traces", "code": code}
        )
        return found or 0.0


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(backoff, "pause", lambda _: 0.01)
    return Bench()


async def test_segments_go_in_their_order_each_once(bench: Bench):
    assert await bench.run() == ["a", "b"]
    assert bench.health.errors == {}


@pytest.mark.parametrize(
    ("failure", "code"),
    [(AWAY, "unavailable"), (StoreError(241, "MEMORY_LIMIT_EXCEEDED", "x"), "241"), (ValueError("odd"), "ValueError")],
)
async def test_an_insert_of_unknown_outcome_is_repeated_under_its_token(bench: Bench, failure: Exception, code: str):
    bench.failures = [failure] * 3
    assert await bench.run() == ["a", "a", "a", "a", "b"]
    assert bench.count(code) == 3
    assert [bool(text) for text in bench.troubles] == [False, True, True, True, False]
    assert (bench.divided, bench.health.errors) == ([], {})


async def test_a_segment_that_the_store_can_not_read_is_divided_at_once_and_no_trouble(bench: Bench):
    bench.failures = [StoreError(444, "UNKNOWN_PROTOBUF_FORMAT", "x")]
    assert await bench.run() == ["a", "b"]
    assert (bench.divided, bench.count("444")) == (["a"], 1)
    assert bench.troubles == ["", ""]


async def test_values_that_a_view_refuses_are_divided_after_some_patience(bench: Bench):
    bench.failures = [StoreError(131, "TOO_LARGE_STRING_SIZE", "x")] * (UNFIT_PATIENCE + 1)
    assert await bench.run() == ["a"] * (UNFIT_PATIENCE + 1) + ["b"]
    assert bench.divided == ["a"]


async def test_a_lost_schema_is_brought_before_the_insert_is_repeated(bench: Bench):
    bench.failures = [StoreError(60, "UNKNOWN_TABLE", "x")]
    assert await bench.run() == ["a", "a", "b"]
    assert (bench.migrated, bench.divided) == (2, [])


async def test_a_disk_that_refuses_ends_nothing(bench: Bench):
    bench.unreadable = [OSError(errno.EIO, "Input/output error")] * 2
    assert await bench.run() == ["a", "b"]
    assert bench.troubles[0].startswith("OSError")
    assert bench.health.errors == {}


class Files:
    """Replaces as it is told."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        self.made: list[tuple[str, int]] = []

    async def replace(self, _: Segment, children: Sequence[tuple[str, Sequence[bytes]]]) -> None:
        if self.error is not None:
            raise self.error
        self.made = [(name, len(frames)) for name, frames in children]


REFUSED = StoreError(444, "UNKNOWN_PROTOBUF_FORMAT", "wrong wire type")


def written(folder: Path, bodies: Sequence[bytes], name: str = "") -> Segment:
    file = SegmentFile(folder, "traces")
    for body in bodies:
        file.append(framing.encode(body, records=2, digest=bytes(16), received_ns=1))
    file.close()
    found = file.segment
    found.bodies, found.records = len(bodies), 2 * len(bodies)
    found.id += name
    return found


@pytest.mark.parametrize(
    ("name", "requests", "becomes", "apart"),
    [("", 3, [("-s", 3)], 0), ("-s", 3, [("-s-0", 1), ("-s-1", 2)], 0), ("-s", 1, [], 1)],
)
async def test_a_refused_segment_is_cleaned_then_halved_then_set_aside(
    tmp_path: Path, name: str, requests: int, becomes: list[tuple[str, int]], apart: int
):
    segment = written(tmp_path, [spans(n, 1) for n in range(requests)], name)
    files, ledger = Files(), Ledger()
    await Divider(Quarantine(tmp_path / "quarantine", max_bytes=1 << 20), files.replace, ledger).divide(
        segment, REFUSED
    )
    stem = segment.id.removesuffix("-s")
    assert files.made == [(stem + suffix, count) for suffix, count in becomes]
    assert len(list((tmp_path / "quarantine").glob("*.pb"))) == apart
    assert ledger.reasons() == ({"dropped:quarantined": 2} if apart else {})


async def test_nothing_is_dropped_from_the_books_before_the_disk_has_what_was_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    segment = written(tmp_path, [spans(0, 1)], "-s")
    files, ledger = Files(), Ledger()
    quarantine = Quarantine(tmp_path / "quarantine", max_bytes=1 << 20)
    divider = Divider(quarantine, files.replace, ledger)

    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(quarantine, "put", full)
        with pytest.raises(OSError, match="No space left"):
            await divider.divide(segment, REFUSED)
    files.error = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left"):
        await divider.divide(segment, REFUSED)
    assert ledger.reasons() == {}
    files.error = None
    await divider.divide(segment, REFUSED)
    assert ledger.reasons() == {"dropped:quarantined": 2}
    assert len(list((tmp_path / "quarantine").glob("*.pb"))) == 1
