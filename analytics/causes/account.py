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

    from analytics.causes.arrays import Flags, Floats, Ints
    from analytics.causes.charge import Part
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
        origin_ms: Unix ms of the origin that times are seconds since.
        parted: What `who.parts_of` found.
    """

    requests: Requests
    reference: Reference
    ledger: Ledger
    places: list[Place] = field(default_factory=list)
    counted: Flags = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    events: Sequence[Event] = ()
    expected: Floats = field(default_factory=lambda: np.empty(0))
    noise: dict[tuple[str, str], Noise] = field(default_factory=dict)
    origin_ms: int = 0
    parted: dict[tuple[str, bytes], list[Part]] = field(default_factory=dict)

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
    work = work_changes(requests, reference)
    expected = list(reference.expected.T)
    for cause, seconds in work.items():
        phase = PHASE[_PHASE_OF[cause]]
        expected[phase] = expected[phase] - seconds
    excess = np.stack([took - usual for took, usual in zip(requests.phases.T, expected, strict=True)]).T
    known = reference.known
    # the end of one that neither failed nor was answered was the client's choice
    excess[np.flatnonzero(~known | ~(requests.whole | requests.failed))] = 0.0
    # one that failed took what it took above a good one's; of its phases, waiting is as good as anybody's
    lost = np.flatnonzero(known & requests.failed)
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
    whole = sum(expected, start=np.zeros(len(requests)))
    made = Account(requests, reference, ledger, places, counted, evidence.events, whole, origin_ms=evidence.origin_ms)
    _judge(made, kept)
    return made


def _judge(account: Account, kept: Kept) -> None:
    """Learn each deployment's noise, and give back what is no more than that."""
    requests, ledger = account.requests, account.ledger
    charged = {cause: ledger.of(cause) for cause in ledger.causes}
    for code, deployment in enumerate(requests.deployment.names):
        of_it = requests.deployment.codes == code
        if not of_it.any():
            continue
        usual, window = _Calm(account, of_it), np.flatnonzero(account.counted & of_it)
        account.noise[deployment, ""] = Noise(usual.blocks, 0.0, 0.0)
        for cause in ledger.causes:
            noise = account.noise[deployment, cause] = Noise.of(usual.loads(charged[cause]))
            if not _stands(account, charged[cause], noise.with_(kept.noise_of(deployment, cause)), window):
                ledger.give_back(cause, of_it)


def _contend(ledger: Ledger, place: Place, places: list[Place], reference: Reference) -> None:
    calm = reference.calm[place.part]
    deployment = place.requests.deployment.codes[place.part]
    peers = [
        other
        for other in places
        if other is not place and len(deployment) and other.requests.deployment.codes[other.rows[0]] == deployment[0]
    ]
    contention.charge_standstill(ledger, place, reference)
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


def _stands(account: Account, charged: Floats, noise: Noise, window: Ints) -> bool:
    """Whether a cause is more than noise in one deployment.

    Args:
        account: The account.
        charged: Seconds of each request charged to the cause.
        noise: What is known of that.
        window: Places of the deployment's requests that the account is about.
    """
    seconds, expected, known = charged[window], account.expected[window], account.requests.known
    hit = (seconds >= HIT * np.maximum(expected, 1e-6)) & (seconds > 0)
    if known(window[hit]) < max(HIT_LEAST, HIT_SHARE * known(window)):
        return False
    load = seconds.sum() / max(expected.sum(), 1e-9)
    # a few that lost much count as much as many that lost little
    if load < MATTERS and seconds[hit].sum() < expected[hit].sum():
        return False
    if noise.blocks < 2:  # noqa: PLR2004 - one block does not differ
        return True
    # few blocks know little of how they differ; close to the quantile of Student's t that 4 is for many
    sigmas = SIGMAS * (1 + 6 / (noise.blocks - 1))
    return bool(load > noise.mean + sigmas * noise.deviation)


class _Calm:
    """Calm blocks of the instances of a deployment, to be asked what was charged in them.

    A fault reaches into the requests that were open when it began: without those of the reference that the window found
    open, and without blocks beside one that is not calm, where there are others.

    Args:
        account: The account.
        of_it: The deployment's requests.
    """

    def __init__(self, account: Account, of_it: Flags) -> None:
        reference, requests = account.reference, account.requests
        n = int(reference.block.max(initial=0)) + 3
        size = len(requests.instance.names) * n
        calm = of_it & reference.calm & (~account.counted | reference.inside)
        open_still = ~requests.inside & (requests.end > requests.start[requests.inside & of_it].min(initial=np.inf))
        wild = np.flatnonzero(of_it & requests.whole & (~requests.inside | reference.inside) & ~reference.calm)
        beside = np.convolve(np.bincount(_block(account, wild, n), minlength=size) > 0, [1, 1, 1], "same") > 0
        for those, blocks in ((calm & ~open_still, ~beside), (calm, np.ones(size, dtype=np.bool_))):
            self._rows = np.flatnonzero(those)
            self._place = _block(account, self._rows, n)
            base = np.bincount(self._place, account.expected[self._rows], size)
            self._chosen = np.flatnonzero((base > 0) & blocks)
            self._base = np.maximum(base[self._chosen], 1e-9)
            if len(self._chosen) > 1:
                break

    @property
    def blocks(self) -> int:
        """How many."""
        return len(self._chosen)

    def loads(self, charged: Floats) -> Floats:
        """A cause's load in each block.

        Args:
            charged: Seconds of each request of the account charged to it.
        """
        sums = np.bincount(self._place, charged[self._rows], int(self._chosen.max(initial=0)) + 1)
        loads: Floats = sums[self._chosen] / self._base
        return loads


def _block(account: Account, rows: Ints, blocks: int) -> Ints:
    """A number for each request's instance and block, with room on both sides."""
    place: Ints = account.requests.instance.codes[rows] * blocks + account.reference.block[rows] + 1
    return place
