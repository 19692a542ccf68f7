"""A probe's records become rows of steps, by step and by second, and complete the rows of requests, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent.config import AgentConfig
from agent.forward_passes import Pass
from agent.otlp.columns import encode_columns
from agent.source import Scene
from agent.sources.forward_passes import ForwardPassMetrics
from agent.target import ForwardPasses, Known, Place, Target
from collector.settle import Settler
from tests.kits.probe_told import NOW_NS, WHOSE, finished, land, landed, requests, wait_long
from tests.kits.schema_tools import NOW_MS, edge_span, engine_span, event, framed, fresh_store, token, traces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from collector.store.client import Store
    from tests.conftest import StoreServer


@pytest.fixture(scope="module")
def migrated(store_server: StoreServer) -> Iterator[Store]:
    with fresh_store(store_server) as made:
        yield made


@pytest.fixture
def store(migrated: Store) -> Store:
    """With nothing in it."""
    for table in ("requests_t", "request_orphans", "finished_requests", "engine_steps", "engine_steps_1s", "otel_logs"):
        migrated.command(f"TRUNCATE TABLE {table}")
    return migrated


def test_a_row_a_step_and_none_in_the_logs(store: Store):
    second = 1_000_000_000
    columns: dict[str, list[Any]] = {
        "counter": [1, 2, 3],
        "completed_ns": [NOW_NS, NOW_NS + 20_000_000, NOW_NS + second],
        "scheduled_ns": [None, NOW_NS + 5_000_000, None],
        "running": [3, None, 0],
        "waiting": [2, None, 0],
        "kv_cache_usage_ratio": [0.5, None, 0.25],
        "generation_tokens": [7, 5, None],
        "preemptions": [1, 0, None],
        "elapsed_seconds": [None, 0.0125, None],
    }
    land(store, "engine_steps", columns)
    store.insert_segment("land_logs", framed(event("note", "hello", {})), token())
    rows = list(store.rows("SELECT * FROM engine_steps ORDER BY time"))
    assert [row["counter"] for row in rows] == [1, 2, 3]
    assert [row["running"] for row in rows] == [3, None, 0]
    assert [row["deferred"] for row in rows] == [None] * 3
    assert [row["generation_tokens"] for row in rows] == [7, 5, None]
    assert rows[1]["elapsed_seconds"] == pytest.approx(0.0125)
    assert [row["scheduled_at"] is None for row in rows] == [True, False, True]
    assert {(row["instance"], row["model"], row["dp_rank"], row["pid"]) for row in rows} == {
        ("vllm-a", "tiny", "1", 77)
    }
    (first, second_row) = store.rows("SELECT * FROM engine_steps_1s FINAL ORDER BY time")
    assert (first["rows"], first["steps"], first["running_max"], first["generation_tokens"]) == (2, 1, 3, 12)
    assert (first["preemptions"], first["deferred_max"], first["finished"]) == (1, None, None)
    assert first["kv_cache_usage_ratio_max"] == 0.5
    assert (second_row["rows"], second_row["running_max"], second_row["generation_tokens"]) == (1, 0, None)
    assert store.rows("SELECT EventName AS name FROM otel_logs") == [{"name": "note"}]


def test_forward_passes_are_rows_of_steps(store: Store, tmp_path: Path):
    target = Target("vllm-a", "chat", "vllm", forward_pass_metrics=ForwardPasses("tcp://127.0.0.1:9"))
    known = Known("vllm", "0.32.0", "tiny")
    source = ForwardPassMetrics(Scene(AgentConfig(), Place(), [target], lambda _instance: known, tmp_path))
    (publisher,) = source._publishers["vllm-a"]
    for number in range(3):
        source._tell("vllm-a", publisher, number, Pass(0, 0.01, 2, 700, 30, 4))
    source.flush(lambda _signal, body: store.insert_segment("land_logs", landed(body), token()))
    rows = list(store.rows("SELECT * FROM engine_steps"))
    assert len(rows) == 3
    for row in rows:
        assert (row["instance"], row["model"], row["dp_rank"], row["pid"]) == ("vllm-a", "tiny", "0", 0)
        assert (row["prefill_requests"], row["prefill_tokens"], row["decode_requests"]) == (2, 700, 30)
        assert (row["running"], row["waiting"]) == (32, 4)
        assert row["elapsed_seconds"] == pytest.approx(0.01)
        assert row["scheduled_at"] < row["time"]
        untold = ("decode_tokens", "generation_tokens", "kv_cache_usage_ratio", "preemptions", "finished", "deferred")
        assert [row[name] for name in untold] == [None] * len(untold)
    (sums,) = store.rows("SELECT sum(steps) AS n, sum(prefill_tokens) AS prompts FROM engine_steps_1s")
    assert sums == {"n": 3, "prompts": 2_100}


@pytest.mark.parametrize(
    "columns",
    [
        {"counter": ["one"], "running": ["many"]},
        {"counter": [1, 2], "running": [1]},
        {"counter": [-1], "running": [-7], "generation_tokens": [1 << 40], "completed_ns": [-5]},
        {"counter": [1], "kv_cache_usage_ratio": [float("inf")], "completed_ns": [(1 << 63) - 1]},
        {"running": [5]},
        {"counter": list(range(12_000))},
    ],
)
def test_what_is_no_step_loses_nothing_else(store: Store, columns: dict[str, list[Any]]):
    land(store, "engine_steps", columns)
    land(store, "finished_requests", {"finished_ns": ["soon"], "request_id": [5]} | columns)
    land(store, "engine_steps", {"counter": [9], "completed_ns": [NOW_NS], "running": [4]})
    assert store.rows("SELECT running FROM engine_steps WHERE counter = 9 AND running = 4") == [{"running": 4}]
    assert store.rows("SELECT count() AS n FROM engine_steps")[0]["n"] <= 10_001
    assert store.rows("SELECT countIf(running > 100) AS n FROM engine_steps") == [{"n": 0}]
    Settler(store).run()


def test_a_segment_that_comes_twice_counts_once(store: Store):
    body = encode_columns(
        WHOSE,
        "servescope.step",
        "engine_steps",
        NOW_NS,
        {"counter": [1], "completed_ns": [NOW_NS], "generation_tokens": [7]},
    )
    same = token()
    for _ in range(2):
        store.insert_segment("land_logs", framed(body), same)
    assert store.rows("SELECT sum(generation_tokens) AS n FROM engine_steps_1s") == [{"n": 7}]


def test_an_edge_without_a_span_gets_its_engine_half(store: Store):
    store.insert_segment("land_traces", framed(traces([edge_span()])), token())
    finished(store)
    settler = Settler(store)
    settler.run()
    settler.run()
    (row,) = requests(store)
    assert (row["has_edge"], row["has_engine"], row["preemptions"], row["cached_tokens"]) == (1, 1, 2, 16)
    assert row["queue_seconds"] == pytest.approx(0.01)
    assert row["prefill_seconds"] == pytest.approx(0.04)
    assert row["decode_seconds"] == pytest.approx(0.06)
    assert row["stall_seconds"] == pytest.approx(0.02, abs=1e-6)
    assert (row["finish_reason"], row["outcome"], row["completion_tokens"]) == ("length", "ok", 8)
    assert row["dp_rank"] == "1"


@pytest.mark.parametrize("order", ["spans first", "told first"])
@pytest.mark.parametrize("tied", [True, False])
def test_where_a_span_exists_nothing_doubles(store: Store, order: str, tied: bool):
    """A span that the tap's is the parent of, or one whose parent was lost; before what the probe told, or after."""
    span = engine_span() if tied else engine_span(bits=5)
    if not tied:
        span.parent_span_id = b""
    spans = framed(traces([edge_span()])), framed(traces([span], scope="vllm.llm_engine"))
    settler = Settler(store)
    if order == "told first":
        store.insert_segment("land_traces", spans[0], token())
        finished(store)
        settler.run()
        store.insert_segment("land_traces", spans[1], token())
        settler.run()
    else:
        for body in spans:
            store.insert_segment("land_traces", body, token())
        settler.run()
        finished(store)
    settler.run()
    wait_long(store)
    settler._looked_late = None
    settler.run()
    (row,) = requests(store)
    assert (row["has_edge"], row["has_engine"], row["preemptions"], row["cached_tokens"]) == (1, 1, 2, 16)
    assert row["queue_seconds"] == pytest.approx(0.01)
    assert row["prompt_tokens"] == 20


def test_what_came_past_every_edge_is_a_row_after_a_while_until_its_span_comes(store: Store):
    finished(store, "chatcmpl-abc")
    settler = Settler(store)
    settler.run()
    assert requests(store) == [], "an edge or a span may still come"
    wait_long(store)
    settler._looked_late = None
    settler.run()
    settler._looked_late = None
    settler.run()
    (row,) = requests(store)
    assert (row["has_edge"], row["has_engine"], row["request_id"], row["instance"]) == (0, 1, "abc", "vllm-a")
    assert (row["outcome"], row["operation"], row["preemptions"]) == ("ok", "chat", 2)
    assert row["ttft_seconds"] == pytest.approx(0.07, abs=1e-6)
    span = engine_span(gen_ai__request__id="chatcmpl-abc")
    span.parent_span_id = b""
    store.insert_segment("land_traces", framed(traces([span], scope="vllm.llm_engine")), token())
    settler._looked_late = None
    settler.run()
    settler._looked_late = None
    settler.run()
    (row,) = requests(store)
    assert (row["preemptions"], row["trace_id"] != "") == (2, True)


def test_a_retry_gets_its_own(store: Store):
    """One request id, two attempts: each half goes to the edge that was open then."""
    later = NOW_MS + 60_000
    store.insert_segment(
        "land_traces", framed(traces([edge_span(), edge_span(ms=later, bits=9, trace=b"\x09" * 16)])), token()
    )
    finished(store, preemptions=1)
    finished(store, preemptions=3, finished_ns=(later + 135) * 1_000_000)
    Settler(store).run()
    assert [(row["has_engine"], row["preemptions"]) for row in requests(store)] == [(1, 1), (1, 3)]


def test_other_requests_of_the_same_moment_keep_theirs(store: Store):
    edges = [
        edge_span(
            bits=bits,
            trace=bytes([bits]) * 16,
            servescope__request__id=f"r-{bits}",
            gen_ai__response__id=f"cmpl-r-{bits}",
        )
        for bits in range(1, 41)
    ]
    store.insert_segment("land_traces", framed(traces(edges)), token())
    rows = range(1, 41)
    land(
        store,
        "finished_requests",
        {
            "finished_ns": [NOW_NS + 135_000_000] * 40, "e2e_seconds": [0.13] * 40, "preemptions": list(rows),
            "request_id": [f"cmpl-r-{bits}-0" for bits in rows], "reason": ["stop"] * 40,
        },
    )  # fmt: skip
    Settler(store).run()
    found = {row["request_id"]: row["preemptions"] for row in requests(store)}
    assert found == {f"r-{bits}": bits for bits in rows}
