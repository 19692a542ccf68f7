"""Whether other processes of its machine took from a server the CPU that it used to have.

The kernel's count of time that the computing process waited shows a part of it: a step goes through several processes
that wait for each other, and each waits for little. What can't be mistaken is that all of a server's processes together
*have less* than when all is well, want no less, and the machine is full of what others have more. A server that is
stopped has less as well, and leaves it to others, but wants less; a crowd makes others busier, its clients among them,
and the server too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from analytics.causes.arrays import Flags, Floats
    from analytics.causes.place import Place

SATURATED: Final = 0.95
"""Share of the machine's CPUs in use from which whoever takes more takes it from somebody."""
LOST: Final = 0.12
"""Share of what a server's processes use when all is well that they have less at least."""
TAKEN: Final = 0.5
"""Share of what they have less that others have more at least."""
LEAST: Final = 0.15
"""CPUs that others have more at least."""
WANTED: Final = 0.95
"""Share of the CPU that they used or waited for when all is well that they want at least."""
SMOOTH_SECONDS: Final = 3.0
_FEW: Final = 5


@dataclass(frozen=True)
class Cpus:
    """CPUs over time, on bins, each the mean of some seconds.

    Attributes:
        own: Used by the server's processes.
        wanted: The same and those that they waited for.
        others: Used by all other processes of the machine.
        busy: Share of the machine's that is in use.
    """

    own: Floats
    wanted: Floats
    others: Floats
    busy: Floats


def cpus_of(place: Place) -> Cpus | None:
    """What is known of a place's machine; None where its use or that of the server's processes was not measured."""
    host, bins = place.host, place.bins
    if not host.processes or not (np.isfinite(host.busy).any() and np.isfinite(host.cores).any()):
        return None
    own, waited = np.zeros(bins.n), np.zeros(bins.n)
    for time, used, delayed in host.processes:
        own += np.nan_to_num(bins.held(time, used, host.age))
        waited += np.nan_to_num(bins.held(time, delayed, host.age))
    busy = np.nan_to_num(bins.held(host.time, host.busy, host.age))
    cores = float(np.nanmax(host.cores))
    width = max(round(SMOOTH_SECONDS / bins.step), 1)
    smooth = np.ones(width) / width

    def even(values: Floats) -> Floats:
        return np.convolve(values, smooth, "same") if len(values) >= width else values

    return Cpus(even(own), even(own + waited), even(np.maximum(busy * cores - own, 0.0)), even(busy))


def usual(cpus: Cpus, calm: Flags) -> tuple[float, float, float] | None:
    """Medians of ``own``, ``wanted`` and ``others`` over calm bins; None where these are few, or it used nothing."""
    known = calm & (cpus.own > 0)
    if known.sum() < _FEW:
        return None
    own, wanted, others = (float(np.median(values[known])) for values in (cpus.own, cpus.wanted, cpus.others))
    return own, wanted, others


def taken(place: Place, calm: Flags) -> Flags:
    """Bins in which others took a server's CPU.

    Args:
        place: The server.
        calm: Of its requests, whether the reference rests on each.
    """
    nowhere = np.zeros(place.bins.n, dtype=np.bool_)
    cpus = cpus_of(place)
    if cpus is None or cpus.busy.max() < SATURATED:
        return nowhere
    before = usual(cpus, place.calm_bins(calm))
    if before is None:
        return nowhere
    own, wanted, others = before
    lost, more = own - cpus.own, cpus.others - others
    found: Flags = (
        (cpus.busy >= SATURATED)
        & (lost >= LOST * own)
        & (more >= np.maximum(TAKEN * lost, LEAST))
        & (cpus.wanted >= WANTED * wanted)
    )
    return found
