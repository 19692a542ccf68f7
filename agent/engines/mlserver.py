"""MLServer's metrics page (V2 protocol, recorded on 1.7.1), on a port of its own.

The duration is a summary without quantiles; failures answer at once. Adaptive batching's queue is on it only where
batching is on. Source: https://mlserver.readthedocs.io/en/latest/user-guide/metrics.html.
"""

from __future__ import annotations

from agent.engine_families import because
from agent.engine_table import Rule, Table
from base.vocabulary import Signal

RULES = (
    Rule(Signal.RUNNING, "rest_server_requests_in_progress"),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "model_infer_request_success_total"),
    Rule(Signal.REQUESTS_FAILED_TOTAL, "model_infer_request_failure_total"),
    Rule(Signal.REQUEST_SECONDS_TOTAL, "model_infer_request_duration_sum"),
)
IGNORED = {
    **because(
        "the HTTP layer's own count, by path", "rest_server_requests_total", "rest_server_request_duration_seconds"
    ),
    **because(
        "the gRPC layer's own count",
        "grpc_server_started_total",
        "grpc_server_handled_total",
        "grpc_server_msg_received_total",
        "grpc_server_msg_sent_total",
        "grpc_server_handling_seconds",
        "grpc_server_handled_latency_seconds",
        "grpc_server_requests_in_progress",
    ),
    **because("lengths as a histogram over requests", "batch_request_queue", "parallel_request_queue"),
}

TABLE = Table(
    engine="mlserver",
    prefixes=("model_infer_request_", "rest_server_"),
    rules=RULES,
    ignored=IGNORED,
    model_labels=("model",),
    # Series of models appear with their first request.
    optional=frozenset({Signal.REQUESTS_FAILED_TOTAL}),
    health_path="/v2/health/ready",
    notes=lambda _page: ["requests_finished_total are the successes; failures, unknown models too, stand apart"],
    counts_late=True,
)
