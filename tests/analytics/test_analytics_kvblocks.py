from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from analytics.questions import features, kvblocks, workload
from analytics.selection import Filter, Selection
from analytics.window import Window
from tests.kits.schema_tools import fresh_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.store.client import Store
    from tests.conftest import StoreServer

NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
TABLES = ("engine_samples", "engine_histograms", "gpu_samples")


@pytest.fixture(scope="module")
def migrated(store_server: StoreServer) -> Iterator[Store]:
    with fresh_store(store_server) as made:
        yield made


@pytest.fixture
def store(migrated: Store) -> Store:
    """With nothing in it."""
    for table in TABLES:
        migrated.command(f"TRUNCATE TABLE {table}")
    return migrated


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def looked(**narrowed: Any) -> Selection:
    return Selection(Window(NOW, at(10)), Filter(**narrowed))


def told(second: int, instance: str = "one", rank: str = "", **signals: float) -> dict[str, Any]:
    return {
        "time": at(second), "instance": instance, "dp_rank": rank, "model": "m", "engine": "vllm", "up": 1,
        "interval_seconds": 1.0, "running": 2.0, "generation_tokens_delta": 20.0, "other_signals": signals,
    }  # fmt: skip


def lived(signal: str, counts: list[int], total: float) -> dict[str, Any]:
    return {
        "time": at(2), "instance": "one", "model": "m", "signal": signal, "bounds": [1.0, 10.0], "counts": counts,
        "count": sum(counts), "sum": total,
    }  # fmt: skip


def test_what_nobody_tells_is_absent(store: Store):
    store.insert("engine_samples", [told(1), told(2)])
    result = kvblocks.ask(store, looked()).result
    assert (result.times, result.useful_thrown_out, result.counts, result.mean_bytes) == ([], None, {}, {})
    assert (result.underway, result.fetches, result.pinned_ratio, result.stuck) == ([], [], [], False)
    assert (result.transfers, result.still_pending, result.pinned_most) == (None, None, None)
    none = kvblocks.ask(store, Selection(Window(at(-100), at(-90)))).result
    assert (none.times, none.counts) == ([], {})


def test_transfers_and_stores_of_the_window(store: Store):
    store.insert("engine_samples", [
        told(1, kv_transfers_delta=4, kv_transfer_bytes_delta=8e6, kv_transfer_post_seconds_delta=0.2,
             kv_transfer_descriptors_delta=48, kv_transfer_leases_expired_delta=1),
        told(2, kv_offload_store_bytes_delta=6e6, kv_offload_stores_delta=3, kv_offload_stores_refused_delta=2,
             kv_offload_blocks_loaded_delta=7, kv_offload_pinned_ratio=0.2),
        told(2, "two", kv_offload_pinned_ratio=0.7, kv_transfer_leases_expired_delta=0),
    ])  # fmt: skip
    result = kvblocks.ask(store, looked(), points=10).result
    assert (
        result.transfers,
        result.transfer_mean_bytes,
        result.post_mean_seconds,
        result.pieces_mean,
    ) == pytest.approx((4.0, 2e6, 0.05, 12.0))
    assert result.counts == {"leases expired": 1.0, "stores refused": 2.0, "blocks loaded": 7.0}
    assert result.mean_bytes == {"store": 2e6}
    assert result.pinned_most == pytest.approx(0.7), "the fullest, not the sum"


@pytest.mark.parametrize(
    ("pending", "stuck"),
    [
        ([3, 3, 5, 8, 8, 9], True),
        ([3, 4, 5, 4, 6, 9], False),
        ([5, 5, 5, 5, 5, 5], False),
        ([1, 2, 3], False),
    ],
)
def test_a_transfer_is_stuck_where_what_is_pending_only_grows(store: Store, pending: list[int], stuck: bool):
    store.insert(
        "engine_samples",
        [told(second, kv_offload_blocks_pending=float(count)) for second, count in enumerate(pending, start=1)],
    )
    result = kvblocks.ask(store, looked(), points=10).result
    assert (result.stuck, result.still_pending) == (stuck, float(pending[-1]))


def test_blocks_that_go_before_they_are_used_again_are_useful(store: Store):
    store.insert("engine_samples", [told(1)])
    store.insert("engine_histograms", [
        lived("kv_block_idle_seconds", [9, 1, 0], 6.0), lived("kv_block_reuse_gap_seconds", [1, 9, 0], 44.0),
        lived("kv_offload_lookup_seconds", [4, 0, 0], 0.4),
    ])  # fmt: skip
    answer = kvblocks.ask(store, looked())
    assert answer.exactness == "derived"
    assert answer.result.useful_thrown_out is True
    assert [(one.name, one.observations, one.mean) for one in answer.result.times] == [
        ("idle before eviction", 10, pytest.approx(0.6)),
        ("gap between uses", 10, pytest.approx(4.4)),
        ("look-up in the offload store", 4, pytest.approx(0.1)),
    ]
    store.command("TRUNCATE TABLE engine_histograms")
    store.insert("engine_histograms", [
        lived("kv_block_idle_seconds", [1, 9, 0], 44.0), lived("kv_block_reuse_gap_seconds", [9, 1, 0], 6.0),
    ])  # fmt: skip
    assert kvblocks.ask(store, looked()).result.useful_thrown_out is False


def test_caches_reasons_and_drafts_are_told_by_engine(store: Store):
    store.insert("engine_samples", [
        told(1, rank="0", waiting_capacity=4.0, waiting_deferred=0.0, multimodal_cache_hits_delta=3,
             multimodal_cache_queries_delta=4, spec_decode_accepted_tokens_delta=10),
        told(2, rank="0", waiting_capacity=2.0, waiting_deferred=0.0),
        told(1, rank="1", waiting_capacity=0.0, waiting_deferred=5.0, multimodal_cache_hits_delta=0,
             multimodal_cache_queries_delta=4),
    ])  # fmt: skip
    result = features.ask(store, looked(), points=10).result
    assert [(one.dp_rank, one.waiting, one.hit_shares) for one in result.engines] == [
        ("1", {"capacity": (0.0, 0.0), "deferred": (5.0, 5.0)}, {"multimodal": 0.0}),
        ("0", {"capacity": (3.0, 4.0), "deferred": (0.0, 0.0)}, {"multimodal": 0.75}),
    ]
    assert {line.name: line.values[1] for line in result.hit_shares} == {"multimodal": pytest.approx(3 / 8)}
    assert result.draft_share == pytest.approx(10 / 60)


def test_stored_and_loaded_bytes_are_not_told_again_as_offloaded(store: Store):
    store.insert("engine_samples", [
        told(1, kv_offload_store_bytes_delta=4e6, kv_offload_store_seconds_delta=0.5, kv_offload_load_bytes_delta=0.0,
             kv_offload_bytes_delta=4e6, kv_offload_seconds_delta=0.5),
    ])  # fmt: skip
    result = features.ask(store, looked(), points=10).result
    assert {line.name: line.values[1] for line in result.moved} == {"stored": 4e6}
    assert result.moved_while == {"stored": 8e6}


@pytest.mark.parametrize(
    ("names", "gpu", "known"),
    [
        (["NVIDIA H100 80GB HBM3"] * 2, "NVIDIA H100 80GB HBM3", True),
        (["NVIDIA H100 80GB HBM3", "NVIDIA L4"], None, False),
        (["NVIDIA Something 5"], "NVIDIA Something 5", False),
        ([], None, False),
    ],
)
def test_a_share_of_a_peak_wants_one_kind_of_gpu_whose_data_sheet_is_known(
    store: Store, names: list[str], gpu: str | None, known: bool
):
    store.insert("engine_samples", [told(1, estimated_flops_delta=2e12, estimated_read_bytes_delta=1e9)])
    store.insert(
        "gpu_samples",
        [{"time": at(1), "gpu": f"GPU-{place}", "gpu_name": name} for place, name in enumerate(names)],
    )
    result = features.ask(store, looked(), points=10).result
    assert (result.gpu, result.peak is not None) == (gpu, known)


def test_sleeps_and_weight_updates(store: Store):
    store.insert("engine_samples", [told(1)])
    store.insert("engine_histograms", [lived("sleep_operation_seconds", [1, 3, 0], 14.0)])
    (slept,) = features.ask(store, looked()).result.operations
    assert (slept.name, slept.count, slept.mean) == ("sleep", 4, 3.5)
    assert slept.p99 is not None
    assert 1 < slept.p99 <= 10


def test_without_rows_endings_are_the_engines_own_counts(store: Store):
    store.insert("engine_samples", [
        told(1, finished_stop_delta=6, finished_length_delta=2, finished_abort_delta=0),
        told(2, "two", finished_stop_delta=1),
    ])  # fmt: skip
    answer = workload.ask(store, looked(), points=10)
    assert (answer.level, answer.rows, answer.result.ended) == ("metrics", 9, {"stop": 7, "length": 2})
    assert {line.name: line.values[1:3] for line in answer.result.endings} == {
        "stop": [6.0, 1.0],
        "length": [2.0, None],
    }
    tenants = workload.ask(store, looked(tenant=("acme",)), points=10).result
    assert (tenants.endings, tenants.ended) == ([], {}), "engines know no tenant"
