"""NVIDIA's Xid errors by number.

Numbers and what to do: https://docs.nvidia.com/deploy/xid-errors/
"""

from __future__ import annotations

from typing import Final

_XIDS: Final = {
    13: "graphics engine exception",
    31: "memory page fault of an application",
    43: "GPU stopped processing of an application",
    45: "work of an application was cancelled",
    48: "double bit ECC error",
    61: "internal micro-controller breakpoint",
    62: "internal micro-controller halt",
    63: "row remapping or page retirement was recorded",
    64: "row remapping or page retirement failed",
    74: "NVLink error",
    79: "GPU has fallen off the bus",
    92: "high rate of single bit ECC errors",
    94: "contained ECC error",
    95: "uncontained ECC error",
    119: "GSP firmware did not answer",
    120: "GSP firmware error",
}


def meaning(xid: int) -> str:
    """What an Xid means, in a few words."""
    return _XIDS.get(xid, "see NVIDIA's list of Xid errors")
