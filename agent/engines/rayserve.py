"""Ray Serve's families on a Ray node's metrics page (recorded on 2.60): times in ms, refreshed each 10 s.

One page has the whole node, some 2,000 lines; what is Ray's own and not Serve's is left out by its beginning. vLLM's
names on such a page (``ray_vllm_``) are read by vLLM's table. Source: https://docs.ray.io/en/latest/serve/monitoring.html.
"""

from __future__ import annotations

from typing import Final

from agent.engine_families import because
from agent.engine_table import HOST, Histogram, Rule, Table
from base.vocabulary import SIGNALS_WITHOUT_COLUMN, Distribution, Signal

_MILLISECONDS: Final = 1e-3

RULES = (
    Rule(
        Signal.RUNNING,
        "ray_serve_num_ongoing_requests_at_replicas",
        old=("ray_serve_replica_processing_queries",),
    ),
    Rule(Signal.WAITING, "ray_serve_deployment_queued_queries"),
    Rule(Signal.REQUESTS_FINISHED_TOTAL, "ray_serve_num_http_requests_total", old=("ray_serve_num_http_requests",)),
    Rule(
        Signal.REQUESTS_FAILED_TOTAL,
        "ray_serve_num_http_error_requests_total",
        old=("ray_serve_num_http_error_requests",),
    ),
    Rule(Signal.REQUEST_SECONDS_TOTAL, "ray_serve_http_request_latency_ms_sum", scale=_MILLISECONDS),
    # Until a replica was found for it.
    Rule(Signal.QUEUE_SECONDS_TOTAL, "ray_serve_request_router_fulfillment_time_ms_sum", scale=_MILLISECONDS),
    Rule(Signal.ENDPOINTS_HEALTHY, "ray_serve_deployment_replica_healthy"),
)
HISTOGRAMS = (
    Histogram(Distribution.E2E_SECONDS, "ray_serve_http_request_latency_ms", scale=_MILLISECONDS),
    Histogram(Distribution.QUEUE_SECONDS, "ray_serve_request_router_fulfillment_time_ms", scale=_MILLISECONDS),
)


def _serve(reason: str, *names: str) -> dict[str, str]:
    """Left out; Ray's counters had no ``_total`` before it wrote its page through OpenTelemetry."""
    return because(reason, *(f"ray_serve_{name}" for name in names), *(f"ray_serve_{name}_total" for name in names))


IGNORED = {
    **_serve(
        "of its controller and its loops",
        "controller_num_control_loops",
        "controller_control_loop_duration_s",
        "controller_sleep_duration_s",
        "controller_proxy_state_update_duration_s",
        "controller_node_update_duration_s",
        "controller_deployment_state_update_duration_s",
        "controller_application_state_update_duration_s",
        "event_loop_scheduling_latency_ms",
        "event_loop_tasks",
        "event_loop_monitoring_iterations",
        "long_poll_latency_ms",
        "long_poll_pending_clients",
        "long_poll_host_transmission_counter",
    ),
    **_serve(
        "a state or a start of deployments and replicas",
        "deployment_status",
        "application_status",
        "proxy_status",
        "autoscaling_target_replicas",
        "autoscaling_desired_replicas",
        "autoscaling_total_requests",
        "deployment_replica_starts",
        "replica_initialization_latency_ms",
        "replica_startup_latency_ms",
        "replica_shutdown_duration_ms",
        "replica_reconfigure_latency_ms",
        "health_check_latency_ms",
        "health_check_failures",
    ),
    **_serve(
        "of one hop between proxy and replica; the proxies' count is read",
        "num_ongoing_http_requests",
        "num_ongoing_grpc_requests",
        "num_deployment_http_error_requests",
        "num_deployment_grpc_error_requests",
        "num_router_requests",
        "handle_request_counter",
        "deployment_request_counter",
        "deployment_error_counter",
        "deployment_processing_latency_ms",
        "replica_processing_queries",
        "replica_pending_queries",
        "request_router_queue_len",
        "router_args_resolution_latency_ms",
        "num_scheduling_tasks",
        "num_scheduling_tasks_in_backoff",
        "reserved_slots_active",
        "multiplexed_num_models",
        "batch_wait_time_ms",
        "batch_execution_time_ms",
        "actual_batch_size",
        "batch_queue_length",
        "batch_utilization_percent",
        "replica_utilization_percent",
        "deployment_max_processing_latency_ms",
    ),
    **_serve(
        "over gRPC; HTTP is read",
        "num_grpc_requests",
        "num_grpc_error_requests",
        "grpc_request_latency_ms",
    ),
}
del IGNORED["ray_serve_replica_processing_queries"]

OF_RAY: Final = "of Ray itself, not of Serve"

TABLE = Table(
    engine="rayserve",
    prefixes=("ray_serve_",),
    strength=HOST,
    role="router",
    rules=RULES,
    histograms=HISTOGRAMS,
    ignored=IGNORED,
    others=dict.fromkeys(
        (
            "ray_actors",
            "ray_cluster_",
            "ray_component_",
            "ray_finished_",
            "ray_gcs_",
            "ray_grpc_",
            "ray_health_",
            "ray_internal_",
            "ray_io_",
            "ray_job_",
            "ray_local_",
            "ray_memory_",
            "ray_node_",
            "ray_object_",
            "ray_operation_",
            "ray_owned_",
            "ray_pull_",
            "ray_push_",
            "ray_resources",
            "ray_running_",
            "ray_scheduler_",
            "ray_spill_",
            "ray_tasks",
            "ray_total_",
            "ray_worker_",
            "ray_placement_",
            "ray_data_",
            "ray_train_",
            "autoscaler_",
        ),
        OF_RAY,
    ),
    model_labels=("deployment",),
    optional=frozenset({Signal.REQUESTS_FAILED_TOTAL, Signal.QUEUE_SECONDS_TOTAL}) | SIGNALS_WITHOUT_COLUMN,
    notes=lambda _page: [
        "a deployment is taken for a model; HTTP counts name no deployment and stand apart",
        "failed requests have 4xx among them; gauges are up to 10 s old by Ray's own report interval",
    ],
    finished_includes_failed=True,
    counts_late=True,
)
