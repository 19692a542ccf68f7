"""SGLang's metrics page (``--enable-metrics``), 0.3.5 to 0.5 (recorded pages and slices; names from its source).

Labels ``model_name`` (``name`` in 0.3), ``dp_rank`` and, of the scheduler's own series, ``tp_rank``, ``pp_rank``,
``moe_ep_rank``: ranks of one copy of the model tell the same, each stage of a pipeline always, those of a tensor
parallel group with ``--enable-metrics-for-all-schedulers``. So of several gauges the highest counts, and of counters
the lowest rank's. With priorities on, the series with ``priority=""`` is the sum of the others. Counters of requests
come from the tokenizer manager and have no rank. Source: ``python/sglang/srt/observability`` in
https://github.com/sgl-project/sglang.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.engine_families import because
from agent.engine_table import About, Histogram, Rule, Table
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Distribution, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.pages.page import Page

_MILLISECONDS = 1e-3
_MEGABYTES = 1e6


def _because(reason: str, *names: str) -> dict[str, str]:
    return because(reason, *(f"sglang:{name}" for name in names))


RULES = (
    Rule(Signal.RUNNING, "sglang:num_running_reqs", old=("sglang:num_requests_running",), combine="max"),
    Rule(
        Signal.WAITING, "sglang:num_queue_reqs", old=("sglang:num_requests_waiting", "sglang:queue_req"), combine="max"
    ),
    Rule(Signal.KV_CACHE_USAGE_RATIO, "sglang:token_usage", combine="max"),
    Rule(Signal.PREEMPTIONS_TOTAL, "sglang:num_retracted_requests_total"),
    Rule(Signal.PROMPT_TOKENS_TOTAL, "sglang:prompt_tokens_total"),
    Rule(Signal.GENERATION_TOKENS_TOTAL, "sglang:generation_tokens_total"),
    Rule(Signal.PREFIX_CACHE_QUERIES_TOTAL, "sglang:prompt_tokens_total", beside=("sglang:cached_tokens_total",)),
    Rule(Signal.PREFIX_CACHE_HITS_TOTAL, "sglang:cached_tokens_total"),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "sglang:num_requests_total", old=("sglang:request_success_total",)),
    Rule(Signal.REQUESTS_ABORTED_TOTAL, "sglang:num_aborted_requests_total"),
    # Forward passes, those without a graph too, since 0.5.9.
    Rule(Signal.ENGINE_STEPS_TOTAL, "sglang:cuda_graph_passes_total"),
    Rule(Signal.REQUEST_SECONDS_TOTAL, "sglang:e2e_request_latency_seconds_sum"),
    Rule(
        Signal.QUEUE_SECONDS_TOTAL,
        "sglang:queue_time_seconds_sum",
        old=("sglang:waiting_request_latency_seconds_sum",),
    ),
    Rule(Signal.WAITING_DEFERRED, "sglang:num_grammar_queue_reqs", combine="max"),
    Rule(Signal.PREFIX_CACHE_HITS_DEVICE_TOTAL, "sglang:cached_tokens_total", where={"cache_source": "device"}),
    Rule(Signal.PREFIX_CACHE_HITS_HOST_TOTAL, "sglang:cached_tokens_total", where={"cache_source": "host"}),
    Rule(Signal.PREFIX_CACHE_HITS_DISK_TOTAL, "sglang:cached_tokens_total", where={"cache_source": "storage"}),
    # Histograms since 0.5.15; gauges of the same name before have no count and no sum.
    Rule(Signal.KV_TRANSFERS_TOTAL, "sglang:kv_transfer_latency_ms_count"),
    Rule(Signal.KV_TRANSFER_SECONDS_TOTAL, "sglang:kv_transfer_latency_ms_sum", scale=_MILLISECONDS),
    Rule(Signal.KV_TRANSFER_BYTES_TOTAL, "sglang:kv_transfer_total_mb_sum", scale=_MEGABYTES),
    Rule(Signal.KV_TRANSFER_FAILURES_TOTAL, "sglang:num_transfer_failed_reqs_total"),
    Rule(Signal.KV_OFFLOAD_BYTES_TOTAL, "sglang:hicache_backup_bytes_total", plus=("sglang:load_back_bytes_total",)),
    Rule(Signal.SPEC_DECODE_DRAFTS_TOTAL, "sglang:spec_verify_calls_total"),
    Rule(Signal.SPEC_DECODE_ACCEPTANCE_LENGTH, "sglang:spec_accept_length", combine="max"),
    Rule(Signal.LORA_SLOTS, "sglang:lora_pool_slots_total", combine="max"),
    Rule(Signal.ESTIMATED_FLOPS_TOTAL, "sglang:estimated_flops_per_gpu_total"),
    Rule(Signal.ESTIMATED_READ_BYTES_TOTAL, "sglang:estimated_read_bytes_per_gpu_total"),
    Rule(Signal.ESTIMATED_WRITE_BYTES_TOTAL, "sglang:estimated_write_bytes_per_gpu_total"),
)
HISTOGRAMS = (
    Histogram(Distribution.TTFT_SECONDS, "sglang:time_to_first_token_seconds"),
    # Until 0.4.3 the gaps between tokens were called time per output token.
    Histogram(
        Distribution.ITL_SECONDS, "sglang:inter_token_latency_seconds", old=("sglang:time_per_output_token_seconds",)
    ),
    Histogram(Distribution.TPOT_SECONDS, "sglang:request_time_per_output_token_seconds"),
    Histogram(Distribution.E2E_SECONDS, "sglang:e2e_request_latency_seconds"),
    Histogram(Distribution.QUEUE_SECONDS, "sglang:queue_time_seconds", old=("sglang:waiting_request_latency_seconds",)),
    Histogram(Distribution.DECODE_SECONDS, "sglang:decode_request_latency_seconds"),
    Histogram(Distribution.PROMPT_TOKENS, "sglang:prompt_tokens_histogram", old=("sglang:request_prompt_tokens",)),
    Histogram(
        Distribution.COMPLETION_TOKENS, "sglang:generation_tokens_histogram", old=("sglang:request_generation_tokens",)
    ),
)

IGNORED = {
    **_because(
        "a part or a mean of what is read whole",
        "avg_request_queue_latency",
        "per_stage_req_latency_seconds",
        "uncached_prompt_tokens_histogram",
    ),
    **_because(
        "within the hierarchical cache; hits by tier are read",
        "backup_bandwidth",
        "backup_pgs",
        "backuped_tokens_total",
        "evicted_tokens_total",
        "eviction_duration_seconds",
        "hicache_backup_dropped_tokens_total",
        "hicache_backup_duration_seconds",
        "hicache_backup_tokens_total",
        "hicache_dropped_tokens_total",
        "hicache_host_mamba_total_states",
        "hicache_host_mamba_used_states",
        "hicache_host_total_tokens",
        "hicache_host_used_tokens",
        "hicache_prefetch_aux_alloc_failed_tokens_total",
        "load_back_duration_seconds",
        "load_back_tokens_total",
        "prefetch_bandwidth",
        "prefetch_pgs",
        "prefetched_tokens_total",
        "storage_prefetch_deferred_tokens_total",
        "storage_prefetch_hit_tokens_total",
        "storage_prefetch_unfulfilled_tokens_total",
    ),
    **_because(
        "of the last batch, and 0 in each decode report; the counters give it",
        "cache_hit_rate",
        "cached_token",
        "new_seq",
        "new_token",
    ),
    **_because(
        "size or content of a pool, in tokens or pages; token_usage is the share",
        "context_len",
        "kv_available_tokens",
        "kv_cache_memory_usage_gb",
        "kv_evictable_tokens",
        "kv_used_tokens",
        "max_prefill_tokens",
        "max_running_requests",
        "max_total_num_tokens",
        "max_total_num_tokens_swa",
        "new_token_ratio",
        "num_pages",
        "num_streaming_sessions",
        "num_used_tokens",
        "page_size",
        "streaming_session_held_tokens",
    ),
    **_because(
        "work by kind and mode, on each log interval; tokens are read per request",
        "decode_sum_seq_lens",
        "forward_execution_seconds_total",
        "fwd_occupancy",
        "gen_throughput",
        "gpu_execution_seconds_total",
        "is_cuda_graph",
        "prefill_delayer_outcomes_total",
        "prefill_delayer_wait_forward_passes",
        "prefill_delayer_wait_seconds",
        "prefill_effective_tokens_total",
        "realtime_tokens_total",
        "utilization",
    ),
    **_because(
        "queues between prefill and decode nodes, within a request's work",
        "decode_deferred_kv_release_seconds",
        "decode_deferred_kv_release_total",
        "num_bootstrap_failed_reqs_total",
        "num_decode_deferred_kv_release_reqs",
        "num_decode_host_receive_queue_reqs",
        "num_decode_host_receive_reqs_total",
        "num_decode_prealloc_queue_reqs",
        "num_decode_transfer_queue_reqs",
        "num_prefill_bootstrap_queue_reqs",
        "num_prefill_infight_queue_reqs",
        "num_prefill_inflight_queue_reqs",
        "num_prefill_prealloc_queue_reqs",
        "num_prefill_retries_total",
        "pending_prealloc_token_usage",
        "prealloc_full_token_usage",
        "prealloc_swa_token_usage",
    ),
    **_because(
        "balance between ranks and experts",
        "dp_attention_pairs_total",
        "dp_attention_steps_total",
        "dp_attention_sync_wait_seconds",
        "dp_attention_token_imbalance_ratio",
        "dp_attention_tokens_total",
        "dp_cooperation_forward_execution_seconds_total",
        "dp_cooperation_gpu_execution_seconds_total",
        "dp_cooperation_realtime_tokens_total",
        "eplb_balancedness",
        "eplb_gpu_physical_count",
        "failed_session_recoveries_total",
    ),
    **_because(
        "an encoder for images and sound, before the engine",
        "encoder_cache_entries",
        "encoder_cache_evictions_total",
        "encoder_cache_hit_files_total",
        "encoder_cache_hit_tokens_total",
        "encoder_cache_size_mb",
        "encoder_cache_total_files_total",
        "encoder_cache_total_tokens_total",
        "encoder_dp_pending_requests",
        "encoder_mm_items_per_batch",
        "encoder_mm_items_per_request",
        "encoder_model_forward_seconds",
        "encoder_preprocess_seconds",
        "encoder_queue_wait_seconds",
        "encoder_request_e2e_latency_seconds",
        "encoder_requests_received_total",
        "encoder_requests_total",
        "encoder_transfer_seconds",
    ),
    **_because(
        "once per start, or memory that GPU samples have",
        "engine_load_weights_time",
        "engine_startup_time",
        "graph_memory_usage_gb",
        "startup_available_gpu_memory_gb",
        "startup_cuda_graph_time_seconds",
        "startup_latency_breakdown_seconds_max",
        "startup_time_seconds",
        "weight_load_duration_seconds",
        "weight_memory_usage_gb",
    ),
    **_because(
        "a pool of one kind of layer; token_usage is the fullest",
        "full_token_usage",
        "mamba_available_tokens",
        "mamba_evictable_tokens",
        "mamba_usage",
        "mamba_used_tokens",
        "swa_available_tokens",
        "swa_evictable_tokens",
        "swa_token_usage",
        "swa_used_tokens",
    ),
    **_because(
        "of the server around the scheduler; host samples and the edge record have it",
        "func_latency_seconds",
        "get_loads_duration_seconds",
        "http_requests_active",
        "http_requests_total",
        "http_responses_total",
        "num_unique_running_routing_keys",
        "process_cpu_seconds_total",
        "routing_key_all_req_count",
        "routing_key_running_req_count",
        "routing_keys_active",
        "scheduler_idle_seconds_total",
        "scheduler_process_cpu_seconds_total",
        "scheduler_stage_seconds_total",
    ),
    **_because(
        "structured output: compiling and caching of grammars",
        "grammar_compilation_time_seconds",
        "grammar_ebnf_size",
        "grammar_schema_count",
        "grammar_tree_traversal_time_avg",
        "grammar_tree_traversal_time_max",
        "num_grammar_aborted_total",
        "num_grammar_cache_hit_total",
        "num_grammar_timeout_total",
        "num_grammar_total",
        "num_so_requests_total",
    ),
    **_because(
        "a gauge until 0.5.9 and a histogram since, of one stage of a transfer",
        "kv_transfer_alloc_ms",
        "kv_transfer_bootstrap_ms",
        "kv_transfer_speed_gb_s",
    ),
    **_because(
        "slots in use; which adapters run is not told",
        "lora_pool_slots_used",
        "lora_pool_utilization",
    ),
    **_because(
        "a gauge of the last report; the counter of preemptions is read",
        "num_paused_reqs",
        "num_retracted_input_tokens_total",
        "num_retracted_output_tokens_total",
        "num_retracted_reqs",
        "num_retractions",
        "num_running_reqs_offline_batch",
        "total_retracted_reqs",
    ),
    **_because(
        "a state or a mean of the last batches; spec_accept_length is read",
        "spec_accept_rate",
        "spec_block_accept_length",
        "spec_cap_length",
        "spec_num_draft_tokens",
        "spec_num_steps",
    ),
}


def _about(reply: Mapping[str, Any]) -> About:
    told = ("tp_size", "dp_size", "max_running_requests", "mem_fraction_static", "kv_cache_dtype", "quantization")
    config = {key: str(reply[key]) for key in told if isinstance(reply.get(key), str | int | float)}
    return About(str(reply.get("version", "")), str(reply.get("served_model_name", "")), config)


def _notes(page: Page) -> list[str]:
    names = {TABLE.spelled(name) for name in page.layout.places}
    notes = ["requests_finished_total counts aborted requests too; they stand apart in requests_aborted_total"]
    if any(one.labels.get("name") for one in page.layout.series if TABLE.spelled(one.name) == "sglang:token_usage"):
        notes.append("SGLang 0.3: the model stands in the label name, and cache_hit_rate is in percent")
    if "sglang:cache_hit_rate" in names:
        notes.append("cache_hit_rate is of the last batch and 0 while decoding: hits are read from the counters")
    if "sglang:cached_tokens_total" not in names:
        notes.append("this page counts no cached tokens: prefix hits are unknown, not 0")
    if len({one.labels["dp_rank"] for one in page.layout.series if one.labels.get("dp_rank")}) > 1:
        notes.append("gauges are of ranks, counters of requests of the whole server, without a rank")
    return notes


TABLE = Table(
    engine="sglang",
    prefixes=("sglang:",),
    rules=RULES,
    histograms=HISTOGRAMS,
    ignored=IGNORED,
    # The colon becomes an underscore in OpenTelemetry and behind its own gateway.
    spellings={"sglang_": "sglang:"},
    model_labels=("model_name", "name"),
    rank_label="dp_rank",
    copy_labels=("pp_rank", "tp_rank", "moe_ep_rank", "pid"),
    part_labels=("priority",),
    host_labels=frozenset({"engine_type", "tp_rank", "pp_rank", "moe_ep_rank", "pid", "worker_addr"}),
    info={"sglang:cache_config_info": ()},
    # Retractions are counted since 0.5.9, cached tokens since 0.4.4, queue time since 0.5.3.
    optional=frozenset(
        {
            Signal.PREEMPTIONS_TOTAL,
            Signal.PREFIX_CACHE_QUERIES_TOTAL,
            Signal.PREFIX_CACHE_HITS_TOTAL,
            Signal.QUEUE_SECONDS_TOTAL,
            Signal.ENGINE_STEPS_TOTAL,
        }
    )
    | SIGNALS_WITHOUT_COLUMN,
    # By the points at which its source was read; one of 0.4 may lack what came within it.
    since={
        **dict.fromkeys(
            (
                Signal.RUNNING,
                Signal.WAITING,
                Signal.KV_CACHE_USAGE_RATIO,
                Signal.PROMPT_TOKENS_TOTAL,
                Signal.GENERATION_TOKENS_TOTAL,
                Signal.REQUEST_SECONDS_TOTAL,
                Distribution.E2E_SECONDS,
            ),
            (0, 4),
        ),
        Signal.REQUESTS_FINISHED_TOTAL: (0, 5),
    },
    about_path="/server_info",
    about_older="/get_server_info",
    about=_about,
    notes=_notes,
    counts_late=True,
)
