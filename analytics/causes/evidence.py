"""What is told of an account: causes ranked, whose work it was, what shows it and what to turn."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analytics.causes import adapters, gpus, speculation, transfers
from analytics.causes.advice import ADVICE, DRIVER, advice_for, stage_of
from analytics.causes.driving import driving_of
from analytics.causes.onset import onset_of, possible_onsets
from analytics.causes.shown import shown
from analytics.causes.table import PHASES
from analytics.causes.who import OF_GPUS, OWNER_SHARE, parts_of, top_of
from base.formats import rounded

if TYPE_CHECKING:
    from analytics.causes.account import Account
    from analytics.causes.arrays import Flags, Floats
    from analytics.causes.charge import Part
    from analytics.causes.driving import DrivingRequest
    from analytics.causes.onset import Onset
    from analytics.causes.place import Place
    from analytics.causes.steps import StepCost

_BY_STEPS: Final = frozenset({"batch_interference", "prefill_interference", "cold_prefix_cache"})
_ONSETS: Final = 20
"""Kinds of failures of which it is asked what they began with, the most frequent."""


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
        driving: The requests whose work took the time, most of it first, where it is others' work that did; see
            `driving.named` for their ids.
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
    driving: list[DrivingRequest] = field(default_factory=list)


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
    """Causes of the excess of some requests, most seconds first: one for each of whose they were (`who.parts_of`)."""
    excess = float(account.ledger.excess[rows].sum())
    found = []
    for cause in account.ledger.causes:
        for part in parts_of(account, cause, rows):
            by_phase = account.ledger.sums(cause, part.rows)
            seconds = float(by_phase.sum())
            engine, most = top_of(account, "engine", part.seconds)
            found.append(
                Cause(
                    cause=cause,
                    stage=stage_of(cause),
                    phase=PHASES[int(by_phase.argmax())],
                    driver=DRIVER[cause],
                    who=part.who,
                    seconds=seconds * account.requests.scale,
                    share=seconds / excess if excess > 0 else 0.0,
                    requests=round(int((part.seconds > 0).sum()) * account.requests.scale),
                    evidence=_evidence(account, cause, part),
                    advice=advice_for(cause, engine if most > OWNER_SHARE else ""),
                    runbook=ADVICE[cause][1],
                    driving=driving_of(account, cause, part),
                )
            )
    return sorted(found, key=lambda one: (-one.seconds, one.cause, sorted(one.who.items())))


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


def _evidence(account: Account, cause: str, part: Part) -> list[str]:
    requests, each = account.requests, part.seconds
    hit = each > 0
    told = [_lost(each[hit], requests.scale)]
    if "tenant" in part.who and part.work:
        told.append(f"Tenant {part.who['tenant']} has {part.share:.0%} of the {_WORDS[part.work]} beyond the usual.")
    for place in account.places:
        seconds = place.of(each)
        if seconds.sum() >= 0.2 * each.sum():  # the places that matter
            if DRIVER[cause] in OF_GPUS:
                told += gpus.shown(place, cause, *_between_ends(place, seconds > 0))
            if cause in _SHOWN:
                calm = account.reference.calm[place.part]
                told += _SHOWN[cause](place, calm, *_between_ends(place, seconds > 0))
            told += shown(account, place, cause, seconds > 0)
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
