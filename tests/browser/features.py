"""What few engines tell, of the stage: caches outside of the GPU, reasons to wait, estimates, sleeps."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from collector.store.client import Store


def other_signals(second: int, place: int) -> dict[str, float]:
    """The map of one sample of the engine at ``place``: it stores more and more blocks that are not over."""
    return {
        "waiting_capacity": float(second % 7), "waiting_deferred": float(place),
        "prefix_cache_hits_external_delta": 300.0,
        "prefix_cache_queries_external_delta": 400.0, "prefix_cache_hits_host_delta": 200.0,
        "multimodal_cache_hits_delta": 3.0, "multimodal_cache_queries_delta": 4.0 + place,
        "kv_transfers_delta": 2.0, "kv_transfer_seconds_delta": 0.1, "kv_transfer_bytes_delta": 8e6,
        "kv_transfer_post_seconds_delta": 0.004, "kv_transfer_descriptors_delta": 24.0,
        "kv_transfer_leases_expired_delta": float(second % 100 == 0), "kv_offload_store_bytes_delta": 5e6,
        "kv_offload_store_seconds_delta": 0.05, "kv_offload_stores_delta": 4.0, "kv_offload_load_bytes_delta": 2e6,
        "kv_offload_load_seconds_delta": 0.02, "kv_offload_loads_delta": 1.0,
        "kv_offload_stores_refused_delta": float(second % 60 == 0), "kv_offload_blocks_loaded_delta": 12.0,
        "kv_offload_blocks_pending": float(second // 20), "kv_offload_blocks_pinned": 30.0 + second % 20,
        "kv_offload_pinned_ratio": 0.3 + (second % 50) / 100, "kv_fetch_to_start": 1.0, "kv_fetch_in_progress": 2.0,
        "kv_fetch_completed": 0.0, "estimated_flops_delta": 3e14, "estimated_read_bytes_delta": 2e12,
        "spec_decode_drafts_delta": 10.0, "spec_decode_draft_tokens_delta": 30.0,
        "spec_decode_accepted_tokens_delta": 18.0, "lora_slots": 4.0, "lora_adapters_running": 2.0,
    }  # fmt: skip


def fill_features(store: Store, now: datetime, instance: str, model: str, recording: str = "") -> None:
    """How long blocks of an engine live, and how often it slept."""
    rows: list[dict[str, Any]] = [
        {"time": now - timedelta(seconds=60), "instance": instance, "model": model, "engine": "vllm", "signal": signal,
         "recording": recording, "bounds": [0.1, 1.0, 10.0, 60.0], "counts": counts, "count": sum(counts), "sum": total}
        for signal, counts, total in (
            ("kv_block_lifetime_seconds", [0, 4, 40, 20, 2], 900.0),
            ("kv_block_idle_seconds", [10, 40, 16, 0, 0], 60.0),
            ("kv_block_reuse_gap_seconds", [2, 10, 50, 4, 0], 400.0),
            ("kv_offload_lookup_seconds", [200, 4, 0, 0, 0], 4.0),
            ("sleep_operation_seconds", [0, 0, 3, 0, 0], 12.0),
        )
    ]  # fmt: skip
    store.insert("engine_histograms", rows)
