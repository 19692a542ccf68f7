"""JetStream's metrics page (TPU; a recorded slice and documented names).

The label ``id`` is the host's name; names have no units, times are seconds.
Source: https://github.com/AI-Hypercomputer/JetStream.
"""

from __future__ import annotations

from agent.engine_families import because
from agent.engine_table import Histogram, Rule, Table
from base.vocabulary import Distribution, Signal

RULES = (
    Rule(Signal.WAITING, "jetstream_prefill_backlog_size"),
    Rule(
        Signal.REQUESTS_FINISHED_TOTAL,
        "jetstream_request_success_count",
        old=("jetstream_request_success_count_total",),
    ),
    Rule(Signal.PROMPT_TOKENS_TOTAL, "jetstream_request_input_length_sum"),
    Rule(Signal.GENERATION_TOKENS_TOTAL, "jetstream_request_output_length_sum"),
    Rule(Signal.REQUEST_SECONDS_TOTAL, "jetstream_time_per_request_sum"),
    Rule(Signal.QUEUE_SECONDS_TOTAL, "jetstream_queue_duration_sum"),
)
HISTOGRAMS = (
    Histogram(Distribution.TTFT_SECONDS, "jetstream_time_to_first_token"),
    Histogram(Distribution.TPOT_SECONDS, "jetstream_time_per_output_token"),
    Histogram(Distribution.E2E_SECONDS, "jetstream_time_per_request"),
    Histogram(Distribution.QUEUE_SECONDS, "jetstream_queue_duration"),
    Histogram(Distribution.PROMPT_TOKENS, "jetstream_request_input_length"),
    Histogram(Distribution.COMPLETION_TOKENS, "jetstream_request_output_length"),
)
IGNORED = {
    **because(
        "queues after prefill, within a request's work",
        "jetstream_transfer_backlog_size",
        "jetstream_generate_backlog_size",
    ),
    **because("slots in use, of decode engines apart; not of the KV cache", "jetstream_slots_used_percentage"),
    **because("prefill time over prompt tokens, a mean per request", "jetstream_time_per_prefill_token"),
    **because("queue and backlog together", "jetstream_wait_time_per_request"),
    **because("once per start", "jetstream_server_startup_latency", "jetstream_model_load_time"),
}

TABLE = Table(
    engine="jetstream",
    prefixes=("jetstream_",),
    rules=RULES,
    histograms=HISTOGRAMS,
    ignored=IGNORED,
    notes=lambda _page: ["this page names no model, and counts no failures"],
    counts_late=True,
)
