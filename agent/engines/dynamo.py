"""NVIDIA Dynamo's own pages: frontend, router and components (recorded slice, documented pages and names).

All of them hand requests on: a worker's page also has the engine's names, and is read by the engine's table. Names of
models are lower-cased here, while the engine keeps their case.

What waits at a frontend is in the stage ``route``, which lasts until a worker was chosen and has the router's queue in
it. ``queued_requests`` is no queue: a request is in it from its arrival to its first token, prefill and all, and its
makers keep it for old dashboards alone.
Sources: https://docs.nvidia.com/dynamo (metrics catalogue), and ai-dynamo/dynamo, ``lib/llm/src/http/service``,
``lib/runtime/src/metrics`` and ``lib/llm/src/kv_router``, whose names are listed in ``tests/fixtures/dynamo``.
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
    Rule(
        Signal.WAITING,
        "dynamo_frontend_stage_requests",
        old=("dynamo_request_queue",),
        where={"stage": "route"},
        where_old={},  # of a worker: not yet taken up
        of_server=True,
    ),
    # Taken up, and held back at the engine's door.
    Rule(Signal.WAITING, "dynamo_backend_admission_request_queue_count"),
    Rule(Signal.PROMPT_TOKENS_TOTAL, "dynamo_frontend_input_sequence_tokens_sum"),
    Rule(
        Signal.GENERATION_TOKENS_TOTAL,
        "dynamo_frontend_output_tokens_total",
        old=("dynamo_frontend_output_sequence_tokens_sum",),
    ),
    Rule(Signal.PREFIX_CACHE_HITS_TOTAL, "dynamo_frontend_cached_tokens_sum"),
    Rule(Signal.REQUESTS_RECEIVED_TOTAL, "dynamo_frontend_requests_started_total"),
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
    # A prompt's template, tokens and images; what follows until a worker's first answer is in the time to first token.
    Rule(
        Signal.COMPUTE_INPUT_SECONDS_TOTAL,
        "dynamo_frontend_stage_duration_seconds_sum",
        where={"stage": "preprocess"},
        of_server=True,
    ),
    Rule(Signal.COMPUTE_OUTPUT_SECONDS_TOTAL, "dynamo_frontend_detokenize_total_us", scale=1e-6, of_server=True),
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
_TOKIO = (
    "dynamo_frontend_event_loop_delay_seconds", "dynamo_frontend_event_loop_stall_total",
    *[
        f"dynamo_tokio_{one}"
        for one in (
            "global_queue_depth", "budget_forced_yield_total", "blocking_threads", "blocking_idle_threads",
            "blocking_queue_depth", "alive_tasks", "worker_mean_poll_time_ns", "worker_busy_ratio",
            "worker_park_count_total", "worker_local_queue_depth", "worker_steal_count_total",
            "worker_overflow_count_total",
        )
    ],
)  # fmt: skip
_TRANSPORT = (
    "dynamo_transport_tcp_bytes_sent_total", "dynamo_transport_tcp_bytes_received_total",
    "dynamo_transport_tcp_errors_total", "dynamo_transport_nats_errors_total",
    "dynamo_tcp_response_data_segments_total",
    *[
        f"dynamo_tcp_response_mux_{one}"
        for one in (
            "active_connections", "connections_total", "active_streams", "setup_seconds", "frames_total",
            "writer_queue_depth", "queued_bytes", "frames_per_write", "batch_bytes", "batch_wait_seconds",
            "configured_batch_interval_ms", "write_calls_total", "queue_residence_seconds", "resets_total",
            "reconnects_total", "flow_control_stall_seconds", "connection_flow_control_stall_seconds",
            "writer_admission_stall_seconds", "queued_byte_admission_stall_seconds", "stream_writer_queue_occupancy",
            "ready_streams", "priority_queue_residence_seconds", "round_robin_turns_total", "window_updates_total",
            "connection_lost_streams_total",
        )
    ],
)  # fmt: skip
_INDEX = (
    *[
        f"dynamo_kvindexer_{one}"
        for one in ("request_duration_seconds", "requests_total", "errors_total", "models", "workers")
    ],
    *[
        f"dynamo_component_kv_publisher_{one}"
        for one in (
            "engines_dropped_events_total", "zmq_events_total", "zmq_filtered_events_total",
            "zmq_conversion_issues_total", "zmq_suspicious_events_total",
        )
    ],
    *[f"dynamo_component_router_kv_zmq_ingress_{one}" for one in ("sources", "batches_total", "lifecycle_total")],
    *[
        f"dynamo_component_router_active_sequence_zmq_ingress_{one}"
        for one in (
            "sources", "sequence_gaps_total", "out_of_order_total", "reconnects_total", "replacements_total",
            "envelope_decode_errors_total", "payload_decode_errors_total", "identity_errors_total",
            "forced_aborts_total",
        )
    ],
    "dynamo_component_router_remote_indexer_query_failures_total",
    "dynamo_component_router_remote_indexer_write_failures_total",
    "dynamo_component_router_kv_event_source_mismatch_workers",
)  # fmt: skip
IGNORED = {
    "dynamo_frontend_disconnected_clients": "a gauge that only grows; cancellations are read",
    "dynamo_frontend_queued_requests": "until the first token: no queue; its makers call it deprecated",
    "dynamo_frontend_model_ready": "whether the frontend has a worker for a model",
    **because(
        "parts of what preparing a prompt takes, which is read",
        "dynamo_frontend_tokenize_seconds",
        "dynamo_frontend_template_seconds",
        "dynamo_frontend_tokenizer_latency_ms",
    ),
    "dynamo_frontend_detokenize_token_count": "tokens, which are counted as they are sent",
    "dynamo_frontend_embedding_latency_seconds": "of embeddings alone",
    **because(
        "pieces of prompts that are no text",
        "dynamo_frontend_images_per_request",
        "dynamo_frontend_videos_per_request",
        "dynamo_frontend_audio_per_request",
        "dynamo_frontend_image_tokens_per_request",
    ),
    **because(
        "refusals by gate, and a gate's limit",
        "dynamo_frontend_admission_rejection_total",
        "dynamo_frontend_admission_gate_limit",
    ),
    **because(
        "where LoRA adapters are placed",
        "dynamo_frontend_lora_replica_factor",
        "dynamo_frontend_lora_is_active",
        "dynamo_frontend_lora_estimated_load",
        "dynamo_frontend_lora_raw_arrival_count",
        "dynamo_frontend_lora_active_requests",
        "dynamo_frontend_lora_churn_loads_total",
        "dynamo_frontend_lora_churn_unloads_total",
        "dynamo_frontend_lora_overflow_count",
    ),
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
    **because("of the process's own event loop", *_TOKIO),
    **because("of the connections between components", *_TRANSPORT),
    **because(
        "on the way between frontend and worker; the time to first token has it",
        "dynamo_request_plane_queue_seconds",
        "dynamo_request_plane_send_seconds",
        "dynamo_request_plane_roundtrip_ttft_seconds",
        "dynamo_component_network_transit_seconds",
        "dynamo_component_time_to_first_response_seconds",
    ),
    **because(
        "requests under way, counted again",
        "dynamo_request_plane_inflight_requests",
        "dynamo_request_plane_inflight",
        "dynamo_backend_admission_engine_request_count",
        "dynamo_backend_admission_engine_wait_count",
    ),
    **because(
        "a worker's door, whose requests the frontend counts",
        "dynamo_backend_admission_request_receive_total",
        "dynamo_backend_admission_request_admit_total",
        "dynamo_backend_admission_rejection_total",
        "dynamo_backend_admission_cancellation_total",
    ),
    **because(
        "a worker's queue and pool, of which the queue is read under another name",
        "dynamo_work_handler_queue_depth",
        "dynamo_work_handler_queue_capacity",
        "dynamo_work_handler_enqueue_rejected_total",
        "dynamo_work_handler_permit_wait_seconds",
        "dynamo_work_handler_pool_active_tasks",
        "dynamo_work_handler_pool_capacity",
    ),
    **because(
        "of the engine, whose own page says more",
        "dynamo_component_total_blocks",
        "dynamo_component_gpu_cache_usage_percent",
        "dynamo_component_model_load_time_seconds",
    ),
    **because(
        "of the index of KV cache events and how it is fed",
        *_INDEX,
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
        "dynamo_component_router_kv_transfer_estimated_latency_seconds",
        "dynamo_component_router_shared_cache_hit_rate",
        "dynamo_component_router_shared_cache_beyond_blocks",
        "dynamo_component_router_worker_registered",
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
        "dynamo_router_overhead_shared_cache_query_ms",
        "dynamo_router_shared_cache_errors_total",
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
    optional=frozenset(
        {
            Signal.REQUESTS_FAILED_TOTAL,
            Signal.WAITING,
            Signal.PREFIX_CACHE_HITS_TOTAL,
            Signal.COMPUTE_INPUT_SECONDS_TOTAL,
            Signal.COMPUTE_OUTPUT_SECONDS_TOTAL,
        }
    )
    | SIGNALS_WITHOUT_COLUMN,
    health_path="/health",
    notes=lambda _page: ["model names are lower-cased here, and not on the engine's own page"],
    finished_includes_failed=True,
    counts_late=True,
)
