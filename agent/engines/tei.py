"""Hugging Face text-embeddings-inference's metrics page (names from its source; no page was recorded).

Counters carry no ``_total``; a request of several texts counts once as a request and once per text as an embedding.
Source: https://github.com/huggingface/text-embeddings-inference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.engine_families import because
from agent.engine_table import About, Histogram, Rule, Table
from base.vocabulary import Distribution, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

RULES = (
    Rule(Signal.WAITING, "te_queue_size"),
    Rule(Signal.REQUESTS_RECEIVED_TOTAL, "te_request_count"),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "te_request_success"),
    Rule(Signal.REQUESTS_FAILED_TOTAL, "te_request_failure"),
    Rule(Signal.PROMPT_TOKENS_TOTAL, "te_request_input_length_sum"),
    Rule(Signal.INFERENCES_TOTAL, "te_batch_next_size_sum"),
    Rule(Signal.EXECUTIONS_TOTAL, "te_batch_next_size_count"),
    Rule(Signal.REQUEST_SECONDS_TOTAL, "te_request_duration_sum"),
    Rule(Signal.QUEUE_SECONDS_TOTAL, "te_request_queue_duration_sum"),
    Rule(Signal.COMPUTE_INFER_SECONDS_TOTAL, "te_request_inference_duration_sum"),
)
HISTOGRAMS = (
    Histogram(Distribution.E2E_SECONDS, "te_request_duration"),
    Histogram(Distribution.QUEUE_SECONDS, "te_request_queue_duration"),
    Histogram(Distribution.PROMPT_TOKENS, "te_request_input_length"),
    Histogram(Distribution.BATCH_TOKENS, "te_batch_next_tokens"),
)
_TEXTS = "per text of a request, which is read"
IGNORED = because(
    _TEXTS,
    *(
        f"te_{what}_{part}"
        for what in ("embed", "predict")
        for part in (
            "count",
            "success",
            "duration",
            "inference_duration",
            "queue_duration",
            "tokenization_duration",
        )
    ),
    "te_request_tokenization_duration",
)


def _about(reply: Mapping[str, Any]) -> About:
    told = (
        "model_sha",
        "model_dtype",
        "max_concurrent_requests",
        "max_client_batch_size",
        "max_input_length",
        "max_batch_tokens",
        "max_batch_requests",
    )
    config = {key: str(reply[key]) for key in told if isinstance(reply.get(key), str | int | float)}
    return About(str(reply.get("version", "")), str(reply.get("model_id", "")), config)


TABLE = Table(
    engine="tei",
    prefixes=("te_request_", "te_embed_", "te_predict_", "te_batch_next_", "te_queue_size"),
    rules=RULES,
    histograms=HISTOGRAMS,
    ignored=IGNORED,
    optional=frozenset({Signal.REQUESTS_FAILED_TOTAL}),
    about_path="/info",
    about=_about,
    notes=lambda _page: ["an embedding server: no generated tokens and no KV cache; the page does not name its model"],
    counts_late=True,
)
