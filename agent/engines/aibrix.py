"""AIBrix's gateway (names from its source; no page was recorded).

Names that end in ``_bucket_total`` are plain counters, one a range, and no histogram's part.
Source: https://github.com/vllm-project/aibrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent.engine_families import because
from agent.engine_table import HOST, Rule, Table
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Signal

if TYPE_CHECKING:
    from agent.pages.page import Layout

RULES = (
    Rule(Signal.RUNNING, "gateway_in_flight_requests"),
    Rule(Signal.REQUESTS_RECEIVED_TOTAL, "gateway_request_total"),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "gateway_request_model_success_total"),
    Rule(Signal.REQUESTS_FAILED_TOTAL, "gateway_request_model_fail_total"),
    Rule(Signal.PROMPT_TOKENS_TOTAL, "gateway_input_tokens_total"),
    Rule(Signal.GENERATION_TOKENS_TOTAL, "gateway_output_tokens_total"),
    Rule(Signal.REQUESTS_IN_PREFILL, "gateway_prefill_outstanding_requests", of_server=True),
)
IGNORED = {
    "gateway_model_in_flight_requests": "the requests in flight again, by model",
    "gateway_requests_with_usage_total": "how many requests the token counters rest on",
    **because(
        "requests by range, which are no cumulative buckets",
        "gateway_prompt_token_bucket_total",
        "gateway_completion_token_bucket_total",
        "gateway_routing_time_bucket_total",
        "gateway_prefill_time_bucket_total",
        "gateway_kv_transfer_time_bucket_total",
        "gateway_ttft_bucket_total",
        "gateway_tpot_bucket_total",
        "gateway_decode_time_bucket_total",
        "gateway_total_time_bucket_total",
    ),
    **because(
        "prefill and decode apart; the requests are read whole",
        "gateway_prefill_request_success_total",
        "gateway_prefill_request_fail_total",
        "pd_selected_prefill_pod_total",
        "pd_selected_decode_pod_total",
    ),
    **because(
        "how it routes",
        "prefix_cache_indexer_status",
        "prefix_cache_load_imbalance_total",
        "prefix_cache_routing_decisions_total",
        "prefix_cache_routing_errors_total",
        "prefix_cache_routing_latency_seconds",
        "prefix_cache_routing_selection_total",
        "autoscaler_scale_action",
        "kvcache_zmq_connections_total",
        "kvcache_zmq_events_received_total",
        "kvcache_zmq_events_processed_total",
        "kvcache_zmq_missed_events_total",
        "kvcache_zmq_event_processing_duration_seconds",
    ),
    **because(
        "its tokenizers, on the CPU",
        "tokenizer_pool_active_tokenizers",
        "tokenizer_pool_creation_failures_total",
        "tokenizer_pool_creation_successes_total",
        "tokenizer_pool_latency_seconds",
        "tokenizer_pool_requests_total",
        "tokenizer_pool_unhealthy_tokenizers_total",
    ),
}

_OWN: Final = (
    "gateway_request_model_success_total",
    "gateway_request_model_fail_total",
    "gateway_model_in_flight_requests",
    "gateway_prefill_outstanding_requests",
    "gateway_requests_with_usage_total",
    "gateway_ttft_bucket_total",
)


def _signs(layout: Layout) -> bool:
    """Other gateways count requests too; these names tell of models."""
    return any(name in layout.places or name in layout.types for name in _OWN)


TABLE = Table(
    engine="aibrix",
    prefixes=(),
    signs=_signs,
    marks=_OWN,
    strength=HOST,
    role="router",
    rules=RULES,
    ignored=IGNORED,
    model_labels=("model", "model_name"),
    optional=frozenset({Signal.REQUESTS_FAILED_TOTAL}) | SIGNALS_WITHOUT_COLUMN,
    notes=lambda _page: ["a gateway: the servers' own pages tell of the same requests"],
    counts_late=True,
)
