"""NVIDIA's dcgm-exporter.

Fields: https://docs.nvidia.com/datacenter/dcgm/latest/dcgm-api/dcgm-api-field-ids.html; labels and default counters:
https://github.com/NVIDIA/dcgm-exporter. With MIG all parts have the UUID of their GPU, and repeat its power, energy
and temperature. ``DCGM_FI_DEV_XID_ERRORS`` is the number of the last Xid and stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent.gpu_table import POWER_CAP, THERMAL, Before, Figure, GpuTable, Whose

if TYPE_CHECKING:
    from collections.abc import Mapping

_MIB: Final = float(1 << 20)
_PERCENT: Final = 0.01
_MEGA: Final = 1e6
_HELD: Final = 0.05
"""Share of the time between two pages that a GPU was held back from which it counts as slowed down."""
_ELSEWHERE: Final = "no column; what an engine loses by it shows in clock and activity"


def _whose(labels: Mapping[str, str]) -> Whose | None:
    uuid = labels.get("UUID") or labels.get("gpu_uuid") or labels.get("uuid") or ""
    if not uuid:
        return None
    index, name, part = labels.get("gpu", ""), labels.get("modelName", ""), labels.get("GPU_I_ID", "")
    whole = Whose(
        gpu=uuid,
        name=name,
        index=index,
        node=labels.get("Hostname", ""),
        # Where a scraper labels its target with a pod of its own, the one that has the GPU is the exported one.
        pod=labels.get("exported_pod") or labels.get("pod") or labels.get("pod_name") or "",
        namespace=labels.get("exported_namespace") or labels.get("namespace") or labels.get("pod_namespace") or "",
        driver=labels.get("DCGM_FI_DRIVER_VERSION", ""),
    )
    if not part:
        return whole
    return whole.part(f"MIG-{uuid}/{part}", part, labels.get("GPU_I_PROFILE", ""))


def _finish(raw: dict[str, float], before: Before | None, at: float) -> dict[str, float]:
    told = {name: value for name, value in raw.items() if not name.startswith("_")}
    if "hw.gpu.memory.usage" in told and "hw.gpu.memory.limit" not in told and "_free" in raw:
        told["hw.gpu.memory.limit"] = told["hw.gpu.memory.usage"] + raw["_free"] + raw.get("_reserved", 0.0)
    if before is None or at <= before.at:
        return told
    if "throttle_reasons" not in told and ("_power" in raw or "_thermal" in raw):
        reasons = 0
        for name, bit in (("_power", POWER_CAP), ("_thermal", THERMAL)):
            held = raw.get(name, 0.0) - before.values.get(name, raw.get(name, 0.0))
            reasons |= bit if held >= _HELD * (at - before.at) else 0
        told["throttle_reasons"] = float(reasons)
    return told


TABLE = GpuTable(
    exporter="dcgm",
    marks=frozenset({"DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_POWER_USAGE",
                     "DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_DEV_GPU_TEMP"}),
    families={
        "DCGM_FI_DEV_GPU_UTIL": (Figure("hw.gpu.utilization", _PERCENT),),
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE": (Figure("hw.gpu.utilization"),),
        "DCGM_FI_DEV_MEM_COPY_UTIL": (Figure("memory_utilization_ratio", _PERCENT),),
        "DCGM_FI_PROF_SM_ACTIVE": (Figure("sm_active_ratio"),),
        "DCGM_FI_PROF_SM_OCCUPANCY": (Figure("sm_occupancy_ratio"),),
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": (Figure("tensor_active_ratio"),),
        "DCGM_FI_PROF_DRAM_ACTIVE": (Figure("dram_active_ratio"),),
        "DCGM_FI_DEV_FB_USED": (Figure("hw.gpu.memory.usage", _MIB),),
        "DCGM_FI_DEV_FB_TOTAL": (Figure("hw.gpu.memory.limit", _MIB),),
        "DCGM_FI_DEV_FB_FREE": (Figure("_free", _MIB),),
        "DCGM_FI_DEV_FB_RESERVED": (Figure("_reserved", _MIB),),
        "DCGM_FI_DEV_POWER_USAGE": (Figure("hw.power", whole=True),),
        "DCGM_FI_DEV_POWER_MGMT_LIMIT": (Figure("power_limit_watts", whole=True),),
        "DCGM_FI_DEV_POWER_MGMT_LIMIT_DEF": (Figure("power_limit_default_watts", whole=True),),
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": (Figure("hw.energy", 1e-3, whole=True),),
        "DCGM_FI_DEV_GPU_TEMP": (Figure("hw.temperature", whole=True),),
        "DCGM_FI_DEV_MEMORY_TEMP": (Figure("memory_temperature_celsius", whole=True),),
        "DCGM_FI_DEV_SM_CLOCK": (Figure("sm_clock_hertz", _MEGA, whole=True),),
        "DCGM_FI_DEV_MAX_SM_CLOCK": (Figure("sm_clock_max_hertz", _MEGA, whole=True),),
        "DCGM_FI_DEV_MEM_CLOCK": (Figure("memory_clock_hertz", _MEGA, whole=True),),
        "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": (Figure("throttle_reasons", whole=True),),
        "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS": (Figure("throttle_reasons", whole=True),),
        "DCGM_FI_DEV_POWER_VIOLATION": (Figure("_power", 1e-9, whole=True),),
        "DCGM_FI_DEV_THERMAL_VIOLATION": (Figure("_thermal", 1e-9, whole=True),),
        "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL": (Figure("ecc_corrected_total", whole=True),),
        "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL": (Figure("ecc_uncorrected_total", whole=True),),
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS": (Figure("remapped_rows_correctable_total", whole=True),),
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": (Figure("remapped_rows_uncorrectable_total", whole=True),),
        "DCGM_FI_DEV_ROW_REMAP_PENDING": (Figure("remapped_rows_pending", whole=True),),
        "DCGM_FI_DEV_ROW_REMAP_FAILURE": (Figure("remapped_rows_failed", whole=True),),
        "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": (Figure("pcie_replay_total", whole=True),),
        "DCGM_FI_DEV_XID_ERRORS": (Figure("_xid", whole=True),),
    },
    ignored={
        "DCGM_FI_PROF_PCIE_*": "declared a counter and documented as a rate: which of them it is does not show",
        "DCGM_FI_PROF_NVLINK_*": "declared a counter and documented as a rate: which of them it is does not show",
        "DCGM_FI_DEV_PCIE_*": "its unit changed between versions",
        "DCGM_FI_DEV_NVLINK_*": "its unit changed between versions; errors of links have no column",
        "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": "since the driver was loaded; the aggregate is read",
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": "since the driver was loaded; the aggregate is read",
        "DCGM_FI_DEV_RETIRED_*": "pages of GPUs before those that remap rows",
        "DCGM_FI_DEV_SYNC_BOOST_VIOLATION": _ELSEWHERE,
        "DCGM_FI_DEV_BOARD_LIMIT_VIOLATION": _ELSEWHERE,
        "DCGM_FI_DEV_LOW_UTIL_VIOLATION": "idle is no reason that matters",
        "DCGM_FI_DEV_RELIABILITY_VIOLATION": _ELSEWHERE,
        "DCGM_FI_DEV_ENC_UTIL": "video encoder",
        "DCGM_FI_DEV_DEC_UTIL": "video decoder",
        "DCGM_FI_PROF_PIPE_FP*": "pipes beside the tensor cores have no column",
        "DCGM_FI_DEV_FB_USED_PERCENT": "used over total, which are read",
        "DCGM_FI_DEV_VGPU_LICENSE_STATUS": "no measurement",
        "DCGM_FI_DEV_COUNT": "how many there are is how many tell of themselves",
        "DCGM_FI_DEV_PSTATE": "clocks are read",
        "DCGM_FI_DEV_FAN_SPEED": "no column",
        "DCGM_FI_DEV_SLOWDOWN_TEMP": "no column",
        "DCGM_EXP_*": "counts of a window that the exporter moves, which fall again",
    },
    whose=_whose,
    finish=_finish,
    fault="_xid",
)  # fmt: skip
