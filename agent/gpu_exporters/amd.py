"""AMD's device-metrics-exporter.

Fields: https://instinct.docs.amd.com/projects/device-metrics-exporter/. Early versions wrote labels in capitals and
other names. Clocks and links are arrays that became labels. In a partitioned GPU what is of the whole stands with the
first partition, the others say 0 or nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent.gpu_table import POWER_CAP, THERMAL, Before, Figure, GpuTable, Whose

if TYPE_CHECKING:
    from collections.abc import Mapping

_MIB: Final = float(1 << 20)
_PERCENT: Final = 0.01
_MEGA: Final = 1e6
_SLOWED_PERCENT: Final = 5.0
_OF_LABELS: Final = {"clock_type": "system"}
_OF_MEMORY: Final = {"clock_type": "memory"}


def _whose(labels: Mapping[str, str]) -> Whose | None:
    told = {name.lower(): value for name, value in labels.items()}
    serial, uuid = told.get("serial_number", ""), told.get("gpu_uuid", "")
    if not (serial or uuid):
        return None
    partition = told.get("gpu_partition_id", "0")
    whole = Whose(
        gpu=uuid or f"AMD-{serial}",
        name=told.get("card_model", ""),
        index=told.get("gpu_id", ""),
        node=told.get("hostname", ""),
        pod=told.get("exported_pod") or told.get("pod") or "",
        namespace=told.get("exported_namespace") or told.get("namespace") or "",
        driver=told.get("driver_version", ""),
    )
    if partition in {"", "0"}:
        return whole
    return whole.part(f"{whole.gpu}/{partition}", partition)


def _finish(raw: dict[str, float], before: Before | None, at: float) -> dict[str, float]:  # noqa: ARG001 - nothing here is a rate
    told = {name: value for name, value in raw.items() if not name.startswith("_")}
    if (power := next((raw[name] for name in ("_socket", "_average", "_usage") if raw.get(name)), None)) is not None:
        told["hw.power"] = power
    reasons = 0
    for name, bit in (("_ppt", POWER_CAP), ("_hot", THERMAL), ("_socket_hot", THERMAL), ("_hbm_hot", THERMAL)):
        reasons |= bit if raw.get(name, 0.0) >= _SLOWED_PERCENT else 0
    if any(name in raw for name in ("_ppt", "_hot", "_socket_hot", "_hbm_hot")):
        told["throttle_reasons"] = float(reasons)
    return told


TABLE = GpuTable(
    exporter="amd",
    marks=frozenset({"gpu_gfx_activity", "gpu_usage", "gpu_package_power", "gpu_average_package_power",
                     "gpu_power_usage", "gpu_clock", "gpu_total_vram", "gpu_used_vram", "gpu_total_memory",
                     "gpu_xgmi_link_rx"}),
    families={
        "gpu_gfx_activity": (Figure("hw.gpu.utilization", _PERCENT),),
        "gpu_usage": (Figure("hw.gpu.utilization", _PERCENT),),
        "gpu_umc_activity": (Figure("memory_utilization_ratio", _PERCENT),),
        "gpu_used_vram": (Figure("hw.gpu.memory.usage", _MIB),),
        "gpu_used_memory": (Figure("hw.gpu.memory.usage", _MIB),),
        "gpu_total_vram": (Figure("hw.gpu.memory.limit", _MIB),),
        "gpu_total_memory": (Figure("hw.gpu.memory.limit", _MIB),),
        "gpu_package_power": (Figure("_socket"),),
        "gpu_average_package_power": (Figure("_average"),),
        "gpu_power_usage": (Figure("_usage"),),
        "gpu_energy_consumed": (Figure("hw.energy", 1e-6),),
        "gpu_junction_temperature": (Figure("hw.temperature"),),
        "gpu_edge_temperature": (Figure("hw.temperature"),),
        "gpu_memory_temperature": (Figure("memory_temperature_celsius"),),
        "gpu_clock": (
            Figure("sm_clock_hertz", _MEGA, _OF_LABELS), Figure("memory_clock_hertz", _MEGA, _OF_MEMORY),
        ),
        "gpu_max_clock": (Figure("sm_clock_max_hertz", _MEGA, _OF_LABELS),),
        "gpu_ecc_correct_total": (Figure("ecc_corrected_total"),),
        "gpu_ecc_uncorrect_total": (Figure("ecc_uncorrected_total"),),
        "pcie_replay_count": (Figure("pcie_replay_total"),),
        "gpu_violation_ppt_residency_percentage": (Figure("_ppt"),),
        "gpu_violation_processor_hot_residency_percentage": (Figure("_hot"),),
        "gpu_violation_socket_thermal_residency_percentage": (Figure("_socket_hot"),),
        "gpu_violation_hbm_thermal_residency_percentage": (Figure("_hbm_hot"),),
    },
    ignored={
        "gpu_nodes_total": "how many there are is how many tell of themselves",
        "gpu_health": "worked out of what is read",
        "gpu_hbm_temperature": "by stack; the memory's temperature is read",
        "gpu_mma_activity": "video engines",
        "gpu_vcn_*": "video engines",
        "gpu_jpeg_*": "video engines",
        "gpu_gfx_busy_instantaneous": "by core; the mean is read",
        "gpu_process_cu_occupancy": "of processes that it does not name here",
        "gpu_voltage": "no column",
        "gpu_gfx_voltage": "no column",
        "gpu_memory_voltage": "no column",
        "gpu_min_clock": "no column",
        "pcie_*": "speeds and errors of links have no column; traffic has no direction",
        "gpu_free_*": "the rest of what is used",
        "gpu_total_visible_vram": "what the processor sees of it",
        "gpu_used_visible_vram": "what the processor sees of it",
        "gpu_vram_max_bandwidth": "a property of the product",
        "gpu_total_gtt": "the machine's own memory",
        "gpu_used_gtt": "the machine's own memory",
        "gpu_ecc_*": "by block; the totals are read",
        "gpu_xgmi_*": "links between GPUs that are no NVLinks have no column",
        "gpu_violation_*": "accumulated, or a part of what is read",
        "gpu_afid_errors": "AMD's field ids, which are no Xids",
    },
    whose=_whose,
    finish=_finish,
)  # fmt: skip
