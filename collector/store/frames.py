"""Processes that never ask for a frame go without what would make them."""

from __future__ import annotations

import sys


def without_frames() -> None:
    """Keep the driver from loading pandas and what belongs to it, in a process that never asks for a frame.

    It would at its first insert, to see whether it was given one: 90 MB.
    """
    for name in ("numpy", "pandas", "pyarrow"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
