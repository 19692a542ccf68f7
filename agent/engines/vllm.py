"""vLLM's metrics page, 0.2 to 0.32 (0.11, 0.12, 0.16, 0.24, 0.28, 0.32 were run; other names from its metrics modules).

Labels ``model_name`` and ``engine`` (the data-parallel rank; older versions have no such label). Counters and
histograms come from the API server process, which goes on showing its last values when the engine core stands still.
Source: https://docs.vllm.ai/en/latest/usage/metrics.html and ``vllm/v1/metrics/loggers.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent import kv_events, vllm_kv_connectors
from agent.engine_families import because
from agent.engine_table import About, Histogram, Rule, Table, accepted_by_position
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Distribution, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.pages.page import Page

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
    *(
        Rule(
            Signal(f"finished_{reason}_total"),
            "vllm:request_success_total",
            old=("vllm:request_success",),
            where={"finished_reason": reason},
        )
        for reason in ("stop", "length", "abort", "error", "repetition")
    ),
    Rule(Signal.ENGINE_STEPS_TOTAL, "vllm:iteration_tokens_total_count"),
    Rule(Signal.BATCH_TOKENS_TOTAL, "vllm:iteration_tokens_total_sum"),
    Rule(Signal.REQUEST_SECONDS_TOTAL, "vllm:e2e_request_latency_seconds_sum"),
    Rule(Signal.QUEUE_SECONDS_TOTAL, "vllm:request_queue_time_seconds_sum"),
    Rule(Signal.PREFILL_SECONDS_TOTAL, "vllm:request_prefill_time_seconds_sum"),
    Rule(Signal.DECODE_SECONDS_TOTAL, "vllm:request_decode_time_seconds_sum"),
    Rule(Signal.WAITING_CAPACITY, "vllm:num_requests_waiting_by_reason", where={"reason": "capacity"}),
    Rule(Signal.WAITING_DEFERRED, "vllm:num_requests_waiting_by_reason", where={"reason": "deferred"}),
    Rule(Signal.ADMISSION_REJECTIONS_TOTAL, "vllm:admission_rejections_total", of_server=True),
    Rule(Signal.ASLEEP, "vllm:engine_sleep_state", where={"sleep_state": "weights_offloaded"}, combine="max"),
    Rule(Signal.ASLEEP, "vllm:engine_sleep_state", where={"sleep_state": "discard_all"}, combine="max"),
    Rule(Signal.PREFIX_CACHE_QUERIES_EXTERNAL_TOTAL, "vllm:external_prefix_cache_queries_total"),
    Rule(Signal.PREFIX_CACHE_HITS_EXTERNAL_TOTAL, "vllm:external_prefix_cache_hits_total"),
    *(
        Rule(signal, "vllm:prompt_tokens_cached_by_source_total", where={"source": tier})
        for signal, tier in (
            (Signal.PREFIX_CACHE_HITS_DEVICE_TOTAL, "device"),
            (Signal.PREFIX_CACHE_HITS_HOST_TOTAL, "host"),
            (Signal.PREFIX_CACHE_HITS_DISK_TOTAL, "disk"),
        )
    ),
    Rule(Signal.MULTIMODAL_CACHE_QUERIES_TOTAL, "vllm:mm_cache_queries_total"),
    Rule(Signal.MULTIMODAL_CACHE_HITS_TOTAL, "vllm:mm_cache_hits_total"),
    Rule(Signal.SPEC_DECODE_DRAFTS_TOTAL, "vllm:spec_decode_num_drafts_total"),
    Rule(Signal.SPEC_DECODE_DRAFT_TOKENS_TOTAL, "vllm:spec_decode_num_draft_tokens_total"),
    Rule(Signal.SPEC_DECODE_ACCEPTED_TOKENS_TOTAL, "vllm:spec_decode_num_accepted_tokens_total"),
    *accepted_by_position("vllm:spec_decode_num_accepted_tokens_per_pos_total", "position"),
    Rule(Signal.ESTIMATED_FLOPS_TOTAL, "vllm:estimated_flops_per_gpu_total"),
    Rule(Signal.ESTIMATED_READ_BYTES_TOTAL, "vllm:estimated_read_bytes_per_gpu_total"),
    Rule(Signal.ESTIMATED_WRITE_BYTES_TOTAL, "vllm:estimated_write_bytes_per_gpu_total"),
)
"""Signals and where they stand; estimates stand at 0 unless MFU metrics are on."""

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
    # Sampled, behind a flag of their own.
    Histogram(Distribution.KV_BLOCK_LIFETIME_SECONDS, "vllm:kv_block_lifetime_seconds"),
    Histogram(Distribution.KV_BLOCK_IDLE_SECONDS, "vllm:kv_block_idle_before_evict_seconds"),
    Histogram(Distribution.KV_BLOCK_REUSE_GAP_SECONDS, "vllm:kv_block_reuse_gap_seconds"),
    Histogram(Distribution.SLEEP_OPERATION_SECONDS, "vllm:sleep_mode_operation_duration_seconds", of_server=True),
    Histogram(Distribution.WEIGHT_UPDATE_SECONDS, "vllm:rl_weight_update_operation_duration_seconds", of_server=True),
)


IGNORED = {
    "vllm:corrupted_requests_total": "NaN in logits; finished requests count them",
    "vllm:prompt_tokens_recomputed_total": "prompt tokens computed again after a preemption, which is counted",
    "vllm:prompt_tokens_by_source_total": "parts of prompt_tokens_total",
    "vllm:prompt_tokens_cached_total": "equals prefix-cache hits, local and external together",
    "vllm:nixl_num_failed_notifications_total": "parts of failed transfers",
    **because(
        "diffusion: parts of steps, whose tokens are counted",
        "vllm:diffusion_num_canvas_positions_total",
        "vllm:diffusion_num_committed_tokens_total",
        "vllm:diffusion_num_denoising_steps_total",
    ),
    "vllm:rl_weight_update_operations_in_flight": "as short as the operation, whose duration is read",
    "vllm:sleep_mode_operations_in_flight": "as short as the operation, whose duration is read",
    "vllm:tool_call_parser_invocations_total": "what an answer holds",
    "vllm:watermark_requests_total": "what an answer holds",
    **because(
        "the realtime API's connections; the edge record has every request",
        "vllm:websocket_connection_duration_seconds",
        "vllm:websocket_connections_active",
        "vllm:websocket_connections_total",
    ),
    **because(
        "the HTTP layer's count of the first versions",
        "requests_total_counter",
        "responses_total_counter",
        "status_codes_counter",
        "exceptions_total_counter",
    ),
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
    "vllm:spec_decode_num_emitted_tokens_total": f"{_OLD}: accepted tokens and one more a draft",
}


def _about(reply: Mapping[str, Any]) -> About:
    return About(version=str(reply.get("version", "")))


_ADAPTERS = "vllm:lora_requests_info"


def _extras(page: Page) -> Mapping[Signal, float]:
    """Which adapters run stands in labels; the series with the newest time as its value is true, older ones stay."""
    series, values = page.layout.series, page.values
    places = page.layout.places
    slots = next((places[name] for name in _SPELLED if name in places), ())
    if not slots:
        return {}
    labels = series[max(slots, key=values.__getitem__)].labels
    most = labels.get("max_lora", "")
    running, waiting = (_listed(labels.get(f"{state}_lora_adapters", "")) for state in ("running", "waiting"))
    return {
        Signal.LORA_ADAPTERS_RUNNING: float(len(running)),
        Signal.LORA_ADAPTERS_WAITING: float(len(waiting)),
        Signal.LORA_ADAPTERS_HELD_BACK: float(len(waiting - running)),
        **({Signal.LORA_SLOTS: float(most)} if most.isdecimal() else {}),
    }


# Likeliest first, as the table has its spellings: it is looked up on each page.
_SPELLED = (_ADAPTERS, "ray_vllm:lora_requests_info", "ray_vllm_lora_requests_info")


def _off(page: Page) -> frozenset[Signal]:
    """Estimates that are turned off, and steps where several API servers count them."""
    return _estimated_as_nothing(page) | (_COUNTED_AGAIN if _is_of_several_servers(page) else frozenset())


_COUNTED_AGAIN = frozenset({Signal.ENGINE_STEPS_TOTAL})
_STEPS = "vllm:iteration_tokens_total"
_OF_ONE_PROCESS = ("process_start_time_seconds", "python_info", f"{_STEPS}_created")


def _is_of_several_servers(page: Page) -> bool:
    """Whether a page adds up several API servers: each counts a step of which it has a part, how many did is not told.

    Such a page has nothing of a single process, and no time at which a counter was made.
    """
    places = page.layout.places
    return f"{_STEPS}_count" in places and not any(name in places for name in _OF_ONE_PROCESS)


def _estimated_as_nothing(page: Page) -> frozenset[Signal]:
    """Estimates stand at 0 where they are turned off: tokens were computed, and no computing costs nothing."""
    places, values = page.layout.places, page.values
    slots = [slot for name in _ESTIMATES for slot in places.get(name, ())]
    if not slots or any(values[slot] for slot in slots):
        return frozenset()
    return _ESTIMATED if any(values[slot] for name in _COMPUTED for slot in places.get(name, ())) else frozenset()


_FLOPS = "estimated_flops_per_gpu_total"
_ESTIMATES = (f"vllm:{_FLOPS}", f"ray_vllm_{_FLOPS}", f"ray_vllm:{_FLOPS}")
_COMPUTED = ("vllm:generation_tokens_total", "ray_vllm_generation_tokens_total", "ray_vllm:generation_tokens_total")
_ESTIMATED = frozenset(
    {Signal.ESTIMATED_FLOPS_TOTAL, Signal.ESTIMATED_READ_BYTES_TOTAL, Signal.ESTIMATED_WRITE_BYTES_TOTAL}
)


def _listed(text: str) -> frozenset[str]:
    return frozenset(one.strip() for one in text.split(",") if one.strip())


def _notes(page: Page) -> list[str]:
    names = {TABLE.spelled(name) for name in dict.fromkeys(one.name for one in page.layout.series)}
    notes = [
        "requests_finished_total has what the engine finished, also with an error: no client aborts, 4xx, rejections",
    ]
    if not any(one.labels.get("finished_reason") == "error" for one in page.layout.series):
        notes.append("this page counts no failed requests: how many there were is unknown, not 0")
    if workers := {one.labels["WorkerId"] for one in page.layout.series if "WorkerId" in one.labels}:
        notes.append(f"vLLM under Ray Serve: the series of {len(workers)} workers are added up, KV use is the fullest")
    if "vllm:gpu_cache_usage_perc" in names:
        notes.append("an older vLLM: gpu_cache_usage_perc is the name of kv_cache_usage_perc there")
    if "vllm:num_requests_swapped" in names:
        notes.append("num_requests_swapped (V0) is not part of waiting")
    if "vllm:lora_requests_info" in names:
        notes.append("requests of LoRA adapters are counted under the base model's name")
    if _is_of_several_servers(page):
        notes.append("several API servers, each of which counts the steps of its own requests: how many is unknown")
    if "vllm:spec_decode_num_drafts_total" in names:
        notes.append("speculative decoding is on: tokens per step is not the batch size")
    return notes


_V0, _V1 = (0, 6), (0, 11)
"""Versions; until 0.10 another engine could be chosen, which shows less and begins its counters with requests."""
_SINCE: dict[Signal | Distribution, tuple[int, ...]] = {
    **dict.fromkeys((Signal.RUNNING, Signal.WAITING, Signal.KV_CACHE_USAGE_RATIO, Signal.PROMPT_TOKENS_TOTAL), _V0),
    **dict.fromkeys((Signal.GENERATION_TOKENS_TOTAL, Signal.PREEMPTIONS_TOTAL), _V0),
    **dict.fromkeys(
        (
            Signal.PREFIX_CACHE_QUERIES_TOTAL,
            Signal.PREFIX_CACHE_HITS_TOTAL,
            Signal.REQUESTS_FINISHED_TOTAL,
            Signal.ENGINE_STEPS_TOTAL,
            Signal.BATCH_TOKENS_TOTAL,
            Signal.REQUEST_SECONDS_TOTAL,
            Signal.QUEUE_SECONDS_TOTAL,
            Signal.PREFILL_SECONDS_TOTAL,
            Signal.DECODE_SECONDS_TOTAL,
            Distribution.TTFT_SECONDS,
            Distribution.ITL_SECONDS,
            Distribution.E2E_SECONDS,
            Distribution.QUEUE_SECONDS,
            Distribution.PREFILL_SECONDS,
            Distribution.DECODE_SECONDS,
            Distribution.PROMPT_TOKENS,
            Distribution.COMPLETION_TOKENS,
            Distribution.BATCH_TOKENS,
        ),
        _V1,
    ),
}

_OLD_KV, _OLD_GAPS = (0, 12), (0, 15)
"""Versions without the old names of KV cache and of gaps between tokens, hidden ones too."""
_RENAMED: dict[str, tuple[int, ...]] = {
    "vllm:gpu_cache_usage_perc": _OLD_KV,
    "vllm:gpu_prefix_cache_queries_total": _OLD_KV,
    "vllm:gpu_prefix_cache_hits_total": _OLD_KV,
    "vllm:time_per_output_token_seconds": _OLD_GAPS,
}

TABLE = Table(
    engine="vllm",
    prefixes=("vllm:",),
    rules=(*RULES, *vllm_kv_connectors.RULES, *kv_events.RULES),
    histograms=(*HISTOGRAMS, *vllm_kv_connectors.HISTOGRAMS),
    ignored={**IGNORED, **vllm_kv_connectors.IGNORED},
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
    info={
        "vllm:cache_config_info": (),
        "vllm:lora_requests_info": ("max_lora",),
        "vllm:simple_kv_offload_info": ("backend", "page_cache", "lazy_offload", "capacity_blocks"),
    },
    # Versions that show a finished_reason only once it happened have no series for it before.
    optional=frozenset({Signal.REQUESTS_FAILED_TOTAL}) | SIGNALS_WITHOUT_COLUMN,
    since=_SINCE,
    renamed_until=_RENAMED,
    begins_with_requests=False,
    about_path="/version",
    about=_about,
    extras=_extras,
    notes=_notes,
    off=_off,
    # request_success has a series for each finished_reason, error among them.
    finished_includes_failed=True,
)
