"""Triton Inference Server's metrics page (recorded on 2.51; labels ``model`` and ``version``).

How it counts, checked one request at a time on 2.51:

- Every series exists from the start. Durations are sums per request in µs: a batch of 16 that takes 300 ms adds 4.8 s.
- An error *response* of a python model is a success; only an exception out of ``execute()`` is a failure.
- A request refused because the queue is full is counted nowhere; neither is a 400 or a 404. ``REJECTED`` is a queue
  timeout. An ensemble's failures are counted twice, and its inner models count on their own.
- ``pending`` is queued, not executing. A response-cache hit adds to successes, not to inferences or executions.

Source: https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/metrics.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agent.engines.table import About, Rule, Table
from agent.vocabulary import Engine, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.page import Page

_MICROSECONDS: Final = 1e-6

RULES = (
    Rule(Signal.WAITING, "nv_inference_pending_request_count"),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "nv_inference_request_success"),
    Rule(Signal.REQUESTS_FAILED_TOTAL, "nv_inference_request_failure"),
    Rule(Signal.INFERENCES_TOTAL, "nv_inference_count"),
    Rule(Signal.EXECUTIONS_TOTAL, "nv_inference_exec_count"),
    Rule(Signal.RESPONSE_CACHE_HITS_TOTAL, "nv_cache_num_hits_per_model"),
    Rule(Signal.RESPONSE_CACHE_MISSES_TOTAL, "nv_cache_num_misses_per_model"),
    Rule(Signal.REQUEST_SECONDS_TOTAL, "nv_inference_request_duration_us", scale=_MICROSECONDS),
    Rule(Signal.QUEUE_SECONDS_TOTAL, "nv_inference_queue_duration_us", scale=_MICROSECONDS),
    Rule(Signal.COMPUTE_INPUT_SECONDS_TOTAL, "nv_inference_compute_input_duration_us", scale=_MICROSECONDS),
    Rule(Signal.COMPUTE_INFER_SECONDS_TOTAL, "nv_inference_compute_infer_duration_us", scale=_MICROSECONDS),
    Rule(Signal.COMPUTE_OUTPUT_SECONDS_TOTAL, "nv_inference_compute_output_duration_us", scale=_MICROSECONDS),
)

_SUMMARY = "quantiles of a sliding window, Nan when idle: they cannot be added up over instances"
_GPU = "GPU samples have it from the driver, each second"
_MACHINE = "of the whole machine; host samples have it"
_CACHE = "a gauge over all models that trails by the metrics interval; the per-model counter is read"

IGNORED = {
    "nv_inference_request_summary_us": _SUMMARY,
    "nv_inference_queue_summary_us": _SUMMARY,
    "nv_inference_compute_input_summary_us": _SUMMARY,
    "nv_inference_compute_infer_summary_us": _SUMMARY,
    "nv_inference_compute_output_summary_us": _SUMMARY,
    "nv_cache_hit_summary_per_model": _SUMMARY,
    "nv_cache_miss_summary_per_model": _SUMMARY,
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


def _notes(page: Page) -> list[str]:
    notes = [
        "requests refused for a full queue are on no counter: waiting stands at the model's max_queue_size meanwhile",
        "an error response of a python model counts as finished, not as failed",
        "sums over models count an ensemble and its inner models both, and its failures twice",
    ]
    versions: dict[str, set[str]] = {}
    for name, labels in page.layout.series:
        if name == "nv_inference_request_success":
            versions.setdefault(labels.get("model", ""), set()).add(labels.get("version", ""))
    notes += [
        f"model {model}: versions {', '.join(sorted(several))} are added up"
        for model, several in versions.items()
        if len(several) > 1
    ]
    return notes


TABLE = Table(
    engine=Engine.TRITON,
    prefixes=("nv_inference_",),
    rules=RULES,
    ignored=IGNORED,
    model_label="model",
    # Only models with a response cache have these series.
    optional=frozenset({Signal.RESPONSE_CACHE_HITS_TOTAL, Signal.RESPONSE_CACHE_MISSES_TOTAL}),
    metrics_port_offset=2,
    about_path="/v2",
    about=_about,
    notes=_notes,
)
