"""What a call costs its own thread, with what other tests left running in the process kept out."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

GROUND_NS: Final = 1_000_000
"""What is quicker than this is not told from nothing: a clock's step, a cache that was cold."""

ATTEMPTS: Final = 6


def effort(work: Callable[[], object]) -> int:
    """Nanoseconds of CPU of this thread for `work`, without the garbage collector.

    Other threads' work is left out (servers of other tests share the process), and so is a
    collection of everything that thousands of tests left behind, which falls to whoever allocates.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        begun = time.thread_time_ns()
        work()
        return time.thread_time_ns() - begun
    finally:
        if collecting:
            gc.enable()


def in_proportion(short: Callable[[], object], long: Callable[[], object], times: int) -> bool:
    """Whether `long` costs less than `times` what `short` costs, each taken at its best.

    A neighbour on the machine makes any single call dear, never cheap, so that the least of several
    calls is the cost; a call that is really dear is dear in every attempt.
    """
    costs: tuple[list[int], list[int]] = ([], [])
    for _ in range(ATTEMPTS):
        costs[0].append(effort(short))
        costs[1].append(effort(long))
        if min(costs[1]) < times * max(min(costs[0]), GROUND_NS):
            return True
    return False
