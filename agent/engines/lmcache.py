"""LMCache's own server (multi-process mode; recorded page and slice): KV cache outside the engine.

It counts tokens that engines look up and find; beside an engine's names on one page the engine's table reads the page.
Source: https://docs.lmcache.ai.
"""

from __future__ import annotations

from agent.engine_families import because
from agent.engine_table import HOST, Rule, Table
from base.vocabulary import Signal

RULES = (
    Rule(Signal.PREFIX_CACHE_QUERIES_EXTERNAL_TOTAL, "lmcache_mp_lookup_requested_tokens_total"),
    Rule(Signal.PREFIX_CACHE_HITS_EXTERNAL_TOTAL, "lmcache_mp_lookup_hit_tokens_total"),
)
_BUS = "of its own event bus"
_KEYS = "chunks, not tokens"
IGNORED = {
    **because(
        _BUS,
        "lmcache_mp_event_bus_queue_depth",
        "lmcache_mp_event_bus_drain_lag_seconds",
        "lmcache_mp_event_bus_dropped_events_total",
    ),
    **because("host memory of the cache; host samples have it", "lmcache_mp_l1_memory_usage_bytes"),
    **because(
        _KEYS,
        "lmcache_mp_active_prefetch_jobs",
        "lmcache_mp_sm_read_requests_total",
        "lmcache_mp_sm_read_succeed_keys_total",
        "lmcache_mp_sm_read_failed_keys_total",
        "lmcache_mp_sm_write_requests_total",
        "lmcache_mp_sm_write_succeed_keys_total",
        "lmcache_mp_sm_write_failed_keys_total",
        "lmcache_mp_l1_write_keys_total",
        "lmcache_mp_l1_read_keys_total",
        "lmcache_mp_l1_evicted_keys_total",
    ),
    **because(
        "how long chunks live and when they are used again",
        "lmcache_mp_real_reuse_gap_seconds",
        "lmcache_mp_real_reuse_gap_chunks",
        "lmcache_mp_l1_chunk_reuse_gap_seconds",
        "lmcache_mp_l0_block_lifetime_seconds",
    ),
    **because(
        "GB/s of each copy between GPU and host, without bytes",
        "lmcache_mp_l0_l1_store_throughput_gbs_GB_per_second",
        "lmcache_mp_l0_l1_load_throughput_gbs_GB_per_second",
    ),
}

TABLE = Table(
    engine="lmcache",
    prefixes=("lmcache_mp_",),
    strength=HOST,
    rules=RULES,
    ignored=IGNORED,
    model_labels=("model_name",),
    notes=lambda _page: ["a KV cache outside the engine: tokens that engines look up here, no requests"],
)
