"""LiteLLM proxy's metrics page (callback ``prometheus``; recorded in 2026): requests as a gateway sees them.

Labels name tenants by the hash of their key; only the model's is read. Source: https://docs.litellm.ai/docs/proxy/prometheus.
"""

from __future__ import annotations

from agent.engine_families import because
from agent.engine_table import HOST, Histogram, Rule, Table
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Distribution, Signal


def _total(name: str) -> tuple[str, tuple[str, ...]]:
    return f"litellm_{name}_total", (f"litellm_{name}",)


RULES = (
    Rule(Signal.RUNNING, "litellm_in_flight_requests"),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, *_total("proxy_total_requests_metric")),
    Rule(Signal.REQUESTS_FAILED_TOTAL, *_total("proxy_failed_requests_metric")),
    Rule(Signal.PROMPT_TOKENS_TOTAL, *_total("input_tokens_metric")),
    Rule(Signal.GENERATION_TOKENS_TOTAL, *_total("output_tokens_metric")),
    Rule(
        Signal.PREFIX_CACHE_QUERIES_TOTAL,
        *_total("input_tokens_metric"),
        beside=("litellm_input_cached_tokens_metric_total",),
    ),
    Rule(Signal.PREFIX_CACHE_HITS_TOTAL, *_total("input_cached_tokens_metric")),
    Rule(Signal.RESPONSE_CACHE_HITS_TOTAL, *_total("cache_hits_metric")),
    Rule(Signal.RESPONSE_CACHE_MISSES_TOTAL, *_total("cache_misses_metric")),
    Rule(Signal.REQUEST_SECONDS_TOTAL, "litellm_request_total_latency_metric_sum"),
    Rule(Signal.QUEUE_SECONDS_TOTAL, "litellm_request_queue_time_seconds_sum"),
)
HISTOGRAMS = (
    Histogram(Distribution.TTFT_SECONDS, "litellm_llm_api_time_to_first_token_metric"),
    Histogram(Distribution.TPOT_SECONDS, "litellm_deployment_latency_per_output_token"),
    Histogram(Distribution.E2E_SECONDS, "litellm_request_total_latency_metric"),
    Histogram(Distribution.QUEUE_SECONDS, "litellm_request_queue_time_seconds"),
)


def _left(reason: str, *names: str) -> dict[str, str]:
    return because(reason, *(f"litellm_{name}" for name in names))


IGNORED = {
    **_left("a deprecated count of the same requests", "requests_metric_total", "llm_api_failed_requests_metric_total"),
    **_left("input plus output tokens", "total_tokens_metric_total"),
    **_left(
        "the provider's own word on cached tokens, which are read",
        "provider_cache_read_input_tokens_metric_total",
        "provider_cache_creation_input_tokens_metric_total",
        "cached_tokens_metric_total",
    ),
    **_left(
        "a part of the whole time",
        "llm_api_latency_metric",
        "overhead_latency_metric",
        "overhead_with_guardrails_latency_metric",
    ),
    **_left(
        "of one deployment behind it; its own page says more",
        "deployment_state",
        "deployment_cooled_down_total",
        "deployment_success_responses_total",
        "deployment_failure_responses_total",
        "deployment_failure_by_tag_responses_total",
        "deployment_total_requests_total",
        "deployment_successful_fallbacks_total",
        "deployment_failed_fallbacks_total",
        "deployment_active_requests",
    ),
    **_left(
        "money and limits, which no engine sample has",
        "spend_metric_total",
        "remaining_api_key_requests_for_model",
        "remaining_api_key_tokens_for_model",
        "remaining_requests_metric",
        "remaining_tokens_metric",
        "remaining_requests",
        "remaining_tokens",
        "remaining_team_budget_metric",
        "team_max_budget_metric",
        "team_budget_remaining_hours_metric",
        "remaining_api_key_budget_metric",
        "api_key_max_budget_metric",
        "api_key_budget_remaining_hours_metric",
        "remaining_user_budget_metric",
        "user_max_budget_metric",
        "user_budget_remaining_hours_metric",
        "provider_remaining_budget_metric",
    ),
    **_left(
        "of its users and its own jobs",
        "total_users",
        "active_users",
        "teams_count",
        "check_batch_cost_jobs_polled",
        "check_batch_cost_last_run_timestamp",
        "pod_lock_manager_size",
        "in_memory_daily_spend_update_queue_size",
        "redis_daily_spend_update_queue_size",
        "in_memory_spend_update_queue_size",
        "redis_spend_update_queue_size",
    ),
    **_left(
        "guardrails and tools",
        "guardrail_latency_seconds",
        "guardrail_errors_total",
        "guardrail_requests_total",
        "mcp_tool_call_metric_total",
    ),
}

TABLE = Table(
    engine="litellm",
    prefixes=("litellm_",),
    strength=HOST,
    role="router",
    rules=RULES,
    histograms=HISTOGRAMS,
    ignored=IGNORED,
    model_labels=("requested_model", "model_group", "litellm_model_name", "model"),
    nameless=frozenset({"None"}),
    # A labelled family has no series before the first request that fits it; the queue's and the caches' are newer.
    optional=frozenset(
        {
            Signal.RUNNING,
            Signal.REQUESTS_FAILED_TOTAL,
            Signal.PREFIX_CACHE_QUERIES_TOTAL,
            Signal.PREFIX_CACHE_HITS_TOTAL,
            Signal.RESPONSE_CACHE_HITS_TOTAL,
            Signal.RESPONSE_CACHE_MISSES_TOTAL,
            Signal.QUEUE_SECONDS_TOTAL,
        }
    )
    | SIGNALS_WITHOUT_COLUMN,
    health_path="/health/readiness",
    notes=lambda _page: [
        "a proxy: the servers' own pages tell of the same requests; an unknown model is counted as other",
        "requests_finished_total has failed ones too, 4xx among them",
    ],
    finished_includes_failed=True,
    counts_late=True,
)
