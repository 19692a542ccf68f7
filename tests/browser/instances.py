"""Configuration, contracts and books of the stage."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from collector.store.client import Store


def fill_instances(
    store: Store, now: datetime, instances: Sequence[str], recording: str = "", gateway: str = "gateway"
) -> None:
    """Each instance's settings, of which one bears its name, a family that is gone, a router, the collector's books."""
    shared = {"recording": recording, "engine": "vllm"}
    told = now - timedelta(seconds=250)
    store.insert("instance_config", [
        {**shared, "time": told, "instance": name, "config": {"block_size": "16", name: name}} for name in instances
    ])  # fmt: skip
    store.insert("events", [
        {**shared, "time": told, "instance": name, "deployment": "chat", "event": event, "message": f"{event} {name}",
         "attributes": {"kind": "gone", "what": name}}
        for name in instances for event in ("contract_broken", "config_changed")
    ])  # fmt: skip
    store.insert("engine_samples", [
        {**shared, "time": now - timedelta(seconds=seconds), "engine": "vllm_production_stack_router", "role": "router",
         "instance": gateway, "deployment": "gate", "model": instances[0] if recording else "llama", "up": 1,
         "interval_seconds": 10.0, "running": 5.0, "requests_finished_delta": 25.0, "requests_failed_delta": 1.0,
         "other_signals": {"requests_received_delta": 30.0, "requests_in_prefill": 2.0, "requests_in_decode": 3.0,
                           "endpoints_healthy": 2.0}}
        for seconds in range(0, 250, 10)
    ])  # fmt: skip
    books: list[dict[str, Any]] = [
        {"ServiceName": "servescope-collector", "MetricName": "servescope.collector.records", "Value": 70_123.0,
         "ResourceAttributes": {"host.name": "n1", "process.pid": "7"}, "TimeUnix": told, "StartTimeUnix": told,
         "Attributes": {"signal": "metrics", "fate": fate}}
        for fate in ("received", "stored")
    ]  # fmt: skip
    store.insert("otel_metrics_sum", books)
