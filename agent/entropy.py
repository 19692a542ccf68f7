"""Random bytes for ids, drawn from the kernel a page at a time: each draw of its own would be a system call."""

from __future__ import annotations

import io
import os
from typing import Final

_PAGE: Final = 4_096


class _Pool:
    """What is left of the last page. A read is one step of the interpreter, so no two threads get the same bytes."""

    def __init__(self) -> None:
        self.page = io.BytesIO()

    def empty(self) -> None:
        self.page = io.BytesIO()


_POOL: Final = _Pool()
os.register_at_fork(after_in_child=_POOL.empty)  # or parent and child would draw the same ids


def draw(size: int) -> bytes:
    """``size`` bytes (a page at most) of ``os.urandom``, for ids and not for keys: they lie in memory beforehand."""
    if len(drawn := _POOL.page.read(size)) < size:
        _POOL.page = page = io.BytesIO(os.urandom(_PAGE))
        drawn = page.read(size)
    return drawn
