"""From vLLM's statistics of a step to records; every field is read as if it might not be there.

The classes are vLLM's own and declared unstable (``vllm/v1/metrics/stats.py``). What is read was there under one name
or another in 0.9 to 0.33; what a version does not have is unknown, never 0.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from servescope_probe import wire

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAN = math.nan
_UNKNOWN = -1
_MOST = 0x7FFFFFFF
_NS = 1_000_000_000


def _count(holder: Any, *names: str) -> int:
    """A count under the first of these names that the holder has; -1 where it has none."""
    for name in names:
        value = getattr(holder, name, None)
        if value.__class__ is int or isinstance(value, (int, float)):
            return int(value) if 0 <= value <= _MOST else _UNKNOWN
    return _UNKNOWN


def _fraction(holder: Any, *names: str) -> float:
    for name in names:
        value = getattr(holder, name, None)
        if value.__class__ is float or isinstance(value, (int, float)):
            return float(value)
    return _NAN


def _size(holder: Any, name: str) -> int:
    value = getattr(holder, name, None)
    try:
        return _UNKNOWN if value is None else len(value)
    except TypeError:
        return _UNKNOWN


class Steps:
    """Packs the steps of one engine core.

    Args:
        rank: Its data-parallel rank.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._counter = 0

    def pack(self, scheduler: Any, iteration: Any) -> bytes:
        """The record of a step; either argument may be None, as vLLM hands over one without the other.

        Raises:
            ValueError: Neither has a field that is known: another interface than this was written for.
        """
        running, kv_usage = _UNKNOWN, _NAN
        waiting = deferred = evictions = lora_running = lora_waiting = in_flight = _UNKNOWN
        queries = hits = external_queries = external_hits = _UNKNOWN
        drafts = draft_tokens = accepted = _UNKNOWN
        prefills = prefill_tokens = decodes = decode_tokens = _UNKNOWN
        elapsed = _NAN
        if scheduler is not None:
            running = _count(scheduler, "num_running_reqs")
            waiting = _count(scheduler, "num_waiting_reqs")
            deferred = _count(scheduler, "num_skipped_waiting_reqs")
            kv_usage = _fraction(scheduler, "kv_cache_usage", "gpu_cache_usage")
            in_flight = _count(scheduler, "num_in_flight_batches", "in_flight")
            prefix = getattr(scheduler, "prefix_cache_stats", None)
            if prefix is not None:
                queries, hits = _count(prefix, "queries"), _count(prefix, "hits")
            external = getattr(scheduler, "connector_prefix_cache_stats", None)
            if external is not None:
                external_queries, external_hits = _count(external, "queries"), _count(external, "hits")
            evictions = _size(scheduler, "kv_cache_eviction_events")
            lora_running = _size(scheduler, "running_lora_adapters")
            lora_waiting = _size(scheduler, "waiting_lora_adapters")
            speculation = getattr(scheduler, "spec_decoding_stats", None)
            if speculation is not None:
                drafts = _count(speculation, "num_drafts")
                draft_tokens = _count(speculation, "num_draft_tokens")
                accepted = _count(speculation, "num_accepted_tokens")
            details = getattr(scheduler, "iteration_details", None)
            if details is not None:
                prefills = _count(details, "num_ctx_requests", "num_context_requests")
                prefill_tokens = _count(details, "num_ctx_tokens", "num_context_tokens")
                decodes = _count(details, "num_generation_requests", "num_gen_requests")
                decode_tokens = _count(details, "num_generation_tokens", "num_gen_tokens")
                elapsed = _fraction(details, "elapsed_ms", "iteration_elapsed_ms", "elapsed_time_ms") / 1e3
        completed = 0
        prompt = cached = generated = firsts = finished = preemptions = _UNKNOWN
        if iteration is not None:
            completed = _nanoseconds(getattr(iteration, "iteration_timestamp", None))
            prompt = _count(iteration, "num_prompt_tokens")
            sources = getattr(iteration, "prompt_token_stats", None)
            if sources is not None:
                cached = _count(sources, "cached_tokens")
                if prompt < 0:
                    prompt = _count(sources, "total")
            generated = _count(iteration, "num_generation_tokens")
            firsts = _size(iteration, "time_to_first_tokens_iter")
            finished = _size(iteration, "finished_requests")
            preemptions = _count(iteration, "num_preempted_reqs")
        if running < 0 and generated < 0:
            raise ValueError("neither running requests nor generated tokens are told")
        completed = completed or time.time_ns()
        self._counter += 1
        scheduled = completed - int(elapsed * _NS) if elapsed >= 0 else 0
        return wire.STEP_BODY.pack(
            self._counter, scheduled, completed, in_flight, running, waiting, deferred, kv_usage,
            prefills, prefill_tokens, decodes, decode_tokens, prompt, cached, generated, firsts, finished, preemptions,
            queries, hits, external_queries, external_hits, evictions, drafts, draft_tokens, accepted,
            lora_running, lora_waiting, elapsed,
        )  # fmt: skip


def finished(iteration: Any) -> list[bytes]:
    """A record for each request that a step finished."""
    requests: Sequence[Any] | None = getattr(iteration, "finished_requests", None)
    if not requests:
        return []
    now = _nanoseconds(getattr(iteration, "iteration_timestamp", None)) or time.time_ns()
    return [_finished(request, now) for request in requests]


def _finished(request: Any, now: int) -> bytes:
    return (
        wire.FINISHED_BODY.pack(
            now,
            _fraction(request, "e2e_latency"),
            _fraction(request, "queued_time"),
            _fraction(request, "prefill_time"),
            _fraction(request, "inference_time"),
            _fraction(request, "decode_time"),
            _count(request, "num_preemptions"),
            _count(request, "num_prompt_tokens"),
            _count(request, "num_generation_tokens"),
            _count(request, "num_cached_tokens"),
        )
        + wire.text(_reason(getattr(request, "finish_reason", None)))
        + wire.text(getattr(request, "request_id", None) or "")
    )


def _reason(reason: Any) -> str:
    """``stop``, ``length``, …: vLLM's enumeration says it as its text, plain ones as their name."""
    if reason is None:
        return ""
    text = str(reason)
    name = getattr(reason, "name", None)
    if isinstance(name, str) and (text.isdigit() or "." in text):
        text = name
    return text.lower()


def _nanoseconds(seconds: Any) -> int:
    return int(seconds * _NS) if isinstance(seconds, float) and 0 < seconds < 1 << 33 else 0
