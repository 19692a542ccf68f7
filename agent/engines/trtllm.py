"""TensorRT-LLM's metrics page (``trtllm-serve``, ``/prometheus/metrics``; documented names, a recorded slice of 1.x).

In 1.0 to 1.2 names had no prefix, and ``model_name`` read ``undefined``; Dynamo wrote ``trtllm:`` in front, the engine
writes ``trtllm_`` itself since. ``/metrics`` is another thing: JSON, a list of iteration statistics that each read
takes out of a queue (:mod:`agent.pages.iterations`). Source: ``tensorrt_llm/metrics/collector.py`` in
https://github.com/NVIDIA/TensorRT-LLM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent.engine_families import because
from agent.engine_table import Histogram, Rule, Table
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Distribution, Signal

if TYPE_CHECKING:
    from agent.pages.page import Layout, Page

_BARE: Final = (
    "e2e_request_latency_seconds",
    "time_to_first_token_seconds",
    "time_per_output_token_seconds",
    "request_queue_time_seconds",
    "request_success",
)
"""Names of the versions that wrote no prefix; other programs write them too, so a label tells."""


def _old(name: str) -> tuple[str, ...]:
    return (name.removeprefix("trtllm_"),)


def _latency(distribution: Distribution, name: str) -> Histogram:
    return Histogram(distribution, name, old=_old(name))


def _summed(signal: Signal, name: str) -> Rule:
    return Rule(signal, f"{name}_sum", old=(f"{name.removeprefix('trtllm_')}_sum",))


RULES = (
    Rule(Signal.RUNNING, "trtllm_num_requests_running"),
    Rule(Signal.WAITING, "trtllm_num_requests_waiting"),
    Rule(Signal.KV_CACHE_USAGE_RATIO, "trtllm_kv_cache_utilization", combine="max"),
    Rule(Signal.KV_CACHE_HOST_USAGE_RATIO, "trtllm_kv_cache_host_utilization", combine="max"),
    Rule(Signal.PROMPT_TOKENS_TOTAL, "trtllm_prompt_tokens_total"),
    Rule(Signal.GENERATION_TOKENS_TOTAL, "trtllm_generation_tokens_total"),
    Rule(
        Signal.PREFIX_CACHE_QUERIES_TOTAL, "trtllm_prompt_tokens_total", beside=("trtllm_prompt_cached_tokens_total",)
    ),
    Rule(Signal.PREFIX_CACHE_HITS_TOTAL, "trtllm_prompt_cached_tokens_total"),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "trtllm_request_success_total", old=("request_success_total",)),
    Rule(Signal.REQUESTS_FAILED_TOTAL, "trtllm_request_error_total"),
    _summed(Signal.REQUEST_SECONDS_TOTAL, "trtllm_e2e_request_latency_seconds"),
    _summed(Signal.QUEUE_SECONDS_TOTAL, "trtllm_request_queue_time_seconds"),
    _summed(Signal.PREFILL_SECONDS_TOTAL, "trtllm_request_prefill_time_seconds"),
    _summed(Signal.DECODE_SECONDS_TOTAL, "trtllm_request_decode_time_seconds"),
    Rule(Signal.SPEC_DECODE_DRAFT_TOKENS_TOTAL, "trtllm_spec_decode_num_draft_tokens_total"),
    Rule(Signal.SPEC_DECODE_ACCEPTED_TOKENS_TOTAL, "trtllm_spec_decode_num_accepted_tokens_total"),
    # Beside the engine's own where Dynamo's worker runs it, by request.
    Rule(Signal.KV_TRANSFERS_TOTAL, "trtllm_kv_transfer_latency_seconds_count"),
    Rule(Signal.KV_TRANSFER_SECONDS_TOTAL, "trtllm_kv_transfer_latency_seconds_sum"),
    Rule(Signal.KV_TRANSFER_BYTES_TOTAL, "trtllm_kv_transfer_bytes_sum"),
    Rule(Signal.SPEC_DECODE_ACCEPTANCE_LENGTH, "trtllm_spec_decode_acceptance_length", combine="max"),
    Rule(
        Signal.KV_OFFLOAD_BYTES_TOTAL,
        "trtllm_kv_cache_offload_bytes_total",
        plus=("trtllm_kv_cache_onboard_bytes_total",),
    ),
)

HISTOGRAMS = (
    _latency(Distribution.TTFT_SECONDS, "trtllm_time_to_first_token_seconds"),
    # A mean of each request, unlike vLLM's old family of that name.
    _latency(Distribution.TPOT_SECONDS, "trtllm_time_per_output_token_seconds"),
    _latency(Distribution.E2E_SECONDS, "trtllm_e2e_request_latency_seconds"),
    _latency(Distribution.QUEUE_SECONDS, "trtllm_request_queue_time_seconds"),
    _latency(Distribution.PREFILL_SECONDS, "trtllm_request_prefill_time_seconds"),
    _latency(Distribution.DECODE_SECONDS, "trtllm_request_decode_time_seconds"),
)

IGNORED = {
    **because("prefill plus decode", "trtllm_request_inference_time_seconds"),
    **because("per request; the counter has the sum", "trtllm_prompt_cached_tokens_per_request"),
    **because("what the model says, not how fast", "trtllm_prefill_perplexity", "trtllm_generation_perplexity"),
    **because(
        "by level and tier, whose names are the deployment's own; the total is read",
        "trtllm_prompt_cache_hit_tokens_total",
    ),
    **because(
        "parts of the totals by position, which are read",
        "trtllm_spec_decode_drafted_tokens_total",
        "trtllm_spec_decode_accepted_tokens_total",
    ),
    **because(
        "blocks, not tokens; cached tokens are read",
        "trtllm_kv_cache_reused_blocks_total",
        "trtllm_kv_cache_missed_blocks_total",
        "trtllm_kv_cache_iter_reused_blocks_total",
        "trtllm_kv_cache_iter_full_reused_blocks_total",
        "trtllm_kv_cache_iter_partial_reused_blocks_total",
        "trtllm_kv_cache_iter_missed_blocks_total",
        "trtllm_kv_cache_gen_alloc_blocks_total",
        "trtllm_kv_cache_disk_prefetch_blocks_total",
        "trtllm_kv_cache_max_blocks",
        "trtllm_kv_cache_free_blocks",
        "trtllm_kv_cache_used_blocks",
        "trtllm_kv_cache_tokens_per_block",
    ),
    **because(
        "the others of a transfer that Dynamo's worker tells; its seconds are read",
        "trtllm_kv_transfer_success_total",
        "trtllm_kv_transfer_speed_gb_s",
    ),
    **because("within one GPU", "trtllm_kv_cache_intra_device_copy_bytes_total"),
    **because("completed requests again, from the iterations", "trtllm_num_requests_completed_total"),
    **because(
        "an average since start or of one iteration; the counters give it",
        "trtllm_kv_cache_hit_rate",
        "trtllm_kv_cache_iter_reuse_rate",
        "trtllm_avg_decoded_tokens_per_iter",
        "trtllm_spec_decode_draft_overhead",
        "trtllm_prefill_batch_occupancy",
    ),
    **because(
        "of the one iteration that was last, between two reads of hundreds",
        "trtllm_iteration_latency_seconds",
        "trtllm_num_context_requests",
        "trtllm_num_generation_requests",
        "trtllm_num_paused_requests",
        "trtllm_num_scheduled_requests",
        "trtllm_total_context_tokens",
        "trtllm_scheduled_batch_size",
        "trtllm_prefill_batch_tokens",
    ),
    **because(
        "GPU and host samples have memory",
        "trtllm_gpu_memory_usage_bytes",
        "trtllm_cpu_memory_usage_bytes",
        "trtllm_pinned_memory_usage_bytes",
    ),
    **because(
        "a limit, which is configuration",
        "trtllm_max_num_active_requests",
        "trtllm_max_batch_size_static",
        "trtllm_max_batch_size_runtime",
        "trtllm_max_num_tokens_runtime",
    ),
}


def _signs(layout: Layout) -> bool:
    """Bare names with the label that TensorRT-LLM alone puts on them."""
    return any(one.name.startswith(_BARE) and "engine_type" in one.labels for one in layout.series)


def _notes(page: Page) -> list[str]:
    notes = ["the page lies on /prometheus/metrics; /metrics is JSON, and each read takes its statistics away"]
    if any(one.labels.get("model_name") == "undefined" for one in page.layout.series):
        notes.append("model_name is undefined: a version before 1.3 that does not name its model")
    if Signal.RUNNING not in {rule.signal for rule in RULES if rule.source in page.layout.places}:
        notes.append("running, waiting and KV use need enable_iter_perf_stats: true")
    return notes


TABLE = Table(
    engine="trtllm",
    prefixes=("trtllm_", "trtllm:"),
    signs=_signs,
    marks=("engine_type",),
    rules=RULES,
    histograms=HISTOGRAMS,
    ignored=IGNORED,
    spellings={"trtllm:": "trtllm_"},
    model_labels=("model_name",),
    nameless=frozenset({"undefined"}),
    info={
        "trtllm_model_config_info": (),
        "trtllm_parallel_config_info": (),
        "trtllm_speculative_config_info": (),
        "trtllm_kv_cache_config_info": (),
    },
    host_labels=frozenset({"engine_type"}),
    # Errors have a series once one happened; iteration statistics are behind a flag.
    optional=frozenset({Signal.REQUESTS_FAILED_TOTAL}) | SIGNALS_WITHOUT_COLUMN,
    # Families of 1.0, which all later ones have too; the fifth, time per token, wants answers of several.
    since=dict.fromkeys(
        (
            Signal.REQUESTS_FINISHED_TOTAL,
            Signal.REQUEST_SECONDS_TOTAL,
            Signal.QUEUE_SECONDS_TOTAL,
            Distribution.TTFT_SECONDS,
            Distribution.E2E_SECONDS,
            Distribution.QUEUE_SECONDS,
        ),
        (1, 0),
    ),
    page_path="/prometheus/metrics",
    about_path="/version",
    notes=_notes,
    counts_late=True,
)
