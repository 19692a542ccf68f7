"""Slots for LoRA adapters: requests that wait because as many adapters run as fit, and theirs is none of them.

An engine has room for so many adapters at one time (vLLM's ``max_loras``, SGLang's ``max_loras_per_batch``). A request
whose adapter runs joins the batch at once; another waits until all requests of one adapter are over, however much room
there is for it. Which adapter a request asks for is its model's name where somebody saw that (the tap); a metrics page
counts them all under the base model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes.grid import overlap, runs
from analytics.causes.queueing import FULL, WAITED
from analytics.causes.slower import LEAST
from analytics.causes.table import PHASE
from base.formats import rounded

if TYPE_CHECKING:
    from analytics.causes.arrays import Flags, Floats
    from analytics.causes.charge import Ledger
    from analytics.causes.place import Place

MOST: Final = 0.5
"""Share of an episode, and of those who wait in it, from which it is for a slot that they wait."""
_GAP_BINS: Final = 3


def charge_slots(ledger: Ledger, place: Place) -> None:
    """``lora_slots``: what a request waited in the queue while all slots ran others' adapters, and its own did not."""
    if not (np.nan_to_num(place.shown("adapter_slots")) > 0).any():
        return
    requests = place.requests
    start, begin, _, _ = place.span
    told = place.of(requests.engine_half.astype(float)) > 0
    wait = np.where(told, np.minimum(ledger.left("queue", place.part), np.maximum(begin - start, 0.0)), 0.0)
    alone = wait - _beside_its_own(place, wait)
    held = _held_back(place, wait, alone)
    if held.any():
        share = place.bins.mean(held, begin - wait, begin)
        ledger.take("lora_slots", ("queue",), alone * np.minimum(share, 1.0), place.part)


def shown(place: Place, calm: Flags, first: float, last: float) -> list[str]:  # noqa: ARG001 - as the others' are
    """A sentence with what shows it between two times.

    Args:
        place: The instance.
        calm: Of each of its requests, whether the reference rests on it.
        first: Seconds since the origin.
        last: The same.
    """
    during = (place.bins.edges[1:] > first) & (place.bins.edges[:-1] < last)
    slots, running, back = (one[during] for one in (place.shown("adapter_slots"), _running(place), _back(place)))
    taken = (running >= slots) & (slots > 0)
    if not taken.any():
        return []
    held = rounded(float(taken.sum()) * place.bins.step)
    found = f"{place.name}: all {np.nanmax(slots):.0f} adapter slots were taken for {held}"
    most = np.nanmax(back) if np.isfinite(back).any() else 0
    return [found + (f", up to {most:.0f} adapters waited for one." if most else ".")]


def _several(place: Place) -> bool:
    """Whether its requests tell which adapter they ask for: cohorts are of a page, which does not."""
    return not len(place.requests.cohort) and len(np.unique(place.requests.model.codes[place.part])) > 1


def _beside_its_own(place: Place, wait: Floats) -> Floats:
    """Seconds of each wait in which others of the same adapter were computed: it was loaded, and that was no reason."""
    found = np.zeros(len(wait))
    if not _several(place):
        return found
    _, begin, _, last = place.span
    models = place.requests.model.codes[place.part]
    for model in np.unique(models[wait > 0]):
        mine = models == model
        spans = list(zip(begin[mine].tolist(), last[mine].tolist(), strict=True))
        waited = mine & (wait > 0)
        found[waited] = overlap((begin - wait)[waited], begin[waited], spans)
    return found


def _held_back(place: Place, wait: Floats, alone: Floats) -> Floats:
    """1 in the bins of episodes of waiting in which it is for a slot that most who waited did, 0 elsewhere."""
    slots, running, back, kv = place.shown("adapter_slots"), _running(place), _back(place), place.sampled("kv")
    deferred, capacity = place.shown("deferred"), place.shown("capacity")
    waiting = np.nan_to_num(place.sampled("waiting"))
    taken = (running >= slots) & (slots > 0) & ~(kv >= FULL) & ~(back < 1)
    found = np.zeros(place.bins.n)
    for first, last in runs((place.queued >= WAITED) | (waiting >= 1), _GAP_BINS):
        during = slice(max(first - 1, 0), last + 1)
        # gaps are a moment between two who wait
        seen = (waiting[during] >= 1) if (waiting[during] >= 1).any() else np.isfinite(slots[during])
        if not seen.any() or taken[during][seen].mean() < MOST:
            continue
        own, others = (float(np.nansum(one[during])) for one in (deferred, capacity))
        told = own + others
        holds = own >= MOST * told if told > 0 else _others_pass(place, first, last, wait, alone)
        found[during] = float(holds)
    return found


def _others_pass(place: Place, first: int, last: int, wait: Floats, alone: Floats) -> bool:
    """Whether those whose adapter ran waited less than half as long as the others that came at the time."""
    start = place.span[0]
    edges = place.bins.edges
    came = (start >= edges[max(first - 1, 0)]) & (start < edges[last])
    held = came & (wait > 0) & (alone >= MOST * wait)
    passed = came & ~held
    if not _several(place) or min(passed.sum(), held.sum()) < LEAST:
        return False
    queue = place.of(place.requests.phases[:, PHASE["queue"]])
    return bool(np.median(queue[passed]) < MOST * np.median(queue[held]))


def _back(place: Place) -> Floats:
    """Adapters that wait and of which no request runs, in each bin; NaN where nobody said."""
    return place.shown("adapters_held_back")


def _running(place: Place) -> Floats:
    """Adapters that run in each bin: as the server says, else by the models of the requests that are computed."""
    told = place.shown("adapters_running")
    if np.isfinite(told).any() or not _several(place):
        return told
    _, begin, _, last = place.span
    models = place.requests.model.codes[place.part]
    counted = np.zeros(place.bins.n)
    for model in np.unique(models):
        mine = models == model
        counted += place.bins.level(begin[mine], last[mine]) > 0
    return counted
