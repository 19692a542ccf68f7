"""A recording played into the store that its rows are in already changes none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from collector.settle import Settler
from tests.kits.probe_told import NOW_NS, WHOSE, finished, land, requests, settle_late
from tests.kits.schema_tools import (
    RESOURCE,
    edge_span,
    engine_span,
    event,
    framed,
    fresh_store,
    metrics,
    token,
    traces,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from collector.store.client import Store
    from tests.conftest import StoreServer

NAME = "vllm-a"
"""A recording is named as its server is, and so are its rows' instances."""
LIVE: Mapping[str, str] = {}
PLAYED: Mapping[str, str] = {"servescope.recording": NAME}
TABLES = (
    "engine_samples",
    "engine_histograms",
    "host_samples",
    "gpu_samples",
    "gpu_processes",
    "events",
    "engine_steps",
    "requests_t",
)


@pytest.fixture(scope="module")
def migrated(store_server: StoreServer) -> Iterator[Store]:
    with fresh_store(store_server) as made:
        yield made


@pytest.fixture
def store(migrated: Store) -> Store:
    """With nothing in it."""
    for table in (*TABLES, "request_orphans", "request_claims", "finished_requests", "request_keys"):
        migrated.command(f"TRUNCATE TABLE {table}")
    return migrated


def send(store: Store, table: str, message: Any) -> None:
    store.insert_segment(table, framed(message), token())


def spans(store: Store, whose: Mapping[str, str], *, parent: bool = True, edge: bool = True) -> None:
    """Both halves of one request."""
    if edge:
        send(store, "land_traces", traces([edge_span()], resource=RESOURCE | whose))
    engine = engine_span()
    if not parent:
        engine.parent_span_id = b""
    send(store, "land_traces", traces([engine], "vllm.llm_engine", RESOURCE | whose))


def told(store: Store, whose: Mapping[str, str]) -> None:
    """What else an agent tells of a server, one row of each kind."""
    place, process = RESOURCE | {"servescope.model": "tiny", "hw.id": "GPU-1"} | whose, {"process.pid": "7"}
    for scope, gauges, more in (
        ("servescope.sample", {"up": 1.0, "running": 3.0}, {}),
        ("servescope.host", {"rss_bytes": 5e9}, process),
        ("servescope.gpu", {"hw.gpu.utilization": 0.5}, {}),
        ("servescope.gpu", {"memory_bytes": 1e9}, process),
    ):
        send(store, "land_metrics", metrics(scope, gauges, resource=place | more))
    message = event("deploy", "a version came", {})
    for key, value in whose.items():
        message.resource_logs[0].resource.attributes.add(key=key).value.string_value = value
    send(store, "land_logs", message)
    steps = {"completed_ns": [NOW_NS], "scheduled_ns": [NOW_NS - 1_000_000], "counter": [1], "running": [3]}
    land(store, "engine_steps", steps, whose=WHOSE | whose)


def rows(store: Store, table: str) -> list[dict[str, Any]]:
    return list(store.rows(f"SELECT * EXCEPT received_at FROM {table} FINAL WHERE recording = '' ORDER BY ALL"))


def of(store: Store, recording: str) -> list[dict[str, Any]]:
    told = [row for row in requests(store) if row["recording"] == recording]
    return [{name: value for name, value in row.items() if name not in {"received_at", "inserted_at"}} for row in told]


def test_no_row_of_a_live_server_is_replaced(store: Store):
    told(store, LIVE)
    tables = [table for table in TABLES if table not in {"engine_histograms", "requests_t"}]
    before = {table: rows(store, table) for table in tables}
    assert all(len(held) == 1 for held in before.values()), before
    for _ in range(2):
        told(store, PLAYED)
    for table in tables:
        store.command(f"OPTIMIZE TABLE {table} FINAL")
    assert {table: rows(store, table) for table in tables} == before
    played = {table: store.rows(f"SELECT count() AS n FROM {table} WHERE recording != ''")[0]["n"] for table in tables}
    assert played == dict.fromkeys(tables, 1), "a repeat changes nothing"


def test_increases_of_histograms_stay_a_servers_own(store: Store):
    for count, whose in ((4, LIVE), (2, PLAYED)):
        made = metrics("servescope.sample", {"up": 1.0}, resource=RESOURCE | whose)
        point = made.resource_metrics[0].scope_metrics[0].metrics.add(name="ttft_seconds").histogram.data_points.add()
        point.count, point.sum, point.time_unix_nano = count, 1.0, NOW_NS
        point.explicit_bounds.extend([0.1])
        point.bucket_counts.extend([count, 0])
        send(store, "land_metrics", made)
    store.command("OPTIMIZE TABLE engine_histograms FINAL")
    kept = store.rows("SELECT recording, count FROM engine_histograms FINAL ORDER BY recording")
    assert kept == [{"recording": "", "count": 4}, {"recording": NAME, "count": 2}]


@pytest.mark.parametrize("parent", [True, False], ids=["by the tap's span id", "by the request's id"])
@pytest.mark.parametrize("first", [LIVE, PLAYED], ids=["live first", "recording first"])
def test_halves_meet_within_a_recording_or_without_one(store: Store, first: Mapping[str, str], parent: bool):
    second = PLAYED if first is LIVE else LIVE
    spans(store, first, parent=parent)
    Settler(store).run()
    before = of(store, first.get("servescope.recording", ""))
    assert [(row["has_edge"], row["has_engine"]) for row in before] == [(1, 1)]
    for _ in range(2):
        spans(store, second, parent=parent)
        Settler(store).run()
    assert of(store, first.get("servescope.recording", "")) == before
    other = of(store, second.get("servescope.recording", ""))
    assert [(row["has_edge"], row["has_engine"]) for row in other] == [(1, 1)]
    assert other[0]["key"] != before[0]["key"], "a row is known by its time and key"


def test_an_engines_half_goes_to_no_edge_of_a_recording(store: Store):
    send(store, "land_traces", traces([edge_span()], resource=RESOURCE | PLAYED))
    spans(store, LIVE, parent=False, edge=False)
    Settler(store).run()
    assert [(row["has_edge"], row["has_engine"]) for row in of(store, NAME)] == [(1, 0)]
    assert [(row["has_edge"], row["has_engine"]) for row in of(store, "")] == [(0, 1)]


@pytest.mark.parametrize("span", [True, False])
def test_what_a_probe_told_completes_its_own_recordings_row(store: Store, span: bool):
    for whose in (LIVE, PLAYED):
        if span:
            spans(store, whose)
        else:
            send(store, "land_traces", traces([edge_span()], resource=RESOURCE | whose))
    finished(store)
    Settler(store).run()
    settle_late(store)
    assert [row["preemptions"] for row in of(store, "")] == [2]
    assert [row["preemptions"] for row in of(store, NAME)] == [0]
    before = of(store, "")
    finished(store, whose=WHOSE | PLAYED, preemptions=5)
    Settler(store).run()
    settle_late(store)
    assert of(store, "") == before
    assert [row["preemptions"] for row in of(store, NAME)] == [5]
