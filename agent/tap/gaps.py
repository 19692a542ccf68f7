"""Gaps between the tokens of one stream: exact while there are few, bounded in memory however many come."""

from __future__ import annotations

import math
from array import array
from typing import Final

EXACT_GAPS: Final = 1_024
_GROWTH: Final = 1.02
_LOG_GROWTH: Final = math.log(_GROWTH)
_FLOOR_SECONDS: Final = 1e-6
_TOP_BUCKET: Final = math.ceil(math.log(86_400 / _FLOOR_SECONDS) / _LOG_GROWTH)


class Gaps:
    """Count, mean, maximum and quantiles of gaps in seconds.

    Quantiles are exact (nearest rank) up to ``EXACT_GAPS`` gaps; after that from buckets that grow by 2 %, as in
    DDSketch (Masson et al., VLDB 2019): relative error at most 1 %, at most 1,272 buckets.
    """

    __slots__ = ("_added", "_buckets", "_longest", "_recent", "_total")

    def __init__(self) -> None:
        self._recent = array("d")  # gaps that are not added up yet: whoever passes an event on has no time for more
        self._buckets: dict[int, int] = {}
        self._added = 0
        self._total = 0.0
        self._longest = 0.0

    def add(self, seconds: float) -> None:
        """Count one gap."""
        self._recent.append(seconds)
        if len(self._recent) > EXACT_GAPS:
            self._add_up()

    @property
    def count(self) -> int:
        """Gaps so far."""
        return self._added + len(self._recent)

    @property
    def total(self) -> float:
        """Their sum in seconds."""
        return self._total + sum(self._recent)

    @property
    def longest(self) -> float:
        """Longest gap in seconds, 0 without gaps."""
        return max(self._longest, max(self._recent, default=0.0))

    @property
    def mean(self) -> float:
        """Mean gap in seconds, 0 without gaps."""
        return self.total / self.count if self.count else 0.0

    def told(self) -> tuple[int, float | None, float | None, float | None, float | None]:
        """How many, and mean, median, 99th percentile and longest in seconds; ``None`` for those without gaps."""
        if not self.count:
            return 0, None, None, None, None
        return self.count, self.mean, self.quantile(0.5), self.quantile(0.99), self.longest

    def quantile(self, share: float) -> float:
        """Gap in seconds that ``share`` of the gaps do not exceed (nearest rank), 0 without gaps."""
        rank = max(1, math.ceil(share * self.count))
        if not self._buckets:
            return sorted(self._recent)[rank - 1] if self._recent else 0.0
        self._add_up()
        seen = 0
        for bucket, count in sorted(self._buckets.items()):
            seen += count
            if seen >= rank:
                middle = _FLOOR_SECONDS * _GROWTH**bucket * 2 / (1 + _GROWTH)
                return min(middle, self._longest)
        return self._longest

    def _add_up(self) -> None:
        """Put the recent gaps into buckets."""
        self._added, self._total, self._longest = self.count, self.total, self.longest
        buckets = self._buckets
        for seconds in self._recent:
            bucket = math.ceil(math.log(seconds / _FLOOR_SECONDS) / _LOG_GROWTH) if seconds > _FLOOR_SECONDS else 0
            bucket = min(bucket, _TOP_BUCKET)
            buckets[bucket] = buckets.get(bucket, 0) + 1
        del self._recent[:]
