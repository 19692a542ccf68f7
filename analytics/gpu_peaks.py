"""What vendors say that a GPU can do at most: the denominators of model FLOPs utilisation and of memory's share.

Dense BF16, which is what a share of a peak means where nobody says otherwise; a model in FP8 or FP4 may do two or four
times as much, so that its share is above what a reader expects. Without structured sparsity, whose figures data sheets
print larger. Source: NVIDIA's data sheet of each product, https://www.nvidia.com/en-us/data-center/ (*A100 Tensor Core
GPU*, *H100 Tensor Core GPU*, *H200 Tensor Core GPU*, *L4*, *L40S*, *A10*).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Peak:
    """A GPU's limits.

    Attributes:
        flop_per_second: Dense BF16 on its tensor cores.
        bytes_per_second: Of its memory.
    """

    flop_per_second: float
    bytes_per_second: float


_PEAKS: Final = {
    "NVIDIA A10": Peak(125e12, 600e9),
    "NVIDIA A100-PCIE-40GB": Peak(312e12, 1555e9),
    "NVIDIA A100 80GB PCIe": Peak(312e12, 1935e9),
    "NVIDIA A100-SXM4-40GB": Peak(312e12, 1555e9),
    "NVIDIA A100-SXM4-80GB": Peak(312e12, 2039e9),
    "NVIDIA H100 80GB HBM3": Peak(989e12, 3350e9),
    "NVIDIA H200": Peak(989e12, 4800e9),
    "NVIDIA L4": Peak(121e12, 300e9),
    "NVIDIA L40S": Peak(362e12, 864e9),
}
"""By the name that the driver has for it."""


def peak_of(name: str) -> Peak | None:
    """The limits of a GPU by its driver's name; None for one whose data sheet is not in this file."""
    return _PEAKS.get(name.strip())
