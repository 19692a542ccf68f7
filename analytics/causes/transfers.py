"""What moving the KV cache took: where prompts are computed elsewhere, a request waits until its cache is there.

An engine counts the transfers that ended and their seconds. Those of a server that reads its requests' caches are its
own (vLLM with NIXL); where the server that sends them counts (SGLang, Mooncake), those of the deployment's servers
together are looked at. A request is held against the mean transfer that ended between its arrival and its first token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes.slower import are_slower, times_usual
from analytics.causes.table import PHASE
from base.formats import rounded

if TYPE_CHECKING:
    from analytics.causes.arrays import Flags, Floats
    from analytics.causes.charge import Ledger
    from analytics.causes.place import Place
    from analytics.causes.reference import Reference

LONGER: Final = 1.3
"""Times the usual transfer from which one took long."""
SLOWER_BY_TRANSFER: Final = 1.1
"""Times the usual that a first token has to take for a transfer to be its reason."""
MATTERS: Final = 0.05
"""Share of what a request took up to its first token below which a longer transfer is not told."""
_USUAL: Final = 10.0
"""Transfers in calm seconds below which nobody knows what one takes."""
_BEFORE: Final = ("queue", "stall", "prefill")
"""Phases up to the first token in which a transfer may lie; an engine counts it as the queue of who waits for it."""


def charge_transfers(ledger: Ledger, place: Place, reference: Reference) -> None:
    """``kv_transfer``: what a transfer took above calm ones, of what a request waited before its first token.

    Charged where those who waited for such transfers had their first token later than calm ones by more than chance: a
    transfer beside the computing keeps nobody waiting.
    """
    calm = reference.calm[place.part]
    counted = _counted(place)
    usual = _usual(place, calm, *counted)
    if not usual > 0:
        return
    requests = place.requests
    start, _, first, _ = place.span
    # what ends in a second is told at its end
    number, seconds = (place.bins.mean(one, start, first + place.bins.step) for one in counted)
    own = np.where(number > 0, seconds / np.maximum(number, 1e-9), 0.0)
    more = np.where(own >= LONGER * usual, own - usual, 0.0)
    took = place.of(requests.phases[:, [PHASE[phase] for phase in _BEFORE]].sum(axis=1))
    hit = (more >= MATTERS * took) & (more > 0)
    if not are_slower(times_usual(ledger, place, reference, _BEFORE), hit, calm & ~hit, SLOWER_BY_TRANSFER):
        return
    if not _waited_for(place, start[hit], first[hit]):
        return
    whole = place.of(requests.engine_half.astype(float)) > 0
    for phases, rows in ((("queue", "stall"), hit & whole), (_BEFORE, hit & ~whole)):
        ledger.take("kv_transfer", phases, np.where(rows, more, 0.0), place.part)


def _waited_for(place: Place, start: Floats, first: Floats) -> bool:
    """Whether requests waited for something of their own and not for capacity, or nobody tells for what."""
    deferred, capacity = place.shown("deferred"), place.shown("capacity")
    if not np.isfinite(capacity).any():
        return True
    seen = place.bins.mean(np.nan_to_num(deferred), start, first + place.bins.step)
    return bool(seen.any())


def shown(place: Place, calm: Flags, first: float, last: float) -> list[str]:
    """A sentence with what shows it between two times.

    Args:
        place: The instance.
        calm: Of each of its requests, whether the reference rests on it.
        first: Seconds since the origin.
        last: The same.
    """
    number, seconds = _counted(place)
    during = (place.bins.edges[1:] > first) & (place.bins.edges[:-1] < last)
    usual = _usual(place, calm, number, seconds)
    if not (usual > 0 and number[during].sum() > 0):
        return []
    took = float(seconds[during].sum() / number[during].sum())
    return [f"{place.name}: a KV transfer took {rounded(took)} in the mean, {rounded(float(usual))} when calm."]


def _counted(place: Place) -> tuple[Floats, Floats]:
    """Transfers that ended in each bin, and their seconds: the server's own, else those of its deployment."""
    number = place.counted("transfers")
    if number.any():
        return number, place.counted("transfer_s")
    return place.counted("transfers", place.deployed), place.counted("transfer_s", place.deployed)


def _usual(place: Place, calm: Flags, number: Floats, seconds: Floats) -> float:
    """Seconds of a transfer in calm seconds; 0 where nobody knows."""
    if not number.any():
        return 0.0
    usual = place.calm_bins(calm)
    enough = number[usual].sum() >= _USUAL
    return float(seconds[usual].sum() / number[usual].sum()) if enough else 0.0
