"""vLLM's own router (PyPI ``vllm-router``, recorded pages).

It counts an answer that is well when its head comes, and apart from these what failed: at once where trying again would
not help, else when no try was left. That no server could be had it counts at each try. With prefill and decode apart it
counts all answers at their heads, failed ones too. Its durations end with the head, so that of a stream they are none
of the whole. The page has a port of its own (29000).
Source: https://github.com/vllm-project/router (``src/metrics.rs``).
"""

from __future__ import annotations

from typing import Final

from agent.engine_families import because
from agent.engine_table import SURE, Rule, Table
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Signal

_BEGINS: Final = "vllm_router_"


def _own(*names: str) -> tuple[str, ...]:
    return tuple(f"{_BEGINS}{name}" for name in names)


RULES = (
    # Of policies that look at load.
    Rule(Signal.RUNNING, "vllm_router_running_requests"),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "vllm_router_requests_total", old=("vllm_router_pd_requests_total",)),
    *(
        rule
        for signal in (Signal.REQUESTS_FINISHED_TOTAL, Signal.REQUESTS_FAILED_TOTAL)
        for rule in (
            Rule(signal, "vllm_router_request_errors_total", where={"error_type": "non_retryable_error"}),
            Rule(signal, "vllm_router_retries_exhausted_total"),
        )
    ),
    Rule(Signal.REQUESTS_FAILED_TOTAL, "vllm_router_pd_prefill_errors_total"),
    Rule(Signal.REQUESTS_FAILED_TOTAL, "vllm_router_pd_decode_errors_total"),
    Rule(Signal.ENDPOINTS_HEALTHY, "vllm_router_worker_health"),
)
IGNORED = {
    **because(
        "until the head of an answer: of a stream neither the whole nor its first token",
        *_own("generate_duration_seconds", "request_duration_seconds", "pd_request_duration_seconds"),
    ),
    **because(
        "one worker's load, breakers and retries",
        *_own(
            "worker_load",
            "max_load",
            "min_load",
            "processed_requests_total",
            "cb_state",
            "cb_state_transitions_total",
            "cb_outcomes_total",
            "retries_total",
            "retry_backoff_duration_seconds",
        ),
    ),
    **because("servers that it was given, whether they are well or not", *_own("active_workers")),
    **because(
        "how it finds workers and picks one",
        *_own(
            "policy_decisions_total",
            "prefix_routing_decisions_total",
            "kv_routing_inputs_total",
            "kv_placement_lookups_total",
            "cache_hits_total",
            "cache_misses_total",
            "tree_size",
            "load_balancing_events_total",
            "discovery_updates_total",
            "discovery_workers_added",
            "discovery_workers_removed",
        ),
    ),
    **because(
        "requests that are counted by their route too",
        *_own(
            "embeddings_total",
            "embeddings_duration_seconds",
            "embeddings_errors_total",
            "embeddings_queue_size",
        ),
    ),
}

TABLE = Table(
    engine="vllm_router",
    prefixes=(_BEGINS,),
    strength=SURE,
    role="router",
    rules=RULES,
    ignored=IGNORED,
    others={
        "vllm_router_pd_": "prefill and decode apart, and how it picks servers for them",
        "vllm_router_prefill_pool_": "prefill and decode apart, and how it picks servers for them",
        "vllm_router_agent_aware_": "its scheduler for programs that ask again and again",
        "vllm_router_workflow_": "what that scheduler foretells",
        "vllm_tokenizer_": "of the tokenizer in the router",
    },
    optional=frozenset({Signal.RUNNING, Signal.REQUESTS_FAILED_TOTAL}) | SIGNALS_WITHOUT_COLUMN,
    notes=lambda _page: ["a router: the servers' own pages tell of the same requests"],
    finished_includes_failed=True,
    counts_late=True,
)
