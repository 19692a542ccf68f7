"""What some requests have more often than their baseline, and how sure that is.

Of a column of names each value is judged by itself: how likely it is that, drawn blindly from all requests, the
selected ones would have it at least as often (Fisher's exact test, one side). Of a column of numbers the place is
looked for at which the two distributions part the most (Kolmogorov and Smirnov's two-sample test). Since many values
are looked at, one of them is unusual by chance: the probabilities are those of all of them together (Benjamini and
Hochberg), so that where nothing differs, anything at all is told in one of a hundred questions.

Sources: https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats.false_discovery_control.html; R. G. Newcombe,
"Interval estimation for the difference between independent proportions", Statistics in Medicine 17 (1998), method 10.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

CHANCE: Final = 0.01
"""How often anything is told where nothing differs."""
LEAST_DIFFERENCE: Final = 0.05
"""Shares that lie nearer to each other are no news, however sure."""
LEAST_REQUESTS: Final = 5
_SURE: Final = 1.96


@dataclass(frozen=True, slots=True)
class Finding:
    """A value, or a range of numbers, that the selected requests have more often than their baseline.

    Attributes:
        column: Of `requests`.
        value: A name; None for a range.
        at_least: Lower end of a range, in it; None where it is open.
        below: Upper end of a range, not in it; None where it is open.
        selected: Selected requests that have it, and ``of_selected`` all that tell the column.
        baseline: Requests of the baseline, likewise.
        share: Of the selected ones, 0 to 1.
        usual_share: Of the baseline.
        least_difference: Lower end of the 95 % interval of ``share - usual_share``: what the ranking goes by.
        probability: That chance alone does as much in any of the values looked at, adjusted for their number.
        also: Other columns whose values these very requests have: ``{column: value}``.
    """

    column: str
    value: str | None
    at_least: float | None
    below: float | None
    selected: int
    of_selected: int
    baseline: int
    of_baseline: int
    share: float
    usual_share: float
    least_difference: float
    probability: float
    also: Mapping[str, str]


class Judged(NamedTuple):
    """A finding whose probability is its own, and a number that is the same for the very same requests (0: a range)."""

    finding: Finding
    requests: int


class Count(NamedTuple):
    """How many requests have a value.

    Attributes:
        column, value: Which.
        selected: Selected requests that have it, of ``of_selected`` that tell the column at all.
        baseline: Likewise, of the baseline.
        requests: A number that is the same for the very same requests.
    """

    column: str
    value: str
    selected: int
    of_selected: int
    baseline: int
    of_baseline: int
    requests: int


def names(counts: Iterable[Count]) -> list[Judged]:
    """Every value of columns of names, with its own probability, not adjusted."""
    found = [one for one in counts if one.of_selected and one.of_baseline]
    if not found:
        return []
    have, of_have, lack, of_lack = (np.array([one[place] for one in found]) for place in range(2, 6))
    chances = stats.hypergeom.sf(have - 1, of_have + of_lack, have + lack, of_have)
    return [
        Judged(_finding(one.column, one.value, None, None, one[2:6], float(chance)), one.requests)
        for one, chance in zip(found, chances, strict=True)
    ]


def numbers(column: str, selected: Sequence[float], baseline: Sequence[float]) -> list[Judged]:
    """The range of a column of numbers that the selection has most beyond its baseline; none where all are alike."""
    if len(selected) < LEAST_REQUESTS or len(baseline) < LEAST_REQUESTS:
        return []
    first, second = np.sort(np.asarray(selected, dtype=float)), np.sort(np.asarray(baseline, dtype=float))
    if first[0] == first[-1] == second[0] == second[-1]:
        return []
    chance = float(stats.ks_2samp(first, second, method="asymp").pvalue)
    places = np.unique(np.concatenate([first, second]))[1:]
    below = np.searchsorted(first, places), np.searchsorted(second, places)
    apart = below[0] / len(first) - below[1] / len(second)
    at = int(np.argmax(np.abs(apart)))
    place, fewer = float(places[at]), (int(below[0][at]), int(below[1][at]))
    if apart[at] < 0:  # the selected ones lie above
        counts = len(first) - fewer[0], len(first), len(second) - fewer[1], len(second)
        return [Judged(_finding(column, None, place, None, counts, chance), 0)]
    return [Judged(_finding(column, None, None, place, (fewer[0], len(first), fewer[1], len(second)), chance), 0)]


def ranked(found: Sequence[Judged], limit: int) -> list[Finding]:
    """What stands out, most telling first, at most ``limit``; values that the same requests have are one finding."""
    if not found:
        return []
    adjusted = stats.false_discovery_control([judged.finding.probability for judged in found])
    telling = [
        Judged(replace(one, probability=float(chance)), requests)
        for (one, requests), chance in zip(found, adjusted, strict=True)
        if chance < CHANCE and one.selected >= LEAST_REQUESTS and one.share - one.usual_share >= LEAST_DIFFERENCE
    ]
    telling.sort(
        key=lambda judged: (-judged.finding.least_difference, judged.finding.column, judged.finding.value or "")
    )
    kept: list[Judged] = []
    for one, requests in telling:
        alike = [place for place, other in enumerate(kept) if requests and other.requests == requests]
        if alike:
            first = kept[alike[0]].finding
            kept[alike[0]] = Judged(replace(first, also={**first.also, one.column: one.value or ""}), requests)
        else:
            kept.append(Judged(one, requests))
    return [judged.finding for judged in kept][:limit]


def _finding(
    column: str,
    value: str | None,
    at_least: float | None,
    below: float | None,
    counts: tuple[int, int, int, int],
    chance: float,
) -> Finding:
    selected, of_selected, baseline, of_baseline = counts
    share, usual = selected / of_selected, baseline / of_baseline
    low, _ = _wilson(selected, of_selected)
    _, high = _wilson(baseline, of_baseline)
    least = share - usual - float(np.hypot(share - low, high - usual))
    return Finding(column, value, at_least, below, *counts, share, usual, least, chance, {})


def _wilson(count: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (E. B. Wilson, 1927)."""
    share, square = count / of, _SURE**2
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = _SURE / (1 + square / of) * float(np.sqrt(share * (1 - share) / of + square / (4 * of * of)))
    return middle - half, middle + half
