"""Stand-ins of the objects that vLLM hands to a stat logger, as several of its versions have them.

Field names after ``vllm/v1/metrics/stats.py`` of the versions named.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from types import SimpleNamespace
from typing import Any


class Reason(IntEnum):
    STOP = 0
    LENGTH = 1
    ABORT = 2

    def __str__(self) -> str:
        return ("stop", "length", "abort")[self.value]


class PlainReason(IntEnum):
    STOP = 0


def finished(**changes: Any) -> SimpleNamespace:
    told = {
        "finish_reason": Reason.LENGTH, "e2e_latency": 2.5, "num_prompt_tokens": 40, "num_generation_tokens": 32,
        "queued_time": 0.25, "prefill_time": 0.5, "inference_time": 2.0, "decode_time": 1.5,
    }  # fmt: skip
    return SimpleNamespace(**told | changes)


def of_0_8() -> tuple[Any, Any]:
    """Neither deferred requests nor evictions; the KV cache under its old name; no request ids."""
    scheduler = SimpleNamespace(
        num_running_reqs=3, num_waiting_reqs=2, gpu_cache_usage=0.5,
        prefix_cache_stats=SimpleNamespace(reset=False, requests=1, queries=64, hits=16), spec_decoding_stats=None,
    )  # fmt: skip
    iteration = SimpleNamespace(
        iteration_timestamp=1_764_000_000.5, num_generation_tokens=7, num_prompt_tokens=64, num_preempted_reqs=1,
        finished_requests=[finished()], time_to_first_tokens_iter=[0.1], time_per_output_tokens_iter=[0.02, 0.02],
    )  # fmt: skip
    return scheduler, iteration


def of_0_12() -> tuple[Any, Any]:
    """``kv_cache_usage``, evictions, LoRA by name, speculation."""
    scheduler = SimpleNamespace(
        num_running_reqs=3, num_waiting_reqs=2, step_counter=0, current_wave=0, kv_cache_usage=0.5,
        prefix_cache_stats=SimpleNamespace(reset=False, requests=1, queries=64, hits=16, preempted_queries=0),
        connector_prefix_cache_stats=None, kv_cache_eviction_events=[],
        spec_decoding_stats=SimpleNamespace(
            num_spec_tokens=3, num_drafts=4, num_draft_tokens=12, num_accepted_tokens=9,
            num_accepted_tokens_per_pos=[4, 3, 2],
        ),
        kv_connector_stats=None, waiting_lora_adapters={}, running_lora_adapters={"sql": 2},
    )  # fmt: skip
    iteration = of_0_8()[1]
    iteration.inter_token_latencies_iter = iteration.__dict__.pop("time_per_output_tokens_iter")
    iteration.num_corrupted_reqs = 0
    return scheduler, iteration


@dataclass
class _Sources:
    computed: int = 48
    local_cache_hit: int = 16
    external_kv_transfer: int = 0
    cached_tokens: int = 16
    total: int = 64


@dataclass
class _Iteration:
    """Of 0.16 and later: prompt tokens are a property of their sources."""

    iteration_timestamp: float = 1_764_000_000.5
    num_generation_tokens: int = 7
    prompt_token_stats: _Sources = field(default_factory=_Sources)
    num_preempted_reqs: int = 1
    finished_requests: list[Any] = field(default_factory=list)
    time_to_first_tokens_iter: list[float] = field(default_factory=lambda: [0.1])
    inter_token_latencies_iter: list[float] = field(default_factory=lambda: [0.02, 0.02])

    @property
    def num_prompt_tokens(self) -> int:
        return self.prompt_token_stats.total


def of_0_16() -> tuple[Any, Any]:
    scheduler = of_0_12()[0]
    scheduler.cudagraph_stats = None
    scheduler.perf_stats = None
    return scheduler, _Iteration(finished_requests=[finished(num_cached_tokens=16)])


def of_0_20() -> tuple[Any, Any]:
    """Deferred requests, ids of requests; details of the iteration go to the log alone, until 0.25."""
    scheduler = of_0_16()[0]
    scheduler.num_skipped_waiting_reqs = 1
    return scheduler, _Iteration(finished_requests=[finished(request_id="cmpl-line-7-0", num_cached_tokens=16)])


def of_0_32() -> tuple[Any, Any]:
    """Details of the iteration."""
    scheduler = of_0_20()[0]
    scheduler.kv_cache_eviction_events = [object(), object()]
    scheduler.connector_prefix_cache_stats = SimpleNamespace(queries=32, hits=8)
    scheduler.iteration_details = SimpleNamespace(
        num_ctx_requests=1, num_ctx_tokens=48, num_generation_requests=2, num_generation_tokens=2, elapsed_ms=12.5
    )
    one = finished(request_id="cmpl-line-7-0", num_preemptions=1, num_cached_tokens=16)
    return scheduler, _Iteration(finished_requests=[one])


SHAPES = {"0.8": of_0_8, "0.12": of_0_12, "0.16": of_0_16, "0.20": of_0_20, "0.32": of_0_32}


def config_of_0_9(**scheduler: Any) -> Any:
    """Chunked prefill under its old name, nothing switched on, blocks not counted yet."""
    limits = {"max_num_seqs": 256, "max_num_batched_tokens": 2048, "max_model_len": 4096}
    return SimpleNamespace(
        scheduler_config=SimpleNamespace(**limits | {"chunked_prefill_enabled": False} | scheduler),
        cache_config=SimpleNamespace(
            block_size=16, num_gpu_blocks=None, cache_dtype="auto", enable_prefix_caching=None
        ),
        parallel_config=SimpleNamespace(tensor_parallel_size=2, pipeline_parallel_size=1, data_parallel_size=1),
        model_config=SimpleNamespace(max_model_len=4096, model="/models/secret", hf_token="hf_secret"),
        speculative_config=None, lora_config=None,
    )  # fmt: skip


def config_of_0_32(**scheduler: Any) -> Any:
    """Everything switched on."""
    made = config_of_0_9()
    limits = {
        "max_num_seqs": 8, "max_num_batched_tokens": 512, "max_num_scheduled_tokens": 488,
        "enable_chunked_prefill": True,
    }  # fmt: skip
    made.scheduler_config = SimpleNamespace(**limits | scheduler)
    made.cache_config = SimpleNamespace(
        block_size=32, num_gpu_blocks=1234, cache_dtype="fp8_e4m3", enable_prefix_caching=True
    )
    made.speculative_config = SimpleNamespace(method="eagle3", num_speculative_tokens=3, model="/models/draft")
    made.lora_config = SimpleNamespace(max_loras=4)
    return made
