"""The endpoint picker of the Gateway API inference extension and of llm-d (test pages of their makers).

llm-d's router shows the deprecated names beside its own for the same events: of each model one name counts. Averages
over a pool are no server's own figure. Source: https://github.com/kubernetes-sigs/gateway-api-inference-extension and
https://github.com/llm-d/llm-d-router (``pkg/epp/metrics``).
"""

from __future__ import annotations

from typing import Final

from agent.engine_families import because
from agent.engine_table import HOST, Histogram, Rule, Table
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Distribution, Signal


def _names(what: str) -> tuple[str, tuple[str, ...]]:
    """Where a family of requests stands, newest name first."""
    return f"llm_d_epp_request_{what}", (f"inference_objective_request_{what}", f"inference_model_request_{what}")


def _tokens(what: str) -> tuple[str, tuple[str, ...]]:
    return f"llm_d_epp_request_{what}", (f"inference_objective_{what}", f"inference_model_{what}")


_QUEUED: Final = ("llm_d_epp_flow_control_queue_size", ("inference_extension_flow_control_queue_size",))
_QUEUE_TIME: Final = (
    "llm_d_epp_flow_control_request_queue_duration_seconds",
    ("inference_extension_flow_control_request_queue_duration_seconds",),
)
"""Until a request was handed on, refused or given up."""
_RUNNING: Final = (
    "llm_d_epp_request_running",
    ("inference_objective_running_requests", "inference_model_running_requests"),
)

RULES = (
    Rule(Signal.RUNNING, *_RUNNING),
    Rule(Signal.WAITING, *_QUEUED),
    Rule(Signal.PROMPT_TOKENS_TOTAL, *_tokens("input_tokens_sum")),
    Rule(Signal.GENERATION_TOKENS_TOTAL, *_tokens("output_tokens_sum")),
    Rule(Signal.PREFIX_CACHE_HITS_TOTAL, *_tokens("prompt_cached_tokens_sum")),
    Rule(Signal.REQUESTS_RECEIVED_TOTAL, *_names("total")),
    Rule(Signal.REQUESTS_FAILED_TOTAL, *_names("error_total")),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, *_names("duration_seconds_count")),
    Rule(Signal.REQUEST_SECONDS_TOTAL, *_names("duration_seconds_sum")),
    Rule(Signal.QUEUE_SECONDS_TOTAL, f"{_QUEUE_TIME[0]}_sum", old=tuple(f"{name}_sum" for name in _QUEUE_TIME[1])),
    Rule(Signal.ENDPOINTS_HEALTHY, "llm_d_epp_ready_endpoints", old=("inference_pool_ready_pods",)),
)
HISTOGRAMS = (
    Histogram(Distribution.TTFT_SECONDS, *_names("ttft_seconds")),
    Histogram(Distribution.TPOT_SECONDS, *_tokens("normalized_time_per_output_token_seconds")),
    Histogram(Distribution.E2E_SECONDS, *_names("duration_seconds")),
    Histogram(Distribution.QUEUE_SECONDS, *_QUEUE_TIME),
    Histogram(Distribution.PROMPT_TOKENS, *_tokens("input_tokens")),
    Histogram(Distribution.COMPLETION_TOKENS, *_tokens("output_tokens")),
)


def _pool(*names: str) -> tuple[str, ...]:
    return tuple(f"{begin}{name}" for name in names for begin in ("llm_d_epp_", "inference_pool_"))


def _own(*names: str) -> tuple[str, ...]:
    return tuple(f"{begin}{name}" for name in names for begin in ("llm_d_epp_", "inference_extension_"))


IGNORED = {
    **because(
        "an average over the pool's servers, whose own pages have it",
        *_pool(
            "average_kv_cache_utilization",
            "std_dev_kv_cache_utilization",
            "average_queue_size",
            "std_dev_queue_size",
            "average_running_requests",
            "std_dev_running_requests",
            "per_pod_queue_size",
            "per_endpoint_queue_size",
        ),
    ),
    **because(
        "of flow control; the queue's length and time are read",
        *_own(
            "flow_control_dispatch_cycle_duration_seconds",
            "flow_control_request_enqueue_duration_seconds",
            "flow_control_queue_bytes",
            "flow_control_pool_saturation",
            "flow_control_pending_reclaim",
            "flow_control_reclaim_target",
            "flow_control_revocations_issued_total",
            "flow_control_revocations_total",
        ),
    ),
    **because(
        "what picking costs",
        *_own(
            "plugin_duration_seconds",
            "plugin_data_scope_violations_total",
            "scheduler_attempts_total",
            "scheduler_e2e_duration_seconds",
            "prefix_indexer_hit_bytes",
            "prefix_indexer_hit_ratio",
            "prefix_indexer_size",
        ),
        "llm_d_epp_request_processing_duration_seconds",
        "llm_d_epp_response_processing_duration_seconds",
    ),
    **because(
        "bytes of bodies; the edge record has them",
        *(
            f"{name}{what}"
            for name in ("inference_objective_", "inference_model_")
            for what in ("request_sizes", "response_sizes")
        ),
        "llm_d_epp_request_sizes",
        "llm_d_epp_request_size_bytes",
        "llm_d_epp_response_size_bytes",
        "llm_d_epp_response_sizes",
    ),
}

TABLE = Table(
    engine="epp",
    prefixes=("llm_d_epp_", "inference_extension_", "inference_objective_", "inference_model_", "inference_pool_"),
    strength=HOST,
    role="router",
    rules=RULES,
    histograms=HISTOGRAMS,
    ignored=IGNORED,
    model_labels=("model_name", "target_model_name"),
    info={"inference_extension_info": (), "llm_d_epp_info": ()},
    # Flow control is off by default; errors have a series once one happened.
    optional=frozenset(
        {
            Signal.WAITING,
            Signal.QUEUE_SECONDS_TOTAL,
            Signal.REQUESTS_FAILED_TOTAL,
            Signal.PREFIX_CACHE_HITS_TOTAL,
        }
    )
    | SIGNALS_WITHOUT_COLUMN,
    notes=lambda _page: ["a router: the servers' own pages tell of the same requests"],
    counts_late=True,
)
