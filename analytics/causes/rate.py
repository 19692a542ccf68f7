"""Rate change: the same work, slower: a version, an instance beside its peers, a model's own compute.

What the work phases still have above the reference is compared in ratios to what they should cost. A version is
charged where it was not there in the reference and its requests are slower than those of the others now; an instance
where it is slower than its peers now; a model where all of it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes.table import PHASE, WORK

if TYPE_CHECKING:
    from analytics.causes.charge import Ledger
    from analytics.causes.reference import Reference
    from analytics.causes.table import Flags, Floats, Requests

SLOWER: Final = 1.3
"""Times the reference, or the peers, from which a rate has changed."""
_LEAST: Final = 5


def charge_rates(ledger: Ledger, requests: Requests, reference: Reference) -> None:
    """``deploy``, ``slow_instance`` and ``model_slow``."""
    columns = [PHASE[phase] for phase in WORK]
    usual = reference.expected[:, columns].sum(axis=1)
    left = np.minimum(sum((ledger.left(phase) for phase in WORK), start=np.zeros(len(requests))), ledger.excess)
    served = requests.inside & requests.whole & reference.known & requests.engine_half & (usual > 0)
    if not served.any():
        return
    ratio = 1 + np.maximum(left, 0.0) / np.where(usual > 0, usual, 1.0)
    for deployment in np.unique(requests.deployment.codes[served]):
        mine = served & (requests.deployment.codes == deployment)
        calm = reference.calm & (requests.deployment.codes == deployment)
        for code in np.unique(requests.version.codes[mine]):
            of_it = mine & (requests.version.codes == code)
            old = calm & (requests.version.codes == code)
            new = requests.version.names[code] and not old.any() and calm.any()
            if new and of_it.sum() >= _LEAST and _middle(ratio, of_it) >= SLOWER:
                others = mine & ~of_it
                if others.sum() < _LEAST or _middle(ratio, of_it) >= SLOWER * _middle(ratio, others):
                    ledger.take("deploy", WORK, np.inf, of_it)
        for code in np.unique(requests.instance.codes[mine]):
            of_it = mine & (requests.instance.codes == code)
            others = mine & ~of_it
            if of_it.sum() < _LEAST or others.sum() < _LEAST:
                continue
            if _middle(ratio, of_it) >= SLOWER * _middle(ratio, others):
                ledger.take("slow_instance", WORK, np.inf, of_it)
        _charge_models(ledger, requests, reference, mine)


def _charge_models(ledger: Ledger, requests: Requests, reference: Reference, mine: Flags) -> None:
    infer = requests.phases[:, PHASE["compute_infer"]]
    usual = reference.expected[:, PHASE["compute_infer"]]
    for code in np.unique(requests.model.codes[mine]):
        of_it = mine & (requests.model.codes == code) & (infer > 0) & (usual > 0)
        if of_it.sum() >= _LEAST and np.median(infer[of_it] / usual[of_it]) >= SLOWER:
            ledger.take("model_slow", ("compute_infer", "compute_input", "compute_output"), np.inf, of_it)


def _middle(ratio: Floats, rows: Flags) -> float:
    return float(np.median(ratio[rows]))
