"""Seconds as bins: what many intervals put into each, and what a request saw of a series while it lasted.

Everything is cumulative sums, so that it costs the number of intervals plus the number of bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from analytics.causes.arrays import Flags, Floats

_SHORTEST: Final = 1e-3
"""Seconds an interval has at least: below, its rate would eat the digits of the sums."""


@dataclass(frozen=True)
class Bins:
    """Bins of ``step`` seconds from ``first`` on.

    Args:
        first: Where the first begins, seconds since the origin.
        step: Seconds of each.
        n: How many.
    """

    first: float
    step: float
    n: int

    @classmethod
    def over(cls, first: float, last: float, most: int = 20_000) -> Bins:
        """Bins of a second, or of more where there would be more than ``most`` of them."""
        step = float(max(1, int(np.ceil((last - first) / most))))
        return cls(first, step, max(int(np.ceil((last - first) / step)), 1))

    @property
    def edges(self) -> Floats:
        """Starts of the bins and the end of the last: ``n + 1``."""
        return np.asarray(self.first + self.step * np.arange(self.n + 1), dtype=np.float64)

    def spread(self, start: Floats, end: Floats, mass: Floats) -> Floats:
        """What each bin gets when every ``mass`` lies evenly between its start and end; ``(n,)``."""
        end = np.maximum(end, start + _SHORTEST)
        rate = mass / (end - start)
        total = np.zeros(self.n + 1)
        for at, sign in ((start, 1.0), (end, -1.0)):
            place = np.clip(np.searchsorted(self.edges, at, side="right"), 0, self.n + 1)
            rates = np.cumsum(np.bincount(place, rate, self.n + 2))[: self.n + 1]
            moments = np.cumsum(np.bincount(place, rate * at, self.n + 2))[: self.n + 1]
            total += sign * (rates * self.edges - moments)
        return np.maximum(np.diff(total), 0.0)

    def level(self, start: Floats, end: Floats, height: Floats | float = 1.0) -> Floats:
        """Mean sum of heights in each bin: 1 each counts how many intervals are open."""
        return self.spread(start, end, np.maximum(end - start, 0.0) * height) / self.step

    def mean(self, series: Floats, start: Floats, end: Floats) -> Floats:
        """Mean of a series of the bins between each start and end; where they are one, its value there."""
        end = np.maximum(end, start + _SHORTEST)
        total = np.concatenate([[0.0], np.cumsum(series)]) * self.step
        edges = self.edges
        return (np.interp(end, edges, total) - np.interp(start, edges, total)) / (end - start)

    def held(self, time: Floats, values: Floats, age: float) -> Floats:
        """Values at times on the bins: the newest known in or before each, NaN where that is older than ``age`` s."""
        known = ~np.isnan(values)
        if not known.any():
            return np.full(self.n, np.nan)
        place = np.searchsorted(time[known], self.edges[1:], side="left") - 1
        newest = np.maximum(place, 0)
        fresh = (place >= 0) & (self.edges[1:] - time[known][newest] <= age + self.step)
        return np.where(fresh, values[known][newest], np.nan)


def overlap(start: Floats, end: Floats, spans: list[tuple[float, float]]) -> Floats:
    """Seconds of each interval inside of any of the spans; spans that overlap count once."""
    found = np.zeros(len(start))
    for first, last in united(spans):
        found += np.maximum(np.minimum(end, last) - np.maximum(start, first), 0.0)
    return found


def united(spans: list[tuple[float, float]], gap: float = 0.0) -> list[tuple[float, float]]:
    """Spans in order, those that overlap or lie within ``gap`` of each other as one."""
    found: list[tuple[float, float]] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def runs(flags: Flags, gap: int = 0) -> list[tuple[int, int]]:
    """Half-open index ranges where the flag holds, joined across at most ``gap`` places where it does not."""
    places = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    pairs = [(int(first), int(last)) for first, last in zip(places[::2], places[1::2], strict=True)]
    found: list[tuple[int, int]] = []
    for first, last in pairs:
        if found and first - found[-1][1] <= gap:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return found
