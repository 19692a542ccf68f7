"""Pages of a vLLM with KV connectors, made by its own metrics modules' names, labels and meanings (0.32)."""

from __future__ import annotations

import gzip

import pytest

from agent.engine_table import config_of, find_table
from agent.pages.page import Page, parse
from agent.pages.samples import Sampler
from base.vocabulary import Distribution, Signal
from tests.kits.docs import ROOT

LABELS = 'engine="0",model_name="m"'
ALWAYS = f"vllm:num_requests_running{{{LABELS}}} 3\nvllm:num_requests_waiting{{{LABELS}}} 0\n"


def page(*lines: str) -> Page:
    return parse(ALWAYS + "".join(f"{line}\n" for line in lines))


def one(name: str, value: float, **labels: str) -> str:
    more = "".join(f',{key}="{text}"' for key, text in labels.items())
    return f"vllm:{name}{{{LABELS}{more}}} {value}"


def shown(*lines: str) -> dict[Signal, float]:
    (sample,) = Sampler(find_table("vllm")).sample(page(*lines)).samples
    return sample.signals()


def test_reasons_to_finish_are_told_apart_where_they_happened():
    told = shown(
        one("request_success_total", 7, finished_reason="stop"),
        one("request_success_total", 2, finished_reason="length"),
        one("request_success_total", 1, finished_reason="error"),
    )
    assert told[Signal.REQUESTS_FINISHED_TOTAL] == 10
    assert [told.get(Signal(f"finished_{reason}_total")) for reason in ("stop", "length", "error", "abort")] == [
        7, 2, 1, None,
    ]  # fmt: skip


def test_an_offloading_store_tells_both_ways_and_what_it_did_not_take():
    told = shown(
        one("kv_offload_store_bytes_total", 4e6), one("kv_offload_store_time_total", 0.5),
        one("kv_offload_store_size_count", 8), one("kv_offload_store_size_sum", 4e6),
        one("kv_offload_load_bytes_total", 1e6), one("kv_offload_load_time_total", 0.1),
        one("kv_offload_load_size_count", 2), one("kv_offload_load_size_sum", 1e6),
        one("kv_offload_total_bytes_total", 4e6, transfer_type="GPU_to_CPU"),
        one("kv_offload_total_bytes_total", 1e6, transfer_type="CPU_to_GPU"),
        one("kv_offload_allocation_failure_total", 3), one("kv_offload_stores_skipped_total", 5),
        one("kv_offload_tiering_backpressure_stores_dropped_total", 6),
        one("kv_offload_tiering_promotion_job_failures_total", 1),
        one("kv_offload_tiering_cascade_job_failures_total", 2),
        one("kv_offload_tiering_active_promotion_jobs", 1), one("kv_offload_tiering_active_cascade_jobs", 4),
        one("kv_offload_cpu_cache_usage_perc", 0.4),
    )  # fmt: skip
    assert told[Signal.KV_OFFLOAD_BYTES_TOTAL] == 5e6
    assert {name: told[Signal(f"kv_offload_{name}")] for name in (
        "store_bytes_total", "store_seconds_total", "stores_total", "load_bytes_total", "load_seconds_total",
        "loads_total", "stores_refused_total", "stores_skipped_total", "stores_dropped_total", "failures_total",
        "moves_active", "pinned_ratio",
    )} == {
        "store_bytes_total": 4e6, "store_seconds_total": 0.5, "stores_total": 8, "load_bytes_total": 1e6,
        "load_seconds_total": 0.1, "loads_total": 2, "stores_refused_total": 3, "stores_skipped_total": 5,
        "stores_dropped_total": 6, "failures_total": 3, "moves_active": 5, "pinned_ratio": 0.4,
    }  # fmt: skip


def test_the_simple_store_counts_by_what_became_of_a_block():
    read = page(
        *(one("simple_kv_offload_save_outcomes_total", count, outcome=outcome) for outcome, count in (
            ("stored", 90), ("dropped_cpu_full", 4), ("skipped_already_cached", 20), ("skipped_in_flight", 3),
            ("dropped_request_gone", 9),
        )),
        one("simple_kv_offload_load_blocks_total", 31), one("simple_kv_offload_pending_store_blocks", 12),
        one("simple_kv_offload_used_blocks", 40),
        one("simple_kv_offload_info", 1, backend="disk", page_cache="true", lazy_offload="false", capacity_blocks="64"),
    )  # fmt: skip
    (sample,) = Sampler(find_table("vllm")).sample(read).samples
    told = sample.signals()
    assert (told[Signal.KV_OFFLOAD_STORES_REFUSED_TOTAL], told[Signal.KV_OFFLOAD_STORES_SKIPPED_TOTAL]) == (4, 23)
    assert told[Signal.KV_OFFLOAD_BLOCKS_LOADED_TOTAL] == 31
    assert (told[Signal.KV_OFFLOAD_BLOCKS_PENDING], told[Signal.KV_OFFLOAD_BLOCKS_PINNED]) == (12, 40)
    config = config_of(find_table("vllm"), read.layout)
    assert {key: config[key] for key in ("backend", "capacity_blocks")} == {"backend": "disk", "capacity_blocks": "64"}


@pytest.mark.parametrize("connector", ["nixl", "mooncake"])
def test_transfers_tell_their_pieces_and_leases(connector: str):
    told = shown(
        one(f"{connector}_xfer_time_seconds_count", 4), one(f"{connector}_xfer_time_seconds_sum", 2),
        one(f"{connector}_num_descriptors_count", 4), one(f"{connector}_num_descriptors_sum", 48),
        one(f"{connector}_num_kv_expired_reqs_total", 2),
    )  # fmt: skip
    assert (told[Signal.KV_TRANSFERS_TOTAL], told[Signal.KV_TRANSFER_DESCRIPTORS_TOTAL]) == (4, 48)
    assert told[Signal.KV_TRANSFER_LEASES_EXPIRED_TOTAL] == 2


def test_nixl_tells_posts_late_notices_and_how_far_fetches_are():
    told = shown(
        one("nixl_post_time_seconds_sum", 0.25), one("nixl_num_notifications_after_expiry_total", 1),
        one("num_requests_kv_fetch_by_stage", 2, stage="waiting_to_start"),
        one("num_requests_kv_fetch_by_stage", 5, stage="in_progress"),
        one("num_requests_kv_fetch_by_stage", 1, stage="completed_waiting"),
    )  # fmt: skip
    assert (told[Signal.KV_TRANSFER_POST_SECONDS_TOTAL], told[Signal.KV_TRANSFER_NOTICES_LATE_TOTAL]) == (0.25, 1)
    assert [told[name] for name in (
        Signal.KV_FETCH_TO_START, Signal.KV_FETCH_IN_PROGRESS, Signal.KV_FETCH_COMPLETED,
    )] == [2, 5, 1]  # fmt: skip


def test_a_servers_operations_make_no_sample_of_their_own():
    def slept(times: int) -> Page:
        name = "vllm:sleep_mode_operation_duration_seconds"
        return page(
            f'{name}_bucket{{operation="sleep",le="1"}} 0', f'{name}_bucket{{operation="sleep",le="+Inf"}} {times}',
            f'{name}_sum{{operation="sleep"}} {2.5 * times}', f'{name}_count{{operation="sleep"}} {times}',
        )  # fmt: skip

    sampler = Sampler(find_table("vllm"))
    sampler.sample(slept(1))
    (sample,) = sampler.sample(slept(3)).samples
    assert sample.key.dp_rank == "0"
    assert [(one.distribution, one.count, one.total) for one in sample.histograms] == [
        (Distribution.SLEEP_OPERATION_SECONDS, 2, 5.0)
    ]


def test_hits_of_an_external_cache_are_those_that_clients_were_told():
    """Recorded behind an ExampleConnector: four prompts, four times; usage told 3,840 tokens, 2,304 cached."""
    recorded = ROOT / "tests" / "fixtures" / "vllm" / "metrics_external_cache.txt.gz"
    (sample,) = Sampler(find_table("vllm")).sample(parse(gzip.decompress(recorded.read_bytes()))).samples
    told = sample.signals()
    asked, cached = (60 + 180 + 300 + 420) * 4, (128 + 256 + 384) * 3
    assert told[Signal.PROMPT_TOKENS_TOTAL] == told[Signal.PREFIX_CACHE_QUERIES_EXTERNAL_TOTAL] == asked
    assert told[Signal.PREFIX_CACHE_HITS_EXTERNAL_TOTAL] == cached
    assert told[Signal.PREFIX_CACHE_HITS_TOTAL] == told[Signal.PREFIX_CACHE_HITS_DEVICE_TOTAL] == 0


def test_lives_of_blocks_are_distributions():
    def lived(blocks: int) -> Page:
        lines = []
        for name in ("kv_block_lifetime_seconds", "kv_block_idle_before_evict_seconds", "kv_block_reuse_gap_seconds"):
            lines += [one(f"{name}_bucket", blocks - 1, le="5"), one(f"{name}_bucket", blocks, le="+Inf")]
            lines += [one(f"{name}_sum", 4.0 * blocks), one(f"{name}_count", blocks)]
        return page(*lines)

    sampler = Sampler(find_table("vllm"))
    sampler.sample(lived(2))
    (sample,) = sampler.sample(lived(6)).samples
    names = (
        Distribution.KV_BLOCK_LIFETIME_SECONDS,
        Distribution.KV_BLOCK_IDLE_SECONDS,
        Distribution.KV_BLOCK_REUSE_GAP_SECONDS,
    )
    told = {one.distribution: (one.count, one.total) for one in sample.histograms}
    assert told == dict.fromkeys(names, (4, 16.0))
