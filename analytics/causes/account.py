"""The account of a window: reference, work change, contention, rate change, and what is left; then what is noise.

The same charges are made for the calm requests of the reference, block by block. A cause stands where its share of the
reference's seconds lies above what it has in those blocks by more than they differ among each other, where it hit some
requests noticeably, and where it matters; what does not stand is nobody's again and unexplained.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes import adapters, contention, gpus, speculation, transfers
from analytics.causes.charge import Ledger
from analytics.causes.kept import Kept, Noise
from analytics.causes.place import Place, places_of
from analytics.causes.rate import charge_rates
from analytics.causes.reference import Reference, reference_of
from analytics.causes.table import PHASE
from analytics.causes.unstreamed import parted
from analytics.causes.work import work_changes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analytics.causes.arrays import Flags, Floats
    from analytics.causes.table import Event, Evidence, Requests

SIGMAS: Final = 4.0
"""Standard deviations of blocks by which a cause must lie above the reference."""
MATTERS: Final = 0.1
"""Share of the reference's seconds of the window, or of those that it hit, below which a cause is not told."""
HIT: Final = 0.25
"""Share of its own reference that a request must have lost to a cause to count as hit by it."""
HIT_LEAST: Final = 3
HIT_SHARE: Final = 0.01
"""Requests of the window that a cause has to hit: so many, and this share."""
_PHASE_OF: Final = {"longer_prompts": "prefill", "cold_prefix_cache": "prefill", "longer_outputs": "decode"}


@dataclass
class Account:
    """An account.

    Attributes:
        requests: All requests, those that know no phases with what may be told of them (`unstreamed`).
        reference: What their work costs.
        ledger: Who is charged.
        places: Instances.
        counted: Requests of the window that the account is about.
        events: What happened, to instances and elsewhere.
        expected: Seconds that each request's work costs, changes of work that were charged left out.
        noise: How much of each cause calm requests were charged with, by deployment and cause.
    """

    requests: Requests
    reference: Reference
    ledger: Ledger
    places: list[Place] = field(default_factory=list)
    counted: Flags = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    events: Sequence[Event] = ()
    expected: Floats = field(default_factory=lambda: np.empty(0))
    noise: dict[tuple[str, str], Noise] = field(default_factory=dict)

    @property
    def asked(self) -> Flags:
        """Requests of the account that the question is about."""
        return self.counted & self.requests.selected


def account_of(evidence: Evidence, kept: Kept | None = None) -> Account:
    """The account of all requests of the window, whoever is asked about.

    Args:
        evidence: Requests, and what is known beside them.
        kept: References and noise that were kept before the window.
    """
    kept = kept or Kept()
    evidence = parted(evidence)
    requests = evidence.requests
    reference = reference_of(requests, kept)
    expected = reference.expected.copy()
    work = work_changes(requests, reference)
    for cause, seconds in work.items():
        expected[:, PHASE[_PHASE_OF[cause]]] -= seconds
    excess = requests.phases - expected
    known = reference.known
    excess[~known] = 0.0
    excess[known & ~requests.whole & ~requests.failed] = 0.0  # its end was the client's choice
    # one that failed took what it took above a good one's; of its phases, waiting is as good as anybody's
    lost = known & requests.failed
    took = np.maximum(requests.e2e - reference.each("e2e"), 0.0)[lost]
    waited = np.minimum(np.maximum(excess[lost, PHASE["queue"]], 0.0), took)
    excess[lost] = 0.0
    excess[lost, PHASE["queue"]], excess[lost, PHASE["other"]] = waited, took - waited
    ledger = Ledger(excess)
    for cause, seconds in work.items():
        ledger.take(cause, (_PHASE_OF[cause],), seconds)
    places = places_of(evidence, reference.each("prefill_token"))
    for place in places:
        place.learn(reference.calm[place.part])
    for place in places:
        _contend(ledger, place, places, reference)
    charge_rates(ledger, requests, reference)
    contention.charge_failures(ledger, requests)
    counted = requests.inside & known & (requests.whole | requests.failed)
    seconds = expected.sum(axis=1)
    made = Account(requests, reference, ledger, places, counted, evidence.events, seconds)
    for code in np.unique(requests.deployment.codes):
        of_it = requests.deployment.codes == code
        deployment = requests.deployment.names[code]
        made.noise[deployment, ""] = Noise.of(_usual(made, "", of_it))
        for cause in ledger.causes:
            noise = made.noise[deployment, cause] = Noise.of(_usual(made, cause, of_it))
            if not _stands(made, cause, noise.with_(kept.noise_of(deployment, cause)), of_it):
                ledger.give_back(cause, of_it)
    return made


def _contend(ledger: Ledger, place: Place, places: list[Place], reference: Reference) -> None:
    calm = reference.calm[place.part]
    deployment = place.requests.deployment.codes[place.part]
    peers = [
        other
        for other in places
        if other is not place and len(deployment) and other.requests.deployment.codes[other.rows[0]] == deployment[0]
    ]
    contention.charge_standstill(ledger, place)
    gpus.charge_failed(ledger, place)
    contention.charge_readers(ledger, place, reference)
    contention.charge_cpu(ledger, place, calm)
    gpus.charge_throttled(ledger, place, peers, reference)
    speculation.charge_acceptance(ledger, place, reference)
    transfers.charge_transfers(ledger, place, reference)
    adapters.charge_slots(ledger, place)
    contention.charge_queue(ledger, place, peers, reference)
    contention.charge_preemptions(ledger, place, reference)
    contention.charge_prefills(ledger, place, reference, calm)
    contention.charge_batch(ledger, place, reference, calm)
    gpus.charge_slowed(ledger, place, reference)


def _stands(account: Account, cause: str, noise: Noise, of_it: Flags) -> bool:
    """Whether a cause is more than noise in one deployment."""
    seconds, expected = account.ledger.of(cause), account.expected
    window = account.counted & of_it
    hit = window & (seconds >= HIT * np.maximum(expected, 1e-6)) & (seconds > 0)
    known = account.requests.known
    if known(hit) < max(HIT_LEAST, HIT_SHARE * known(window)):
        return False
    load = seconds[window].sum() / max(expected[window].sum(), 1e-9)
    # a few that lost much count as much as many that lost little
    if load < MATTERS and seconds[hit].sum() < expected[hit].sum():
        return False
    if noise.blocks < 2:  # noqa: PLR2004 - one block does not differ
        return True
    # few blocks know little of how they differ; close to the quantile of Student's t that 4 is for many
    sigmas = SIGMAS * (1 + 6 / (noise.blocks - 1))
    return bool(load > noise.mean + sigmas * noise.deviation)


def _usual(account: Account, cause: str, of_it: Flags) -> Floats:
    """A cause's load in each calm block of an instance of a deployment.

    A fault reaches into the requests that were open when it began: without those of the reference that the window found
    open, and without blocks beside one that is not calm, where there are others.
    """
    reference, requests, expected = account.reference, account.requests, account.expected
    seconds = account.ledger.of(cause)
    n = int(reference.block.max(initial=0)) + 3
    place = requests.instance.codes * n + reference.block + 1
    size = len(requests.instance.names) * n
    calm = of_it & reference.calm & (~account.counted | reference.inside)
    open_still = ~requests.inside & (requests.end > requests.start[requests.inside & of_it].min(initial=np.inf))
    ground = of_it & requests.whole & (~requests.inside | reference.inside)
    wild = np.bincount(place[ground & ~reference.calm], minlength=size)
    beside = np.convolve(wild > 0, [1, 1, 1], "same") > 0

    def loads(rows: Flags) -> tuple[Floats, Flags]:
        base = np.bincount(place[rows], expected[rows], size)
        return np.bincount(place[rows], seconds[rows], size) / np.maximum(base, 1e-9), base > 0

    load, known = loads(calm & ~open_still)
    if (known & ~beside).sum() > 1:
        return load[known & ~beside]
    load, known = loads(calm)
    return load[known]
