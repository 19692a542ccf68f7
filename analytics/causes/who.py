"""Whose a charge is: the tenant whose work took the time, the instance, the version, the GPU.

A cause may be several's at once: two tenants that each fill the cache of one instance, two replicas that are slow. Each
has a part of its seconds, told by itself; nobody is named for what was lost where he was not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes import gpus
from analytics.causes.advice import DRIVER, SHARED
from analytics.causes.charge import Part

if TYPE_CHECKING:
    from analytics.causes.account import Account
    from analytics.causes.arrays import Flags, Floats
    from analytics.causes.place import Place

OWNER_SHARE: Final = 0.5
"""Share of the work that took the time from which one tenant is named, and of the seconds one instance or version."""
MORE_CAME: Final = 0.2
"""Times the usual arrivals that have to come besides, for those to be taken as what filled a queue."""
APART: Final = 0.1
"""Share of a cause's seconds from which an instance may have a part of its own."""
OF_GPUS: Final = frozenset({"gpu", "gpu_clock"})
"""Drivers that are a GPU."""
_OF_INSTANCES: Final = frozenset({"instance", "routing"})
"""Drivers that are an instance beside its peers: of two, both are to be known."""


def parts_of(account: Account, cause: str, rows: Flags) -> list[Part]:
    """A cause's seconds of some requests by whose they are, in sum all of them.

    Args:
        account: The account.
        cause: Its name.
        rows: Requests that are looked at.
    """
    key = cause, rows.tobytes()
    if key in account.parted:
        return account.parted[key]
    charged = account.ledger.of(cause)
    found = account.parted[key] = []
    for those in _apart(account, cause, rows & (charged > 0)):
        each = np.where(those, charged, 0.0)
        if each.any():
            found.append(Part(those, each, *_who(account, cause, each)))
    return found


def _apart(account: Account, cause: str, hit: Flags) -> list[Flags]:
    """Requests that lost any, parted where they lost it to different ones; the rest last."""
    each = np.where(hit, account.ledger.of(cause), 0.0)
    places = [place for place in account.places if place.of(each).sum() >= APART * each.sum()]
    if len(places) < 2 or not (cause in SHARED or DRIVER[cause] in _OF_INSTANCES):  # noqa: PLR2004 - one is not apart
        return [hit]

    def holder(those: Flags) -> tuple[str, float]:
        return holder_of(account, SHARED[cause], np.where(those, each, 0.0))[:2]

    of_whom: dict[str, Flags] = {}
    for place in places:
        here = np.zeros(len(hit), dtype=np.bool_)
        here[place.part] = hit[place.part]
        # who has most at an instance; whether that is enough to be named goes by all that is his
        who = holder(here)[0] if cause in SHARED else place.name
        of_whom[who] = of_whom.get(who, False) | here
    if len(of_whom) < 2:  # noqa: PLR2004 - one is all
        return [hit]
    named = {
        who: those for who, those in of_whom.items() if who and (cause not in SHARED or holder(those)[1] >= OWNER_SHARE)
    }
    rest = hit & ~np.logical_or.reduce([np.zeros(len(hit), dtype=np.bool_), *named.values()])
    if cause in SHARED and rest.any():
        who, share = holder(rest)
        if who in named and share >= OWNER_SHARE:  # his as well
            named[who], rest = named[who] | rest, np.zeros(len(hit), dtype=np.bool_)
    return [*named.values(), rest]


def _who(account: Account, cause: str, each: Floats) -> tuple[dict[str, str], float, str]:
    """Whose work took the time, the tenant's share of it, and which work that is."""
    who: dict[str, str] = {}
    instance, share = top_of(account, "instance", each)
    if instance and share > OWNER_SHARE:
        who["instance"] = instance
    version, share = top_of(account, "version", each)
    if cause == "deploy" and version:
        who["version"] = version
    if DRIVER[cause] in OF_GPUS:
        gpu, share = _gpu(account, cause, each)
        if gpu and share >= OWNER_SHARE:
            who["gpu"] = gpu
        return who, share, ""
    work = ""
    if cause in SHARED:
        tenant, share, work = holder_of(account, SHARED[cause], each)
    elif DRIVER[cause] in {"own_work", "reader", "failures"}:
        tenant, share = top_of(account, "tenant", each)
    else:
        return who, 0.0, ""
    if tenant and share >= OWNER_SHARE:
        who["tenant"] = tenant
    return who, share, work


def _gpu(account: Account, cause: str, each: Floats) -> tuple[str, float]:
    """The GPU that most of the seconds were lost by, and its share."""
    lost: dict[str, float] = {}
    for place in account.places:
        for gpu, seconds in gpus.blamed(place, cause, _lost_in(account, place, each)).items():
            lost[gpu] = lost.get(gpu, 0.0) + seconds
    total = sum(lost.values())
    if total <= 0:
        return "", 0.0
    gpu = max(lost, key=lambda name: lost[name])
    return gpu, lost[gpu] / total


def _lost_in(account: Account, place: Place, each: Floats) -> Floats:
    """Seconds that requests of a place lost in each bin, spread evenly over each request."""
    return place.bins.spread(place.of(account.requests.start), place.of(account.requests.end), place.of(each))


def top_of(account: Account, column: str, each: Floats) -> tuple[str, float]:
    """The value of a column of requests that lost most of some seconds, and its share; "" where nobody lost any."""
    names = getattr(account.requests, column)
    sums = np.bincount(names.codes, each, len(names.names))
    if not sums.sum() > 0:
        return "", 0.0
    return names.names[int(sums.argmax())], float(sums.max() / sums.sum())


def holder_of(account: Account, what: str, each: Floats) -> tuple[str, float, str]:
    """The tenant whose work was there when the seconds were lost, by what was more of it than in the reference.

    Where it is about requests inside: by those that came, if more of them did; who is inside may be waiting for it.
    """
    if what == "inside":
        more, usual = _more(account, "arriving", each)
        if sum(more.values()) >= MORE_CAME * usual:
            return *_most(more), "arriving"
    return *_most(_more(account, what, each)[0]), what


def _most(more: dict[str, float]) -> tuple[str, float]:
    total = sum(more.values())
    if total <= 0:
        return "", 0.0
    tenant = max(more, key=lambda name: more[name])
    return tenant, more[tenant] / total


def _more(account: Account, what: str, each: Floats) -> tuple[dict[str, float], float]:
    """By tenant, how much more work there was than in the reference while seconds were lost; and all that is usual."""
    more: dict[str, float] = {}
    usually = 0.0
    for place in account.places:
        seconds = place.of(each)
        if not seconds.sum() > 0:
            continue
        lost = _lost_in(account, place, each)
        usual = place.calm_bins(place.of(account.reference.calm.astype(float)) > 0)
        for tenant, series in place.by_tenant(what).items():
            there = float((series * lost).sum() / lost.sum())
            before = float(series[usual].mean()) if usual.any() else 0.0
            more[tenant] = more.get(tenant, 0.0) + max(there - before, 0.0) * float(seconds.sum())
            usually += before * float(seconds.sum())
    return more, usually
