"""From vLLM's statistics of a step to records; every field is read as if it might not be there.

The classes are vLLM's own and declared unstable (``vllm/v1/metrics/stats.py``). What is read was there under one name
or another in 0.8 to 0.33, of which those from 0.11.1 on load a stat logger; what a version does not have is unknown,
never 0.
"""

from __future__ import annotations

import math
import struct
import time
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from servescope_probe import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NAN = math.nan
_UNKNOWN = -1
_MOST = 0x7FFFFFFF
_NS = 1_000_000_000
_NAMES = [name for name, _ in wire.STEP_FIELDS[1:]]
_RUNNING, _GENERATED = _NAMES.index("running"), _NAMES.index("generation_tokens")
_PACK, _SIZE = wire.STEP_RECORD.pack, wire.STEP_BODY.size
_ABSENT = "__class__"
"""Read in place of a field that a version does not have: everything has it, and it is no number."""

_SCHEDULER = (
    ("num_running_reqs",),
    ("num_waiting_reqs",),
    ("num_skipped_waiting_reqs",),
    ("kv_cache_usage", "gpu_cache_usage"),
    ("prefix_cache_stats",),
    ("connector_prefix_cache_stats",),
    ("kv_cache_eviction_events",),
    ("running_lora_adapters",),
    ("waiting_lora_adapters",),
    ("spec_decoding_stats",),
    ("iteration_details",),
)
_CACHE = (("queries",), ("hits",))
_SPECULATION = (("num_drafts",), ("num_draft_tokens",), ("num_accepted_tokens",))
_DETAILS = (
    ("num_ctx_requests", "num_context_requests"),
    ("num_ctx_tokens", "num_context_tokens"),
    ("num_generation_requests", "num_gen_requests"),
    ("num_generation_tokens", "num_gen_tokens"),
    ("elapsed_ms", "iteration_elapsed_ms", "elapsed_time_ms"),
)
_ITERATION = (
    ("iteration_timestamp",),
    ("num_prompt_tokens",),
    ("prompt_token_stats",),
    ("num_generation_tokens",),
    ("time_to_first_tokens_iter",),
    ("finished_requests",),
    ("num_preempted_reqs",),
)
_SOURCES = (("cached_tokens",), ("total",))


class _Reader:
    """Reads the fields of one kind of object at once, each under the first of its names that the object has.

    Args:
        names: Names of each field.
        objects: Places of fields that are no numbers: None stands for one that is not there, -1 for a count.
        fractions: Places of fractions: NaN stands for one that is not there.
    """

    __slots__ = ("_absent", "_fractions", "_get", "_names", "_objects")

    def __init__(
        self, names: tuple[tuple[str, ...], ...], objects: tuple[int, ...] = (), fractions: tuple[int, ...] = ()
    ) -> None:
        self._names = names
        self._objects = objects
        self._fractions = fractions
        self._absent: list[int] = []
        self._get: Callable[[Any], tuple[Any, ...]] = attrgetter(*[each[0] for each in names])

    def read(self, holder: Any) -> Sequence[Any]:
        """The fields' values."""
        try:
            values = self._get(holder)
        except AttributeError:  # another version's, or another object than the last one
            found = [next((name for name in each if hasattr(holder, name)), _ABSENT) for each in self._names]
            self._absent = [place for place, name in enumerate(found) if name is _ABSENT]
            self._get = attrgetter(*found)
            values = self._get(holder)
        if not self._absent:
            return values
        filled = list(values)
        for place in self._absent:
            filled[place] = None if place in self._objects else _NAN if place in self._fractions else _UNKNOWN
        return filled


def _whole(value: Any) -> int:
    """A count, -1 for what is none."""
    if value.__class__ is not int and not isinstance(value, (int, float)):
        return _UNKNOWN
    return int(value) if 0 <= value <= _MOST else _UNKNOWN


def _real(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else _NAN


def _time(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _length(value: Any) -> int:
    try:
        return _UNKNOWN if value is None else len(value)
    except TypeError:
        return _UNKNOWN


def _count(holder: Any, name: str) -> int:
    return _whole(getattr(holder, name, None))


def _fraction(holder: Any, name: str) -> float:
    return _real(getattr(holder, name, None))


class Steps:
    """Packs the steps of one engine core.

    Args:
        rank: Its data-parallel rank.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._counter = 0
        self._told = self._told_newest
        self._scheduler = _Reader(_SCHEDULER, objects=(4, 5, 6, 7, 8, 9, 10), fractions=(3,))
        self._prefix = _Reader(_CACHE)
        self._external = _Reader(_CACHE)
        self._speculation = _Reader(_SPECULATION)
        self._details = _Reader(_DETAILS)
        self._iteration = _Reader(_ITERATION, objects=(2, 4, 5))
        self._sources = _Reader(_SOURCES)

    def pack(self, scheduler: Any, iteration: Any) -> bytes:
        """The record of a step, its head too; either argument may be None, as vLLM hands over one without the other.

        Raises:
            ValueError: Neither has a field that is known: another interface than this was written for.
        """
        told = self._told(scheduler, iteration)
        if told[_RUNNING] == _UNKNOWN and told[_GENERATED] == _UNKNOWN:
            raise ValueError("neither running requests nor generated tokens are told")
        self._counter += 1
        try:
            return _PACK(_SIZE, wire.STEP, self.rank, self._counter, *told)
        except struct.error:  # something is no number, or one of another kind: that alone is unknown
            layout = zip(told, wire.STEP_FIELDS[1:])
            clean = [
                _real(value) if code == "d" else _time(value) if code == "Q" else _whole(value)
                for value, (_, code) in layout
            ]
            if clean[_RUNNING] == _UNKNOWN and clean[_GENERATED] == _UNKNOWN:
                raise ValueError("neither running requests nor generated tokens are told") from None
            return _PACK(_SIZE, wire.STEP, self.rank, self._counter, *clean)

    def _told_newest(self, scheduler: Any, iteration: Any) -> tuple[Any, ...]:
        """The same as `_told_by_any`, in a third of its time, of objects that have each field under its newest name."""
        try:
            prefix, external = scheduler.prefix_cache_stats, scheduler.connector_prefix_cache_stats
            evicted, speculation = scheduler.kv_cache_eviction_events, scheduler.spec_decoding_stats
            running_loras, waiting_loras = scheduler.running_lora_adapters, scheduler.waiting_lora_adapters
            details, sources = scheduler.iteration_details, iteration.prompt_token_stats
            first, ended, when = (
                iteration.time_to_first_tokens_iter, iteration.finished_requests, iteration.iteration_timestamp,
            )  # fmt: skip
            queries = hits = external_queries = external_hits = drafts = draft_tokens = accepted = _UNKNOWN
            if prefix is not None:
                queries, hits = prefix.queries, prefix.hits
            if external is not None:
                external_queries, external_hits = external.queries, external.hits
            if speculation is not None:
                drafts, draft_tokens = speculation.num_drafts, speculation.num_draft_tokens
                accepted = speculation.num_accepted_tokens
            prefills = prefill_tokens = decodes = decode_tokens = _UNKNOWN
            scheduled, elapsed, completed = 0, _NAN, _nanoseconds(when) or time.time_ns()
            if details is not None:
                prefills, prefill_tokens = details.num_ctx_requests, details.num_ctx_tokens
                decodes, decode_tokens = details.num_generation_requests, details.num_generation_tokens
                milliseconds = details.elapsed_ms
                if milliseconds.__class__ is float and milliseconds >= 0:
                    elapsed = milliseconds / 1e3
                    scheduled = completed - int(elapsed * _NS)
            return (
                scheduled, completed, _UNKNOWN, scheduler.num_running_reqs, scheduler.num_waiting_reqs,
                scheduler.num_skipped_waiting_reqs, scheduler.kv_cache_usage, prefills, prefill_tokens, decodes,
                decode_tokens, iteration.num_prompt_tokens, sources.cached_tokens, iteration.num_generation_tokens,
                len(first), len(ended), iteration.num_preempted_reqs, queries, hits, external_queries, external_hits,
                len(evicted), drafts, draft_tokens, accepted, len(running_loras), len(waiting_loras), elapsed,
            )  # fmt: skip
        except (AttributeError, TypeError):  # another version's, or one of the two alone
            if scheduler is not None and iteration is not None:
                self._told = self._told_by_any
            return self._told_by_any(scheduler, iteration)

    def _told_by_any(self, scheduler: Any, iteration: Any) -> tuple[Any, ...]:
        """The fields after the counter, as they were found."""
        running, kv_usage = _UNKNOWN, _NAN
        waiting = deferred = evictions = lora_running = lora_waiting = _UNKNOWN
        queries = hits = external_queries = external_hits = _UNKNOWN
        drafts = draft_tokens = accepted = _UNKNOWN
        prefills = prefill_tokens = decodes = decode_tokens = _UNKNOWN
        elapsed = _NAN
        if scheduler is not None:
            (
                running, waiting, deferred, kv_usage, prefix, external, evicted, running_loras, waiting_loras,
                speculation, details,
            ) = self._scheduler.read(scheduler)  # fmt: skip
            if evicted is not None:
                evictions = len(evicted) if evicted.__class__ is list else _length(evicted)
            if running_loras is not None:
                lora_running = len(running_loras) if running_loras.__class__ is dict else _length(running_loras)
                lora_waiting = len(waiting_loras) if waiting_loras.__class__ is dict else _length(waiting_loras)
            if prefix is not None:
                queries, hits = self._prefix.read(prefix)
            if external is not None:
                external_queries, external_hits = self._external.read(external)
            if speculation is not None:
                drafts, draft_tokens, accepted = self._speculation.read(speculation)
            if details is not None:
                prefills, prefill_tokens, decodes, decode_tokens, milliseconds = self._details.read(details)
                if milliseconds.__class__ is float and milliseconds >= 0:
                    elapsed = milliseconds / 1e3
        completed = 0
        prompt = cached = generated = firsts = done = preemptions = _UNKNOWN
        if iteration is not None:
            when, prompt, sources, generated, first, ended, preemptions = self._iteration.read(iteration)
            completed = _nanoseconds(when)
            firsts = len(first) if first.__class__ is list else _length(first)
            done = len(ended) if ended.__class__ is list else _length(ended)
            if sources is not None:
                cached, total = self._sources.read(sources)
                if prompt == _UNKNOWN:
                    prompt = total
        completed = completed or time.time_ns()
        scheduled = completed - int(elapsed * _NS) if elapsed >= 0 else 0
        return (
            scheduled, completed, _UNKNOWN, running, waiting, deferred, kv_usage, prefills, prefill_tokens, decodes,
            decode_tokens, prompt, cached, generated, firsts, done, preemptions, queries, hits, external_queries,
            external_hits, evictions, drafts, draft_tokens, accepted, lora_running, lora_waiting, elapsed,
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
