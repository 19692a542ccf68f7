"""Who uses a GPU: memory and activity by process, and whose process that is.

The driver knows processes by the numbers of the machine. In a container that does not share them, nobody's process is
found, and no row says whose a GPU is.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import structlog

from agent.gpu.device import lacking

if TYPE_CHECKING:
    from agent.gpu.device import Device

_PROCESSES: Final = 64

log = structlog.get_logger()


def processes(nvml: Any, gpu: Device) -> dict[int, dict[str, float]]:
    """Figures by process id; an id whose memory the driver does not tell has none of it.

    Raises:
        nvml.NVMLError: The GPU does not answer.
    """
    if "processes" in gpu.unsupported:
        return {}
    found: dict[int, dict[str, float]] = {}
    try:
        for one in islice(nvml.nvmlDeviceGetComputeRunningProcesses(gpu.handle), _PROCESSES):
            used = one.usedGpuMemory
            found[int(one.pid)] = {"process_present": 1.0} | (
                {} if used is None else {"process_memory_bytes": float(used)}
            )
    except lacking(nvml):
        gpu.unsupported.add("processes")
        return {}
    if found:
        for pid, ratio in _activity(nvml, gpu).items():
            if pid in found:
                found[pid]["process_sm_ratio"] = ratio
    return found


def _activity(nvml: Any, gpu: Device) -> dict[int, float]:
    """Mean share of time with work of a process, since the last look; the driver keeps none of a part of a GPU."""
    name = "activity of processes"
    if gpu.part is not None or name in gpu.unsupported:
        return {}
    try:
        samples = nvml.nvmlDeviceGetProcessUtilization(gpu.handle, gpu.processes_since)
    except nvml.NVMLError_NotFound:
        return {}  # nothing ran since
    except lacking(nvml):
        gpu.unsupported.add(name)
        return {}
    except nvml.NVMLError as error:  # whose the GPU is is known all the same
        log.debug("gpu_process_activity_unreadable", gpu=gpu.name, error=str(error))
        return {}
    by_pid: dict[int, list[float]] = {}
    for one in samples:
        # a place that the driver did not fill has a share above 100 %
        if one.pid and one.smUtil <= 100:  # noqa: PLR2004 - percent
            by_pid.setdefault(int(one.pid), []).append(one.smUtil / 100)
            gpu.processes_since = max(gpu.processes_since, int(one.timeStamp))
    return {pid: sum(ratios) / len(ratios) for pid, ratios in by_pid.items()}
