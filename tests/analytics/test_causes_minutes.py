"""Samples, machines, GPUs and events of a live window are kept by the minute like its requests."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from analytics.causes import blocks, load, minutes
from analytics.causes.columns import Names
from analytics.causes.minutes import rates_of
from analytics.causes.table import in_order
from analytics.inquiry import Inquiry
from analytics.selection import Filter, Selection
from analytics.window import Window
from benchmarks.fleet import Fleet, fill
from tests.kits.schema_tools import fresh_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analytics.causes.table import Evidence
    from collector.store.client import Store
    from tests.conftest import StoreServer

START = datetime.fromtimestamp(1_790_000_100, UTC)
SECONDS = 330
TABLES = {"engine_samples": "samples", "host_samples": "hosts", "gpu_samples": "gpus"}


class Counting:
    """A store that counts what it is asked for as columns, by the table that it is of."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asker = store.asker
        self.reads: dict[str, list[int]] = {}

    def rows(self, sql: str, *asked: Any, **more: Any) -> list[dict[str, Any]]:
        if "FROM events FINAL" in sql or "has({instances:Array(String)}, instance)" in sql:
            self.reads.setdefault("rows", []).append(1)
        return self._store.rows(sql, *asked, **more)

    def arrow(self, sql: str, *asked: Any, **more: Any) -> Any:
        found = self._store.arrow(sql, *asked, **more)
        for table, name in TABLES.items():
            if f"FROM {table} FINAL" in sql:
                self.reads.setdefault(name, []).append(found.num_rows)
        return found


@pytest.fixture(scope="module")
def store(store_server: StoreServer) -> Iterator[Store]:
    with fresh_store(store_server) as made:
        fill(made, START, Fleet(SECONDS, 8.0, 200.0, 4))
        made.insert("events", [
            {"time": START + timedelta(seconds=second), "event": event, "instance": instance, "attributes": attributes}
            for second, event, instance, attributes in (
                (205, "deploy", "chat-0", {}), (206, "gpu_xid", "", {"hw.id": "GPU-2", "xid": "79"}),
            )
        ])  # fmt: skip
        yield made


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[blocks.Blocks]:
    """What is kept, nothing at first; of what has just come as well."""
    monkeypatch.setattr(blocks, "FRESH_SECONDS", -60)
    with blocks.KEPT.aside():
        yield blocks.KEPT


def look(store: Any, first: float, last: float, **selected: Any) -> Evidence:
    window = Window(START + timedelta(seconds=first), START + timedelta(seconds=last))
    return load.load(Inquiry(store, Selection(window, **selected)))


def same(one: Any, other: Any) -> bool:
    """Whether two are the same to the last bit, arrays in them too."""
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if is_dataclass(one):
        return all(same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def test_the_evidence_of_kept_minutes_is_that_of_all_read_anew(store: Store, kept: blocks.Blocks):
    # ends within a slot, a window that goes back, another selection
    for first, last in ((180, 240), (190, 250), (200.4, 260.7), (185, 245), (240, 330)):
        for selected in ({}, {"filter": Filter(tenant=("acme",))}):
            found = look(store, first, last, **selected)
            with kept.aside():
                assert same(found, look(store, first, last, **selected))
            assert len(found.samples) == len(found.hosts) == len(found.gpus) == 4
            assert any(one.event == "deploy" for one in found.events) == (last > 205)
            assert bool(found.gpus["code-2"][0].faults) == (last > 206)
            assert np.isfinite(found.hosts["chat-0"].delay[1:]).all()


def test_by_the_minute_they_are_what_one_statement_says_of_the_span(
    store: Store, kept: blocks.Blocks, monkeypatch: pytest.MonkeyPatch
):
    found = look(store, 190, 250)
    monkeypatch.setattr(minutes, "BLOCK_MS", 7)  # which no slot fits into
    counting = Counting(store)
    assert same(found, look(counting, 190, 250))
    assert all(len(counting.reads[name]) == 1 for name in TABLES.values())


def test_what_has_not_changed_is_not_read_again_and_of_what_has_only_its_minute(store: Store, kept: blocks.Blocks):
    counting = Counting(store)
    first = look(counting, 180, 240)
    assert set(counting.reads) == {*TABLES.values(), "rows"}
    whole = {name: sum(reads) for name, reads in counting.reads.items()}
    counting.reads.clear()
    assert same(look(counting, 180, 240), first)
    assert counting.reads == {}
    late = START + timedelta(seconds=215.5)
    names = {"instance": "chat-1", "deployment": "chat", "time": late}
    for table, row in {
        "engine_samples": {"engine": "vllm", "model": "chat", "dp_rank": "0", "up": 1, "running": 99.0},
        "host_samples": {"process_name": "host", "process_pid": "", "cpu_pressure_some_ratio": 0.9},
        "gpu_samples": {"gpu": "GPU-1", "sm_clock_hertz": 1e9},
    }.items():
        store.insert(table, [names | row])
    changed = look(counting, 180, 240)
    assert {name: len(reads) for name, reads in counting.reads.items() if name != "rows"} == dict.fromkeys(
        TABLES.values(), 1
    )
    assert all(0 < sum(counting.reads[name]) < whole[name] / 2 for name in TABLES.values())
    assert changed.samples["chat-1"].running.max() > 40
    assert changed.hosts["chat-1"].pressure.max() > first.hosts["chat-1"].pressure.max()
    with kept.aside():
        assert same(changed, look(store, 180, 240))


def test_an_event_that_comes_late_is_in_the_next_look(store: Store, kept: blocks.Blocks):
    assert not [one for one in look(store, 240, 300).events if one.event == "oom_kill"]
    store.insert("events", [{"time": START + timedelta(seconds=250), "event": "oom_kill", "instance": "chat-0"}])
    assert [one for one in look(store, 240, 300).events if one.event == "oom_kill"]
    # before its time it has not happened, whatever is kept
    assert not [one for one in look(store, 180, 240).events if one.event == "oom_kill"]


def test_what_came_a_moment_ago_is_not_kept(store: Store, kept: blocks.Blocks, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(blocks, "FRESH_SECONDS", 3600)
    counting = Counting(store)
    first, second = (look(counting, 180, 240) for _ in range(2))
    assert same(first, second)
    assert all(len(counting.reads[name]) == 2 for name in TABLES.values())


def test_of_more_than_the_limit_the_same_are_taken_whatever_is_kept(
    store: Store, kept: blocks.Blocks, monkeypatch: pytest.MonkeyPatch
):
    look(store, 180, 240)
    monkeypatch.setattr(load, "_MOST_SAMPLES", 500)
    monkeypatch.setattr(load, "_step_ms", lambda *_: 1000)
    for _ in range(2):
        found = look(store, 180, 240)
        with kept.aside():
            assert same(found, look(store, 180, 240))
        assert sum(len(one.time) for one in found.samples.values()) == 500


def test_rates_are_of_one_process_and_of_samples_that_follow_each_other():
    row = {
        "at_ms": [5000, 1000, 3000, 2000, 200_000, 1000, 2000],
        "name": ["a"] * 5 + ["b"] * 2, "node": ["n"] * 7, "recording": [""] * 7, "process": ["p"] * 7,
        "pid": ["1", "1", "1", "1", "1", "1", "2"],
        "cpu_s": [4.0, 1.0, 3.0, 2.0, 9.0, 7.0, 8.0], "delay_s": [float("nan"), 0.0, 0.5, 0.25, 1.0, 0.0, 0.0],
        "pressure": [0.1] * 7,
    }  # fmt: skip
    found = rates_of(row, 1000)
    of = {(name, int(at)): (cpu, delay) for name, at, cpu, delay in zip(
        (found["name"].names[code] for code in found["name"].codes) if isinstance(found["name"], Names)
        else found["name"], found["at_ms"], found["cpu"], found["delay"], strict=True)}  # fmt: skip
    assert of["a", 2000] == (1.0, 0.25)
    assert of["a", 3000] == (1.0, 0.25)
    assert of["a", 5000][0] == 0.5
    assert np.isnan([of["a", 1000][0], of["a", 5000][1], of["a", 200_000][0], of["b", 1000][0], of["b", 2000][0]]).all()
    assert minutes.APART_MS < 195_000
    nothing = rates_of({name: [] for name in row}, 1000)
    assert len(nothing["cpu"]) == len(nothing["at_ms"]) == 0


def test_requests_of_an_instance_lie_together_in_the_order_of_their_times():
    chance = np.random.default_rng(1)
    instance, at = chance.integers(0, 5, 400), chance.integers(0, 50, 400).astype(float)
    key = chance.permutation(400).astype(np.uint64)
    wanted = np.lexsort((key, at, instance))
    assert np.array_equal(in_order(instance, at, key), wanted)
    # parts that are in order by themselves, as blocks are
    parts = [wanted[at[wanted] < 25], wanted[at[wanted] >= 25]]
    both = np.concatenate(parts)
    assert np.array_equal(both[in_order(instance[both], at[both], key[both])], wanted)
    assert len(in_order(instance[:0], at[:0], key[:0])) == 0
