"""What speculative decoding yields: tokens a step makes a sequence, and what requests lose where fewer are accepted.

A sequence's step makes one token and those of its draft that are accepted: ``y = 1 + s · accepted / drafts``, where
``s`` is the share of steps with a draft (drafts over ``generated − accepted``) in calm seconds. So what is told is the
acceptance alone: a server that drafts less often, as some do with large batches, is another matter. Where ``y`` falls
from ``y₀`` and a step takes as long as ever, decoding takes ``y₀ / y`` times as long, and ``1 − y / y₀`` of it is lost.
Engines that count no accepted tokens tell ``y`` itself, of the last batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes.slower import are_slower, times_usual, worked
from analytics.causes.table import PHASE, new_versions

if TYPE_CHECKING:
    from analytics.causes.arrays import Flags, Floats
    from analytics.causes.charge import Ledger
    from analytics.causes.place import Place
    from analytics.causes.reference import Reference

LESS: Final = 0.05
"""Share of the usual yield below which less is chance."""
SLOWER_BY_YIELD: Final = 1.1
"""Times the usual that decoding has to take for a lower yield to be its reason."""
DRAFTED: Final = 0.1
"""Share of steps with a draft, when all is well, below which speculation makes no difference."""
MORE_ASKED: Final = 1.3
"""Times the arrivals of before from which a queue is those who came, and not what a step lacks."""
_DRAFTS_USUAL: Final = 100.0
_DRAFTS: Final = 10.0
"""Drafts below which their mean says nothing: in calm seconds, and while a request decodes."""
_SECONDS: Final = 10
"""Calm seconds with an acceptance length below which nobody knows what is usual."""


@dataclass(frozen=True)
class _Yield:
    """Tokens a step yields a sequence.

    Attributes:
        usual: In calm seconds.
        tokens, weight: Of each bin; their ratio, over whatever bins, is the yield there.
        least: Weight below which it is not known.
    """

    usual: float
    tokens: Floats
    weight: Floats
    least: float

    def lost(self, tokens: Floats, weight: Floats) -> Floats:
        """Share of the usual yield that is missing; 0 where nobody knows."""
        known = weight >= self.least
        return np.where(known, 1 - tokens / np.where(known, weight, 1.0) / self.usual, 0.0)


def charge_acceptance(ledger: Ledger, place: Place, reference: Reference) -> None:
    """``spec_acceptance_drop``: decoding by steps that yield less than in calm seconds.

    Charged where requests decoded in such seconds and took longer than calm ones by more than chance. Not those of a
    version that the reference has not: what is new about it is told by `rate`.
    """
    calm = reference.calm[place.part]
    made = _yields(place, calm)
    if made is None:
        return
    requests, bins = place.requests, place.bins
    _, _, first, last = place.span
    # a decode that is shorter than a second is judged by its second
    steps = np.maximum(last - first, bins.step) / bins.step
    lost = made.lost(*(bins.mean(series, first, last) * steps for series in (made.tokens, made.weight)))
    versions = requests.version.codes[place.part]
    new = np.isin(versions, new_versions(requests.version, versions[calm]))
    decode = worked(ledger, place)[:, PHASE["decode"]]
    hit = (lost >= LESS) & (decode > 0) & ~new
    if not are_slower(times_usual(ledger, place, reference, ("decode",)), hit, calm & ~hit, SLOWER_BY_YIELD):
        return
    place.yield_lost = np.maximum(made.lost(made.tokens, made.weight), 0.0)
    ledger.take("spec_acceptance_drop", ("decode",), np.where(hit, decode * lost, 0.0), place.part)


def yields_less(place: Place, first: int, last: int) -> bool:
    """Whether steps yielded so little in bins that those who waited there waited for that, no more having come."""
    if place.yield_lost is None:
        return False
    before = place.arrivals[max(first - 10 * max(last - first, 1), 0) : first]
    usual = float(before.mean()) if len(before) else 0.0
    # a queue outlasts those who came
    came = np.flatnonzero(place.arrivals[first:last])
    asked = float(place.arrivals[first : first + came[-1] + 1].mean()) if len(came) else 0.0
    lacking = float(place.yield_lost[first:last].mean()) >= 1 - 1 / SLOWER_BY_YIELD
    return lacking and (usual == 0 or asked <= MORE_ASKED * usual)


def shown(place: Place, calm: Flags, first: float, last: float) -> list[str]:
    """A sentence with what shows it between two times.

    Args:
        place: The instance.
        calm: Of each of its requests, whether the reference rests on it.
        first: Seconds since the origin.
        last: The same.
    """
    made = _yields(place, calm)
    during = (place.bins.edges[1:] > first) & (place.bins.edges[:-1] < last)
    if made is None or made.weight[during].sum() < made.least:
        return []
    own = made.tokens[during].sum() / made.weight[during].sum()
    return [f"{place.name}: a step yielded {own:.2f} tokens a sequence, {made.usual:.2f} when calm."]


def _yields(place: Place, calm: Flags) -> _Yield | None:
    """What steps yield; None where calm seconds do not tell, or speculation makes no difference in them."""
    accepted = place.counted("accepted")
    if not accepted.any():
        return _told(place, calm)
    usual = place.calm_bins(calm)
    drafts, generated = place.counted("drafts"), place.counted("generated")
    drafts_then, accepted_then, generated_then = (float(one[usual].sum()) for one in (drafts, accepted, generated))
    steps = generated_then - accepted_then
    if drafts_then < _DRAFTS_USUAL or steps <= 0 or drafts_then < DRAFTED * steps:
        return None
    share = min(drafts_then / steps, 1.0)
    return _Yield(1 + share * accepted_then / drafts_then, drafts + share * accepted, drafts, _DRAFTS)


def _told(place: Place, calm: Flags) -> _Yield | None:
    length = place.shown("acceptance_length")
    known = length >= 1
    then = length[place.calm_bins(calm) & known] if known.any() else length[:0]
    if len(then) < _SECONDS:
        return None
    return _Yield(float(then.mean()), np.where(known, length, 0.0), known.astype(np.float64), 0.5)
