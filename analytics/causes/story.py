"""An account's causes as episodes, and what speaks against one of them having brought about another (`chains`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes.advice import SHARED
from analytics.causes.chains import Beginning, Chain, Episode, chained, links
from analytics.causes.grid import runs
from analytics.causes.mechanisms import BEGINNINGS, CROWDS, SLOWER, WORK
from analytics.causes.onset import Onset, PossibleOnset, possible_onsets
from analytics.causes.place import AFTER_SECONDS
from analytics.causes.queueing import RETRY_SECONDS
from analytics.causes.table import PHASE
from analytics.causes.table import WORK as WORK_PHASES
from analytics.causes.who import MORE_CAME, OWNER_SHARE, holder_of, top_of
from analytics.causes.work import FOUND

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from analytics.causes.account import Account
    from analytics.causes.arrays import Flags, Floats, Ints
    from analytics.causes.evidence import Cause
    from analytics.causes.place import Place

GAP_SECONDS: Final = 10.0
"""Seconds without a charge that end an episode."""
TOLD_SHARE: Final = 0.01
"""Share of all charged seconds below which a cause is in no chain."""
LEAST_SHARE: Final = 0.05
"""Share of a cause's seconds at an instance below which an episode is left out."""
_LEAST: Final = 5
_COMPUTE: Final = ("compute_input", "compute_infer", "compute_output")


def chains_of(account: Account, causes: Iterable[Cause], rows: Flags, from_seconds: float) -> list[Chain]:
    """Chains of some requests' causes, most seconds first.

    What led to what is found of all requests of the account, so that it is the same whoever asks; the seconds are those
    of the requests asked about.

    Args:
        account: The account.
        causes: Its causes, as told of ``rows``.
        rows: Requests whose seconds are looked at.
        from_seconds: When the window begins, seconds since the origin.
    """
    ledger = account.ledger
    sums = {
        cause: float(ledger.sums(cause, account.counted).sum()) for cause in dict.fromkeys(one.cause for one in causes)
    }
    told = [cause for cause, seconds in sums.items() if seconds >= TOLD_SHARE * sum(sums.values())]
    if not told:
        return []
    places = {place.name: place for place in account.places}
    episodes = [one for place in account.places for cause in told for one in _episodes(account, place, cause, rows)]

    def holds(one: Episode | Beginning, other: Episode) -> bool:
        place = places[other.instance]
        if isinstance(one, Beginning):
            if other.cause == "cold_prefix_cache":
                return _of_all(account, place, one)
            if other.cause in WORK:
                return _growth(account, place, other, _during(account, place, other)) >= 1 + MORE_CAME
            return not _by_a_newcomer(account, place, other)
        if (one.cause in WORK or one.cause not in SHARED) and _by_a_newcomer(account, place, other):
            return False
        return _same_tenant(account, place, one, other) and _more_than_the_crowd(account, place, one, other)

    found = links(episodes, _beginnings(account) if episodes else [], holds)
    return chained(found, from_seconds, float(account.ledger.excess[rows].sum()), account.requests.scale)


def _episodes(account: Account, place: Place, cause: str, rows: Flags) -> Iterator[Episode]:
    held = account.ledger.charged(cause, place.part)
    if not held.any():
        return
    whole, asked = (_series(place, held * those[place.part][:, None]) for those in (account.counted, rows))
    bins = place.bins
    total = whole.sum()
    deployment = account.requests.deployment
    name = deployment.names[deployment.codes[place.rows[0]]] if len(place.rows) else ""
    for first, last in runs(whole > 0, int(GAP_SECONDS // bins.step)):
        if whole[first:last].sum() >= LEAST_SHARE * total and asked[first:last].sum() > 0:
            part = slice(first, last)
            yield Episode(cause, place.name, name, bins.edges[:-1][part], whole[part], asked[part])


def _series(place: Place, held: Floats) -> Floats:
    """Seconds charged at a place in each bin, each in the phase that lost them; ``held``: of each request and phase."""
    found = np.zeros(place.bins.n)
    for phase, column in PHASE.items():
        hit = np.flatnonzero(held[:, column] > 0)
        if len(hit):
            since, until = _when(place, phase)
            found += place.bins.spread(since[hit], until[hit], held[hit, column])
    # what sums of sums leave where nothing is
    return np.where(found > 1e-9 * found.sum(), found, 0.0)


def _when(place: Place, phase: str) -> tuple[Floats, Floats]:
    """When each request of a place was in a phase."""
    requests = place.requests
    start, begin, first, last = place.span
    end = place.of(requests.end)
    if phase == "queue":
        return start, np.minimum(start + place.of(requests.phases[:, PHASE["queue"]]), end)
    if phase == "prefill":
        return begin, first
    if phase == "decode":
        return first, last
    if phase in _COMPUTE:
        computed = requests.phases[:, [PHASE[name] for name in _COMPUTE]].sum(axis=1)
        return np.maximum(end - place.of(computed), start), end
    return start, end


def _beginnings(account: Account) -> list[Beginning]:
    instance = account.requests.instance
    return [
        Beginning(
            Onset(one.event, one.what, one.instance, one.since),
            one.until,
            frozenset([one.instance] if one.instance else _names(one, instance.codes, instance.names)),
            one.slack,
        )
        for one in possible_onsets(account)
        if one.event in BEGINNINGS
    ]


def _names(one: PossibleOnset, codes: Ints, names: tuple[str, ...]) -> Iterator[str]:
    yield from (names[code] for code in np.unique(codes[one.rows]))


def _during(account: Account, place: Place, one: Episode) -> Flags:
    """Of the requests of a place those of the window that were inside in an episode."""
    start, end = place.of(account.requests.start), place.of(account.requests.end)
    during: Flags = account.counted[place.part] & (start <= one.until + place.bins.step) & (end >= one.since)
    return during


def _same_tenant(account: Account, place: Place, one: Episode, other: Episode) -> bool:
    """Whether more work asked for and what work took from others are not two tenants'."""
    if one.cause not in WORK or other.cause not in SHARED:
        return True
    rows = place.rows[_during(account, place, one)]
    own, usual = _asked_for(account, one.cause, rows)
    more = np.zeros(len(account.requests))
    more[rows] = np.maximum(own - usual, 0.0)
    asker, most = top_of(account, "tenant", more)
    holder, share, _ = holder_of(account, SHARED[other.cause], _each(account, place, other))
    return not (asker and holder) or most <= OWNER_SHARE or share < OWNER_SHARE or asker == holder


def _by_a_newcomer(account: Account, place: Place, one: Episode) -> bool:
    """Whether most of what took the time is work of a tenant that was not there before: it came by itself."""
    if one.cause not in SHARED:
        return False
    holder, share, _ = holder_of(account, SHARED[one.cause], _each(account, place, one))
    if not holder or share < OWNER_SHARE:
        return False
    tenant = account.requests.tenant
    return not bool((tenant.among([holder]) & account.reference.calm)[place.part].any())


def _asked_for(account: Account, cause: str, rows: Ints) -> tuple[Floats, Floats]:
    """Tokens of some requests that work changed in, and what their kinds usually have."""
    requests, name = account.requests, "output" if cause == "longer_outputs" else "uncached"
    own: Floats = getattr(requests, name)[rows]
    return own, account.reference.each(name, rows)


def _each(account: Account, place: Place, one: Episode) -> Floats:
    """Seconds of each request charged in an episode: to those that were inside then."""
    seconds = np.zeros(len(account.requests))
    seconds[place.part] = account.ledger.of(one.cause)[place.part] * _during(account, place, one)
    return seconds


def _more_than_the_crowd(account: Account, place: Place, one: Episode, other: Episode) -> bool:
    """Whether requests grew noticeably, and by more than their number: what a crowd brings about is its own."""
    if one.cause in CROWDS:
        return True
    calm = place.calm_bins(account.reference.calm[place.part])
    at = place.bins.edges[:-1]
    # what comes later than most of it was lost did not bring it about
    during = (at >= max(one.since, other.since - RETRY_SECONDS)) & (at <= other.middle)
    usual = float(place.arrivals[calm].mean()) if calm.any() else 0.0
    crowd = float(place.arrivals[during].mean()) / usual if usual > 0 and during.any() else 1.0
    return _growth(account, place, one, _during(account, place, one)) >= max(crowd, 1 + MORE_CAME)


def _growth(account: Account, place: Place, one: Episode, during: Flags) -> float:
    """Times the usual that a request asks for, or takes, in an episode.

    What tenants ask for that were not there before is no growth of it: they are more requests.
    """
    rows = place.rows[during]
    requests, reference = account.requests, account.reference
    if one.cause in WORK:
        tenant = requests.tenant.codes
        rows = rows[np.isin(tenant[rows], tenant[reference.calm])]
        own, usual = _asked_for(account, one.cause, rows)
        return float(own.sum()) / max(float(usual.sum()), 1e-9)
    charged, usually = account.ledger.charged(one.cause, rows), account.expected[rows]
    if one.cause in SLOWER:
        columns = [PHASE[phase] for phase in WORK_PHASES]
        charged, usually = charged[:, columns], reference.expected[rows][:, columns]
    return 1 + float(charged.sum()) / max(float(usually.sum()), 1e-9)


def _of_all(account: Account, place: Place, event: Beginning) -> bool:
    """Whether most tenants that had a cache to lose lost it: a process that begins anew forgets everybody's."""
    requests, reference = account.requests, account.reference
    start = place.of(requests.start)
    after = (start >= event.onset.seconds) & (start <= event.until + AFTER_SECONDS) & account.counted[place.part]
    hit = np.nan_to_num(place.of(reference.hit))
    prompt, cached = place.of(requests.prompt), place.of(requests.cached)
    tenant = requests.tenant.codes[place.part]
    kept = lost = 0
    for code in np.unique(tenant[after & (hit >= FOUND)]):
        mine = after & (tenant == code)
        if mine.sum() < _LEAST:
            continue
        usual = float((hit * prompt)[mine].sum())
        if float(cached[mine].sum()) < OWNER_SHARE * usual:
            lost += 1
        else:
            kept += 1
    return lost > kept
