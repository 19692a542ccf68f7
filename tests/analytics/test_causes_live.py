"""A live window is worked out of kept minutes and the open edge: the same answer as of everything read anew."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from analytics.causes import blocks, load
from analytics.causes.blocks import BLOCK_MS, Blocks, Wanted
from analytics.causes.columns import Names, joined, taken
from analytics.inquiry import Inquiry
from analytics.questions import causes
from analytics.selection import Filter, Selection
from analytics.window import Window
from tests.kits.causes_sim import Server, steady, traffic
from tests.kits.causes_store import stored
from tests.kits.schema_tools import fresh_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from collector.store.asker import Asker
    from collector.store.client import Store
    from tests.conftest import StoreServer

START = datetime.fromtimestamp(1_790_000_130, UTC)
UNTIL = 420.0
LATE_SECONDS = (2.5, 11.0)
"""How long after its end an engine's record of a request comes."""


class Counting:
    """A store that counts the statements and rows that it is asked for as columns of requests."""

    def __init__(self, store: Store, asker: Asker | None = None) -> None:
        self._store = store
        self.asker = asker or store.asker
        self.reads: list[int] = []

    def rows(self, *asked: Any, **more: Any) -> list[dict[str, Any]]:
        return self._store.rows(*asked, **more)

    def arrow(self, sql: str, *asked: Any, **more: Any) -> Any:
        found = self._store.arrow(sql, *asked, **more)
        if "e2e_s" in found.column_names:
            self.reads.append(found.num_rows)
        return found


@pytest.fixture(scope="module")
def halves() -> list[tuple[float, dict[str, Any]]]:
    """Both records of each request of two deployments, with when each comes, in seconds."""
    chance = random.Random(5)
    found = []
    for place, name in enumerate(("chat", "code")):
        server = Server(f"{name}-0", places=8)
        asks = steady(chance, UNTIL, 2.0 - place, server.name)
        asks += traffic(chance, 280, 340, 6, "hooli", output=(100, 200), instance=server.name) if not place else []
        server.serve(asks, UNTIL, chance)
        for number, ask in enumerate(asks):
            engine = stored(ask, 2 * number + place, START, name)
            edge = {
                "time": engine["time"], "key": engine["key"], "trace_id": engine["trace_id"], "tenant": ask.tenant,
                "model": "m", "instance": ask.instance, "deployment": name, "version": "1",
                "operation": "text_completion", "status": 200, "outcome": "ok", "has_edge": 1, "stream": 1,
                "ttft_seconds": ask.first - ask.at, "e2e_seconds": ask.last - ask.at,
            }  # fmt: skip
            found += [(ask.last, edge), (ask.last + chance.uniform(*LATE_SECONDS), engine)]
    return sorted(found, key=lambda one: one[0])


@pytest.fixture(scope="module")
def store(store_server: StoreServer) -> Iterator[Store]:
    """One for all: each test has a day of its own."""
    with fresh_store(store_server) as made:
        yield made


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[Blocks]:
    """What is kept, nothing at first; of what has just come as well."""
    monkeypatch.setattr(blocks, "FRESH_SECONDS", -60)
    with blocks.KEPT.aside():
        yield blocks.KEPT


def put(store: Store, rows: list[dict[str, Any]], day: int) -> None:
    for half in ("has_edge", "has_engine"):
        store.insert("requests_t", [
            row | {"time": row["time"] + timedelta(days=day), "key": row["key"] + (day * 86_400_000 << 22)}
            for row in rows if half in row
        ])  # fmt: skip


def look(day: int, first: float, last: float, **selected: Any) -> Selection:
    start = START + timedelta(days=day)
    return Selection(Window(start + timedelta(seconds=first), start + timedelta(seconds=last)), **selected)


def same(one: Any, other: Any) -> bool:
    """Whether two evidences have the same requests, to the last bit and in the same order."""
    for name in vars(one.requests):
        mine, theirs = (getattr(each.requests, name) for each in (one, other))
        if isinstance(mine, Names):
            if mine.names != theirs.names or not np.array_equal(mine.codes, theirs.codes):
                return False
        elif not np.array_equal(mine, theirs):
            return False
    return bool(one.origin_ms == other.origin_ms)


def anew(store: Store, selection: Selection, kept: Blocks) -> Any:
    """The answer without anything that is kept, which stays as it was."""
    with kept.aside():
        return causes.ask(store, selection).result


def test_whatever_comes_late_and_wherever_the_window_is_cut_it_is_what_all_read_anew_says(
    store: Store, kept: Blocks, halves: list[tuple[float, dict[str, Any]]]
):
    chance = random.Random(1)
    now, come, told = 220.0, 0, []
    while now < UNTIL + 20:
        batch = [row for at, row in halves[come:] if at <= now]
        come += len(batch)
        chance.shuffle(batch)
        put(store, batch, 1)
        length = chance.choice([60.0, 97.3, 150.0])
        selected = chance.choice([
            {}, {"filter": Filter(tenant=("hooli",))}, {"filter": Filter(instance=("code-0",))}, {"outcome": ("ok",)},
        ])  # fmt: skip
        for selection in (look(1, now - length, now), look(1, now - length, now, **selected)):
            found = load.load(Inquiry(store, selection))
            with kept.aside():
                assert same(found, load.load(Inquiry(store, selection)))
            assert len(found.requests)
        told.append(kept.rows)
        now += chance.uniform(15, 35)
    assert min(told) > 0
    for selection in (look(1, 260, 380), look(1, 260, 380, filter=Filter(tenant=("hooli",)))):
        answer = causes.ask(store, selection).result
        assert answer == anew(store, selection, kept)
        assert answer.causes[0].cause == "queue_saturated"


def test_what_has_not_changed_is_not_read_again_and_of_what_has_only_its_minute(
    store: Store, kept: Blocks, halves: list[tuple[float, dict[str, Any]]]
):
    late = next(row for at, row in halves if "has_engine" in row and at > 300)
    put(store, [row for _, row in halves if row is not late], 2)
    counting = Counting(store)
    selection = look(2, 240, 360)
    first = causes.ask(counting, selection).result
    whole = sum(counting.reads)
    assert whole >= first.requests
    counting.reads.clear()
    assert causes.ask(counting, selection).result == first
    assert counting.reads == []
    causes.ask(counting, look(2, 280, 400))  # into the next minute
    assert 0 < sum(counting.reads) < whole / 2
    counting.reads.clear()
    put(store, [late], 2)
    again = causes.ask(counting, selection).result
    assert again != first
    begin = int((late["time"] + timedelta(days=2)).timestamp() * 1000) // BLOCK_MS * BLOCK_MS
    (of_minute,) = store.rows(
        "SELECT count() AS n FROM requests WHERE intDiv(toUnixTimestamp64Milli(time), 60000) * 60000 = {at:Int64}",
        {"at": begin},
    )
    assert counting.reads == [of_minute["n"]]


def test_nobody_is_given_what_was_read_for_another_or_for_another_selection(
    store: Store, kept: Blocks, halves: list[tuple[float, dict[str, Any]]]
):
    put(store, [row for _, row in halves], 3)
    causes.ask(store, look(3, 240, 360))
    for asker, selected in (
        (replace(store.asker, role="owner" if store.asker.role == "reader" else "reader"), {}),
        (replace(store.asker, tenant="acme"), {}),
        (None, {"filter": Filter(tenant=("acme",))}),
    ):
        counting = Counting(store, asker)
        causes.ask(counting, look(3, 240, 360, **selected))
        assert sum(counting.reads) >= 100


def test_what_came_a_moment_ago_is_not_kept(
    store: Store, kept: Blocks, halves: list[tuple[float, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(blocks, "FRESH_SECONDS", 3600)
    put(store, [row for _, row in halves], 4)
    causes.ask(store, look(4, 240, 360))
    assert kept.rows == 0


def test_each_deployment_is_read_as_far_back_as_if_it_were_alone(
    store: Store, halves: list[tuple[float, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(load, "MOST_BEFORE", 60)
    monkeypatch.setattr(load, "SHORTEST_SECONDS", 20.0)
    selection = look(5, 255.5, 360, filter=Filter(deployment=("code",)))
    put(store, [row for _, row in halves if "code" in (row.get("deployment"), row.get("engine_deployment"))], 5)
    alone = causes.ask(store, selection)
    put(store, [row for _, row in halves if "chat" in (row.get("deployment"), row.get("engine_deployment"))], 5)
    counting = Counting(store)
    among = causes.ask(counting, selection)
    assert len(counting.reads) > 1  # a longer time of the one alone
    assert [one for one in among.result.reference if one.deployment == "code"] == alone.result.reference
    assert among.result.requests == alone.result.requests
    assert among.result.excess_seconds == pytest.approx(alone.result.excess_seconds)
    assert [one.cause for one in among.result.causes] == [one.cause for one in alone.result.causes]


def block(*at: int) -> Mapping[str, Any]:
    return {"at_ms": np.array(at), "tenant": Names.of([f"t{one}" for one in at])}


def test_no_more_is_kept_than_the_bound_and_the_longest_unused_goes_first():
    made = Blocks(most_rows=5)
    made.put("a", 1, block(1, 2), 2)
    made.put("b", 1, block(3, 4), 2)
    assert made.get("a", 1) is not None
    made.put("c", 1, block(5, 6), 2)
    assert (made.rows, made.get("b", 1)) == (4, None)
    assert made.get("a", 2) is None
    made.put("a", 2, block(1, 2, 3), 3)
    assert made.rows == 5
    made.put("d", 1, block(*range(9)), 9)
    assert made.rows == 0


def test_of_many_changed_minutes_all_between_are_read_at_once():
    near = [Wanted(BLOCK_MS * at) for at in (1, 2, 5, 6)]
    assert [len(one) for one in blocks._stretches(near)] == [2, 2]
    assert len(blocks._stretches([Wanted(BLOCK_MS * at) for at in range(0, 20, 2)])) == 1
    assert len(blocks._stretches([*near[:2], Wanted(3 * BLOCK_MS, ("a",))])) == 2


def test_columns_of_parts_are_those_of_the_whole():
    whole = block(5, 3, 9, 3, 1)
    parts = [taken(whole, np.array(rows)) for rows in ([0, 1], [2], [3, 4])]
    found = joined(parts)
    assert found["at_ms"].tolist() == whole["at_ms"].tolist()
    assert found["tenant"].names == whole["tenant"].names
    assert found["tenant"].codes.tolist() == whole["tenant"].codes.tolist()
    assert joined(parts[:1])["tenant"].names == ("t3", "t5")
