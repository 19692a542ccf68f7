"""What is told of an account: causes ranked, whose work it was, what shows it and what to turn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analytics.causes import adapters, gpus, speculation, transfers
from analytics.causes.advice import ADVICE, DRIVER, SHARED, advice_for, stage_of
from analytics.causes.onset import onset_of, possible_onsets
from analytics.causes.table import PHASES
from base.formats import rounded

if TYPE_CHECKING:
    from analytics.causes.account import Account
    from analytics.causes.arrays import Flags, Floats
    from analytics.causes.onset import Onset
    from analytics.causes.place import Place
    from analytics.causes.steps import StepCost

LEAST_SHARE: Final = 0.01
"""Share of all charged seconds below which a cause is left to the unexplained of the list."""
OWNER_SHARE: Final = 0.5
"""Share of the work that took the time from which one tenant is named, and of the seconds one instance or version."""
MORE_CAME: Final = 0.2
"""Times the usual arrivals that have to come besides, for those to be taken as what filled a queue."""
_BY_STEPS: Final = frozenset({"batch_interference", "prefill_interference", "cold_prefix_cache"})
_ONSETS: Final = 20
"""Kinds of failures of which it is asked what they began with, the most frequent."""
_OF_GPUS: Final = frozenset({"gpu", "gpu_clock"})


@dataclass(frozen=True, slots=True)
class Cause:
    """Seconds charged to a cause.

    Attributes:
        cause: Its name.
        stage: Part of the account: ``work``, ``rate``, ``contention`` or ``failure``.
        phase: Phase that lost most by it.
        driver: What took the time, such as ``kv_tokens_held``.
        who: Whose: ``tenant``, ``instance``, ``version``, ``gpu`` (UUID); those that one stands out in.
        seconds: Charged in sum over the requests.
        share: Of the excess seconds.
        requests: How many it was charged to.
        evidence: Plain sentences with figures.
        advice: What to turn.
        runbook: Its page.
    """

    cause: str
    stage: str
    phase: str
    driver: str
    who: dict[str, str]
    seconds: float
    share: float
    requests: int
    evidence: list[str]
    advice: str
    runbook: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Requests that failed alike.

    Attributes:
        outcome, error_type: How.
        who: ``tenant`` and ``instance`` where more than half of them are of one.
        requests: How many.
        since_seconds: The first, seconds after the window's start.
        onset: What most of them began with, where that is known.
    """

    outcome: str
    error_type: str
    who: dict[str, str]
    requests: int
    since_seconds: float
    onset: Onset | None = None


def causes_of(account: Account, rows: Flags) -> list[Cause]:
    """Causes of the excess of some requests, most seconds first."""
    excess = float(account.ledger.excess[rows].sum())
    found = []
    sums = {cause: account.ledger.sums(cause, rows) for cause in account.ledger.causes}
    total = sum(float(by_phase.sum()) for by_phase in sums.values())
    for cause, by_phase in sums.items():
        seconds = float(by_phase.sum())
        if seconds <= 0 or seconds < LEAST_SHARE * total:
            continue
        each = account.ledger.of(cause) * rows
        who, share, work = _who(account, cause, each)
        engine, most = top_of(account, "engine", each)
        found.append(
            Cause(
                cause=cause,
                stage=stage_of(cause),
                phase=PHASES[int(by_phase.argmax())],
                driver=DRIVER[cause],
                who=who,
                seconds=seconds * account.requests.scale,
                share=seconds / excess if excess > 0 else 0.0,
                requests=round(int((each > 0).sum()) * account.requests.scale),
                evidence=_evidence(account, cause, each, who, share, work),
                advice=advice_for(cause, engine if most > OWNER_SHARE else ""),
                runbook=ADVICE[cause][1],
            )
        )
    return sorted(found, key=lambda one: (-one.seconds, one.cause))


def failures_of(account: Account, rows: Flags, from_seconds: float) -> list[Failure]:
    """Failed requests by how they failed, most first."""
    requests = account.requests
    failed = rows & requests.failed
    found: list[tuple[Failure, Flags]] = []
    pairs = np.stack([requests.outcome.codes, requests.error.codes])[:, failed]
    for outcome, error in {(int(a), int(b)) for a, b in pairs.T}:
        alike = requests.failed & (requests.outcome.codes == outcome) & (requests.error.codes == error)
        mine = alike & rows
        weights = mine.astype(np.float64)
        who = {
            name: top
            for name in ("tenant", "instance")
            if (top := top_of(account, name, weights)[0]) and top_of(account, name, weights)[1] > OWNER_SHARE
        }
        first = float(requests.start[mine].min()) - from_seconds
        count = round(int(mine.sum()) * requests.scale)
        found.append((Failure(requests.outcome.names[outcome], requests.error.names[error], who, count, first), alike))
    found.sort(key=lambda one: (-one[0].requests, one[0].outcome, one[0].error_type))
    known = possible_onsets(account) if found else []
    began = [onset_of(requests, alike, alike & rows, known, from_seconds) for _, alike in found[:_ONSETS]]
    return [replace(one, onset=onset) for (one, _), onset in zip_longest(found, began)]


def _who(account: Account, cause: str, each: Floats) -> tuple[dict[str, str], float, str]:
    """Whose work took the time, the tenant's share of it, and which work that is."""
    who: dict[str, str] = {}
    instance, share = top_of(account, "instance", each)
    if instance and share > OWNER_SHARE:
        who["instance"] = instance
    version, share = top_of(account, "version", each)
    if cause == "deploy" and version:
        who["version"] = version
    if DRIVER[cause] in _OF_GPUS:
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


def _evidence(account: Account, cause: str, each: Floats, who: dict[str, str], share: float, work: str) -> list[str]:
    requests = account.requests
    hit = each > 0
    told = [_lost(each[hit], requests.scale)]
    if "tenant" in who and work:
        told.append(f"Tenant {who['tenant']} has {share:.0%} of the {_WORDS[work]} beyond the usual.")
    for place in account.places:
        seconds = place.of(each)
        if seconds.sum() >= 0.2 * each.sum():  # the places that matter
            if DRIVER[cause] in _OF_GPUS:
                told += gpus.shown(place, cause, *_between_ends(place, seconds > 0))
            if cause in _SHOWN:
                calm = account.reference.calm[place.part]
                told += _SHOWN[cause](place, calm, *_between_ends(place, seconds > 0))
            told += _seen(place, cause, seconds)
            if place.cost is not None and cause in _BY_STEPS:
                told.append(_step_words(place.name, place.cost))
    return told


def _step_words(name: str, cost: StepCost) -> str:
    parts = [rounded(cost.alone), f"{rounded(cost.token * 1000)} a thousand prompt tokens"]
    if np.isfinite(cost.sequence):
        parts.insert(1, f"{rounded(cost.sequence)} a sequence")
    return f"{name}: a calm step takes {', '.join(parts)}."


def _between_ends(place: Place, hit: Flags) -> tuple[float, float]:
    """When the first of some requests of a place began and the last ended."""
    requests = place.requests
    return float(place.of(requests.start)[hit].min()), float(place.of(requests.end)[hit].max())


def _lost(seconds: Floats, scale: float) -> str:
    if len(seconds) * scale == 1:
        return f"The request lost {rounded(float(seconds[0]))}."
    return (
        f"{round(len(seconds) * scale)} requests lost {rounded(float(seconds.sum()) * scale)} in sum, "
        f"{rounded(float(np.median(seconds)))} in the median, {rounded(float(seconds.max()))} at most."
    )


def _seen(place: Place, cause: str, seconds: Floats) -> list[str]:
    requests = place.requests
    hit = seconds > 0
    begin, end = place.of(requests.start)[hit], place.of(requests.end)[hit]
    bins = (place.bins.edges[1:] > begin.min()) & (place.bins.edges[:-1] < end.max())
    figures: dict[str, Any] = {}
    for name, label in (("kv", "KV cache up to"), ("waiting", "waiting up to"), ("running", "running up to")):
        values = place.sampled(name)[bins]
        if np.isfinite(values).any():
            figures[label] = f"{np.nanmax(values):.0%}" if name == "kv" else f"{np.nanmax(values):.0f}"
    preempted = float(np.nansum(place.samples.preemptions[_between(place, begin.min(), end.max())])) if place.samples \
        else 0.0  # fmt: skip
    if preempted:
        figures["preemptions"] = f"{preempted:.0f}"
    if cause == "engine_frozen":
        spans = ", ".join(f"{rounded(last - first)}" for first, last in place.frozen)
        return [f"{place.name}: no token for {spans} with requests inside."]
    if not figures:
        return []
    return [f"{place.name}: " + ", ".join(f"{label} {value}" for label, value in figures.items()) + "."]


def _between(place: Place, first: float, last: float) -> Flags:
    assert place.samples is not None  # noqa: S101 - the caller asked
    return (place.samples.time >= first) & (place.samples.time <= last)


_SHOWN: Final = {
    "spec_acceptance_drop": speculation.shown,
    "kv_transfer": transfers.shown,
    "lora_slots": adapters.shown,
}
_WORDS: Final = {
    "held": "KV tokens held",
    "prefilled": "prompt tokens computed",
    "decoding": "sequences decoded",
    "inside": "requests inside",
    "arriving": "requests that came",
}
