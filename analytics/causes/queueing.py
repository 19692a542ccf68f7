"""Why requests waited in an engine's queue: one reason for each episode of waiting.

An episode is a stretch of seconds in which somebody waited, with gaps of up to three; its reason is looked for in all
of it, since a full KV cache frees blocks for moments while a hundred wait.

- It followed upon a stand-still or a restart: the backlog of that.
- The KV cache was nearly full in a tenth of it, or requests were preempted: ``kv_cache_full``.
- Computing prompts took much of the engine's time: ``prefill_interference``.
- Replicas beside it had room while this one got more than its share: ``router_imbalance``.
- The model's own compute took longer: ``model_slow``, where requests do not share steps.
- The requests came from those who had just been refused or failed: ``retry_storm``.
- Else ``queue_saturated``: more came than it takes at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes.grid import runs
from analytics.causes.table import PHASE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analytics.causes.place import Place
    from analytics.causes.reference import Reference
    from analytics.causes.table import Floats

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
"""Share of a tenant's requests that failed from which its others are taken for retries."""
COLD_SHARE: Final = 0.5
"""Share of the additional prompt tokens that the cache used to hold, from which it is the cache that was lost."""
_GAP_BINS: Final = 3


def queue_labels(place: Place, peers: Sequence[Place], reference: Reference) -> dict[str, Floats]:
    """Per reason, 1 in the bins of its episodes and 0 elsewhere."""
    waiting = np.nan_to_num(place.sampled("waiting"))
    found: dict[str, Floats] = {}
    for first, last in runs((place.queued >= 0.25) | (waiting >= 1), _GAP_BINS):  # noqa: PLR2004 - of a request
        reason = _reason(place, peers, reference, first, last)
        found.setdefault(reason, np.zeros(place.bins.n))[max(first - 1, 0) : last + 1] = 1.0
    return found


def prompts_cause(place: Place, reference: Reference) -> str:
    """Why more prompt tokens were computed than usual.

    ``cold_prefix_cache`` where tenants that had found theirs in the cache did not and that is most of it, else
    ``prefill_interference``.
    """
    requests = place.requests
    window = requests.inside[place.rows]
    calm = reference.calm[place.rows] & ~window
    seconds = [float(np.ptp(place.span[0][rows])) if rows.sum() > 1 else 0.0 for rows in (window, calm)]
    if not all(seconds):
        return "prefill_interference"
    tokens, prompt = place.of(requests.uncached), place.of(requests.prompt)
    more = tokens[window].sum() / seconds[0] - tokens[calm].sum() / seconds[1]
    missed = place.of(np.nan_to_num(reference.hit) * requests.prompt - requests.cached)
    known = np.isfinite(place.of(reference.hit)) & (prompt > 0)
    lost = float(missed[window & known].sum()) / seconds[0]
    return "cold_prefix_cache" if more > 0 and lost >= COLD_SHARE * more else "prefill_interference"


def _reason(place: Place, peers: Sequence[Place], reference: Reference, first: int, last: int) -> str:
    edges = place.bins.edges
    since, until = float(edges[first]), float(edges[last])
    for cause, spans in (("restart", place.restarts), ("engine_frozen", place.frozen)):
        if any(begin - 2 <= since <= end + 2 for begin, end in spans):
            return cause
    ratio = _compute_ratio(place, reference, since, until)
    computing = float(np.mean(place.prefilled[first:last])) * place.prefill_token
    reasons = (
        ("kv_cache_full", _full(place, first, last)),
        (prompts_cause(place, reference), computing >= PREFILL_SHARE),
        (_slower_cause(place, reference), ratio >= SLOWER and ratio >= _arrival_ratio(place, first, last)),
        ("router_imbalance", _uneven(place, peers, first, last)),
        ("retry_storm", _retried(place, since, until)),
    )
    return next((reason for reason, holds in reasons if holds), "queue_saturated")


def _full(place: Place, first: int, last: int) -> bool:
    kv = place.sampled("kv")[max(first - 1, 0) : last + 1]
    kv = kv[np.isfinite(kv)]
    if not len(kv):
        return False
    preempted = float(np.nansum(place.sampled("preemptions")[first:last])) > 0
    return bool((kv >= FULL).mean() >= FULL_SHARE or (preempted and kv.max() >= FULL - 0.1))


def _slower_cause(place: Place, reference: Reference) -> str:
    """``deploy`` where most of the window's requests are of a version new since the reference, else ``model_slow``."""
    version = place.requests.version
    window, calm = place.requests.inside[place.rows], reference.calm[place.rows]
    codes = version.codes[place.rows]
    if not window.any() or not calm.any():
        return "model_slow"
    known = np.isin(codes[window], np.unique(codes[calm & ~window])) | (codes[window] == _code(version.names, ""))
    return "deploy" if known.mean() < 0.5 else "model_slow"  # noqa: PLR2004 - most


def _code(names: tuple[str, ...], name: str) -> int:
    return names.index(name) if name in names else -1


def _compute_ratio(place: Place, reference: Reference, since: float, until: float) -> float:
    """Times the usual that compute took of a request in the time; 0 where requests share steps."""
    start, _, _, last = place.span
    infer = place.of(place.requests.phases[:, PHASE["compute_infer"]])
    usual = place.of(reference.expected[:, PHASE["compute_infer"]])
    rows = (start < until) & (last > since) & (infer > 0) & (usual > 0)
    return float(np.median(infer[rows] / usual[rows])) if rows.any() else 0.0


def _arrival_ratio(place: Place, first: int, last: int) -> float:
    """Times the usual rate of arrivals, by what came before."""
    length = max(last - first, 1)
    before = place.arrivals[max(first - 10 * length, 0) : first]
    usual = float(np.mean(before)) if len(before) else 0.0
    return float(np.mean(place.arrivals[first:last])) / usual if usual > 0 else np.inf


def _uneven(place: Place, peers: Sequence[Place], first: int, last: int) -> bool:
    if not peers:
        return False
    waits = [float(np.mean(peer.queued[first:last])) for peer in peers]
    mine = float(np.mean(place.arrivals[first:last]))
    theirs = float(np.mean([np.mean(peer.arrivals[first:last]) for peer in peers]))
    return float(np.mean(place.queued[first:last])) > 4 * (max(waits) + 0.25) and mine > SKEW * theirs


def _retried(place: Place, since: float, until: float) -> bool:
    start = place.span[0]
    rows = (start >= since - 60) & (start < until)
    if not rows.any():
        return False
    failed = place.of(place.requests.failed.astype(float))[rows]
    tenants = place.requests.tenant.codes[place.rows][rows]
    n = np.bincount(tenants)
    heaviest = int(n.argmax())
    return bool(n[heaviest] >= 0.5 * len(failed) and failed[tenants == heaviest].mean() >= RETRIED)
