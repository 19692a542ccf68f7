"""llama.cpp server's metrics page (``llama-server --metrics``, recorded on build 11549).

A server's own page has no label at all, not even the model's name, which only ``/props`` tells; a router puts the pages
of several servers together and labels them with their models. There is no histogram, only sums; and no count of
requests. Source: ``tools/server/README.md`` in https://github.com/ggml-org/llama.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.engine_families import because
from agent.engine_table import About, Rule, Table
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.pages.page import Page

RULES = (
    Rule(Signal.RUNNING, "llamacpp:requests_processing"),
    Rule(Signal.WAITING, "llamacpp:requests_deferred"),
    Rule(Signal.PROMPT_TOKENS_TOTAL, "llamacpp:prompt_tokens_total"),
    Rule(Signal.GENERATION_TOKENS_TOTAL, "llamacpp:tokens_predicted_total"),
    Rule(
        Signal.PREFIX_CACHE_QUERIES_TOTAL, "llamacpp:prompt_tokens_total", plus=("llamacpp:prompt_tokens_cached_total",)
    ),
    Rule(Signal.PREFIX_CACHE_HITS_TOTAL, "llamacpp:prompt_tokens_cached_total"),
    Rule(Signal.ENGINE_STEPS_TOTAL, "llamacpp:n_decode_total"),
    Rule(Signal.PREFILL_SECONDS_TOTAL, "llamacpp:prompt_seconds_total"),
    Rule(Signal.DECODE_SECONDS_TOTAL, "llamacpp:tokens_predicted_seconds_total"),
    Rule(Signal.KV_CACHE_USAGE_RATIO, "llamacpp:kv_cache_usage_ratio", combine="max"),
    Rule(Signal.SPEC_DECODE_DRAFTS_TOTAL, "llamacpp:spec_decode_num_drafts_total"),
    Rule(Signal.SPEC_DECODE_DRAFT_TOKENS_TOTAL, "llamacpp:spec_decode_num_draft_tokens_total"),
    Rule(Signal.SPEC_DECODE_ACCEPTED_TOKENS_TOTAL, "llamacpp:spec_decode_num_accepted_tokens_total"),
)

IGNORED = {
    "llamacpp:n_tokens_max": "a maximum that is called a counter",
    "llamacpp:prompt_tokens_seconds": "an average since start; the counters give it",
    "llamacpp:predicted_tokens_seconds": "an average since start; the counters give it",
    "llamacpp:n_busy_slots_per_decode": "an average since start",
    "llamacpp:kv_cache_tokens": "cells of the cache, gone in newer builds; the ratio is read",
    **because(
        "a router's word on which models are loaded; their own series are read",
        "llamacpp_router:model_up",
        "llamacpp_router:model_loaded",
        "llamacpp_router:model_last_used_seconds",
    ),
}


def _about(reply: Mapping[str, Any]) -> About:
    told = ("total_slots", "model_ftype", "model_path")
    config = {key: str(reply[key]) for key in told if isinstance(reply.get(key), str | int)}
    settings = reply.get("default_generation_settings")
    if isinstance(settings, dict) and isinstance(settings.get("n_ctx"), int):
        config["n_ctx"] = str(settings["n_ctx"])
    return About(str(reply.get("build_info", "")), str(reply.get("model_alias", "")), config)


def _notes(page: Page) -> list[str]:
    named = any(TABLE.model_of(one.labels, "") for one in page.layout.series)
    notes = [
        "prompt_tokens_total leaves cached prompt tokens out; they are prefix_cache_hits_total",
        "this engine shows sums and no histogram: latencies are means, and requests are not counted",
    ]
    if any(one.name.startswith("llamacpp_router:") for one in page.layout.series):
        notes.append("a router: to ask for its page may keep a model awake that is to sleep when idle")
    if not named:
        notes.append("this page does not name its model: it is known only where /props can be reached")
    return notes


TABLE = Table(
    engine="llamacpp",
    prefixes=("llamacpp:", "llamacpp_router:"),
    rules=RULES,
    ignored=IGNORED,
    model_labels=("model", "model_name", "model_id"),
    # Newer builds dropped the cache's fill; builds before 2026 do not count cached tokens.
    optional=frozenset({Signal.KV_CACHE_USAGE_RATIO, Signal.PREFIX_CACHE_QUERIES_TOTAL, Signal.PREFIX_CACHE_HITS_TOTAL})
    | SIGNALS_WITHOUT_COLUMN,
    about_path="/props",
    about=_about,
    notes=_notes,
    # Routers load and unload models all the time; a model that is loaded again is a new process.
    gone_is_over=True,
    prompt_includes_cached=False,
)
