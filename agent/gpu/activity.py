"""What works inside a GPU, on Hopper and later: the driver's GPM figures.

Plain utilisation is the share of time with any kernel running, which reads 100 % on every busy LLM server; these tell
how much of the GPU those kernels use. A figure is of the time between two snapshots:
https://docs.nvidia.com/deploy/nvml-api/group__nvmlGpmFunctions.html
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_MIB: Final = 1024.0 * 1024.0
_PERCENT: Final = 0.01
_FIGURES: Final[Mapping[str, tuple[str, float]]] = {
    "sm_active_ratio": ("NVML_GPM_METRIC_SM_UTIL", _PERCENT),
    "sm_occupancy_ratio": ("NVML_GPM_METRIC_SM_OCCUPANCY", _PERCENT),
    "tensor_active_ratio": ("NVML_GPM_METRIC_ANY_TENSOR_UTIL", _PERCENT),
    "dram_active_ratio": ("NVML_GPM_METRIC_DRAM_BW_UTIL", _PERCENT),
    "pcie_tx_bytes_per_second": ("NVML_GPM_METRIC_PCIE_TX_PER_SEC", _MIB),
    "pcie_rx_bytes_per_second": ("NVML_GPM_METRIC_PCIE_RX_PER_SEC", _MIB),
    "nvlink_rx_bytes_per_second": ("NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC", _MIB),
    "nvlink_tx_bytes_per_second": ("NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC", _MIB),
}
"""Figure → the driver's metric and what one of its units is worth."""


class Activity:
    """Two snapshots of one GPU, or of one part, taken in turn.

    Args:
        nvml: The binding.
        handle: The driver's own of the GPU; of a part, that of its whole GPU, which is asked by the part's number.
        part: The part's number; None of a whole GPU.

    Attributes:
        seen: There was a look before, so that the next has figures.

    Raises:
        nvml.NVMLError: This GPU, its driver or this user has no such figures.
    """

    def __init__(self, nvml: Any, handle: Any, part: int | None) -> None:
        self._nvml = nvml
        self._handle = handle
        self._part = part
        if not nvml.nvmlGpmQueryDeviceSupport(self._handle).isSupportedDevice:
            raise nvml.NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED)
        self._before, self._after = nvml.nvmlGpmSampleAlloc(), nvml.nvmlGpmSampleAlloc()
        self._asked = nvml.c_nvmlGpmMetricsGet_t()
        self._asked.version = nvml.NVML_GPM_METRICS_GET_VERSION
        self._asked.numMetrics = len(_FIGURES)
        for place, (metric, _) in enumerate(_FIGURES.values()):
            self._asked.metrics[place].metricId = getattr(nvml, metric)
        self.seen = False

    def sample(self) -> dict[str, float]:
        """Figures since the last look; none at the first.

        Raises:
            nvml.NVMLError: The GPU does not answer.
        """
        if self._part is None:
            self._nvml.nvmlGpmSampleGet(self._handle, self._after)
        else:
            self._nvml.nvmlGpmMigSampleGet(self._handle, self._part, self._after)
        values: dict[str, float] = {}
        if self.seen:
            self._asked.sample1, self._asked.sample2 = self._before, self._after
            self._nvml.nvmlGpmMetricsGet(self._asked)
            for place, (name, (_, worth)) in enumerate(_FIGURES.items()):
                metric = self._asked.metrics[place]
                # a figure that one GPU lacks is an error of its own, or not a number
                if metric.nvmlReturn == self._nvml.NVML_SUCCESS and math.isfinite(metric.value):
                    values[name] = metric.value * worth
        self._before, self._after, self.seen = self._after, self._before, True
        return values

    def close(self) -> None:
        """Give the snapshots back."""
        for one in (self._before, self._after):
            self._nvml.nvmlGpmSampleFree(one)
