"""Contention: seconds that a request lost to others, or to a server that stood still.

Mechanisms are asked in turn, those that can be measured first; each takes from what the phases it can show itself in
still have above the reference. What is charged where:

- the server was away or began anew, or stood still: the overlap with a request's own time, a GPU's fault where it
  began with one (`gpus`),
- the reader was slow: what came later at the edge than the server had it, less what all others saw at that time,
- a process had no CPU: the seconds that the kernel counted as runnable and not running, and those in which others took
  what the server used to have (`neighbours`),
- a GPU was slowed down (`gpus`): the share of its clock that was missing,
- the queue: by episodes of waiting, each with one reason (`queueing`),
- preemption: the longest gap of a request in whose decoding its engine preempted,
- prefill of others: their uncached tokens times what such a token takes by the reference,
- the batch: what so many more sequences at once explain, by the slope of the time a token takes over them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes import neighbours
from analytics.causes.queueing import prompts_cause, queue_labels
from analytics.causes.table import FIRST_TOKEN, PHASE, PHASES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analytics.causes.arrays import Flags, Floats, Ints
    from analytics.causes.charge import Ledger
    from analytics.causes.place import Place
    from analytics.causes.reference import Reference
    from analytics.causes.table import Requests

COLD_SECONDS: Final = 30.0
"""Seconds after a server began in which its first requests may be cold."""
BUSY: Final = 0.85
"""Share of one CPU from which a process that takes requests is the narrow place."""
LATE: Final = 0.25
"""Seconds that an answer's way to its client takes at least where the client is slow."""
STARVED: Final = 0.1
"""Seconds a second without a CPU, above the usual, from which a process is starved."""
WANTED: Final = 0.5
"""Share of a stand-still that the process was runnable without a CPU, from which that is why it stood."""
PRESSED: Final = 0.25
"""Rise of the machine's CPU pressure (share of time) that starves its processes."""
BUSIER: Final = 1.3
"""Times the usual tokens a second from which more is asked of a server, rather than the server slower."""
MUCH_BUSIER: Final = 2.0
"""Times the usual from which requests may be compared with calm ones to learn what a larger batch costs."""
EXPLAINED: Final = 0.4
"""Share of what decoding took above the reference that the batch has to explain to be its reason."""
SLOPE_LIMIT: Final = 0.5
"""Most that one more sequence may cost, as a share of what a token costs alone: a batch is cheaper than turns."""
COLD: Final = 0.5
"""Share of the reference that the first requests of a server take longer at least where it is cold."""
_ALL: Final = tuple(PHASES)
_SERVED: Final = tuple(phase for phase in PHASES if phase != "edge")
"""Where what a server does shows; what its clients do is in the other."""
_WHOLE: Final = ("decode", "compute_infer", "compute_input", "compute_output", "other")


def charge_standstill(ledger: Ledger, place: Place, reference: Reference) -> None:
    """``gpu_fault``, ``restart``, ``engine_frozen`` and ``cold_start``."""
    faulted = [span for span in place.faulted if not _starved(place, *span)]
    away = _apart(place.restarts, faulted)
    stood = [span for span in _apart(place.frozen, [*away, *faulted]) if not _starved(place, *span)]
    for cause, spans in (("gpu_fault", faulted), ("restart", away), ("engine_frozen", stood)):
        if not spans:
            continue
        before, after = place.standing(spans)
        taken = ledger.take(cause, (*FIRST_TOKEN, "transit", "edge"), before, place.part)
        rest = after + np.maximum(before - taken, 0.0)
        ledger.take(cause, _WHOLE, rest, place.part)
    start, usual = place.span[0], reference.expected[place.part].sum(axis=1)
    for begun in place.begun:
        young = (start >= begun - 1) & (start < begun + COLD_SECONDS)
        old = (start >= begun + COLD_SECONDS) & (start < begun + 3 * COLD_SECONDS)
        above = np.maximum(ledger.excess[place.part], 0.0)
        if not young.any() or old.sum() < 3:  # noqa: PLR2004 - what goes by is seen by what comes after it
            continue
        # cold is what the first are and later ones of the same server are not
        least = max(COLD * float(np.median(usual[young][:5])), 3 * float(np.median(above[old])))
        if np.median(above[young][:5]) > least:
            ledger.take("cold_start", _SERVED, np.inf, place.rows[young])


def _starved(place: Place, since: float, until: float) -> bool:
    """Whether a process that stood still wanted a CPU most of that time: it is not the engine that stands then."""
    host = place.host
    if not np.isfinite(host.delay).any():
        return False
    delay = np.nan_to_num(place.bins.held(host.delay_time, host.delay, host.age))
    return bool(place.bins.mean(delay, np.array([since]), np.array([until]))[0] >= WANTED)


def charge_readers(ledger: Ledger, place: Place, reference: Reference) -> None:
    """``slow_client``: the server had it long before the client took it, and others took theirs.

    A client that reads slowly holds the stream back: the edge's end lies behind the server's by far more than that of
    others at the same time, and of its own answer, not of its beginning.
    """
    # a tap measures what it waited for its client; where none did, it is between the server's end and the edge's
    at_edge = ledger.left("edge", place.part)
    late = at_edge + ledger.left("transit", place.part)
    if not (late > LATE).any():
        return
    start, _, _, last = place.span
    end = place.of(place.requests.end)
    after = np.maximum(end - np.maximum(last, start), 0.0)
    tenants = place.requests.tenant.codes[place.part]
    least = np.maximum(LATE, 0.5 * reference.expected[place.part].sum(axis=1))
    usual = _around(late, tenants, last, np.minimum(late, after) > least)
    # without others to compare with, what lies between may be anybody's: only what the tap waited is the client's
    slow = np.minimum(np.where(np.isnan(usual), at_edge, late - np.nan_to_num(usual)), after)
    matters = slow > least
    ledger.take("slow_client", ("edge", "transit"), np.where(matters, slow, 0.0), place.part)


def charge_cpu(ledger: Ledger, place: Place, calm: Flags) -> None:
    """``cpu_starved`` and ``frontend_cpu``, where the host was measured."""
    host = place.host
    start, _, first, last = place.span
    end = place.of(place.requests.end)
    if np.isfinite(host.delay).any():
        delay = np.nan_to_num(place.bins.held(host.delay_time, host.delay, host.age))
        if delay.max() >= STARVED / 2:  # a mean is never above all that it is of
            own = place.bins.mean(delay, start, end)
            usual = float(np.median(own[calm])) if calm.any() else 0.0
            wait = np.maximum(own - max(usual, 0.0), 0.0)
            matters = wait >= STARVED
            ledger.take("cpu_starved", _ALL, np.where(matters, wait * (end - start), 0.0), place.part)
    elif np.isfinite(host.pressure).any():
        pressure = np.nan_to_num(place.bins.held(host.time, host.pressure, host.age))
        own = place.bins.mean(pressure, start, end)
        usual = float(np.median(own[calm])) if calm.any() else 1.0
        pressed = (own - usual >= PRESSED) & (place.bins.mean(place.decoding, first, last) < _crowd(place, calm))
        phases = ("transit", "frontend", "stall", "edge", "prefill", "decode", "compute_infer", "compute_input")
        ledger.take("cpu_starved", phases, np.inf, place.rows[pressed])
    lost = neighbours.taken(place, calm)
    if lost.any():
        share = place.bins.mean(lost.astype(float), start, end)
        ledger.take("cpu_starved", _ALL, share * (end - start), place.part)
    if np.isfinite(host.front).any():
        front = np.nan_to_num(place.bins.held(host.front_time, host.front, host.age))
        if front.max() >= BUSY / 2:
            busy = place.bins.mean(front, start, end) >= BUSY
            ledger.take("frontend_cpu", ("frontend", "transit", "stall"), np.inf, place.rows[busy])


def charge_queue(ledger: Ledger, place: Place, peers: Sequence[Place], reference: Reference) -> None:
    """What waited in the queue, by the reason of the episode in which it did."""
    labels = queue_labels(place, peers, reference)
    if not labels:
        return
    requests = place.requests
    begin = place.span[1]
    # what only the edge saw has its queue in the time before the first token
    bare = ~requests.engine_half[place.part]
    late = ledger.left("queue", place.part) + np.where(bare, ledger.left("prefill", place.part), 0.0)
    wait = np.minimum(late, np.maximum(begin - place.span[0], 0.0))
    wait = np.where(bare, late, wait)
    began = np.where(wait < late, place.span[0], begin - wait)
    for cause, label in labels.items():
        share = place.bins.mean(label, began, np.maximum(begin, began + late))
        phases = ("queue", "prefill") if bare.any() else ("queue",)
        ledger.take(cause, phases, late * np.minimum(share, 1.0), place.part)


def charge_preemptions(ledger: Ledger, place: Place, reference: Reference) -> None:
    """``preemption``: a request lost its blocks, and its stream stood still until it had them again."""
    _, _, first, last = place.span
    requests = place.requests
    told = place.of(requests.preempted) > 0
    lost = np.nan_to_num(place.sampled("preemptions")) > 0 if place.samples is not None else np.zeros(0, dtype=np.bool_)
    if not (told.any() or lost.any()):
        return
    gap, usual = place.of(requests.gap_max), reference.each("output_token", place.part)
    if lost.any():
        near = place.bins.mean(lost.astype(float), first - 1, last + 1) > 0
        told |= near & (gap > np.maximum(20 * usual, 0.05))
    share = np.where(gap > 0, np.maximum(gap - usual, 0.0), np.inf)
    ledger.take("preemption", ("decode", "stall"), np.where(told, share, 0.0), place.part)


def charge_prefills(ledger: Ledger, place: Place, reference: Reference, calm: Flags) -> None:
    """``prefill_interference``: steps that decode for one compute the prompts of others.

    Much is told by the time in which the engine could run: one without a CPU computes few prompts a second, and they
    may be most of what it does.
    """
    if place.prefill_token <= 0:
        return
    start, _, first, last = place.span
    own = place.of(place.requests.uncached) * place.prefill_token
    while_decoding = place.computing(first, last)
    usual = float(np.median(while_decoding[calm])) if calm.any() else 0.0
    matters = while_decoding >= max(2 * usual, 0.1) * place.bins.mean(place.ran, first, last)
    wanted = np.where(matters, (while_decoding - usual) * np.maximum(last - first, 0.0), 0.0)
    before = np.maximum(first - start, 0.0)
    others = np.maximum(place.computing(start, first) * before - own, 0.0)
    others *= others >= np.maximum(0.25 * before * place.bins.mean(place.ran, start, first), 0.005)
    if wanted.any() or others.any():
        cause = prompts_cause(place, reference)
        ledger.take(cause, ("decode",), wanted, place.part)
        ledger.take(cause, ("stall", "prefill", "frontend"), others, place.part)


def charge_batch(ledger: Ledger, place: Place, reference: Reference, calm: Flags) -> None:
    """``batch_interference``: more sequences at once, each step longer.

    The time a token takes is ``d₀ + s · sequences``; ``s`` is what a step costs more with one more (`steps.StepCost`).
    Without steps it is learnt of this place's requests that met unlike demand (`_slope`), calm and others apart, else
    whatever else slowed the others would be the batch's; together where twice the usual tokens were made. It is at
    most `SLOPE_LIMIT` of what a token takes by the reference. Sequences beyond those of the reference explain
    ``s · (n − n₀)`` a token; before the first token the two steps that a request waits for. Only where more tokens are
    made than usual is it the batch.
    """
    _, _, first, last = place.span
    requests, rows = place.requests, place.part
    among = place.among(first, last)
    crowd = _usual_crowd(among, calm)
    crowded = among >= np.maximum(2 * crowd, crowd + 2)
    if not crowded.any():
        return
    tokens = np.maximum(requests.output[rows] - 1, 0)
    usual_token = reference.each("output_token", rows)
    decode = PHASE["decode"]
    lost = ledger.charged_in("decode", rows)
    counted = (tokens > 3) & (usual_token > 0) & requests.whole[rows]  # noqa: PLR2004
    rate = (requests.phases[rows, decode] - lost) / np.maximum(tokens, 1)
    made = place.bins.spread(first, last, requests.output[rows] * requests.scale) / place.bins.step
    demand = place.bins.mean(made, first, last)
    usual = float(np.median(demand[calm])) if calm.any() else 0.0
    more = np.where((demand >= BUSIER * usual) & crowded, among - crowd, 0.0)
    if not more.any():
        return
    groups = [counted & calm, counted & ~calm, counted & (calm | (demand >= MUCH_BUSIER * usual))]
    if place.cost is not None and np.isfinite(place.cost.sequence):
        steep = place.cost.sequence
    else:
        steep = max(_slope(among[group], rate[group], demand[group]) for group in groups)
    slope = np.minimum(steep, SLOPE_LIMIT * usual_token)
    step = slope * more
    crowded = (more > 0) & counted
    above = ledger.left("decode", rows)
    if (step * tokens)[crowded].sum() < EXPLAINED * above[crowded].sum():  # something else slowed them
        return
    ledger.take("batch_interference", ("decode",), step * tokens, rows)
    ledger.take("batch_interference", ("stall", "prefill", "queue"), 2 * step, rows)


def charge_failures(ledger: Ledger, requests: Requests) -> None:
    """``upstream_error``: what a request that failed took, and nothing else has been charged for."""
    ledger.take("upstream_error", _ALL, np.inf, requests.failed)


def _apart(spans: Sequence[tuple[float, float]], others: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans that overlap none of the others."""
    return [span for span in spans if not any(a < span[1] and span[0] < b for a, b in others)]


def _usual_crowd(among: Floats, calm: Flags) -> float:
    return float(np.mean(among[calm])) if calm.any() else float(np.quantile(among, 0.25)) if len(among) else 0.0


def _crowd(place: Place, calm: Flags) -> float:
    _, _, first, last = place.span
    crowd = _usual_crowd(place.bins.mean(place.decoding, first, last), calm)
    return max(2 * crowd, crowd + 2)


def _slope(among: Floats, rate: Floats, demand: Floats) -> float:
    """Seconds a token that one more sequence costs, by what differs between requests of little and of much demand.

    A server that is slow for any reason holds more sequences, so that time a token and sequences go together anyway.
    Demand does not follow from slowness: the estimate is that of Wald (*Annals of Mathematical Statistics* 11, 1940),
    the difference in time a token over that in sequences between the thirds of most and of least demand.
    """
    if len(rate) < 12:  # noqa: PLR2004 - a third has four
        return 0.0
    order = np.argsort(demand, kind="stable")
    third = len(order) // 3
    little, much = order[:third], order[-third:]
    if np.median(demand[much]) < BUSIER * np.median(demand[little]):
        return 0.0
    apart = float(np.median(among[much]) - np.median(among[little]))
    return max(float(np.median(rate[much]) - np.median(rate[little])) / apart, 0.0) if apart >= 1 else 0.0


def _around(late: Floats, tenants: Ints, at: Floats, wanted: Flags) -> Floats:
    """Median of a value among the requests of other tenants within some seconds of a time; NaN where there are none.

    Args:
        late: The value of each request.
        tenants: Whose it is.
        at: Its time, seconds.
        wanted: For which requests; 0 for the others.
    """
    usual = np.zeros(len(late))
    slot = np.floor(at / 10).astype(np.int64)
    for one in np.unique(slot[wanted]):
        near = np.flatnonzero(np.abs(slot - one) <= 1)
        for tenant in np.unique(tenants[wanted & (slot == one)]):
            others = near[tenants[near] != tenant]
            middle = float(np.median(late[others])) if len(others) else np.nan
            usual[wanted & (slot == one) & (tenants == tenant)] = middle
    return usual
