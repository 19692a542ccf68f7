"""How one latency is distributed over the window.

Exact from rows; without any derived from the engines' histograms, which know no tenant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from analytics.buckets import LOWEST, Buckets, bounds_as_edges, log_edges
from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.latencies import histogram_rows
from analytics.signals import LatencySignal, signal_of
from base.formats import spell
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analytics.answer import Answer, Exactness
    from analytics.inquiry import Reader
    from analytics.selection import Selection


_SQL: Final = beside(__file__)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How a latency is distributed over the window.

    Attributes:
        signal: Which latency.
        edges: Bucket edges in seconds, ascending, ``len(counts) + 1``; the last may be infinite (null in JSON).
        counts: Requests per bucket (for ``itl_seconds`` from histograms: gaps).
        exactness: ``exact`` (log2/4 buckets over rows), ``derived`` (the engine's own buckets).
        bucket_note: How coarse the buckets are, in words for the panel; empty when exact.
    """

    signal: str
    edges: list[float]
    counts: list[int]
    exactness: Exactness
    bucket_note: str


def ask(
    store: Reader,
    selection: Selection,
    *,
    signal: LatencySignal = "ttft_seconds",
) -> Answer[Histogram]:
    """Distribution of one latency over the window."""
    about = signal_of(signal)
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    fragments = {"value": about.value, "present": about.present}
    rows = inquiry.ask("buckets_rows", fragments, lowest=LOWEST) if cover.rows else []
    if rows:
        found = {int(row["bucket"]): int(row["n"]) for row in rows}
        lowest, highest = min(found), max(found)
        counts = [found.get(bucket, 0) for bucket in range(lowest, highest + 1)]
        result = Histogram(signal, log_edges(lowest, highest), counts, "exact", "")
        return inquiry.answer(result, cover, level="rows", exactness="exact", rows=sum(counts))
    buckets = Buckets()
    for row in histogram_rows(inquiry, about, Grid.of(selection.window, 1)):
        buckets.add(row["bounds"], row["buckets"], row["n"], row["total"])
    bounds, counts = buckets.merged() if buckets.n else ([], [])
    edges = bounds_as_edges(bounds) if bounds else []
    result = Histogram(signal, edges, counts if bounds else [], "derived", _bucket_note(bounds))
    return inquiry.answer(result, cover, level="metrics", exactness="derived", rows=buckets.n)


def _bucket_note(bounds: Sequence[float]) -> str:
    if not bounds:
        return ""
    return f"The engine's buckets: nothing finer than {spell(bounds[0])}, nothing told apart above {spell(bounds[-1])}."
