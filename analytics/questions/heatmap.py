"""Requests per cell of time and latency.

Exact from rows; without any derived from the engines' histograms, which know no tenant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from analytics.buckets import LOWEST, Buckets, bounds_as_edges, log_edges, rebucket
from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.latencies import histogram_rows
from analytics.signals import LatencySignal, signal_of
from base.named_sql import beside

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.answer import Answer, Exactness
    from analytics.inquiry import Reader
    from analytics.selection import Selection


_SQL: Final = beside(__file__)


@dataclass(frozen=True, slots=True)
class Heatmap:
    """Time × latency.

    Attributes:
        signal: Which latency.
        step: Seconds of a column.
        times: Starts of the columns.
        edges: Row edges in seconds, ascending, ``len(counts) + 1``; log2/4 from rows (each row 19 % above the last),
            the engine's buckets when derived (the last edge may be infinite).
        counts: ``counts[row][column]``: requests in that cell.
        exactness: ``exact`` or ``derived``.
    """

    signal: str
    step: int
    times: list[datetime]
    edges: list[float]
    counts: list[list[int]]
    exactness: Exactness


def ask(
    store: Reader,
    selection: Selection,
    *,
    signal: LatencySignal = "ttft_seconds",
    points: int = 120,
) -> Answer[Heatmap]:
    """Requests per cell of time × latency."""
    about = signal_of(signal)
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    grid = Grid.of(selection.window, points)
    fragments = {"value": about.value, "present": about.present}
    rows = inquiry.ask("cells_rows", fragments, lowest=LOWEST, step_ms=grid.step_ms) if cover.rows else []
    if rows:
        lowest = min(int(row["bucket"]) for row in rows)
        highest = max(int(row["bucket"]) for row in rows)
        cells = [[0] * len(grid.times) for _ in range(lowest, highest + 1)]
        for row in rows:
            cells[int(row["bucket"]) - lowest][grid.at(row["slot"])] += int(row["n"])
        result = Heatmap(signal, grid.step, grid.times, log_edges(lowest, highest), cells, "exact")
        return inquiry.answer(result, cover, level="rows", exactness="exact", rows=sum(map(sum, cells)))
    found = histogram_rows(inquiry, about, grid)
    whole = Buckets()
    for row in found:
        whole.add(row["bounds"], row["buckets"], row["n"], row["total"])
    shared, _ = whole.merged()
    cells = [[0] * len(grid.times) for _ in range(len(shared) + 1)] if shared else []
    for row in found if shared else ():
        for index, count in enumerate(rebucket(row["bounds"], row["buckets"], shared)):
            cells[index][grid.at(row["slot"])] += count
    edges = bounds_as_edges(shared) if shared else []
    result = Heatmap(signal, grid.step, grid.times, edges, cells, "derived")
    return inquiry.answer(result, cover, level="metrics", exactness="derived", rows=whole.n)
