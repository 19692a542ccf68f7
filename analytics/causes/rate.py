"""Rate change: the same work, slower: a version, an instance beside its peers, a model's own compute.

What the work phases still have above the reference is compared in ratios to what they should cost. A version is
charged where it was not there in the reference and its requests are slower than those of the others now; an instance
where it is slower than its peers now; a model where all of it is, unless more is asked of it and its batches grew by as
much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes.arrays import present
from analytics.causes.table import PHASE, WORK, new_versions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analytics.causes.arrays import Flags, Floats, Ints
    from analytics.causes.charge import Ledger
    from analytics.causes.reference import Reference
    from analytics.causes.table import Requests

SLOWER: Final = 1.3
"""Times the reference, or the peers, from which a rate has changed."""
SKEW: Final = 1.5
"""Times the usual, and times its peers', that come to an instance to which more are sent."""
_LEAST: Final = 5
_AROUND: Final = 5.0
"""Seconds before and after a request in which arrivals are counted."""


def charge_rates(ledger: Ledger, requests: Requests, reference: Reference) -> None:
    """``deploy``, ``slow_instance`` and ``model_slow``."""
    usual, above = np.zeros(len(requests)), np.zeros(len(requests))
    for phase in WORK:
        # what only the edge saw before the first token may be a queue as well
        told = requests.engine_half | (phase == "decode")
        usual += reference.expected[:, PHASE[phase]] * told
        above += ledger.left(phase) * told
    left = np.minimum(above, ledger.excess)
    served = requests.inside & requests.whole & reference.known & (usual > 0)
    if not served.any():
        return
    ratio = 1 + np.maximum(left, 0.0) / np.where(usual > 0, usual, 1.0)
    for deployment in present(requests.deployment.codes[served]):
        mine = served & (requests.deployment.codes == deployment)
        calm = reference.calm & (requests.deployment.codes == deployment)
        for code in new_versions(requests.version, requests.version.codes[calm]):
            of_it = mine & (requests.version.codes == code)
            if of_it.sum() >= _LEAST and _middle(ratio, of_it) >= SLOWER:
                others = mine & ~of_it
                if others.sum() < _LEAST or _middle(ratio, of_it) >= SLOWER * _middle(ratio, others):
                    ledger.take("deploy", WORK, np.inf, of_it)
        paces = dict(_paces(requests, ratio, mine))
        for code, (of_it, pace) in paces.items():
            # each beside it by itself: one that is flooded has most requests, and is no measure for the others
            beside = [other for peer, (_, other) in paces.items() if peer != code]
            if beside and pace >= SLOWER * float(np.median(beside)):
                others = [len(rows) for peer, (rows, _) in paces.items() if peer != code]
                sent_here = len(of_it) >= SKEW * float(np.mean(others)) and _by_its_batch(requests, reference, of_it)
                ledger.take("router_imbalance" if sent_here else "slow_instance", WORK, np.inf, of_it)
        _charge_models(ledger, requests, reference, mine)


def _paces(requests: Requests, ratio: Floats, mine: Flags) -> Iterator[tuple[int, tuple[Ints, float]]]:
    """Places of the requests of each instance that has `_LEAST` of them, and their median ratio."""
    rows = np.flatnonzero(mine)
    codes = requests.instance.codes[rows]
    for code in present(codes):
        of_it = rows[codes == code]
        if len(of_it) >= _LEAST:
            yield int(code), (of_it, float(np.median(ratio[of_it])))


def _by_its_batch(requests: Requests, reference: Reference, rows: Ints) -> bool:
    """Whether an instance computes longer because it is asked for more, and as much more at once."""
    infer, usual = requests.phases[:, PHASE["compute_infer"]], reference.expected[:, PHASE["compute_infer"]]
    told = False
    for code in present(requests.model.codes[rows]):
        slow = rows[(requests.model.codes[rows] == code) & (infer[rows] >= SLOWER * usual[rows]) & (usual[rows] > 0)]
        if not len(slow):
            continue
        asked_for, among = _crowds(requests, reference, code)
        if np.median(asked_for[slow]) < SKEW or np.median(infer[slow] / usual[slow] / among[slow]) >= SLOWER:
            return False
        told = True
    return told


def _charge_models(ledger: Ledger, requests: Requests, reference: Reference, mine: Flags) -> None:
    infer = requests.phases[:, PHASE["compute_infer"]]
    usual = reference.expected[:, PHASE["compute_infer"]]
    if not infer.any():  # its requests share steps
        return
    for code in present(requests.model.codes[mine]):
        of_it = mine & (requests.model.codes == code) & (infer > 0) & (usual > 0)
        if of_it.sum() < _LEAST or np.median(infer[of_it] / usual[of_it]) < SLOWER:
            continue
        asked_for, among = _crowds(requests, reference, code)
        slow = of_it & (infer >= SLOWER * usual)
        # a server that batches computes longer the more it is asked for; a slow one has larger batches too, unasked
        asked_more = _middle(asked_for, slow) >= SLOWER
        by_item = _middle(infer / np.where(usual > 0, usual, 1.0) / among, slow)
        cause = "batch_interference" if asked_more and by_item < SLOWER else "model_slow"
        ledger.take(cause, ("compute_infer", "compute_input", "compute_output"), np.inf, of_it)


def _crowds(requests: Requests, reference: Reference, model: int) -> tuple[Floats, Floats]:
    """Of each request of a model, times the usual: arrivals a second around it, and requests computed at once with it.

    1 for other models' requests, and where no usual one is known.
    """
    asked_for, among = np.ones(len(requests)), np.ones(len(requests))
    infer = requests.phases[:, PHASE["compute_infer"]]
    for instance in present(requests.instance.codes):
        mine = np.flatnonzero((requests.model.codes == model) & (requests.instance.codes == instance) & (infer > 0))
        calm = reference.calm[mine]
        if not calm.any():
            continue
        start, end = requests.start[mine], requests.end[mine]
        arrived = np.sort(start)
        rate = (np.searchsorted(arrived, start + _AROUND) - np.searchsorted(arrived, start - _AROUND)) / (2 * _AROUND)
        middle = end - infer[mine] / 2
        at_once = np.searchsorted(np.sort(end - infer[mine]), middle, "right") - np.searchsorted(np.sort(end), middle)
        for found, values in ((asked_for, rate), (among, np.maximum(at_once, 1))):
            found[mine] = values / max(float(np.median(values[calm])), 1e-9)
    return asked_for, among


def _middle(ratio: Floats, rows: Flags) -> float:
    return float(np.median(ratio[rows]))
