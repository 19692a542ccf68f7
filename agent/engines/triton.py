"""Triton Inference Server's metrics page (recorded on 2.51; labels ``model`` and ``version``).

How it counts, checked one request at a time on 2.51:

- Every series exists from the start. Durations are sums per request in µs: a batch of 16 that takes 300 ms adds 4.8 s.
- An error *response* of a python model is a success; only an exception out of ``execute()`` is a failure.
- A request refused because the queue is full is counted nowhere; neither is a 400 or a 404. ``REJECTED`` is a queue
  timeout. An ensemble's failures are counted twice, and its inner models count on their own.
- ``pending`` is queued, not executing. A response-cache hit adds to successes, not to inferences or executions.
- A summary's ``_count`` and ``_sum`` grow with the counter of the same name, and stay where ``--metrics-config`` turns
  counters off: those then stand at 0 on the page for ever.
- A model that is unloaded takes its series along; loaded again it counts from 0.
- How many executions had how many items is on no page, but in the statistics of the models: of each size how often it
  was executed, and for how long. An answer out of the response cache is no execution.

Sources: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md, https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/metrics.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agent.engine_families import because
from agent.engine_table import SURE, About, Histogram, Rule, Statistics, Table
from agent.pages.exposition import histogram
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Distribution, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.pages.page import Layout, Page

_MICROSECONDS: Final = 1e-6
_MILLISECONDS: Final = 1e-3
_SERVED_APART: Final = "nv_trt_llm_disaggregated_serving_metrics"
_SUMMED: Final = "nv_inference_request_summary_us_count"
_SUCCEEDED: Final = "nv_inference_request_success"
_ANSWERED: Final = "nv_inference_first_response_histogram_ms_count"
_OTHER_COUNTS: Final = tuple(
    f"nv_inference_{what}_summary_us_count" for what in ("queue", "compute_input", "compute_infer", "compute_output")
)
"""Summaries that count requests too, should a build show these alone."""
_DURATIONS: Final = {
    Signal.REQUEST_SECONDS_TOTAL: "request",
    Signal.QUEUE_SECONDS_TOTAL: "queue",
    Signal.COMPUTE_INPUT_SECONDS_TOTAL: "compute_input",
    Signal.COMPUTE_INFER_SECONDS_TOTAL: "compute_infer",
    Signal.COMPUTE_OUTPUT_SECONDS_TOTAL: "compute_output",
}
"""Sums of seconds and what they are called on the page."""
_SIZES: Final = "servescope_batch_size"
_COMPUTE: Final = "servescope_batch_compute_microseconds"
"""What the statistics are called among a page's lines: none of the server's own names."""
_BOUNDS: Final = (*range(1, 17), 20, 24, 28, 32, 40, 48, 56, 64, 96, 128, 192, 256, 512, 1024)
_MODELS: Final = 128
"""Models whose sizes are told, in the server's order: each is 66 lines."""


def _sum(what: str) -> tuple[str, tuple[str, ...]]:
    """Where the sum of a duration stands: in its summary where there is one, else in its counter."""
    return f"nv_inference_{what}_summary_us_sum", (f"nv_inference_{what}_duration_us",)


RULES = (
    Rule(Signal.WAITING, "nv_inference_pending_request_count"),
    Rule(Signal.WAITING, "nv_trt_llm_request_metrics", where={"request_type": "waiting"}),
    Rule(Signal.RUNNING, "nv_trt_llm_request_metrics", where={"request_type": "active"}),
    Rule(
        Signal.KV_CACHE_USAGE_RATIO,
        "nv_trt_llm_kv_cache_block_metrics",
        where={"kv_cache_block_type": "fraction"},
        combine="max",
    ),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, _SUMMED, old=(_SUCCEEDED,)),
    Rule(Signal.REQUESTS_FAILED_TOTAL, "nv_inference_request_failure"),
    Rule(Signal.INFERENCES_TOTAL, "nv_inference_count"),
    Rule(Signal.EXECUTIONS_TOTAL, "nv_inference_exec_count"),
    Rule(Signal.RESPONSE_CACHE_HITS_TOTAL, "nv_cache_num_hits_per_model"),
    Rule(Signal.RESPONSE_CACHE_MISSES_TOTAL, "nv_cache_num_misses_per_model"),
    *(Rule(signal, *_sum(what), scale=_MICROSECONDS) for signal, what in _DURATIONS.items()),
    Rule(
        Signal.KV_TRANSFERS_TOTAL,
        _SERVED_APART,
        where={"disaggregated_serving_type": "request_count"},
    ),
    Rule(
        Signal.KV_TRANSFER_SECONDS_TOTAL,
        _SERVED_APART,
        where={"disaggregated_serving_type": "kv_cache_transfer_ms"},
        scale=_MILLISECONDS,
    ),
    # The vLLM backend's own families, under Triton's labels.
    Rule(Signal.PROMPT_TOKENS_TOTAL, "vllm:prompt_tokens_total"),
    Rule(Signal.GENERATION_TOKENS_TOTAL, "vllm:generation_tokens_total"),
    Rule(Signal.PREEMPTIONS_TOTAL, "vllm:num_preemptions_total"),
    Rule(Signal.PREFIX_CACHE_QUERIES_TOTAL, "vllm:prefix_cache_queries_total"),
    Rule(Signal.PREFIX_CACHE_HITS_TOTAL, "vllm:prefix_cache_hits_total"),
    Rule(Signal.PREFILL_SECONDS_TOTAL, "vllm:request_prefill_time_seconds_sum"),
    Rule(Signal.DECODE_SECONDS_TOTAL, "vllm:request_decode_time_seconds_sum"),
)

HISTOGRAMS = (
    Histogram(Distribution.TTFT_SECONDS, "vllm:time_to_first_token_seconds"),
    Histogram(Distribution.ITL_SECONDS, "vllm:time_per_output_token_seconds"),
    Histogram(Distribution.E2E_SECONDS, "vllm:e2e_request_latency_seconds"),
    Histogram(Distribution.QUEUE_SECONDS, "vllm:request_queue_time_seconds"),
    Histogram(Distribution.PREFILL_SECONDS, "vllm:request_prefill_time_seconds"),
    Histogram(Distribution.DECODE_SECONDS, "vllm:request_decode_time_seconds"),
    Histogram(Distribution.PROMPT_TOKENS, "vllm:request_prompt_tokens", old=("nv_llm_input_token_len",)),
    Histogram(Distribution.COMPLETION_TOKENS, "vllm:request_generation_tokens", old=("nv_llm_output_token_len",)),
    Histogram(Distribution.BATCH_SIZE, _SIZES, beside=True),
    Histogram(Distribution.BATCH_COMPUTE_MICROSECONDS, _COMPUTE, beside=True),
)

_SUMMARY = "its count and sum are read; its quantiles, of a sliding window and Nan when idle, cannot be added up"
_GPU = "GPU samples have it from the driver, each second"
_MACHINE = "of the whole machine; host samples have it"
_CACHE = "a gauge over all models that trails by the metrics interval; the per-model counter is read"

IGNORED = {
    "nv_inference_request_summary_us": _SUMMARY,
    "nv_inference_queue_summary_us": _SUMMARY,
    "nv_inference_compute_input_summary_us": _SUMMARY,
    "nv_inference_compute_infer_summary_us": _SUMMARY,
    "nv_inference_compute_output_summary_us": _SUMMARY,
    "nv_cache_hit_summary_per_model": "µs spent on looking up; part of the request's duration",
    "nv_cache_miss_summary_per_model": "µs spent on looking up and inserting",
    "nv_inference_first_response_histogram_ms": "decoupled models from 2.52 on; absent on 2.51 whatever the flag",
    "nv_cache_hit_duration_per_model": "µs spent on looking up; part of the request's duration",
    "nv_cache_miss_duration_per_model": "µs spent on looking up and inserting",
    "nv_cache_util": _CACHE,
    "nv_cache_num_entries": _CACHE,
    "nv_cache_num_hits": _CACHE,
    "nv_cache_num_misses": _CACHE,
    "nv_cache_num_lookups": _CACHE,
    "nv_cache_num_evictions": _CACHE,
    "nv_cache_lookup_duration": _CACHE,
    "nv_cache_insertion_duration": _CACHE,
    "nv_model_load_duration_secs": "once per load",
    **because(
        "TensorRT-LLM's batcher and memory at the last report, each in a unit of its own",
        "nv_trt_llm_runtime_memory_metrics",
        "nv_trt_llm_inflight_batcher_metrics",
        "nv_trt_llm_general_metrics",
        "nv_trt_llm_v1_metrics",
    ),
    **because(
        "a request parameter, not a signal of health",
        "vllm:request_params_n",
        "vllm:request_params_best_of",
        "vllm:request_params_max_tokens",
    ),
    **because(
        "of the vLLM backend; Triton's own counts are read",
        "vllm:request_success_total",
        "vllm:request_inference_time_seconds",
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:num_requests_swapped",
        "vllm:gpu_cache_usage_perc",
        "vllm:cpu_cache_usage_perc",
        "vllm:cache_config_info",
    ),
    "nv_pinned_memory_pool_total_bytes": "staging memory of the server",
    "nv_pinned_memory_pool_used_bytes": "staging memory of the server",
    "nv_cpu_utilization": _MACHINE,
    "nv_cpu_memory_total_bytes": _MACHINE,
    "nv_cpu_memory_used_bytes": _MACHINE,
    "nv_gpu_utilization": _GPU,
    "nv_gpu_memory_total_bytes": _GPU,
    "nv_gpu_memory_used_bytes": _GPU,
    "nv_gpu_power_usage": _GPU,
    "nv_gpu_power_limit": _GPU,
    "nv_energy_consumption": _GPU,
}


def _about(reply: Mapping[str, Any]) -> About:
    return About(version=str(reply.get("version", ""))) if reply.get("name") == "triton" else About()


def _batches(body: bytes) -> bytes:
    """Batch sizes as two histograms of each model: executions, and µs of compute (input, inference and output)."""
    from agent.triton_statistics import Reply  # noqa: PLC0415 - 10 MB that only those pay who watch a Triton

    models = Reply.model_validate_json(body).model_stats[:_MODELS]
    whose = [{"model": one.name, "version": one.version} for one in models]
    executions = [{one.batch_size: one.compute_infer.count for one in model.batch_stats} for model in models]
    spent = [
        {
            one.batch_size: (one.compute_input.ns + one.compute_infer.ns + one.compute_output.ns) // 1000
            for one in model.batch_stats
        }
        for model in models
    ]
    return histogram(_SIZES, _BOUNDS, zip(whose, executions, strict=True)) + histogram(
        _COMPUTE, _BOUNDS, zip(whose, spent, strict=True)
    )


_COUNTED_APART: Final = frozenset({Signal.REQUESTS_FAILED_TOTAL, Signal.INFERENCES_TOTAL, Signal.EXECUTIONS_TOTAL})
"""Counters that no summary stands in for."""


def _off(page: Page) -> frozenset[Signal]:
    """Counters that stand at 0 although requests were served: what was not counted is not 0."""
    places, values = page.layout.places, page.values

    def total(name: str) -> float:
        return sum([values[slot] for slot in places.get(name, ())])

    summed, answered = total(_SUMMED), total(_ANSWERED) + sum(map(total, _OTHER_COUNTS))
    off: set[Signal] = set()
    if total(_SUCCEEDED) == 0:
        if not summed and not answered:
            return frozenset()
        off |= _COUNTED_APART if summed else {*_COUNTED_APART, Signal.REQUESTS_FINISHED_TOTAL}
    if total("nv_inference_request_duration_us") == 0:  # no request takes no time
        off |= {signal for signal, what in _DURATIONS.items() if _sum(what)[0] not in places}
    return frozenset(off)


def _signs(layout: Layout) -> bool:
    """The vLLM backend alone on a page: vLLM's names under the labels of a Triton model."""
    return any(
        "version" in one.labels and "model" in one.labels and one.name.startswith("vllm:") for one in layout.series
    )


def _notes(page: Page) -> list[str]:
    notes = [
        "requests refused for a full queue are on no counter: waiting stands at the model's max_queue_size meanwhile",
        "an error response of a python model counts as finished, not as failed",
        "sums over models count an ensemble and its inner models both, and its failures twice",
    ]
    if off := _off(page):
        absent = ", ".join(sorted(off))
        notes.append(f"this server serves requests and does not count them all: {absent} are absent, not 0")
    if not any(name.startswith("nv_inference_") for name in page.layout.places):
        notes.append("no model is loaded, or this is a part of a page: no request was counted here")
    if any(name.startswith("vllm:") for name in page.layout.places):
        notes.append("models of the vLLM backend: its tokens and latencies are read beside Triton's counts")
    if any(name.startswith("nv_trt_llm_") for name in page.layout.places):
        notes.append("models of the TensorRT-LLM backend: running, waiting and KV use are its last report's")
    if _SUMMED in page.layout.places:
        notes.append("finished requests and durations are read from the summaries, which count as the counters do")
    versions: dict[str, set[str]] = {}
    for one in page.layout.series:
        if one.name in {_SUCCEEDED, _SUMMED}:
            versions.setdefault(one.labels.get("model", ""), set()).add(one.labels.get("version", ""))
    notes += [
        f"model {model}: versions {', '.join(sorted(several))} are added up"
        for model, several in versions.items()
        if len(several) > 1
    ]
    return notes


TABLE = Table(
    engine="triton",
    prefixes=("nv_inference_", "nv_trt_llm_", "nv_pinned_memory_", "nv_cache_", "nv_model_", "nv_cpu_", "nv_gpu_"),
    signs=_signs,
    strength=SURE,
    rules=RULES,
    histograms=HISTOGRAMS,
    ignored=IGNORED,
    model_labels=("model",),
    # Only models with a response cache, or of the TensorRT-LLM or vLLM backend, have these series.
    optional=frozenset(
        {
            Signal.RESPONSE_CACHE_HITS_TOTAL,
            Signal.RESPONSE_CACHE_MISSES_TOTAL,
            Signal.RUNNING,
            Signal.KV_CACHE_USAGE_RATIO,
            Signal.PROMPT_TOKENS_TOTAL,
            Signal.GENERATION_TOKENS_TOTAL,
            Signal.PREEMPTIONS_TOTAL,
            Signal.PREFIX_CACHE_QUERIES_TOTAL,
            Signal.PREFIX_CACHE_HITS_TOTAL,
            Signal.PREFILL_SECONDS_TOTAL,
            Signal.DECODE_SECONDS_TOTAL,
        }
    )
    | SIGNALS_WITHOUT_COLUMN,
    metrics_port_offset=2,
    about_path="/v2",
    health_path="/v2/health/ready",
    statistics=Statistics("/v2/models/stats", "batch sizes", _batches),
    about=_about,
    notes=_notes,
    off=_off,
    told_twice=True,
    gone_is_over=True,
    # Of a model that is loaded; what waits is on no page of 2.38 and on that of 2.51.
    since={
        Signal.WAITING: (2, 51),
        **dict.fromkeys(
            (
                Signal.REQUESTS_FINISHED_TOTAL,
                Signal.REQUESTS_FAILED_TOTAL,
                Signal.INFERENCES_TOTAL,
                Signal.EXECUTIONS_TOTAL,
                *_DURATIONS,
            ),
            (2, 38),
        ),
    },
    begins_with_requests=False,
)
