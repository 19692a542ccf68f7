"""Hugging Face text-generation-inference's metrics page (documented names of 3.x; a recorded slice of an imitator).

Counters carry no ``_total``, and no series names the model. There is no time to first token. IBM's adapter for vLLM
writes these names too. Source: https://huggingface.co/docs/text-generation-inference/reference/metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.engine_families import because
from agent.engine_table import About, Histogram, Rule, Table
from base.vocabulary import Distribution, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.pages.page import Page

RULES = (
    Rule(Signal.RUNNING, "tgi_batch_current_size"),
    Rule(Signal.WAITING, "tgi_queue_size"),
    Rule(Signal.PROMPT_TOKENS_TOTAL, "tgi_request_input_length_sum"),
    Rule(Signal.GENERATION_TOKENS_TOTAL, "tgi_request_generated_tokens_sum"),
    Rule(Signal.REQUESTS_RECEIVED_TOTAL, "tgi_request_count"),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "tgi_request_success"),
    Rule(Signal.REQUESTS_FAILED_TOTAL, "tgi_request_failure"),
    Rule(Signal.EXECUTIONS_TOTAL, "tgi_batch_inference_count"),
    Rule(Signal.REQUEST_SECONDS_TOTAL, "tgi_request_duration_sum"),
    Rule(Signal.QUEUE_SECONDS_TOTAL, "tgi_request_queue_duration_sum"),
)
HISTOGRAMS = (
    Histogram(Distribution.TPOT_SECONDS, "tgi_request_mean_time_per_token_duration"),
    Histogram(Distribution.E2E_SECONDS, "tgi_request_duration"),
    Histogram(Distribution.QUEUE_SECONDS, "tgi_request_queue_duration"),
    Histogram(Distribution.PROMPT_TOKENS, "tgi_request_input_length"),
    Histogram(Distribution.COMPLETION_TOKENS, "tgi_request_generated_tokens"),
)
_BATCH = "of a batch and method, which is no request's"
IGNORED = {
    **because("a limit of the current batch", "tgi_batch_current_max_tokens"),
    **because(
        _BATCH,
        "tgi_batch_decode_duration",
        "tgi_batch_filter_duration",
        "tgi_batch_forward_duration",
        "tgi_batch_inference_duration",
        "tgi_batch_inference_success",
        "tgi_batch_inference_failure",
        "tgi_batch_next_size",
        "tgi_batch_next_tokens",
        "tgi_batch_concat",
        "tgi_batch_concat_duration",
    ),
    **because("prefill and decode together", "tgi_request_inference_duration"),
    **because("a request parameter, not a signal of health", "tgi_request_max_new_tokens"),
    **because("speculated tokens per request, without the drafts", "tgi_request_skipped_tokens"),
    **because("tokenizing and checking, before the queue", "tgi_request_validation_duration"),
}


def _about(reply: Mapping[str, Any]) -> About:
    told = (
        "model_sha",
        "model_dtype",
        "router",
        "max_concurrent_requests",
        "max_client_batch_size",
        "max_input_tokens",
        "max_total_tokens",
        "max_batch_total_tokens",
        "max_batch_prefill_tokens",
        "max_batch_size",
        "waiting_served_ratio",
    )
    config = {key: str(reply[key]) for key in told if isinstance(reply.get(key), str | int | float)}
    return About(str(reply.get("version", "")), str(reply.get("model_id", "")), config)


def _notes(page: Page) -> list[str]:
    notes = [
        "this page does not name its model: it is known only where /info can be reached",
        "there is no time to first token: queue time plus the prefill batch is the nearest",
    ]
    if any(one.labels.get("method", "").startswith("{") for one in page.layout.series):
        notes.append("vLLM with a TGIS adapter writes these names; vLLM's own page says more")
    return notes


TABLE = Table(
    engine="tgi",
    prefixes=("tgi_",),
    rules=RULES,
    histograms=HISTOGRAMS,
    ignored=IGNORED,
    # A counter has no series before its first request.
    optional=frozenset({Signal.REQUESTS_FAILED_TOTAL}),
    # Of its documentation, which is of 3; what other backends than its own may lack is not promised.
    since=dict.fromkeys(
        (
            Signal.PROMPT_TOKENS_TOTAL,
            Signal.GENERATION_TOKENS_TOTAL,
            Signal.REQUESTS_FINISHED_TOTAL,
            Signal.REQUEST_SECONDS_TOTAL,
            Distribution.E2E_SECONDS,
        ),
        (3, 0),
    ),
    about_path="/info",
    about=_about,
    notes=_notes,
    counts_late=True,
)
