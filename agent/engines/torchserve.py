"""TorchServe's metrics page (recorded on 0.12, metrics_mode=prometheus), on a port of its own: times in µs.

Gauges named after times hold the last request's milliseconds alone. Status counts are of the whole server, its own
pings too. Source: https://docs.pytorch.org/serve/metrics.html.
"""

from __future__ import annotations

from typing import Final

from agent.engine_families import because
from agent.engine_table import Rule, Table
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Signal

_MICROSECONDS: Final = 1e-6

RULES = (
    Rule(Signal.REQUESTS_RECEIVED_TOTAL, "ts_inference_requests_total"),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "Requests2XX"),
    Rule(Signal.REQUESTS_FAILED_TOTAL, "Requests5XX"),
    Rule(Signal.REQUEST_SECONDS_TOTAL, "ts_inference_latency_microseconds", scale=_MICROSECONDS),
    Rule(Signal.QUEUE_SECONDS_TOTAL, "ts_queue_latency_microseconds", scale=_MICROSECONDS),
)
IGNORED = {
    **because("refused for what the client sent", "Requests4XX"),
    **because(
        "the last request's milliseconds alone",
        "QueueTime",
        "HandlerTime",
        "PredictionTime",
        "WorkerThreadTime",
        "WorkerLoadTime",
    ),
    **because(
        "of the whole machine; host and GPU samples have it",
        "CPUUtilization",
        "MemoryUsed",
        "MemoryAvailable",
        "MemoryUtilization",
        "DiskUsage",
        "DiskAvailable",
        "DiskUtilization",
        "GPUUtilization",
        "GPUMemoryUtilization",
        "GPUMemoryUsed",
    ),
}

TABLE = Table(
    engine="torchserve",
    prefixes=("ts_inference_", "ts_queue_latency_", "Requests2XX"),
    rules=RULES,
    ignored=IGNORED,
    model_labels=("model_name",),
    # A status has a series once it happened, times have one with the first request: until then pings alone are counted.
    optional=frozenset({Signal.REQUESTS_FAILED_TOTAL, Signal.REQUEST_SECONDS_TOTAL, Signal.QUEUE_SECONDS_TOTAL})
    | SIGNALS_WITHOUT_COLUMN,
    health_path="/ping",
    notes=lambda _page: ["finished and failed requests are of the whole server and name no model"],
    counts_late=True,
)
