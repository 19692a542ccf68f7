"""Why requests waited in an engine's queue: one reason for each episode of waiting.

An episode is a stretch of seconds in which somebody waited, with gaps of up to three; its reason is looked for in all
of it, since a full KV cache frees blocks for moments while a hundred wait.

- It followed upon a stand-still or a restart: the backlog of that; unless more came than usual, and filled the cache.
- The KV cache was nearly full in a tenth of it, or requests were preempted: ``kv_cache_full``.
- Computing prompts took much of the engine's time: ``prefill_interference``.
- The GPUs' clocks were held down, and work took longer for it: ``gpu_throttled``.
- Speculation yielded less, and no more came than before: ``spec_acceptance_drop``.
- Replicas beside it had room while this one got more than its share, without what failed and came again:
  ``router_imbalance``.
- The model's own compute took longer, and it finished no more than used to come: ``model_slow``, where requests do
  not share steps.
- The requests came from those whose requests fail, and not for the queue's fullness, or as many failed as came besides
  the usual: ``retry_storm``.
- Else ``queue_saturated``: more came than it takes at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from analytics.causes.gpus import held_up
from analytics.causes.grid import runs
from analytics.causes.speculation import yields_less
from analytics.causes.table import PHASE, WORK, new_versions
from base.vocabulary import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from analytics.causes.arrays import Flags, Floats, Ints
    from analytics.causes.place import Place
    from analytics.causes.reference import Reference

WAITED: Final = 0.25
"""Requests in the queue in the mean of a second from which somebody waited in it."""
FULL: Final = 0.9
"""Share of KV blocks in use from which the next request may find none."""
FULL_SHARE: Final = 0.1
PREFILL_SHARE: Final = 0.35
"""Share of an episode's time that computing prompts takes from which it is the prompts that the others wait for."""
SKEW: Final = 1.5
"""Times its even share of arrivals that an instance gets when a router is uneven."""
SLOWER: Final = 1.3
"""Times the usual compute time from which a model is slow."""
RETRIED: Final = 0.3
"""Share of a tenant's requests that failed for other reasons, from which its others are taken for retries."""
BESIDES: Final = 4.0
"""Standard deviations of the usual arrivals (Poisson) that have to come besides for failures to be asked about."""
FAILED_SHARE: Final = 0.5
"""Failures above the usual for each request above the usual, from which the latter are taken for retries."""
RETRY_SECONDS: Final = 10.0
"""Seconds before an episode in which those who came belong to it: a retry comes soon, quiet time thins its share."""
COLD_SHARE: Final = 0.5
"""Share of the additional prompt tokens that the cache used to hold, from which it is the cache that was lost."""
_GAP_BINS: Final = 3
_LEAST: Final = 5


def queue_labels(place: Place, peers: Sequence[Place], reference: Reference) -> dict[str, Floats]:
    """Per reason, 1 in the bins of its episodes and 0 elsewhere."""
    waiting = np.nan_to_num(place.sampled("waiting"))
    found: dict[str, Floats] = {}
    for first, last in runs((place.queued >= WAITED) | (waiting >= 1), _GAP_BINS):
        reason = _reason(place, peers, reference, first, last)
        found.setdefault(reason, np.zeros(place.bins.n))[max(first - 1, 0) : last + 1] = 1.0
    return found


def prompts_cause(place: Place, reference: Reference) -> str:
    """Why more prompt tokens were computed than usual.

    ``cold_prefix_cache`` where tenants that had found theirs in the cache did not and that is most of it, else
    ``prefill_interference``.
    """
    requests = place.requests
    window = requests.inside[place.part]
    calm = reference.calm[place.part] & ~window
    seconds = [float(np.ptp(place.span[0][rows])) if rows.sum() > 1 else 0.0 for rows in (window, calm)]
    if not all(seconds):
        return "prefill_interference"
    tokens, prompt = place.of(requests.uncached), place.of(requests.prompt)
    more = tokens[window].sum() / seconds[0] - tokens[calm].sum() / seconds[1]
    hit = place.of(reference.hit)
    missed = np.nan_to_num(hit) * prompt - place.of(requests.cached)
    known = np.isfinite(hit) & (prompt > 0)
    lost = float(missed[window & known].sum()) / seconds[0]
    return "cold_prefix_cache" if more > 0 and lost >= COLD_SHARE * more else "prefill_interference"


def _reason(place: Place, peers: Sequence[Place], reference: Reference, first: int, last: int) -> str:
    since = float(place.bins.edges[first])
    stood = (("gpu_fault", place.faulted), ("restart", place.restarts), ("engine_frozen", place.frozen))
    for cause, spans in stood:
        if any(begin - 2 <= since <= end + 2 for begin, end in spans):
            # of two faults at once: a backlog alone is of no more than came as ever
            besides = _besides(place, first, last)
            return "kv_cache_full" if besides is not None and besides.many and _full(place, first, last) else cause
    return next(_reasons(place, peers, reference, first, last))


def _reasons(place: Place, peers: Sequence[Place], reference: Reference, first: int, last: int) -> Iterator[str]:
    """Reasons that hold, in the order in which they count: what comes later is asked only where nothing did."""
    since, until = float(place.bins.edges[first]), float(place.bins.edges[last])
    if _full(place, first, last):
        yield "kv_cache_full"
    computing = float(np.mean(place.prefilled[first:last])) * place.prefill_token
    if computing >= PREFILL_SHARE * float(np.mean(place.ran[first:last])):
        yield prompts_cause(place, reference)
    if held_up(place, first, last):
        yield "gpu_throttled"
    if yields_less(place, first, last):
        yield "spec_acceptance_drop"
    uneven = _uneven(place, peers, first, last)
    # a server that batches computes longer the more are sent to it
    sent_here = uneven and _came_more(place, first, last)
    if not sent_here and _slower(place, reference, first, last):
        yield _slower_cause(place, peers, reference, since, until)
    if uneven:
        yield "router_imbalance"
    if _retried(place, since, until) or _failures_came_again(place, first, last):
        yield "retry_storm"
    yield "queue_saturated"


def _full(place: Place, first: int, last: int) -> bool:
    kv = place.sampled("kv")[max(first - 1, 0) : last + 1]
    kv = kv[np.isfinite(kv)]
    if not len(kv):
        return False
    preempted = float(np.nansum(place.sampled("preemptions")[first:last])) > 0
    return bool((kv >= FULL).mean() >= FULL_SHARE or (preempted and kv.max() >= FULL - 0.1))


def _slower_cause(place: Place, peers: Sequence[Place], reference: Reference, since: float, until: float) -> str:
    """Why its model is slow.

    ``deploy`` where most of the window's requests are of a version new since the reference, ``slow_instance`` where
    most replicas beside it compute as ever, else ``model_slow``.
    """
    version = place.requests.version
    window = place.requests.inside[place.part]
    codes = version.codes[place.part]
    new = new_versions(version, codes[reference.calm[place.part]])
    if window.any() and np.isin(codes[window], new).mean() > 0.5:  # noqa: PLR2004 - most
        return "deploy"
    ratios = [_pace(one, reference, since, until) for one in (place, *peers)]
    beside = [ratio for ratio in ratios[1:] if np.isfinite(ratio)]
    # of two faults at once one may be a peer's
    return "slow_instance" if beside and ratios[0] >= SLOWER * float(np.median(beside)) else "model_slow"


def _pace(place: Place, reference: Reference, since: float, until: float) -> float:
    """What requests of a time computed in sum, over what they should have; NaN of fewer than `_LEAST`.

    No median: an episode may begin before what it is about, and most of a backlog is worked off after it.
    """
    start, _, _, end = place.span
    infer, usual = (place.of(of[:, PHASE["compute_infer"]]) for of in (place.requests.phases, reference.expected))
    timed = (start < until) & (end > since) & (infer > 0) & (usual > 0)
    return float(infer[timed].sum() / usual[timed].sum()) if timed.sum() >= _LEAST else float("nan")


def _slower(place: Place, reference: Reference, first: int, last: int) -> bool:
    """Whether the model that was waited for computes more slowly, rather than is asked for more.

    Models of one server have queues of their own, and where a server batches, a request's compute is longer the more
    are asked for: a slow model is one that also finishes no more than what used to arrive when nobody waited.
    """
    edges = place.bins.edges
    since, until = float(edges[first]), float(edges[last])
    start, _, _, end = place.span
    requests = place.requests
    models = requests.model.codes[place.part]
    during = (start < until) & (end > since)
    waited = np.bincount(models[during], weights=place.of(requests.phases[:, PHASE["queue"]])[during])
    if not len(waited):
        return False
    mine = models == int(waited.argmax())
    infer, usual = (place.of(of[:, PHASE["compute_infer"]]) for of in (requests.phases, reference.expected))
    timed = mine & during & (infer > 0) & (usual > 0)
    if not timed.any():  # requests share steps
        return False
    ratio = float(infer[timed].sum() / usual[timed].sum())
    calm = _calm_before(place, first, last)
    came = place.bins.spread(start[mine], start[mine], np.full(int(mine.sum()), requests.scale)) / place.bins.step
    rate = float(np.mean(came[calm])) if len(calm) else 0.0
    # what fails has been worked on too
    ended = place.of((requests.whole | requests.failed).astype(float)).astype(bool)
    done = mine & ended
    went = place.bins.spread(end[done], end[done], np.full(int(done.sum()), requests.scale)) / place.bins.step
    # when most waited: an episode may begin long before what it is about
    crowd = (place.queued + np.nan_to_num(place.sampled("waiting")))[first:last] + 1e-9
    asked, finished = (float(np.average(each[first:last], weights=crowd)) for each in (came, went))
    return ratio >= SLOWER and (rate == 0 or (ratio * rate >= asked and finished < SLOWER * rate))


def _came_more(place: Place, first: int, last: int) -> bool:
    """Whether `SKEW` times as many came in an episode as when nobody waited before it."""
    calm = _calm_before(place, first, last)
    usual = float(np.mean(place.arrivals[calm])) if len(calm) else 0.0
    return usual > 0 and float(np.mean(place.arrivals[first:last])) >= SKEW * usual


def _calm_before(place: Place, first: int, last: int) -> Ints:
    """Bins before an episode, up to ten times its length, in which nobody waited."""
    length = max(last - first, 1)
    # not from a time when it served nobody yet
    begun = int(np.searchsorted(place.bins.edges, place.span[0].min(), side="right")) - 1
    before = slice(min(max(first - 10 * length, begun, 0), first), first)
    calm = (place.queued[before] < WAITED) & (np.nan_to_num(place.sampled("waiting")[before]) < 1)
    return np.flatnonzero(calm) + before.start


def _uneven(place: Place, peers: Sequence[Place], first: int, last: int) -> bool:
    if not peers:
        return False
    waits = [float(np.mean(peer.waiting[first:last])) for peer in peers]
    mine = float(np.mean(_sent(place)[first:last]))
    theirs = float(np.mean([np.mean(_sent(peer)[first:last]) for peer in peers]))
    return float(np.mean(place.waiting[first:last])) > 4 * (max(waits) + 0.25) and mine > SKEW * theirs


def _sent(place: Place) -> Floats:
    """Requests a second that a router chose this place for: what fails there and comes again is its client's choice."""
    failed = _of_their_own(place)
    if not failed.any():
        return place.arrivals
    start = place.span[0][failed]
    again = place.bins.spread(start, start, np.full(len(start), place.requests.scale)) / place.bins.step
    return place.arrivals - again


def _retried(place: Place, since: float, until: float) -> bool:
    start = place.span[0]
    rows = (start >= since - RETRY_SECONDS) & (start < until)
    if not rows.any():
        return False
    failed = _of_their_own(place)[rows].astype(float)
    tenants = place.requests.tenant.codes[place.part][rows]
    n = np.bincount(tenants)
    heaviest = int(n.argmax())
    return bool(n[heaviest] >= 0.5 * len(failed) and failed[tenants == heaviest].mean() >= RETRIED)


class _Besides(NamedTuple):
    """Requests beyond the usual, in the stretch of an episode and the time before it in which most of them came.

    Attributes:
        came: How many.
        failed: Of all in it, beyond the usual, for reasons of their own.
        many: Whether that is no chance.
    """

    came: float
    failed: float
    many: bool


def _besides(place: Place, first: int, last: int) -> _Besides | None:
    """What came besides the usual; None where too little is known of that.

    Sums and no shares: steady traffic thins a tenant's share. An episode may begin long before what it is about and end
    long after, so the stretch is that of the largest sum. The usual is the median second before the window: in those
    without a queue fewer came.
    """
    start = place.span[0]
    inside = place.requests.inside[place.part]
    if not inside.any():
        return None
    begun, until = (
        int(np.searchsorted(place.bins.edges, at, side="right")) - 1 for at in (start.min(), start[inside].min())
    )
    if until - begun < _LEAST:
        return None
    since = max(first - round(RETRY_SECONDS / place.bins.step), 0)
    counted, failed = (
        place.bins.spread(start, start, each) for each in (np.ones(len(start)), _of_their_own(place).astype(float))
    )
    usual = float(np.median(counted[begun:until]))
    sums = np.concatenate([[0.0], np.cumsum(counted[since:last] - usual)])
    rise = sums - np.minimum.accumulate(sums)
    end = int(rise.argmax())
    stretch = slice(since + int(sums[: end + 1].argmin()), since + end)
    length = stretch.stop - stretch.start
    failing = float(failed[stretch].sum()) - float(np.median(failed[begun:until])) * length
    return _Besides(float(rise[end]), failing, rise[end] >= max(_LEAST, BESIDES * (usual * length) ** 0.5))


def _failures_came_again(place: Place, first: int, last: int) -> bool:
    """Whether most of what came besides the usual is owed to requests that fail, each of which comes again."""
    besides = _besides(place, first, last)
    return besides is not None and besides.many and besides.failed >= max(_LEAST, FAILED_SHARE * besides.came)


def _of_their_own(place: Place) -> Flags:
    """Which requests failed, but not because of the queue: what a full queue refuses is no reason of its being full."""
    requests, rows = place.requests, place.part
    worked = sum((requests.phases[rows, PHASE[phase]] for phase in WORK), start=np.zeros(len(place.rows))) > 0
    refused = requests.outcome.among([Outcome.REJECTED.value])[rows] | (requests.engine_half[rows] & ~worked)
    failed: Flags = requests.failed[rows] & ~refused
    return failed
