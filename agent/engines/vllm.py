"""vLLM's metrics page, 0.6 to 0.32 (newest pages recorded on 0.32; older names from its metrics modules).

Labels ``model_name`` and ``engine`` (the data-parallel rank; older versions have no such label). Counters and
histograms come from the API server process, which goes on showing its last values when the engine core stands still.
Source: https://docs.vllm.ai/en/latest/usage/metrics.html and ``vllm/v1/metrics/loggers.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.engine_table import About, Histogram, Rule, Table
from base.vocabulary import Distribution, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.pages.page import Page

_PROCESS = "of the API server process, which host samples show for every process"
_HTTP = "the HTTP layer's own count; the edge record has every request"
_RUNTIME = "Python runtime of the API server"
_SHAPE = "a request parameter, not a signal of health"
_OLD = "removed from newer versions"

RULES = (
    Rule(Signal.RUNNING, "vllm:num_requests_running"),
    Rule(Signal.WAITING, "vllm:num_requests_waiting"),
    # gpu_cache_usage_perc until 0.9; both are shares of 1 despite "perc".
    Rule(Signal.KV_CACHE_USAGE_RATIO, "vllm:kv_cache_usage_perc", old=("vllm:gpu_cache_usage_perc",), combine="max"),
    Rule(Signal.PREEMPTIONS_TOTAL, "vllm:num_preemptions_total", old=("vllm:num_preemptions",)),
    Rule(Signal.PROMPT_TOKENS_TOTAL, "vllm:prompt_tokens_total", old=("vllm:prompt_tokens",)),
    Rule(Signal.GENERATION_TOKENS_TOTAL, "vllm:generation_tokens_total", old=("vllm:generation_tokens",)),
    Rule(
        Signal.PREFIX_CACHE_QUERIES_TOTAL,
        "vllm:prefix_cache_queries_total",
        old=(
            "vllm:prefix_cache_queries",
            "vllm:gpu_prefix_cache_queries_total",
            "vllm:gpu_prefix_cache_queries",
        ),
    ),
    Rule(
        Signal.PREFIX_CACHE_HITS_TOTAL,
        "vllm:prefix_cache_hits_total",
        old=("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits"),
    ),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "vllm:request_success_total", old=("vllm:request_success",)),
    Rule(
        Signal.REQUESTS_FAILED_TOTAL,
        "vllm:request_success_total",
        old=("vllm:request_success",),
        where={"finished_reason": "error"},
    ),
    Rule(Signal.ENGINE_STEPS_TOTAL, "vllm:iteration_tokens_total_count"),
    Rule(Signal.BATCH_TOKENS_TOTAL, "vllm:iteration_tokens_total_sum"),
    Rule(Signal.REQUEST_SECONDS_TOTAL, "vllm:e2e_request_latency_seconds_sum"),
    Rule(Signal.QUEUE_SECONDS_TOTAL, "vllm:request_queue_time_seconds_sum"),
    Rule(Signal.PREFILL_SECONDS_TOTAL, "vllm:request_prefill_time_seconds_sum"),
    Rule(Signal.DECODE_SECONDS_TOTAL, "vllm:request_decode_time_seconds_sum"),
)

HISTOGRAMS = (
    Histogram(Distribution.TTFT_SECONDS, "vllm:time_to_first_token_seconds"),
    # Until 0.11 the gaps between tokens were called time per output token.
    Histogram(
        Distribution.ITL_SECONDS, "vllm:inter_token_latency_seconds", old=("vllm:time_per_output_token_seconds",)
    ),
    Histogram(Distribution.TPOT_SECONDS, "vllm:request_time_per_output_token_seconds"),
    Histogram(Distribution.E2E_SECONDS, "vllm:e2e_request_latency_seconds"),
    Histogram(Distribution.QUEUE_SECONDS, "vllm:request_queue_time_seconds"),
    Histogram(Distribution.PREFILL_SECONDS, "vllm:request_prefill_time_seconds"),
    Histogram(Distribution.DECODE_SECONDS, "vllm:request_decode_time_seconds"),
    Histogram(Distribution.PROMPT_TOKENS, "vllm:request_prompt_tokens"),
    Histogram(Distribution.COMPLETION_TOKENS, "vllm:request_generation_tokens"),
    Histogram(Distribution.BATCH_TOKENS, "vllm:iteration_tokens_total"),
)

IGNORED = {
    "vllm:num_requests_waiting_by_reason": "parts of num_requests_waiting; capacity means blocks or token budget alike",
    "vllm:engine_sleep_state": "set by an operator, not by load",
    "vllm:external_prefix_cache_queries_total": "KV connector; 0 without one",
    "vllm:external_prefix_cache_hits_total": "KV connector; 0 without one",
    "vllm:mm_cache_queries_total": "multi-modal preprocessor cache",
    "vllm:mm_cache_hits_total": "multi-modal preprocessor cache",
    "vllm:prompt_tokens_recomputed_total": "prompt tokens computed again after a preemption, which is counted",
    "vllm:prompt_tokens_by_source_total": "parts of prompt_tokens_total",
    "vllm:prompt_tokens_cached_total": "equals prefix-cache hits on a server without a KV connector",
    "vllm:prompt_tokens_cached_by_source_total": "parts of prompt_tokens_cached_total",
    "vllm:estimated_flops_per_gpu_total": "0 unless MFU metrics are turned on",
    "vllm:estimated_read_bytes_per_gpu_total": "0 unless MFU metrics are turned on",
    "vllm:estimated_write_bytes_per_gpu_total": "0 unless MFU metrics are turned on",
    "vllm:admission_rejections_total": "has no engine label; the edge record has every rejected request",
    "vllm:spec_decode_num_drafts_total": "speculative decoding only",
    "vllm:spec_decode_num_draft_tokens_total": "speculative decoding only",
    "vllm:spec_decode_num_accepted_tokens_total": "speculative decoding only",
    "vllm:spec_decode_num_accepted_tokens_per_pos_total": "speculative decoding only",
    "vllm:request_inference_time_seconds": "prefill plus decode",
    "vllm:request_num_preemptions": "per request; the counter has the sum",
    "vllm:request_prefill_kv_computed_tokens": "prompt tokens less cache hits",
    "vllm:request_max_num_generation_tokens": _SHAPE,
    "vllm:request_params_n": _SHAPE,
    "vllm:request_params_max_tokens": _SHAPE,
    "vllm:request_params_best_of": _SHAPE,
    # 0.6 to 0.10
    "vllm:num_requests_swapped": f"{_OLD}: swapped out to the CPU, neither running nor in the queue",
    "vllm:cpu_cache_usage_perc": f"{_OLD}: swap space of V0",
    "vllm:cpu_prefix_cache_hit_rate": f"{_OLD}: an average since start",
    "vllm:gpu_prefix_cache_hit_rate": f"{_OLD}: an average since start",
    "vllm:avg_prompt_throughput_toks_per_s": f"{_OLD}: the counters give it",
    "vllm:avg_generation_throughput_toks_per_s": f"{_OLD}: the counters give it",
    "vllm:tokens_total": f"{_OLD}: prompt plus generation tokens",
    "vllm:time_in_queue_requests": f"{_OLD}: request_queue_time_seconds under another name",
    "vllm:model_forward_time_milliseconds": f"{_OLD}: per request, V0",
    "vllm:model_execute_time_milliseconds": f"{_OLD}: per request, V0",
    "vllm:spec_decode_draft_acceptance_rate": f"{_OLD}: an average since start",
    "vllm:spec_decode_efficiency": f"{_OLD}: an average since start",
    # everything that is not vLLM's own
    "python_gc_objects_collected_total": _RUNTIME,
    "python_gc_objects_uncollectable_total": _RUNTIME,
    "python_gc_collections_total": _RUNTIME,
    "python_info": _RUNTIME,
    "process_start_time_seconds": "read apart, to notice a restart",
    "process_virtual_memory_bytes": _PROCESS,
    "process_resident_memory_bytes": _PROCESS,
    "process_cpu_seconds_total": _PROCESS,
    "process_open_fds": _PROCESS,
    "process_max_fds": _PROCESS,
    "http_requests_total": _HTTP,
    "http_request_size_bytes": _HTTP,
    "http_response_size_bytes": _HTTP,
    "http_request_duration_seconds": _HTTP,
    "http_request_duration_highr_seconds": _HTTP,
}


def _about(reply: Mapping[str, Any]) -> About:
    return About(version=str(reply.get("version", "")))


def _notes(page: Page) -> list[str]:
    names = {TABLE.spelled(name) for name in dict.fromkeys(one.name for one in page.layout.series)}
    notes = [
        "requests_finished_total has what the engine finished, also with an error: no client aborts, 4xx, rejections",
    ]
    if not any(one.labels.get("finished_reason") == "error" for one in page.layout.series):
        notes.append("this page counts no failed requests: how many there were is unknown, not 0")
    if workers := {labels["WorkerId"] for _, labels, _ in page.layout.series if "WorkerId" in labels}:
        notes.append(f"vLLM under Ray Serve: the series of {len(workers)} workers are added up, KV use is the fullest")
    if "vllm:gpu_cache_usage_perc" in names:
        notes.append("an older vLLM: gpu_cache_usage_perc is the name of kv_cache_usage_perc there")
    if "vllm:num_requests_swapped" in names:
        notes.append("num_requests_swapped (V0) is not part of waiting")
    if "vllm:lora_requests_info" in names:
        notes.append("requests of LoRA adapters are counted under the base model's name")
    if "vllm:spec_decode_num_drafts_total" in names:
        notes.append("speculative decoding is on: tokens per step is not the batch size")
    return notes


TABLE = Table(
    engine="vllm",
    prefixes=("vllm:",),
    rules=RULES,
    histograms=HISTOGRAMS,
    ignored=IGNORED,
    # Ray Serve's names for the same metrics; the second is what newer versions make of the first.
    spellings={"ray_vllm:": "vllm:", "ray_vllm_": "vllm:"},
    others={"ray_": "of Ray itself"},
    model_labels=("model_name",),
    rank_label="engine",
    host_labels=frozenset(
        {
            "Component",
            "NodeAddress",
            "SessionName",
            "Version",
            "WorkerId",
            "JobId",
            "deployment",
            "replica",
            "application",
            "ReplicaId",
            "pid",
        }
    ),
    # Value and other labels of the LoRA family say which adapters ran when, not how the server is set up.
    info={"vllm:cache_config_info": (), "vllm:lora_requests_info": ("max_lora",)},
    # Versions that show a finished_reason only once it happened have no series for it before.
    optional=frozenset({Signal.REQUESTS_FAILED_TOTAL}),
    about_path="/version",
    about=_about,
    notes=_notes,
    # request_success has a series for each finished_reason, error among them.
    finished_includes_failed=True,
)
