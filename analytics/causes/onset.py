"""What failures began with: an event at the same instance or of the same version, right before the first of them.

A failure is told by its outcome and error type; of each such kind it is asked where its share rose at an event. What
was failing before, fails elsewhere as much, or began long after is not the event's. It stays a coincidence in time,
so it is told beside the failures and charges nobody: what a fault takes of requests is `gpus` and `contention`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes.advice import ONSETS
from analytics.causes.grid import runs
from analytics.causes.place import AFTER_SECONDS, SLACK_SECONDS
from analytics.causes.queueing import FULL
from analytics.causes.table import new_versions
from base.vocabulary import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analytics.causes.account import Account
    from analytics.causes.arrays import Flags, Floats, Ints
    from analytics.causes.place import Place
    from analytics.causes.table import Event, Requests

FAILING: Final = 0.1
"""Share of requests that fail alike from an event on, and three times that of before, for them to begin with it."""
SIGMAS: Final = 4.0
"""Standard deviations of a binomial of the share before by which more have to fail."""
_TIMES: Final = 3.0
_FEWEST: Final = 3
_LEAST: Final = 5
"""Requests that have to be known from before: without, nobody knows what began."""
_NEWEST: Final = 30
"""Requests right before an event that are looked at by themselves: what failed then began before it."""
_MOST: Final = 200
"""Happenings that are looked at, the newest."""
_GAP_BINS: Final = 3
_REFUSING: Final = (Outcome.REJECTED.value, Outcome.TIMEOUT.value)
"""What becomes of requests that an engine does not admit."""
_EVENTS: Final = {
    "deploy": "deploy",
    "version_changed": "deploy",
    "config_changed": "config_changed",
    "oom_kill": "oom_kill",
    "engine_frozen": "engine_frozen",
}


@dataclass(frozen=True, slots=True)
class Onset:
    """What failures began with.

    Attributes:
        event: One of `advice.ONSETS`.
        what: A sentence.
        instance: Where; empty where it is a version's, or where it happened at several.
        seconds: When it began, after the window's start; below zero before it.
    """

    event: str
    what: str
    instance: str
    seconds: float


@dataclass(frozen=True)
class PossibleOnset:
    """Something that failures may begin with.

    Attributes:
        event, what, instance: As of `Onset`.
        since, until: Seconds since the origin; the same for a moment.
        rows: Indices of requests that it may have hit.
        baseline: Indices of those that they are held against, of the time before.
        others: Indices of those beside them that it can't have hit; they must not fail alike.
    """

    event: str
    what: str
    instance: str
    since: float
    until: float
    rows: Ints
    baseline: Ints
    others: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def slack(self) -> float:
        """Seconds by which failures may come before it is told: a deploy is told as it begins."""
        return 0.0 if self.event in {"deploy", "config_changed"} else SLACK_SECONDS


def possible_onsets(account: Account) -> list[PossibleOnset]:
    """All that failures of an account may begin with, in order of `ONSETS` and time."""
    found = [one for place in account.places for one in _at(place)] + list(_of_versions(account))
    found = sorted(found, key=lambda one: -one.since)[:_MOST]
    order = list(ONSETS)
    return sorted(found, key=lambda one: (order.index(one.event), one.since))


def onset_of(
    requests: Requests, alike: Flags, rows: Flags, known: list[PossibleOnset], from_seconds: float
) -> Onset | None:
    """What requests that failed alike began with; None where that is nothing, or not of most of them.

    Args:
        requests: All requests.
        alike: Those that failed in one way, whoever asked.
        rows: Of these, those asked about.
        known: `possible_onsets`.
        from_seconds: When the window begins, seconds since the origin.
    """
    refused = bool(alike.any()) and bool(requests.outcome.among(_REFUSING)[alike].all())
    hit: dict[str, Flags] = {}
    by: dict[str, list[PossibleOnset]] = {}
    for one in known:
        if one.event == "kv_cache_full" and not refused:
            continue
        covered = _begun(requests.end, alike, one)
        if len(covered):
            hit.setdefault(one.event, np.zeros(len(requests), dtype=np.bool_))[covered] = True
            by.setdefault(one.event, []).append(one)
    for event, those in hit.items():
        if (those & rows).sum() * 2 > rows.sum():
            first = by[event][0]
            places = {one.instance for one in by[event]}
            return Onset(event, first.what, first.instance if len(places) == 1 else "", first.since - from_seconds)
    return None


def _begun(end: Floats, alike: Flags, one: PossibleOnset) -> Ints:
    """Indices of requests whose failing began with something; empty where it did not."""
    none = np.empty(0, dtype=np.int64)
    since, until = one.since - one.slack, one.until + AFTER_SECONDS
    mine = one.rows[end[one.rows] >= since]
    failed = mine[alike[mine]]
    near = failed[end[failed] < until]
    if len(near) < _FEWEST:
        return none
    # until the last of them: a server that is back soon fails few of a minute
    last = float(end[near].max())
    during = mine[end[mine] <= last]
    before = one.baseline[end[one.baseline] < since]
    before = before[np.argsort(end[before], kind="stable")]
    recent = before[end[before] >= since - AFTER_SECONDS]
    baselines = [before, *(part for part in (recent, recent[-_NEWEST:]) if len(part) >= _LEAST)]
    beside = one.others[(end[one.others] >= since) & (end[one.others] <= last)]
    baselines += [beside] if len(beside) >= _LEAST else []
    if len(before) < _LEAST or not all(_more(alike, near, during, baseline) for baseline in baselines):
        return none
    hit, more = [near], failed[end[failed] >= until]
    while len(more):  # as long as it goes on
        within = mine[(end[mine] >= until) & (end[mine] < until + AFTER_SECONDS)]
        still = within[alike[within]]
        if len(still) < _FEWEST or len(still) < FAILING * len(within):
            break
        hit.append(still)
        until += AFTER_SECONDS
        more = failed[end[failed] >= until]
    return np.concatenate(hit)


def _more(alike: Flags, failed: Ints, during: Ints, baseline: Ints) -> bool:
    """Whether far more failed, and not by chance: by the share of the baseline, one that failed added to it."""
    count, n = len(failed), max(len(during), 1)
    usual = float(alike[baseline].mean())
    chance = (float(alike[baseline].sum()) + 1) / (len(baseline) + 2)
    spread = float(np.sqrt(n * chance * (1 - chance)))
    return count >= max(FAILING, _TIMES * usual) * n and count - n * chance >= SIGMAS * spread


def _at(place: Place) -> Iterator[PossibleOnset]:
    """What happened to an instance."""
    restarts = place.restarts
    spans = [("restart", span, f"{place.name} was restarted") for span in restarts]
    spans += [("engine_frozen", span, f"{place.name} stood still") for span in place.frozen]
    spans += [
        ("instance_left", span, f"{place.name} did not answer with its metrics page")
        for span in place.down
        if span not in restarts
    ]
    full = np.nan_to_num(place.sampled("kv")) >= FULL
    edges = place.bins.edges
    spans += [
        ("kv_cache_full", (float(edges[first]), float(edges[last])), f"The KV cache of {place.name} was full")
        for first, last in runs(full, _GAP_BINS)
    ]
    spans += [("gpu_fault", (fault.time, fault.time), fault.what) for fault in place.faults]
    spans += [(_EVENTS[one.event], (one.time, one.time), one.message) for one in place.events if one.event in _EVENTS]
    for event, (since, until), what in spans:
        yield PossibleOnset(event, _bare(what), place.name, since, until, place.rows, place.rows)


def _of_versions(account: Account) -> Iterator[PossibleOnset]:
    """Versions that none of the reference has, and deploys that are told of no instance."""
    requests = account.requests
    calm = account.reference.calm
    for code, name in enumerate(requests.deployment.names):
        rows = np.flatnonzero(requests.deployment.codes == code)
        versions = requests.version.codes[rows]
        for new in new_versions(requests.version, versions[calm[rows]]):
            mine = rows[versions == new]
            if len(mine):
                first = float(requests.start[mine].min())
                what = f"Version {requests.version.names[new]} of {name or 'the deployment'} began to serve"
                yield PossibleOnset("deploy", what, "", first, first, mine, rows, rows[versions != new])
        for one in account.events:
            if one.event == "deploy" and not one.instance and one.deployment in {"", name}:
                mine = rows[_of_version(requests, rows, one)]
                yield PossibleOnset("deploy", _bare(one.message), "", one.time, one.time, mine, rows)


def _of_version(requests: Requests, rows: Ints, event: Event) -> Flags:
    """Of requests those of a version that an event names; all where it names none that is there."""
    named = requests.version.among([event.version])[rows] if event.version else np.zeros(len(rows), dtype=np.bool_)
    return named if named.any() else np.ones(len(rows), dtype=np.bool_)


def _bare(sentence: str) -> str:
    return sentence.removesuffix(".")
