"""How long requests take: percentiles over time.

Exact figures come from request rows. Where there are none, the engines' histograms give derived ones (wrong by up to
a bucket), and where only sums exist (Triton, llama.cpp) there is a mean and no percentile. A line says which. Metrics
know no tenant: under a tenant filter they are not used at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from analytics.answer import Answer, weakest
from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.latencies import LatencyLine, latency_lines
from analytics.question import Command, Option
from analytics.signals import LatencySignal, signal_of

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.inquiry import Reader
    from analytics.selection import Selection
    from analytics.series import By


COMMAND: Final = Command((Option("signal", "Which latency, such as ttft_seconds."),))


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles over time.

    Attributes:
        signal: Which latency.
        step: Seconds of a step.
        times: Starts of the steps.
        by: What the lines are split by.
        lines: Largest first, at most the asked number; `left_out` counts the rest.
        left_out: Lines not shown.
    """

    signal: str
    step: int
    times: list[datetime]
    by: By
    lines: list[LatencyLine]
    left_out: int


def ask(
    store: Reader,
    selection: Selection,
    *,
    signal: LatencySignal = "ttft_seconds",
    by: By = "all",
    points: int = 120,
    limit: int = 12,
) -> Answer[Percentiles]:
    """p50, p90, p95, p99 and mean per step of one latency, split by model, instance, ….

    Percentiles interpolate linearly between the two nearest requests (as numpy's default does); of more requests than
    `latencies.EXACT_LIMIT` they are estimated within 1 % and labelled ``derived``. A model or instance that has rows
    with this latency is told from rows alone, one that has none from metrics.
    """
    about = signal_of(signal)
    inquiry = Inquiry(store, selection)
    cover = inquiry.coverage()
    grid = Grid.of(selection.window, points)
    shown, left_out = latency_lines(inquiry, cover, about, grid, by, limit)
    exact = [line for line in shown if line.level == "rows"]
    return inquiry.answer(
        Percentiles(signal, grid.step, grid.times, by, shown, left_out),
        cover,
        level="rows" if exact else "metrics",
        exactness=weakest([line.exactness for line in shown]),
        rows=sum(line.rows for line in exact or shown),
    )
