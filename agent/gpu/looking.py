"""One look at a GPU: the figures that it gives, and what it turns out not to have."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import structlog

from agent.gpu import fields
from agent.gpu.activity import Activity
from agent.gpu.device import lacking

if TYPE_CHECKING:
    from agent.gpu.device import Device

_INSIDE: Final = "what works inside it (SM occupancy, tensor cores, memory)"

log = structlog.get_logger()


def look(nvml: Any, gpu: Device, *, seldom: bool) -> tuple[dict[str, float], Exception | None]:
    """Its figures of this moment; where there are none, why.

    What it does not have is put down there and not asked for again.
    """
    values: dict[str, float] = {}
    problem: Exception | None = None
    reads = {**fields.EACH_SECOND, **fields.SELDOM} if seldom else fields.EACH_SECOND
    for name, read in reads.items():
        if name in gpu.unsupported:
            continue
        try:
            values.update(read(nvml, gpu.handle))
        except lacking(nvml):
            gpu.unsupported.add(name)
        except nvml.NVMLError as error:
            problem = error  # this second has no such value; a GPU without any is lost
    if not values:
        return {}, problem
    # the next look may have rates from there: what counters lack is no lack yet
    begins = gpu.activity is not None and not gpu.activity.seen
    values |= _inside(nvml, gpu)
    try:
        values |= fields.counted(nvml, gpu, time.time(), fields.RATES if begins else values.keys())
    except lacking(nvml):
        gpu.unsupported |= fields.COUNTED
    except nvml.NVMLError as error:
        log.debug("gpu_counters_unreadable", gpu=gpu.name, error=str(error))
    return values, None


def begin_inside(nvml: Any, gpu: Device) -> None:
    """Have what works inside it looked at, where the driver counts that."""
    try:
        gpu.activity = Activity(nvml, gpu.handle if gpu.part is None else gpu.parent, gpu.part)
    except nvml.NVMLError:
        gpu.unsupported.add(_INSIDE)


def _inside(nvml: Any, gpu: Device) -> dict[str, float]:
    if gpu.activity is None:
        return {}
    try:
        return gpu.activity.sample()
    except lacking(nvml):  # promised, and refused when it was asked for
        gpu.activity.close()
        gpu.activity = None
        gpu.unsupported.add(_INSIDE)
    except nvml.NVMLError as error:
        log.debug("gpu_activity_unreadable", gpu=gpu.name, error=str(error))
    return {}
