"""Infinity, an embedding server (recorded on 0.0.78): nothing on its page but its HTTP layer's counts.

The path of its route tells it from other programs with the same HTTP layer.
Source: https://github.com/michaelfeil/infinity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent.engine_table import BARE, Rule, Table
from base.vocabulary import Signal

if TYPE_CHECKING:
    from agent.pages.page import Layout

_ROUTE: Final = {"handler": "/embeddings"}

RULES = (
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "http_requests_total", where=_ROUTE),
    Rule(Signal.REQUESTS_FAILED_TOTAL, "http_requests_total", where={**_ROUTE, "status": "5xx"}),
    Rule(Signal.REQUEST_SECONDS_TOTAL, "http_request_duration_seconds_sum", where=_ROUTE),
)


def _signs(layout: Layout) -> bool:
    return any(
        one.labels.get("handler") == "/embeddings" for one in layout.series if one.name.startswith("http_request")
    )


TABLE = Table(
    engine="infinity",
    prefixes=(),
    signs=_signs,
    marks=("/embeddings",),
    strength=BARE,
    rules=RULES,
    optional=frozenset({Signal.REQUESTS_FAILED_TOTAL}),
    notes=lambda _page: [
        "only HTTP is counted: no queue, no batch, no tokens; requests are those of /embeddings, whatever their status",
    ],
    finished_includes_failed=True,
    counts_late=True,
)
