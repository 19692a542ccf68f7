"""How requests end, by which routes they come and how long they are, worked out again from the rows."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from analytics.questions import queue, workload
from analytics.selection import Filter, Selection
from analytics.window import Window
from tests.analytics.truth import quantile

if TYPE_CHECKING:
    from tests.analytics.lab import Lab


def ending(row: dict[str, Any]) -> str:
    outcome = row["outcome"] if row["has_edge"] else "ok"
    return outcome if outcome != "ok" else row["finish_reason"] or "not told"


def test_requests_are_told_by_how_they_ended(lab: Lab):
    chosen = Filter(model=("llama", "resnet"))
    answer = workload.ask(lab.store, Selection(lab.window, chosen), points=60)
    rows = lab.rows(chosen)
    assert answer.result.ended == Counter(map(ending, rows))
    assert {"stop", "length", "timeout", "not told"} <= set(answer.result.ended)
    assert answer.rows == len(rows)
    for line in answer.result.endings:
        assert sum(value or 0 for value in line.values) * answer.result.step == pytest.approx(
            answer.result.ended[line.name]
        )


def test_of_many_reasons_the_commonest_are_told_apart(lab: Lab):
    start = lab.start - timedelta(days=7)
    lab.owner.insert("requests_t", [
        {"time": start + timedelta(seconds=number), "key": 9_000_000 + 100 * reason + number, "model": "m",
         "outcome": "ok", "finish_reason": f"reason-{reason:02d}", "has_edge": 1, "operation": "chat"}
        for reason in range(16) for number in range(16 - reason)
    ])  # fmt: skip
    told = workload.ask(lab.store, Selection(Window(start, start + timedelta(seconds=60)))).result
    assert told.ended == {f"reason-{reason:02d}": 16 - reason for reason in range(12)} | {"other": 4 + 3 + 2 + 1}


def test_routes_are_told_by_status_with_their_mean_time(lab: Lab):
    told = workload.ask(lab.store, Selection(lab.window)).result.ways
    rows = lab.rows()
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["route"], row["status"]) if row["has_edge"] else ("", 0), []).append(row)
    assert {(way.route, way.status): way.requests for way in told} == {way: len(some) for way, some in found.items()}
    assert [way.requests for way in told] == sorted((way.requests for way in told), reverse=True)
    for way in told:
        times = [row["e2e_seconds"] for row in found[way.route, way.status] if row["e2e_seconds"] > 0]
        assert way.e2e_mean_seconds == pytest.approx(sum(times) / len(times))


def test_lengths_are_those_of_the_rows_that_have_tokens(lab: Lab):
    told = {one.name: one for one in workload.ask(lab.store, Selection(lab.window)).result.lengths}
    for name, column in (("prompt", "prompt_tokens"), ("answer", "completion_tokens")):
        tokens = [float(row[column]) for row in lab.rows() if row[column]]
        one = told[name]
        assert (one.requests, one.largest) == (len(tokens), max(tokens))
        assert (one.p50, one.p95, one.p99) == pytest.approx([quantile(tokens, level) for level in (0.5, 0.95, 0.99)])
        for held in one.bins:
            assert held.tokens_to is not None
            assert held.requests == sum(held.tokens_from <= count <= held.tokens_to for count in tokens)


def test_without_rows_lengths_come_from_the_engines_histograms(lab: Lab):
    start = lab.start - timedelta(days=8)
    lab.owner.insert("engine_histograms", [
        {"time": start + timedelta(seconds=second), "instance": "h", "model": "m", "signal": "prompt_tokens",
         "bounds": [10.0, 100.0], "counts": [1, 2, 1], "count": 4, "sum": 250.0} for second in (1, 2)
    ])  # fmt: skip
    answer = workload.ask(lab.store, Selection(Window(start, start + timedelta(seconds=60))))
    assert (answer.level, answer.exactness, answer.result.ended, answer.result.ways) == ("metrics", "derived", {}, [])
    (one,) = answer.result.lengths
    assert (one.name, one.requests, one.largest) == ("prompt", 8, None)
    assert [(held.tokens_from, held.tokens_to, held.requests) for held in one.bins] == [
        (1, 10, 2), (11, 100, 4), (101, None, 2),
    ]  # fmt: skip


def test_a_replica_that_is_loaded_otherwise_is_named(lab: Lab):
    start = lab.start - timedelta(days=9)
    load = {"a": 4.0, "b": 4.2, "c": 3.9, "d": 12.0, "late": 4.1}
    lab.owner.insert("engine_samples", [
        {"time": start + timedelta(seconds=second), "instance": name, "model": model, "engine": "vllm", "up": 1,
         "running": 3.0, "waiting": waiting - 3.0, "interval_seconds": 1.0}
        for model in ("m", "other") for name, waiting in load.items()
        for second in range(0 if name != "late" else 40, 60) if model == "m" or name == "a"
    ])  # fmt: skip
    selection = Selection(Window(start, start + timedelta(seconds=60)))
    assert queue.ask(lab.store, selection).result.uneven == {"d": "in flight 193% above the median"}
    alone = Selection(selection.window, Filter(instance=("a", "d")))
    assert queue.ask(lab.store, alone).result.uneven == {}, "of two none is usual"
