"""Envoy AI Gateway's page (a test page of its makers; documented names): OpenTelemetry's names for a client's view.

The page is of one proxy and empty until its first request. The token histogram is called with and without its unit.
Source: https://aigateway.envoyproxy.io/docs (GenAI metrics).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.engine_table import HOST, Histogram, Rule, Table
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Distribution, Signal

if TYPE_CHECKING:
    from agent.pages.page import Layout

_USED = "gen_ai_client_token_usage_token_sum"
_USED_TOO = ("gen_ai_client_token_usage_sum",)
_TYPE = "gen_ai_token_type"

RULES = (
    # A third series, total, is the sum of two.
    Rule(Signal.PROMPT_TOKENS_TOTAL, _USED, old=_USED_TOO, where={_TYPE: "input"}),
    Rule(Signal.GENERATION_TOKENS_TOTAL, _USED, old=_USED_TOO, where={_TYPE: "output"}),
    Rule(Signal.PREFIX_CACHE_HITS_TOTAL, _USED, old=_USED_TOO, where={_TYPE: "cached_input"}),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "gen_ai_server_request_duration_seconds_count"),
    Rule(Signal.REQUEST_SECONDS_TOTAL, "gen_ai_server_request_duration_seconds_sum"),
)
HISTOGRAMS = (
    Histogram(Distribution.TTFT_SECONDS, "gen_ai_server_time_to_first_token_seconds"),
    Histogram(Distribution.TPOT_SECONDS, "gen_ai_server_time_per_output_token_seconds"),
    Histogram(Distribution.E2E_SECONDS, "gen_ai_server_request_duration_seconds"),
)


def _signs(layout: Layout) -> bool:
    """Any client with OpenTelemetry writes the token histogram: the scope tells whose it is."""
    return any("ai-gateway" in one.labels.get("otel_scope_name", "") for one in layout.series)


TABLE = Table(
    engine="envoy_ai_gateway",
    prefixes=("gen_ai_server_request_duration_seconds",),
    signs=_signs,
    strength=HOST,
    role="router",
    rules=RULES,
    histograms=HISTOGRAMS,
    model_labels=("gen_ai_request_model", "gen_ai_original_model", "gen_ai_response_model"),
    optional=frozenset({Signal.PREFIX_CACHE_HITS_TOTAL}) | SIGNALS_WITHOUT_COLUMN,
    notes=lambda _page: [
        "a gateway: the servers' own pages tell of the same requests",
        "requests_finished_total has failed ones too, which only a label tells",
    ],
    finished_includes_failed=True,
    counts_late=True,
)
