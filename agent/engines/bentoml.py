"""BentoML's metrics page (recorded on 1.4.40): a service takes a model's place.

Status codes are labels, health checks are counted as requests, and the size of real batches is a histogram.
Source: https://docs.bentoml.com/en/latest/build-with-bentoml/observability/metrics.html.
"""

from __future__ import annotations

from agent.engine_families import because
from agent.engine_table import Histogram, Rule, Table
from base.vocabulary import Distribution, Signal

_SERVER_ERRORS = frozenset(map(str, range(500, 600)))
"""Its own: 500 of the service's code, 503 where it is busy, 504 where a request took too long."""

RULES = (
    Rule(Signal.RUNNING, "bentoml_service_request_in_progress"),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "bentoml_service_request_total"),
    Rule(Signal.REQUESTS_FAILED_TOTAL, "bentoml_service_request_total", where={"http_response_code": _SERVER_ERRORS}),
    Rule(Signal.INFERENCES_TOTAL, "bentoml_service_adaptive_batch_size_sum"),
    Rule(Signal.EXECUTIONS_TOTAL, "bentoml_service_adaptive_batch_size_count"),
    Rule(Signal.REQUEST_SECONDS_TOTAL, "bentoml_service_request_duration_seconds_sum"),
)

TABLE = Table(
    engine="bentoml",
    prefixes=("bentoml_service_", "bentoml_api_server_", "bentoml_runner_"),
    rules=RULES,
    histograms=(Histogram(Distribution.E2E_SECONDS, "bentoml_service_request_duration_seconds"),),
    ignored=because("a time, not a count", "bentoml_service_last_request_timestamp_seconds"),
    model_labels=("service_name",),
    # Only services that batch have sizes of batches; a status has a series once it happened.
    optional=frozenset({Signal.REQUESTS_FAILED_TOTAL, Signal.INFERENCES_TOTAL, Signal.EXECUTIONS_TOTAL}),
    health_path="/readyz",
    notes=lambda _page: [
        "a service is taken for a model; finished requests have every status and the health checks too",
        "failed requests are those with a status from 500 on",
    ],
    finished_includes_failed=True,
    counts_late=True,
)
