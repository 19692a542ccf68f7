"""The figures of a GPU, each by the call that gives it.

Units: NVML's percent, mW, mJ, MHz and KiB become ratio, W, J, Hz and bytes. Names are OpenTelemetry's where it has one
(https://opentelemetry.io/docs/specs/semconv/hardware/gpu/), else those of the columns. Meanings:
https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from agent.gpu.device import Device

_ALL_LINKS: Final = 0xFFFFFFFF
_KIB: Final = 1024.0


def _utilization(nvml: Any, gpu: Any) -> Mapping[str, float]:
    rates = nvml.nvmlDeviceGetUtilizationRates(gpu)
    return {"hw.gpu.utilization": rates.gpu / 100, "memory_utilization_ratio": rates.memory / 100}


def _memory(nvml: Any, gpu: Any) -> Mapping[str, float]:
    memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
    return {"hw.gpu.memory.usage": float(memory.used), "hw.gpu.memory.limit": float(memory.total)}


def _ecc(nvml: Any, gpu: Any) -> Mapping[str, float]:
    since = nvml.NVML_AGGREGATE_ECC
    kinds = {"corrected": nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, "uncorrected": nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED}
    return {
        f"ecc_{name}_total": float(nvml.nvmlDeviceGetTotalEccErrors(gpu, kind, since)) for name, kind in kinds.items()
    }


def _remapped(nvml: Any, gpu: Any) -> Mapping[str, float]:
    correctable, uncorrectable, pending, failed = nvml.nvmlDeviceGetRemappedRows(gpu)
    return {
        "remapped_rows_correctable_total": float(correctable),
        "remapped_rows_uncorrectable_total": float(uncorrectable),
        "remapped_rows_pending": float(pending),
        "remapped_rows_failed": float(failed),
    }


def _reasons(nvml: Any, gpu: Any) -> Mapping[str, float]:
    try:
        reasons = nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu)
    except nvml.NVMLError_FunctionNotFound:  # before driver 535 it had another name
        reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
    return {"throttle_reasons": float(reasons)}


EACH_SECOND: Final[Mapping[str, Callable[[Any, Any], Mapping[str, float]]]] = {
    "utilization": _utilization,
    "memory": _memory,
    "power": lambda nvml, gpu: {"hw.power": nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3},
    "energy": lambda nvml, gpu: {"hw.energy": nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3},
    "temperature": lambda nvml, gpu: {
        "hw.temperature": float(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU))
    },
    "SM clock": lambda nvml, gpu: {"sm_clock_hertz": nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM) * 1e6},
    "memory clock": lambda nvml, gpu: {
        "memory_clock_hertz": nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM) * 1e6
    },
    "throttle reasons": _reasons,
}
"""What changes from second to second."""

SELDOM: Final[Mapping[str, Callable[[Any, Any], Mapping[str, float]]]] = {
    "power limit": lambda nvml, gpu: {"power_limit_watts": nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3},
    "default power limit": lambda nvml, gpu: {
        "power_limit_default_watts": nvml.nvmlDeviceGetPowerManagementDefaultLimit(gpu) / 1e3
    },
    "highest SM clock": lambda nvml, gpu: {
        "sm_clock_max_hertz": nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM) * 1e6
    },
    "ECC errors": _ecc,
    "remapped rows": _remapped,
    "PCIe replays": lambda nvml, gpu: {"pcie_replay_total": float(nvml.nvmlDeviceGetPcieReplayCounter(gpu))},
}
"""Limits, and counters of what hardly ever happens."""

_COUNTERS: Final = {
    "pcie_tx_bytes_per_second": ("NVML_FI_DEV_PCIE_COUNT_TX_BYTES", 0, 1.0),
    "pcie_rx_bytes_per_second": ("NVML_FI_DEV_PCIE_COUNT_RX_BYTES", 0, 1.0),
    "nvlink_tx_bytes_per_second": ("NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX", _ALL_LINKS, _KIB),
    "nvlink_rx_bytes_per_second": ("NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX", _ALL_LINKS, _KIB),
}
"""Rate → the counter it is the increase of, its scope, and how many bytes a count is."""
RATES: Final = frozenset(_COUNTERS)
"""What may be told otherwise, too."""
_MEMORY_TEMPERATURE: Final = "memory temperature"
COUNTED: Final = frozenset({_MEMORY_TEMPERATURE, *_COUNTERS})
"""What one call tells together."""


def counted(nvml: Any, gpu: Device, now: float, known: Collection[str]) -> dict[str, float]:
    """Memory temperature and link rates, in one call.

    Args:
        nvml: The binding.
        gpu: The GPU; what it does not have is put down there.
        now: Unix seconds.
        known: Rates that were told otherwise are not asked for.

    Raises:
        nvml.NVMLError: The call failed as a whole.
    """
    wanted = [name for name in (_MEMORY_TEMPERATURE, *_COUNTERS) if name not in gpu.unsupported and name not in known]
    if not wanted:
        return {}
    asked = [
        (nvml.NVML_FI_DEV_MEMORY_TEMP, 0)
        if name == _MEMORY_TEMPERATURE
        else (getattr(nvml, _COUNTERS[name][0]), _COUNTERS[name][1])
        for name in wanted
    ]
    found: dict[str, float] = {}
    for name, answer in zip(wanted, nvml.nvmlDeviceGetFieldValues(gpu.handle, asked), strict=True):
        if answer.nvmlReturn in {nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_INVALID_ARGUMENT}:
            gpu.unsupported.add(name)
        if answer.nvmlReturn != nvml.NVML_SUCCESS:
            continue
        value = _value(nvml, answer)
        if name == _MEMORY_TEMPERATURE:
            found["memory_temperature_celsius"] = value
            continue
        rate = _rate(gpu, name, now, value * _COUNTERS[name][2])
        if rate is not None:
            found[name] = rate
    return found


def _rate(gpu: Device, name: str, now: float, count: float) -> float | None:
    """Increase per second since the last look; a counter that fell began again, and says nothing this once."""
    before = gpu.counters.get(name)
    gpu.counters[name] = now, count
    if before is None or now <= before[0] or count < before[1]:
        return None
    return (count - before[1]) / (now - before[0])


def _value(nvml: Any, answer: Any) -> float:
    members = {
        nvml.NVML_VALUE_TYPE_DOUBLE: "dVal",
        nvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
        nvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
        nvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
        nvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
        nvml.NVML_VALUE_TYPE_SIGNED_INT: "siVal",
        nvml.NVML_VALUE_TYPE_UNSIGNED_SHORT: "usVal",
    }
    return float(getattr(answer.value, members.get(answer.valueType, "ullVal")))
