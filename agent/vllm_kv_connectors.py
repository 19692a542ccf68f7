"""What vLLM's KV connectors show: caches that go between engines, to the host's memory, a disk or a store, and back.

A server has the families of the connectors that it runs, and of none without one. Sources: the ``metrics.py`` and
``stats.py`` of each under ``vllm/distributed/kv_transfer/kv_connector/v1``, ``vllm/v1/kv_offload`` and
``vllm/v1/simple_kv_offload``.
"""

from __future__ import annotations

from typing import Final

from agent.engine_families import because
from agent.engine_table import Histogram, Rule
from base.vocabulary import Distribution, Signal

_SAVES: Final = "vllm:simple_kv_offload_save_outcomes_total"

RULES: Final = (
    # One a worker and request, by the connector that the server has: the reader's (NIXL) or the writer's (Mooncake).
    *(
        Rule(signal, f"vllm:nixl_{name}", old=(f"vllm:mooncake_{name}",))
        for signal, name in (
            (Signal.KV_TRANSFERS_TOTAL, "xfer_time_seconds_count"),
            (Signal.KV_TRANSFER_SECONDS_TOTAL, "xfer_time_seconds_sum"),
            (Signal.KV_TRANSFER_BYTES_TOTAL, "bytes_transferred_sum"),
            (Signal.KV_TRANSFER_FAILURES_TOTAL, "num_failed_transfers_total"),
        )
    ),
    Rule(
        Signal.KV_TRANSFER_POST_SECONDS_TOTAL,
        "vllm:nixl_post_time_seconds_sum",
    ),
    *(
        Rule(signal, f"vllm:nixl_{name}", old=(f"vllm:mooncake_{name}",))
        for signal, name in (
            (Signal.KV_TRANSFER_DESCRIPTORS_TOTAL, "num_descriptors_sum"),
            (Signal.KV_TRANSFER_LEASES_EXPIRED_TOTAL, "num_kv_expired_reqs_total"),
        )
    ),
    Rule(Signal.KV_TRANSFER_NOTICES_LATE_TOTAL, "vllm:nixl_num_notifications_after_expiry_total"),
    Rule(Signal.KV_OFFLOAD_BYTES_TOTAL, "vllm:kv_offload_total_bytes_total"),
    Rule(Signal.KV_OFFLOAD_SECONDS_TOTAL, "vllm:kv_offload_total_time_total"),
    Rule(Signal.KV_OFFLOAD_STORE_BYTES_TOTAL, "vllm:kv_offload_store_bytes_total"),
    Rule(Signal.KV_OFFLOAD_STORE_SECONDS_TOTAL, "vllm:kv_offload_store_time_total"),
    Rule(Signal.KV_OFFLOAD_LOAD_BYTES_TOTAL, "vllm:kv_offload_load_bytes_total"),
    Rule(Signal.KV_OFFLOAD_LOAD_SECONDS_TOTAL, "vllm:kv_offload_load_time_total"),
    Rule(Signal.KV_OFFLOAD_STORES_TOTAL, "vllm:kv_offload_store_size_count"),
    Rule(Signal.KV_OFFLOAD_LOADS_TOTAL, "vllm:kv_offload_load_size_count"),
    # Of two connectors a server has one: the offloading one, or the simple one, which counts by what became of a block.
    *(
        Rule(signal, source, old=(_SAVES,), where_old={"outcome": outcomes})
        for signal, source, outcomes in (
            (
                Signal.KV_OFFLOAD_STORES_REFUSED_TOTAL,
                "vllm:kv_offload_allocation_failure_total",
                frozenset({"dropped_cpu_full"}),
            ),
            (
                Signal.KV_OFFLOAD_STORES_SKIPPED_TOTAL,
                "vllm:kv_offload_stores_skipped_total",
                frozenset({"skipped_already_cached", "skipped_in_flight"}),
            ),
        )
    ),
    Rule(Signal.KV_OFFLOAD_STORES_DROPPED_TOTAL, "vllm:kv_offload_tiering_backpressure_stores_dropped_total"),
    Rule(
        Signal.KV_OFFLOAD_FAILURES_TOTAL,
        "vllm:kv_offload_tiering_promotion_job_failures_total",
        plus=("vllm:kv_offload_tiering_cascade_job_failures_total",),
    ),
    Rule(
        Signal.KV_OFFLOAD_MOVES_ACTIVE,
        "vllm:kv_offload_tiering_active_promotion_jobs",
        plus=("vllm:kv_offload_tiering_active_cascade_jobs",),
    ),
    Rule(Signal.KV_OFFLOAD_PINNED_RATIO, "vllm:kv_offload_cpu_cache_usage_perc", combine="max"),
    Rule(Signal.KV_OFFLOAD_BLOCKS_LOADED_TOTAL, "vllm:simple_kv_offload_load_blocks_total"),
    Rule(Signal.KV_OFFLOAD_BLOCKS_PENDING, "vllm:simple_kv_offload_pending_store_blocks"),
    Rule(Signal.KV_OFFLOAD_BLOCKS_PINNED, "vllm:simple_kv_offload_used_blocks"),
    *(
        Rule(signal, "vllm:num_requests_kv_fetch_by_stage", where={"stage": stage})
        for signal, stage in (
            (Signal.KV_FETCH_TO_START, "waiting_to_start"),
            (Signal.KV_FETCH_IN_PROGRESS, "in_progress"),
            (Signal.KV_FETCH_COMPLETED, "completed_waiting"),
        )
    ),
)
"""For vLLM's table."""

HISTOGRAMS: Final = (Histogram(Distribution.KV_OFFLOAD_LOOKUP_SECONDS, "vllm:kv_offload_lookup_sync_delay_seconds"),)

IGNORED: Final = {
    "vllm:kv_offload_size": "per transfer; the counter has the bytes",
    **because(
        "a part of what is pinned",
        "vllm:kv_offload_cpu_cache_read_usage_perc",
        "vllm:kv_offload_cpu_cache_write_usage_perc",
        "vllm:kv_offload_tiering_primary_read_usage_perc",
        "vllm:kv_offload_tiering_primary_write_usage_perc",
    ),
    **because(
        "between an offloading store's own tiers; drops, failures and what goes on are read",
        "vllm:kv_offload_tiering_backpressure_blocks_dropped_total",
        "vllm:kv_offload_tiering_backpressure_store_latency_ema",
        "vllm:kv_offload_tiering_chunk_hits_total",
        "vllm:kv_offload_tiering_chunk_queries_total",
        "vllm:kv_offload_tiering_lookup_async_delay_seconds",
        "vllm:kv_offload_tiering_lookup_sync_delay_seconds",
        "vllm:kv_offload_tiering_promotion_allocation_failures_total",
        "vllm:kv_offload_tiering_read_bytes_total",
        "vllm:kv_offload_tiering_read_time_total",
        "vllm:kv_offload_tiering_write_bytes_total",
        "vllm:kv_offload_tiering_write_time_total",
    ),
    **because(
        "of one KV connector, between its own buffers",
        "vllm:hisparse_cache_hits_total",
        "vllm:hisparse_cache_misses_total",
        "vllm:hisparse_host_block_idle_before_evict_seconds",
        "vllm:hisparse_host_block_lifetime_seconds",
        "vllm:hisparse_host_block_reuse_gap_seconds",
        "vllm:hisparse_host_cache_usage_perc",
        "vllm:hisparse_host_to_device_bytes_total",
        "vllm:hisparse_pending_page_transfers",
    ),
    "vllm:kv_offload_cpu_allocation_size": "chunks that a store asks for",
    "vllm:kv_offload_lookup_async_delay_seconds": "until a look-up that was put off is over; the request waits in it",
    **because(
        "of one KV connector; transfers are read where NIXL or Mooncake counts them",
        "vllm:mooncake_num_failed_recvs_total",
        "vllm:hf3fs_load_duration_seconds",
        "vllm:hf3fs_save_duration_seconds",
        "vllm:hf3fs_num_failed_load_total",
        "vllm:hf3fs_num_failed_save_total",
        "vllm:mooncake_store_operation_bytes_total",
        "vllm:mooncake_store_operation_failed_keys_total",
        "vllm:mooncake_store_operation_keys_total",
        "vllm:mooncake_store_operation_time_seconds",
        "vllm:mooncake_store_operation_total",
    ),
}
"""Families that are known and not read, with the reason."""
