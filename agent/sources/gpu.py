"""Every GPU of this machine through NVML, once a second.

A missing driver is told once and looked for again each minute, and its binding (13 MB) is loaded only once there is
one; a field that a GPU does not have is told once and left out. Units: NVML's percent, mW, mJ and MHz become ratio, W,
J and Hz. Field meanings:
https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

from __future__ import annotations

import asyncio
import ctypes
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from agent.otlp.encode import attributes, encode_event, encode_gauges, resource
from agent.source import Source
from agent.target import Place
from base.vocabulary import SCOPE_GPU

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.otlp.emit import Emit
    from agent.source import Scene

INTERVAL_SECONDS: Final = 1.0
_LOOK_AGAIN_SECONDS: Final = 60.0
_TOLD_KEPT: Final = 256

log = structlog.get_logger()


def _utilization(nvml: Any, gpu: Any) -> Mapping[str, float]:
    rates = nvml.nvmlDeviceGetUtilizationRates(gpu)
    return {"gpu_utilization_ratio": rates.gpu / 100, "memory_utilization_ratio": rates.memory / 100}


def _memory(nvml: Any, gpu: Any) -> Mapping[str, float]:
    memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
    return {"memory_used_bytes": float(memory.used), "memory_total_bytes": float(memory.total)}


def _ecc(nvml: Any, gpu: Any) -> Mapping[str, float]:
    kind, since = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_AGGREGATE_ECC
    return {"ecc_uncorrected_total": float(nvml.nvmlDeviceGetTotalEccErrors(gpu, kind, since))}


_FIELDS: Final[Mapping[str, Callable[[Any, Any], Mapping[str, float]]]] = {
    "utilization": _utilization,
    "memory": _memory,
    "power": lambda nvml, gpu: {"power_watts": nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3},
    "power limit": lambda nvml, gpu: {"power_limit_watts": nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3},
    "energy": lambda nvml, gpu: {"energy_joules_total": nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3},
    "temperature": lambda nvml, gpu: {
        "temperature_celsius": float(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU))
    },
    "SM clock": lambda nvml, gpu: {"sm_clock_hertz": nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM) * 1e6},
    "memory clock": lambda nvml, gpu: {
        "memory_clock_hertz": nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM) * 1e6
    },
    "throttle reasons": lambda nvml, gpu: {"throttle_reasons": float(nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu))},
    "ECC errors": _ecc,
    "PCIe replays": lambda nvml, gpu: {"pcie_replay_total": float(nvml.nvmlDeviceGetPcieReplayCounter(gpu))},
}


@dataclass(slots=True)
class _Gpu:
    handle: Any
    identity: Mapping[str, str]
    resource: bytes
    unsupported: set[str] = field(default_factory=set)
    lost: bool = False


class Gpus(Source):
    """Samples all GPUs.

    Args:
        place: Where this agent runs.
        interval_seconds: Time between two samples.
        nvml: A module with pynvml's functions; None loads it once there is a driver.
    """

    def __init__(
        self, place: Place | None = None, *, interval_seconds: float = INTERVAL_SECONDS, nvml: Any = None
    ) -> None:
        self._whose = attributes(None, place or Place())
        self._interval = interval_seconds
        self._nvml = nvml
        # What was said once is not said again until it changed.
        self._told: set[str] = set()
        # Written by the driver's thread, handed out on the event loop: an Emit need not be thread-safe.
        self._events: list[bytes] = []

    async def run(self, emit: Emit) -> None:
        """Sample until cancelled."""
        self._nvml = self._nvml or await self._binding(emit)
        while True:
            gpus = await asyncio.to_thread(self._open)
            self._hand_out(emit)
            if gpus:
                try:
                    await self._follow(gpus, emit)
                finally:
                    await asyncio.to_thread(self._close)
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    async def _binding(self, emit: Emit) -> Any:
        if not _has_driver():
            self._say("gpu_unavailable", "No GPU can be watched: this machine has no NVIDIA driver", {})
            self._hand_out(emit)
            while not _has_driver():  # noqa: ASYNC110 - nobody tells when a driver is installed
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        import pynvml  # noqa: PLC0415 - see above

        return pynvml

    def _hand_out(self, emit: Emit) -> None:
        events, self._events = self._events, []
        for event in events:
            emit("logs", event)

    def _open(self) -> list[_Gpu]:
        nvml = self._nvml
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            self._say("gpu_unavailable", f"No GPU can be watched: {error}", {})
            return []
        gpus = []
        for index in range(self._count()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                identity = {
                    "hw.id": _text(nvml.nvmlDeviceGetUUID(handle)),
                    "hw.name": _text(nvml.nvmlDeviceGetName(handle)),
                    "hw.index": str(index),
                }
            except nvml.NVMLError as error:
                self._say("gpu_unavailable", f"GPU {index} cannot be opened: {error}", {}, warning=True)
                continue
            gpu = _Gpu(handle, identity, resource({**self._whose, "hw.type": "gpu", **identity}))
            if not self._sample(gpu):
                continue
            without = ", ".join(sorted(gpu.unsupported))
            message = f"GPU {index} is a {identity['hw.name']}" + (f"; it does not tell: {without}" if without else "")
            self._say("gpu_found", message, {**identity, "unsupported": without})
            gpus.append(gpu)
        if not gpus:
            self._say("gpu_unavailable", "No GPU can be watched: the driver finds none that answers", {})
            self._close()
        return gpus

    def _count(self) -> int:
        try:
            return int(self._nvml.nvmlDeviceGetCount())
        except self._nvml.NVMLError as error:
            self._say("gpu_unavailable", f"GPUs cannot be counted: {error}", {}, warning=True)
            return 0

    def _close(self) -> None:
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError as error:
            log.warning("nvml_shutdown_failed", error=str(error))

    async def _follow(self, gpus: list[_Gpu], emit: Emit) -> None:
        loop = asyncio.get_running_loop()
        start, turn = loop.time(), 0
        while not all(gpu.lost for gpu in gpus):
            # A driver call can hang for seconds: never on the event loop.
            body = await asyncio.to_thread(self._sample_all, gpus)
            self._hand_out(emit)
            if body:
                emit("metrics", body)
            turn = max(turn + 1, int((loop.time() - start) / self._interval) + 1)
            await asyncio.sleep(max(0.0, start + turn * self._interval - loop.time()))

    def _sample_all(self, gpus: list[_Gpu]) -> bytes:
        time_ns = time.time_ns()
        rows = [(gpu.resource, values) for gpu in gpus if not gpu.lost and (values := self._sample(gpu))]
        return encode_gauges(rows, SCOPE_GPU, time_ns)

    def _sample(self, gpu: _Gpu) -> dict[str, float]:
        nvml = self._nvml
        values: dict[str, float] = {}
        problem: Exception | None = None
        for name, read in _FIELDS.items():
            if name in gpu.unsupported:
                continue
            try:
                values.update(read(nvml, gpu.handle))
            except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission):
                gpu.unsupported.add(name)
            except nvml.NVMLError as error:
                problem = error  # this second has no such value; a GPU without any is lost
        if problem is not None and not values:
            gpu.lost = True
            message = f"GPU {gpu.identity['hw.index']} ({gpu.identity['hw.id']}) stopped answering: {problem}"
            self._say("gpu_unavailable", message, gpu.identity, warning=True)
        return values

    def _say(self, event: str, message: str, details: Mapping[str, str], *, warning: bool = False) -> None:
        if message in self._told:
            return
        if len(self._told) >= _TOLD_KEPT:
            self._told.clear()
        self._told.add(message)
        log.log(30 if warning else 20, event, message=message)
        self._events.append(encode_event(self._whose, event, message, time.time_ns(), details, warning=warning))


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def source(scene: Scene) -> Gpus | None:
    """The GPUs, unless the configuration leaves them out."""
    return Gpus(scene.place, interval_seconds=scene.config.interval_seconds) if scene.config.gpu else None


def _text(name: str | bytes) -> str:
    """Older pynvml gives bytes."""
    return name.decode() if isinstance(name, bytes) else name
