"""SGLang's router and model gateway (``smg_*``, recorded pages; ``sgl_router_*`` of old, names from its source).

It counts a request when it comes; one that is answered well when the answer's head is there (of gRPC workers, whose
answers it takes apart, the whole); and apart from these what failed: at once where trying again would not help, else
when no try was left. ``/engine_metrics`` re-exports the workers' own series with ``worker_addr``, whichever engine's
they are: the same requests as on the workers' pages.
Source: https://github.com/lightseekorg/smg and ``sgl-model-gateway`` in https://github.com/sgl-project/sglang.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent.engine_families import because
from agent.engine_table import SURE, Histogram, Rule, Table
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Distribution, Signal

if TYPE_CHECKING:
    from agent.pages.page import Layout

_WHOLE: Final = {"connection_mode": "grpc"}
"""Whose durations end with the answer and not with its head."""

RULES = (
    Rule(
        Signal.RUNNING,
        "smg_worker_requests_active",
        old=(
            "sgl_router_running_requests",
            "sglang_num_running_reqs",
            "sglang:num_running_reqs",
            "vllm:num_requests_running",
        ),
    ),
    Rule(
        Signal.WAITING,
        "smg_admission_queue_depth",
        old=(
            "sgl_router_job_queue_depth",
            "sglang_num_queue_reqs",
            "sglang:num_queue_reqs",
            "vllm:num_requests_waiting",
        ),
    ),
    Rule(Signal.REQUESTS_RECEIVED_TOTAL, "smg_router_requests_total"),
    Rule(
        Signal.REQUESTS_FINISHED_TOTAL,
        "smg_router_request_duration_seconds_count",
        old=("sgl_router_requests_total",),
    ),
    Rule(Signal.REQUESTS_FAILED_TOTAL, "smg_router_request_errors_total", old=("sgl_router_request_errors_total",)),
    Rule(
        Signal.REQUESTS_FAILED_TOTAL,
        "smg_worker_retries_exhausted_total",
        old=("sgl_router_retries_exhausted_total",),
    ),
    Rule(Signal.ADMISSION_REJECTIONS_TOTAL, "smg_admission_queue_rejected_total"),
    Rule(Signal.PROMPT_TOKENS_TOTAL, "smg_router_tokens_total", where={"token_type": "input"}),
    Rule(Signal.GENERATION_TOKENS_TOTAL, "smg_router_tokens_total", where={"token_type": "output"}),
    Rule(
        Signal.REQUEST_SECONDS_TOTAL,
        "smg_router_request_duration_seconds_sum",
        where=_WHOLE,
    ),
    Rule(Signal.KV_TRANSFERS_TOTAL, "smg_pd_kv_transfer_duration_seconds_count"),
    Rule(Signal.KV_TRANSFER_SECONDS_TOTAL, "smg_pd_kv_transfer_duration_seconds_sum"),
    Rule(Signal.KV_TRANSFER_FAILURES_TOTAL, "smg_pd_kv_transfer_failures_total"),
    Rule(Signal.ENDPOINTS_HEALTHY, "smg_worker_health", old=("sgl_router_worker_health",)),
)
HISTOGRAMS = (
    Histogram(Distribution.TTFT_SECONDS, "smg_router_ttft_seconds", old=("sgl_router_ttft_seconds",)),
    Histogram(Distribution.TPOT_SECONDS, "smg_router_tpot_seconds", old=("sgl_router_tpot_seconds",)),
    Histogram(
        Distribution.E2E_SECONDS,
        "smg_router_request_duration_seconds",
        where=_WHOLE,
    ),
)
IGNORED = {
    **because(
        "the HTTP layer's own count; the edge record has every request",
        "smg_http_requests_total",
        "smg_http_request_duration_seconds",
        "smg_http_inflight_request_age_count",
        "smg_http_responses_total",
        "smg_http_connections_active",
        "smg_http_rate_limit_total",
        "smg_http_connection_timeouts_total",
        "sgl_router_http_requests_total",
        "sgl_router_http_responses_total",
        "sgl_router_responses_total",
    ),
    **because(
        "one worker's connections, health checks, breakers and retries",
        "smg_worker_pool_size",
        "smg_worker_connections_active",
        "smg_worker_health_checks_total",
        "smg_worker_selection_total",
        "smg_worker_errors_total",
        "smg_worker_overload_shed_total",
        "smg_worker_overload_fallback_total",
        "smg_worker_liveness_fallback_total",
        "smg_worker_requests_total",
        "smg_worker_routing_keys_active",
        "smg_worker_stalled",
        "smg_worker_stall_transitions_total",
        "smg_worker_http2",
        "smg_worker_cb_health_readmissions_total",
        "smg_router_upstream_send_retries_total",
        "smg_worker_cb_state",
        "smg_worker_cb_transitions_total",
        "smg_worker_cb_outcomes_total",
        "smg_worker_cb_consecutive_failures",
        "smg_worker_cb_consecutive_successes",
        "smg_worker_retries_total",
        "smg_worker_retry_backoff_seconds",
        "sgl_router_retries_total",
        "sgl_router_retry_backoff_duration_seconds",
        "sgl_router_cb_state",
        "sgl_router_cb_outcomes_total",
        "sgl_router_cb_state_transitions_total",
        "sgl_router_processed_requests_total",
        "sgl_router_active_workers",
        "sgl_router_worker_load",
        "sgl_router_active_load",
        "sgl_router_health_checks_total",
    ),
    **because(
        "a worker's own figures, which its page has",
        "smg_engine_running_requests",
        "smg_engine_waiting_requests",
        "smg_engine_token_usage",
        "smg_engine_gen_throughput",
        "smg_engine_cache_hit_rate",
        "smg_engine_pd_kv_transfer_latency_ms",
        "smg_engine_pd_kv_transfer_speed_gb_s",
        "smg_engine_pd_prefill_queue_reqs",
        "smg_engine_pd_decode_queue_reqs",
        "smg_engine_load_polls_total",
    ),
    **because(
        "how it finds workers and picks one",
        "smg_kv_event_subscription_failures_total",
        "smg_workers_overloaded",
        "smg_manual_policy_cache_entries",
        "smg_cache_tree_chars",
        "smg_cache_tree_tokens",
        "smg_cache_tree_tenants",
        "smg_cache_placement_entries",
        "smg_cache_aware_match_ratio",
        "smg_cache_aware_policy_branch_total",
        "smg_manual_policy_branch_total",
        "smg_prefix_hash_policy_branch_total",
        "smg_policy_inflight_reconciled_total",
        "smg_routing_key_source_total",
        "smg_discovery_snapshot_errors_total",
        "smg_discovery_registrations_total",
        "smg_discovery_deregistrations_total",
        "smg_discovery_sync_duration_seconds",
        "smg_discovery_workers_discovered",
        "sgl_router_policy_decisions_total",
        "sgl_router_cache_hits_total",
        "sgl_router_cache_misses_total",
        "sgl_router_tree_size",
        "sgl_router_load_balancing_events_total",
        "sgl_router_max_load",
        "sgl_router_min_load",
        "sgl_router_job_success_total",
        "sgl_router_job_failure_total",
        "sgl_router_job_duration_seconds",
        "sgl_router_discovery_updates_total",
    ),
    **because(
        "prefill and decode apart",
        "smg_pd_prefill_duration_seconds",
        "smg_pd_ttft_seconds",
        "smg_pd_kv_connector_mode_total",
        "smg_pd_bootstrap_failures_total",
    ),
    **because(
        "of tools, storage, images and memory around the router",
        "smg_mcp_tool_calls_total",
        "smg_mcp_tool_duration_seconds",
        "smg_mcp_servers_active",
        "smg_mcp_tool_iterations_total",
        "smg_db_operations_total",
        "smg_db_operation_duration_seconds",
        "smg_db_connections_active",
        "smg_db_items_stored",
        "smg_history_memory_records",
        "smg_responses_not_stored_total",
        "smg_responses_stream_failures_total",
        "smg_detokenize_prefix_mismatch_total",
        "smg_mm_tensors_total",
        "smg_mm_tensor_bytes_total",
        "smg_mm_shm_write_failures_total",
        "smg_allocator_allocated_bytes",
        "smg_allocator_active_bytes",
        "smg_allocator_resident_bytes",
        "smg_allocator_metadata_bytes",
    ),
    **because(
        "until the head of an answer: of a stream neither the whole nor its first token",
        "sgl_router_request_duration_seconds",
        "sgl_router_generate_duration_seconds",
    ),
    **because(
        "a part of what is read whole",
        "smg_admission_inflight",
        "smg_router_stage_duration_seconds",
        "smg_router_upstream_responses_total",
        "smg_router_request_buffers_released_early_bytes_total",
        "smg_router_generation_duration_seconds",
        "smg_router_request_body_path_total",
    ),
}


_ENGINES: Final = ("sglang_", "sglang:", "vllm:", "trtllm_")


def _signs(layout: Layout) -> bool:
    return any("worker_addr" in one.labels and one.name.startswith(_ENGINES) for one in layout.series)


TABLE = Table(
    engine="sglang_router",
    prefixes=("smg_", "sgl_router_"),
    signs=_signs,
    strength=SURE,
    role="router",
    rules=RULES,
    histograms=HISTOGRAMS,
    ignored=IGNORED,
    others={
        **dict.fromkeys(_ENGINES, "a worker's own series, re-exported"),
        "smg_tokio_": "runtime of a Rust program",
        "smg_mesh_": "between gateways",
        "smg_rl_": "weights and control of workers that learn",
        "smg_scheduler_": "of admission by priority; the queue's depth is read where it is told",
        "smg_pd_": "prefill and decode apart, and who is let in there",
        "smg_kv_": "what it knows of the workers' KV caches",
        "smg_tokenizer_": "of the tokenizer in the router",
        "smg_mm_": "of images and sounds around the router",
    },
    model_labels=("model", "model_id", "model_name"),
    # Of the workers' series: their ranks tell the same, and priorities are parts of the total.
    copy_labels=("pp_rank", "tp_rank", "moe_ep_rank", "pid"),
    part_labels=("priority",),
    # Tokens, times to first token and durations of the whole are told of gRPC workers alone; errors have a series once
    # one happened.
    optional=frozenset(
        {
            Signal.WAITING,
            Signal.REQUESTS_FAILED_TOTAL,
            Signal.PROMPT_TOKENS_TOTAL,
            Signal.GENERATION_TOKENS_TOTAL,
            Signal.REQUEST_SECONDS_TOTAL,
        }
    )
    | SIGNALS_WITHOUT_COLUMN,
    notes=lambda _page: ["a router: the workers' own pages tell of the same requests"],
    counts_late=True,
)
