"""KServe's Python model server (recorded on 0.21), also behind its queue-proxy, which puts its own families beside.

A series appears with its first request. Preprocessing counts refused requests too, prediction only those that ran.
Source: https://kserve.github.io/website (observability) and ``qpext`` in https://github.com/kserve/kserve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent.engine_families import because
from agent.engine_table import HOST, Role, Rule, Table
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Signal

if TYPE_CHECKING:
    from agent.pages.page import Layout

_STEPS: Final = ("request_preprocess_seconds", "request_predict_seconds", "request_postprocess_seconds")
_PROXY: Final = ("revision_", "queue_requests_per_second", "queue_average_", "queue_operations_", "queue_proxied_")

RULES = (
    Rule(Signal.REQUESTS_RECEIVED_TOTAL, "request_preprocess_seconds_count"),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "request_predict_seconds_count", old=("revision_app_request_count",)),
    Rule(Signal.RUNNING, "queue_average_concurrent_requests"),
    Rule(Signal.WAITING, "queue_depth", old=("revision_queue_depth",)),
    Rule(Signal.COMPUTE_INPUT_SECONDS_TOTAL, "request_preprocess_seconds_sum"),
    Rule(Signal.COMPUTE_INFER_SECONDS_TOTAL, "request_predict_seconds_sum"),
    Rule(Signal.COMPUTE_OUTPUT_SECONDS_TOTAL, "request_postprocess_seconds_sum"),
)
IGNORED = {
    **because("explanations, a kind of their own", "request_explain_seconds"),
    **because(
        "the queue-proxy's rates and latencies of what the server counts",
        "revision_request_count",
        "revision_request_latencies",
        "revision_app_request_latencies",
        "queue_requests_per_second",
        "queue_operations_per_second",
        "queue_proxied_operations_per_second",
        "queue_average_proxied_concurrent_requests",
    ),
}


def _signs(layout: Layout) -> bool:
    names = (*layout.places, *layout.types)
    return any(name.startswith((*_STEPS, *_PROXY)) for name in names)


def _role(layout: Layout) -> Role:
    """A page of the queue-proxy alone is of something that hands requests on."""
    names = (*layout.places, *layout.types)
    return "both" if any(name.startswith("request_") for name in names) else "router"


TABLE = Table(
    engine="kserve",
    prefixes=(),
    signs=_signs,
    marks=(*_STEPS, "revision_app_request_count", "queue_average_concurrent_requests", "queue_requests_per_second"),
    strength=HOST,
    role=_role,
    rules=RULES,
    ignored=IGNORED,
    model_labels=("model_name",),
    host_labels=frozenset({"service_name", "configuration_name", "revision_name"}),
    optional=frozenset({Signal.RUNNING, Signal.WAITING}) | SIGNALS_WITHOUT_COLUMN,
    health_path="/v2/health/ready",
    notes=lambda _page: [
        "failed requests are on no counter: received less finished are those that were refused or failed",
    ],
    counts_late=True,
)
