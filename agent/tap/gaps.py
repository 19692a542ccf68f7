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

    __slots__ = ("_buckets", "_exact", "count", "longest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.longest = 0.0
        self._exact: array[float] | None = None
        self._buckets: dict[int, int] | None = None

    def add(self, seconds: float) -> None:
        """Count one gap."""
        self.count += 1
        self.total += seconds
        self.longest = max(self.longest, seconds)
        if self._buckets is not None:
            self._add_to_bucket(seconds)
            return
        if self._exact is None:
            self._exact = array("d")
        self._exact.append(seconds)
        if len(self._exact) > EXACT_GAPS:
            self._buckets = {}
            for gap in self._exact:
                self._add_to_bucket(gap)
            self._exact = None

    @property
    def mean(self) -> float:
        """Mean gap in seconds, 0 without gaps."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """Gap in seconds that ``share`` of the gaps do not exceed (nearest rank), 0 without gaps."""
        rank = max(1, math.ceil(share * self.count))
        if self._exact is not None:
            return sorted(self._exact)[rank - 1]
        seen = 0
        for bucket, count in sorted((self._buckets or {}).items()):
            seen += count
            if seen >= rank:
                middle = _FLOOR_SECONDS * _GROWTH**bucket * 2 / (1 + _GROWTH)
                return min(middle, self.longest)
        return self.longest

    def _add_to_bucket(self, seconds: float) -> None:
        bucket = math.ceil(math.log(seconds / _FLOOR_SECONDS) / _LOG_GROWTH) if seconds > _FLOOR_SECONDS else 0
        bucket = min(bucket, _TOP_BUCKET)
        buckets = self._buckets
        if buckets is not None:
            buckets[bucket] = buckets.get(bucket, 0) + 1
