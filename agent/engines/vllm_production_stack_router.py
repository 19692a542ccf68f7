"""The router of vLLM's production stack (recorded pages).

It writes the engine's own names, with the label ``server`` in place of ``model_name``: a page like an engine's of
requests that the engines' pages tell of too. Averages are of a sliding window and -1 where there was nothing. What a
server refused or failed is in the latencies with ``status="error"``; ``request_errors_total`` has of these only what
broke on the way. A request whose server could not be reached stays in prefill, and so among what runs, for good.
Source: ``src/vllm_router`` in https://github.com/vllm-project/production-stack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent.engine_families import because
from agent.engine_table import SURE, Histogram, Rule, Table
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Distribution, Signal

if TYPE_CHECKING:
    from agent.pages.page import Layout

_OWN: Final = ("vllm:current_qps", "vllm:healthy_pods_total", "vllm:num_incoming_requests_total", "vllm:avg_latency")

RULES = (
    Rule(Signal.RUNNING, "vllm:num_requests_running"),
    Rule(Signal.WAITING, "vllm:num_requests_waiting"),
    Rule(Signal.REQUESTS_RECEIVED_TOTAL, "vllm:num_incoming_requests_total"),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "vllm:request_latency_seconds_count"),
    Rule(Signal.REQUESTS_FAILED_TOTAL, "vllm:request_latency_seconds_count", where={"status": "error"}),
    Rule(Signal.REQUEST_SECONDS_TOTAL, "vllm:request_latency_seconds_sum"),
    Rule(Signal.ENDPOINTS_HEALTHY, "vllm:healthy_pods_total"),
    Rule(Signal.REQUESTS_IN_PREFILL, "vllm:num_prefill_requests"),
    Rule(Signal.REQUESTS_IN_DECODE, "vllm:num_decoding_requests"),
)
IGNORED = {
    **because(
        "gauges with the engines' own totals, which their pages count",
        "vllm:gpu_prefix_cache_hits_total",
        "vllm:gpu_prefix_cache_queries_total",
        "vllm:gpu_prefix_cache_hit_rate",
        "vllm:gpu_cache_usage_perc",
        "vllm:num_requests_swapped",
        "vllm:num_requests_uncompleted",
    ),
    **because(
        "of answers that came whole; tokens of streams it does not count",
        "vllm:input_tokens_total",
        "vllm:output_tokens_total",
    ),
    **because("of what failed, what broke on the way", "vllm:request_errors_total"),
    **because("how it picks a server", "vllm:routing_decisions", "vllm:routing_decisions_total"),
    **because(
        "a mean of the router's sliding window, -1 where there was nothing",
        "vllm:current_qps",
        "vllm:avg_decoding_length",
        "vllm:avg_latency",
        "vllm:avg_itl",
    ),
    **because(
        "of the router's process and machine; host samples have it",
        "router_cpu_usage_percent",
        "router_memory_usage_percent",
        "router_disk_usage_percent",
    ),
    **because(
        "an experimental cache of answers by meaning",
        "vllm:semantic_cache_hits",
        "vllm:semantic_cache_hits_total",
        "vllm:semantic_cache_misses",
        "vllm:semantic_cache_misses_total",
        "vllm:semantic_cache_hit_ratio",
        "vllm:semantic_cache_size",
        "vllm:semantic_cache_latency",
    ),
}


def _signs(layout: Layout) -> bool:
    if any(name in layout.places or name in layout.types for name in _OWN):
        return True
    return any(
        "server" in one.labels and "model_name" not in one.labels and one.name.startswith("vllm:")
        for one in layout.series
    )


TABLE = Table(
    engine="vllm_production_stack_router",
    prefixes=(),
    signs=_signs,
    strength=SURE,
    role="router",
    rules=RULES,
    histograms=(Histogram(Distribution.E2E_SECONDS, "vllm:request_latency_seconds"),),
    ignored=IGNORED,
    model_labels=("model",),
    optional=frozenset({Signal.WAITING, Signal.REQUESTS_FAILED_TOTAL}) | SIGNALS_WITHOUT_COLUMN,
    notes=lambda _page: ["a router with the engine's names: the engines' own pages tell of the same requests"],
    finished_includes_failed=True,
    counts_late=True,
)
