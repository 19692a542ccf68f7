"""LMDeploy's metrics page (``--enable-metrics``; names from its source, no page was recorded).

Modelled on vLLM's, with some names of its own. ``num_requests_succeeded`` and ``…_failed`` are gauges that are set from
running totals. Source: ``lmdeploy/metrics`` in https://github.com/InternLM/lmdeploy.
"""

from __future__ import annotations

from agent.engine_families import because
from agent.engine_table import Histogram, Rule, Table, accepted_by_position
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Distribution, Signal

RULES = (
    Rule(Signal.RUNNING, "lmdeploy:num_requests_running"),
    Rule(Signal.WAITING, "lmdeploy:num_requests_waiting"),
    Rule(Signal.KV_CACHE_USAGE_RATIO, "lmdeploy:gpu_cache_usage_perc", combine="max"),
    Rule(Signal.PROMPT_TOKENS_TOTAL, "lmdeploy:prompt_tokens_total"),
    Rule(Signal.GENERATION_TOKENS_TOTAL, "lmdeploy:generation_tokens_total"),
    Rule(Signal.PREFIX_CACHE_QUERIES_TOTAL, "lmdeploy:prompt_tokens_total", beside=("lmdeploy:cached_tokens_total",)),
    Rule(Signal.PREFIX_CACHE_HITS_TOTAL, "lmdeploy:cached_tokens_total"),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "lmdeploy:request_success_total"),
    Rule(Signal.REQUESTS_FAILED_TOTAL, "lmdeploy:num_requests_failed"),
    Rule(Signal.ENGINE_STEPS_TOTAL, "lmdeploy:iteration_tokens_total_count"),
    Rule(Signal.BATCH_TOKENS_TOTAL, "lmdeploy:iteration_tokens_total_sum"),
    Rule(Signal.REQUEST_SECONDS_TOTAL, "lmdeploy:e2e_request_latency_seconds_sum"),
    Rule(Signal.QUEUE_SECONDS_TOTAL, "lmdeploy:request_queue_time_seconds_sum"),
    Rule(Signal.PREFILL_SECONDS_TOTAL, "lmdeploy:request_prefill_time_seconds_sum"),
    Rule(Signal.DECODE_SECONDS_TOTAL, "lmdeploy:request_decode_time_seconds_sum"),
    Rule(Signal.SPEC_DECODE_DRAFTS_TOTAL, "lmdeploy:spec_decode_num_drafts_total"),
    Rule(Signal.SPEC_DECODE_DRAFT_TOKENS_TOTAL, "lmdeploy:spec_decode_num_draft_tokens_total"),
    Rule(Signal.SPEC_DECODE_ACCEPTED_TOKENS_TOTAL, "lmdeploy:spec_decode_num_accepted_tokens_total"),
    *accepted_by_position("lmdeploy:spec_decode_num_accepted_tokens_per_pos_total", "position"),
)
HISTOGRAMS = (
    Histogram(Distribution.TTFT_SECONDS, "lmdeploy:time_to_first_token_seconds"),
    Histogram(Distribution.ITL_SECONDS, "lmdeploy:iter_token_latency"),
    Histogram(Distribution.TPOT_SECONDS, "lmdeploy:time_per_output_token_seconds"),
    Histogram(Distribution.E2E_SECONDS, "lmdeploy:e2e_request_latency_seconds"),
    Histogram(Distribution.QUEUE_SECONDS, "lmdeploy:request_queue_time_seconds"),
    Histogram(Distribution.PREFILL_SECONDS, "lmdeploy:request_prefill_time_seconds"),
    Histogram(Distribution.DECODE_SECONDS, "lmdeploy:request_decode_time_seconds"),
    Histogram(Distribution.PROMPT_TOKENS, "lmdeploy:request_prompt_tokens"),
    Histogram(Distribution.COMPLETION_TOKENS, "lmdeploy:request_generation_tokens"),
    Histogram(Distribution.BATCH_TOKENS, "lmdeploy:iteration_tokens_total"),
)
IGNORED = {
    **because("the counter of successes is read", "lmdeploy:num_requests_succeeded"),
    **because(
        "handles of the API server, before the scheduler's queue",
        "lmdeploy:num_api_requests_routed",
        "lmdeploy:num_api_requests_waiting",
    ),
    **because(
        "an average since start; the counters give it",
        "lmdeploy:prefix_cache_hit_rate",
        "lmdeploy:spec_decode_mean_accept_rate",
        "lmdeploy:spec_decode_mean_accept_length",
        "lmdeploy:spec_decode_per_position_accept_rate",
    ),
    **because(
        "per request; the counter has the sum", "lmdeploy:request_cached_tokens", "lmdeploy:request_cache_hit_ratio"
    ),
    **because("prefill plus decode", "lmdeploy:request_inference_time_seconds"),
}

TABLE = Table(
    engine="lmdeploy",
    prefixes=("lmdeploy:",),
    rules=RULES,
    histograms=HISTOGRAMS,
    ignored=IGNORED,
    model_labels=("model_name",),
    rank_label="engine",
    info={"lmdeploy:backend_config_info": ()},
    optional=SIGNALS_WITHOUT_COLUMN,
    notes=lambda _page: [
        "finished requests are successes alone; failures are a gauge that is set from a running total",
    ],
)
