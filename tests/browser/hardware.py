"""GPUs and hosts of the stage."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from collector.store.client import Store


def fill_hardware(store: Store, now: datetime, instances: Sequence[str], seconds: int, recording: str = "") -> None:
    """Two GPUs of each instance, of which the first is throttled now and then, and its host."""
    gpus: list[dict[str, Any]] = []
    hosts: list[dict[str, Any]] = []
    owners: list[dict[str, Any]] = []
    start = now - timedelta(seconds=seconds)
    for place, instance in enumerate(instances):
        for number in range(2):
            gpu = f"GPU-{instance}-{number}"
            owners.append({"instance": instance, "rank": f"TP{number}", "node": instance, "gpu": gpu,
                           "process_pid": str(number), "recording": recording, "from": start, "to": now})  # fmt: skip
            gpus += [
                {"time": start + timedelta(seconds=second), "gpu": gpu, "gpu_name": instance, "gpu_index": str(number),
                 "node": instance, "recording": recording, "gpu_utilization_ratio": 0.97,
                 "power_watts": 400.0 + second % 60, "memory_used_bytes": 70e9, "memory_total_bytes": 80e9,
                 "sm_clock_hertz": 1.9e9,
                 "throttle_reasons": 4.0 * (place == number == 0 and second % 3 == 0)}
                for second in range(0, seconds, 10)
            ]  # fmt: skip
        hosts += [
            {"time": start + timedelta(seconds=second), "instance": instance, "process_name": name, "process_pid": pid,
             "node": instance, "recording": recording, "cpu_seconds_total": second * 0.5,
             "cpu_delay_seconds_total": second * 0.25, "cpu_usage_ratio": 0.5 if not pid else None,
             "open_files": 970.0 if pid else None, "open_files_limit": 1024.0 if pid else None,
             "uptime_seconds": 7200.0 + second if pid else None}
            for second in range(0, seconds, 10) for name, pid in (("host", ""), ("engine", "7"))
        ]  # fmt: skip
    store.insert("gpu_samples", gpus)
    store.insert("host_samples", hosts)
    store.insert("instance_gpus_t", owners)
