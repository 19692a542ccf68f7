"""Which cause may bring about which, and why: the mechanisms that a chain of causes may be told by (`chains`)."""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import Final

from analytics.causes.advice import DRIVER

_HELD: Final = "Requests that take longer hold their KV blocks for longer"
_SEATS: Final = "Requests that take longer keep their places for longer, and what comes waits"
_AT_ONCE: Final = "Requests that take longer are more at one time, so each step has more sequences"
_AGAIN: Final = "Clients whose requests take too long or fail send them again"
_BACKLOG: Final = "What came while nothing moved is there all at once"
_EVICTED: Final = "A sequence that needs a block where none is free takes one from another"
_EMPTY: Final = "A process that begins anew has an empty prefix cache"
_UNWARMED: Final = "A process that begins anew compiles and warms up on its first requests"

_SLOWER: Final = {
    "batch_interference": _AT_ONCE,
    "kv_cache_full": _HELD,
    "preemption": _EVICTED,
    "retry_storm": _AGAIN,
    "queue_saturated": _SEATS,
}
_STOOD: Final = {
    "batch_interference": _BACKLOG,
    "prefill_interference": _BACKLOG,
    "kv_cache_full": _BACKLOG,
    "preemption": _BACKLOG,
    "retry_storm": _AGAIN,
    "queue_saturated": _BACKLOG,
}
_BEGUN: Final = {"cold_start": _UNWARMED, "cold_prefix_cache": _EMPTY, **_STOOD}
_CROWDED: Final = {
    "prefill_interference": "More requests have more prompts computed",
    "batch_interference": "More requests are more sequences in each step",
    "kv_cache_full": "More requests hold more KV blocks",
    "preemption": _EVICTED,
    "queue_saturated": "More comes than is taken at once",
}
_PROMPTS: Final = {
    "prefill_interference": "Steps that compute more prompt tokens keep those that decode in them waiting",
    "kv_cache_full": "More prompt tokens to compute or to hold keep more KV blocks taken",
    "preemption": _EVICTED,
    "queue_saturated": _SEATS,
}

LEADS: Final[dict[str, dict[str, str]]] = {
    "longer_prompts": _PROMPTS,
    "cold_prefix_cache": _PROMPTS,
    "longer_outputs": {
        "batch_interference": "Longer answers are more sequences at one time",
        "kv_cache_full": "Longer answers hold more KV blocks, and for longer",
        "preemption": _EVICTED,
        "queue_saturated": _SEATS,
    },
    **dict.fromkeys(
        (
            *("deploy", "slow_instance", "model_slow"),
            *("gpu_throttled", "spec_acceptance_drop", "cpu_starved", "cold_start"),
        ),
        _SLOWER,
    ),
    "kv_transfer": {"kv_cache_full": "Blocks are held while what is to fill them is on the way", "retry_storm": _AGAIN},
    "gpu_fault": _BEGUN,
    "restart": _BEGUN,
    "engine_frozen": _STOOD,
    "router_imbalance": _CROWDED,
    "upstream_error": {"retry_storm": _AGAIN},
    "retry_storm": _CROWDED,
    "prefill_interference": {"kv_cache_full": _HELD, "preemption": _EVICTED, "queue_saturated": _SEATS},
    "batch_interference": {"kv_cache_full": _HELD, "preemption": _EVICTED, "queue_saturated": _SEATS},
    "kv_cache_full": {
        "preemption": _EVICTED,
        "queue_saturated": "Requests that were let in late keep the places of those that come",
    },
    "preemption": {"queue_saturated": "What lost its blocks is computed again, in a place that others wait for"},
}
"""By cause, what it may bring about, each with the reason."""

BEGINNINGS: Final[dict[str, dict[str, str]]] = {
    "deploy": {
        "restart": "A deploy ends the processes before it",
        "cold_start": _UNWARMED,
        "cold_prefix_cache": _EMPTY,
        "deploy": "The version that was deployed is slower",
        "longer_outputs": "The version that was deployed answers at greater length",
        "spec_acceptance_drop": "The version that was deployed drafts differently from what it answers",
    },
    "config_changed": {
        "restart": "Most settings need a process that begins anew",
        "cold_start": _UNWARMED,
        "cold_prefix_cache": "Settings decide what the prefix cache holds",
        "kv_cache_full": "Settings decide how many KV blocks there are and who may have them",
        "preemption": "Settings decide how many KV blocks there are and who may have them",
        "prefill_interference": "Settings decide how much of a prompt a step computes",
        "batch_interference": "Settings decide how many sequences a step has",
        "queue_saturated": "Settings decide how many requests are let in",
        "spec_acceptance_drop": "Settings decide what is drafted",
        "lora_slots": "Settings decide how many adapters may run",
    },
    "oom_kill": {"restart": "A process that was killed begins anew", **_BEGUN},
    "restart": {"cold_start": _UNWARMED, "cold_prefix_cache": _EMPTY},
}
"""By event on record (`advice.ONSETS`), what it may bring about, each with the reason."""

WORK: Final = frozenset(cause for cause, driver in DRIVER.items() if driver == "own_work")
"""Causes that are more work asked for: they lead to what the same tenant's work takes from others."""
SLOWER: Final = frozenset(cause for cause, led in LEADS.items() if led is _SLOWER) - {"cold_start"} | {
    "batch_interference",
    "prefill_interference",
}
"""Causes that lead on by work that takes longer: what they let requests wait is no measure of that."""
CROWDS: Final = frozenset({"router_imbalance", "retry_storm"})
"""Causes that are more requests than usual themselves."""


def depths() -> dict[str, int]:
    """Of each cause its place in an order in which whatever brings another about comes before it.

    Raises:
        graphlib.CycleError: `LEADS` goes round in a circle.
    """
    order = TopologicalSorter({cause: [] for cause in sorted(DRIVER)})
    for cause in sorted(LEADS):
        for led in sorted(LEADS[cause]):
            order.add(led, cause)
    return {cause: place for place, cause in enumerate(order.static_order())}
