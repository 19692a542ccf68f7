"""Whether some requests are slower than others, by more than chance, for a reason that was not charged before.

A mechanism that explains slower work by something measured beside it (a clock) is asked for both: that
the other thing changed, and that the requests took longer. What is positive in noise alone would be charged otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes.table import PHASE
from analytics.causes.work import CAUSES as WORK_CAUSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analytics.causes.arrays import Flags, Floats
    from analytics.causes.charge import Ledger
    from analytics.causes.place import Place
    from analytics.causes.reference import Reference

LEAST: Final = 5
"""Requests that have to be slower."""
ERRORS: Final = 2.0
"""Standard errors of the median by which they have to be."""
_MAD_TO_ERROR: Final = 1.4826 * 1.2533
"""From the median absolute deviation to a median's standard error times the root of n, of normal values."""


def worked(ledger: Ledger, place: Place) -> Floats:
    """``(n, len(PHASES))`` seconds of a place's requests less what others are charged with of them."""
    seconds: Floats = place.requests.phases[place.part].copy()
    for cause in ledger.causes:
        if cause not in WORK_CAUSES:
            seconds -= ledger.charged(cause, place.part)
    return seconds


def times_usual(ledger: Ledger, place: Place, reference: Reference, phases: Sequence[str]) -> Floats:
    """How many times their reference some phases of a place's requests took; NaN where that costs nothing."""
    columns = [PHASE[phase] for phase in phases]
    usual = reference.expected[place.part][:, columns].sum(axis=1)
    took = worked(ledger, place)[:, columns].sum(axis=1)
    known = (usual > 0) & place.requests.whole[place.part]
    return np.where(known, took / np.where(usual > 0, usual, 1.0), np.nan)


def are_slower(ratio: Floats, rows: Flags, others: Flags, times: float) -> bool:
    """Whether the median of some requests lies so many times above that of others, and not by chance.

    Without others 1 is what they are held against: what the reference costs.
    """
    mine = ratio[rows & np.isfinite(ratio)]
    theirs = ratio[others & np.isfinite(ratio)]
    if len(mine) < LEAST:
        return False
    middle = float(np.median(mine))
    usual = max(float(np.median(theirs)), 1e-9) if len(theirs) >= LEAST else 1.0
    error = _MAD_TO_ERROR * float(np.median(np.abs(mine - middle))) / np.sqrt(len(mine))
    return middle >= times * usual and middle - ERRORS * error > usual
