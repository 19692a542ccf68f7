"""Buckets: the arithmetic of server histograms, and the log scale that rows are counted on. Pure.

A server's histogram is a list of upper bounds and, beside it, counts that are not cumulative, one more than bounds:
the last is everything above. Its quantiles are interpolated inside a bucket as Prometheus' ``histogram_quantile``
does: https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LOWEST: Final = -57
"""Lowest log2/4 bucket: everything below 2^(-56/4) s = 61 µs, zeros included."""


@dataclass
class Buckets:
    """Histograms of one series, of one or several sets of bounds, added up.

    Attributes:
        by_bounds: Counts per set of bounds: servers of different versions have different ones.
        n: Observations.
        total: Their sum.
    """

    by_bounds: dict[tuple[float, ...], list[int]] = field(default_factory=dict)
    n: int = 0
    total: float = 0.0

    def add(self, bounds: Sequence[float], counts: Sequence[int], n: int, total: float) -> None:
        """Adds one histogram; ``counts`` has one more entry than ``bounds``."""
        key = tuple(float(bound) for bound in bounds)
        held = self.by_bounds.setdefault(key, [0] * (len(key) + 1))
        for index, count in enumerate(counts):
            held[index] += int(count)
        self.n += int(n)
        self.total += float(total)

    def merged(self) -> tuple[list[float], list[int]]:
        """Bounds that all share, and the counts between them: exact, only coarser where bounds differ."""
        shared = common_bounds(self.by_bounds)
        counts = [0] * (len(shared) + 1)
        for bounds, held in self.by_bounds.items():
            for index, count in enumerate(rebucket(bounds, held, shared)):
                counts[index] += count
        return shared, counts

    def mean(self) -> float | None:
        """Mean of all observations; None without any."""
        return self.total / self.n if self.n else None

    def quantiles(self, wanted: Iterable[float]) -> list[float | None]:
        """Interpolated quantiles."""
        bounds, counts = self.merged()
        return [quantile(bounds, counts, q) for q in wanted]


def common_bounds(sets: Iterable[Sequence[float]]) -> list[float]:
    """Bounds that every set has, ascending."""
    shared: set[float] | None = None
    for bounds in sets:
        shared = set(bounds) if shared is None else shared & set(bounds)
    return sorted(shared or ())


def rebucket(bounds: Sequence[float], counts: Sequence[int], shared: Sequence[float]) -> list[int]:
    """Counts over coarser bounds; ``shared`` is part of ``bounds``."""
    result = [0] * (len(shared) + 1)
    target = 0
    for index, count in enumerate(counts):
        below = bounds[index - 1] if index else -math.inf
        while target < len(shared) and below >= shared[target]:
            target += 1
        result[target] += count
    return result


def quantile(bounds: Sequence[float], counts: Sequence[int], q: float) -> float | None:
    """Linear inside the bucket that holds the quantile; above the last bound, that bound. None without observations."""
    total = sum(counts)
    if not total or not bounds:
        return None
    rank = q * total
    seen = 0
    for index, count in enumerate(counts):
        if count and seen + count >= rank:
            if index == len(bounds):
                return bounds[-1]
            lower = bounds[index - 1] if index else min(0.0, bounds[0])
            return min(bounds[index], lower + (bounds[index] - lower) * max(0.0, rank - seen) / count)
        seen += count
    return bounds[-1]


def edge(bucket: int) -> float:
    """Lower edge of a log2/4 bucket in seconds: ``2^(bucket/4)``, 0 for the lowest."""
    return 0.0 if bucket <= LOWEST else 2.0 ** (bucket / 4)


def log_edges(lowest: int, highest: int) -> list[float]:
    """Edges of the buckets from ``lowest`` to ``highest``, both included."""
    return [edge(bucket) for bucket in range(lowest, highest + 2)]


def bounds_as_edges(bounds: Sequence[float]) -> list[float]:
    """Edges of a server's buckets: 0, its bounds, infinity."""
    return [0.0, *bounds, math.inf]
