"""NVIDIA Dynamo's own pages: frontend, router and components (recorded slice, documented pages and names).

All of them hand requests on: a worker's page also has the engine's names, and is read by the engine's table. Names of
models are lower-cased here, while the engine keeps their case.
Source: https://docs.nvidia.com/dynamo (metrics catalogue).
"""

from __future__ import annotations

from agent.engine_families import because
from agent.engine_table import HOST, Histogram, Rule, Table
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Distribution, Signal

RULES = (
    Rule(
        Signal.RUNNING,
        "dynamo_frontend_active_requests",
        old=("dynamo_frontend_inflight_requests", "dynamo_component_inflight_requests"),
    ),
    Rule(Signal.WAITING, "dynamo_frontend_queued_requests", old=("dynamo_request_queue",)),
    Rule(Signal.PROMPT_TOKENS_TOTAL, "dynamo_frontend_input_sequence_tokens_sum"),
    Rule(
        Signal.GENERATION_TOKENS_TOTAL,
        "dynamo_frontend_output_tokens_total",
        old=("dynamo_frontend_output_sequence_tokens_sum",),
    ),
    Rule(Signal.PREFIX_CACHE_HITS_TOTAL, "dynamo_frontend_cached_tokens_sum"),
    Rule(
        Signal.REQUESTS_FINISHED_TOTAL,
        "dynamo_frontend_requests_total",
        # A development build's counter of successes, whose name ends like a histogram's part.
        old=("dynamo_frontend_request_success_count", "dynamo_component_requests_total"),
    ),
    Rule(
        Signal.REQUESTS_FAILED_TOTAL,
        "dynamo_frontend_requests_total",
        old=("dynamo_component_errors_total",),
        where={"status": "error"},
        where_old={},  # a series for each error_type
    ),
    Rule(
        Signal.REQUEST_SECONDS_TOTAL,
        "dynamo_frontend_request_duration_seconds_sum",
        old=("dynamo_component_request_duration_seconds_sum",),
    ),
    Rule(
        Signal.ADMISSION_REJECTIONS_TOTAL,
        "dynamo_frontend_model_rejection_total",
        old=("dynamo_rejection_request_total",),
    ),
    Rule(Signal.REQUESTS_ABORTED_TOTAL, "dynamo_frontend_model_cancellation_total"),
    # Handed to a worker whose first token is not there yet; the series names no model.
    Rule(Signal.REQUESTS_IN_PREFILL, "dynamo_frontend_stage_requests", where={"stage": "dispatch"}, of_server=True),
)
HISTOGRAMS = (
    Histogram(Distribution.TTFT_SECONDS, "dynamo_frontend_time_to_first_token_seconds"),
    Histogram(Distribution.ITL_SECONDS, "dynamo_frontend_inter_token_latency_seconds"),
    Histogram(
        Distribution.E2E_SECONDS,
        "dynamo_frontend_request_duration_seconds",
        old=("dynamo_component_request_duration_seconds",),
    ),
    Histogram(Distribution.PROMPT_TOKENS, "dynamo_frontend_input_sequence_tokens"),
    Histogram(Distribution.COMPLETION_TOKENS, "dynamo_frontend_output_sequence_tokens"),
)
IGNORED = {
    "dynamo_frontend_disconnected_clients": "a gauge that only grows; cancellations are read",
    **because(
        "tokenizer's cache, on the CPU",
        "dynamo_frontend_tokenizer_cache_hits_total",
        "dynamo_frontend_tokenizer_cache_misses_total",
        "dynamo_frontend_tokenizer_cache_cached_tokens_total",
        "dynamo_frontend_tokenizer_cache_uncached_tokens_total",
    ),
    **because(
        "requests moved to another worker",
        "dynamo_frontend_model_migration_total",
        "dynamo_frontend_model_migration_duration_seconds",
        "dynamo_frontend_model_migration_max_seq_len_exceeded_total",
    ),
    **because(
        "of one worker, whose own page says more",
        "dynamo_frontend_worker_active_decode_blocks",
        "dynamo_frontend_worker_active_prefill_tokens",
        "dynamo_frontend_worker_last_time_to_first_token_seconds",
        "dynamo_frontend_worker_last_input_sequence_tokens",
        "dynamo_frontend_worker_last_inter_token_latency_seconds",
    ),
    **because(
        "a limit, which is configuration",
        "dynamo_frontend_model_total_kv_blocks",
        "dynamo_frontend_model_max_num_seqs",
        "dynamo_frontend_model_max_num_batched_tokens",
        "dynamo_frontend_model_context_length",
        "dynamo_frontend_model_kv_cache_block_size",
        "dynamo_frontend_model_migration_limit",
    ),
    **because(
        "bytes between components",
        "dynamo_component_request_bytes_total",
        "dynamo_component_response_bytes_total",
        "dynamo_component_bytes_processed_total",
    ),
    **because("since when it runs", "dynamo_component_uptime_seconds", "uptime_seconds"),
    "dynamo_component_cancellation_total": "signals to a worker, of requests that the frontend counts",
    "dynamo_engine_request": "requests in the engine; its own page has them",
    **because(
        "the router's own count of what the frontend counts",
        "dynamo_component_router_requests_started_total",
        "dynamo_component_router_requests_total",
        "dynamo_component_router_time_to_first_token_seconds",
        "dynamo_component_router_inter_token_latency_seconds",
        "dynamo_component_router_input_sequence_tokens",
        "dynamo_component_router_output_sequence_tokens",
        "dynamo_component_router_kv_hit_rate",
        "dynamo_component_router_non_max_overlap_selections_total",
        "dynamo_component_router_overlap_blocks_lost",
        "dynamo_component_kv_cache_events_applied",
        "dynamo_epp_cached_tokens",
    ),
    **because(
        "what routing costs, in ms",
        "dynamo_router_overhead_block_hashing_ms",
        "dynamo_router_overhead_indexer_find_matches_ms",
        "dynamo_router_overhead_seq_hashing_ms",
        "dynamo_router_overhead_scheduling_ms",
        "dynamo_router_overhead_total_ms",
    ),
    **because(
        "the router's queue, a part of what waits",
        "dynamo_frontend_router_queue_pending_requests",
        "dynamo_frontend_router_queue_pending_isl_tokens",
        "dynamo_frontend_router_queue_pending_cached_tokens",
        "dynamo_frontend_router_queue_backpressure_total",
    ),
}


TABLE = Table(
    engine="dynamo",
    prefixes=("dynamo_",),
    strength=HOST,
    role="router",
    rules=RULES,
    histograms=HISTOGRAMS,
    ignored=IGNORED,
    model_labels=("model",),
    # A labelled family has no series before the first request that fits it.
    optional=frozenset({Signal.REQUESTS_FAILED_TOTAL, Signal.WAITING, Signal.PREFIX_CACHE_HITS_TOTAL})
    | SIGNALS_WITHOUT_COLUMN,
    health_path="/health",
    notes=lambda _page: ["model names are lower-cased here, and not on the engine's own page"],
    finished_includes_failed=True,
    counts_late=True,
)
