"""Shapes of the answers about latency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.shapes import By
    from analytics.window import Exactness, Level


@dataclass(frozen=True, slots=True)
class LatencyLine:
    """Percentiles of one signal over time, for one model, instance or the whole selection; seconds.

    Attributes:
        name: What it is of; empty for the whole selection.
        level: ``rows`` or ``metrics``; a mixed selection has lines of both.
        exactness: ``means`` lines have ``mean`` and no percentile.
        rows: Requests behind it (``exact``, ``derived``) or requests counted by the server (``means``).
        count: Requests per step.
        mean, p50, p90, p95, p99: One value per step, None where the step has none.
        total: The same over the whole window: ``{"count", "mean", "p50", "p90", "p95", "p99", "max"}``.
    """

    name: str
    level: Level
    exactness: Exactness
    rows: int
    count: list[float]
    mean: list[float | None]
    p50: list[float | None]
    p90: list[float | None]
    p95: list[float | None]
    p99: list[float | None]
    total: dict[str, float | None]


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


@dataclass(frozen=True, slots=True)
class PhaseLine:
    """Mean seconds that a request spent in one phase.

    Attributes:
        phase: ``edge``, ``queue``, ``prefill``, ``decode``, ``stall``, ``compute_input``, ``compute_infer``,
            ``compute_output``, ``transit`` (between edge and server), ``frontend`` (inside the server, in none of its
            phases) or ``unaccounted`` (end-to-end time less all phases; negative when the two halves disagree).
        seconds: Mean per step; None in a step without requests.
        mean: Mean over the window.
        share: Of the mean end-to-end time, None without one.
        p99: 99th percentile over the window, from rows alone.
    """

    phase: str
    seconds: list[float | None]
    mean: float | None
    share: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Phases:
    """Where an average request spends its time; the phases add up to ``e2e``.

    Attributes:
        step: Seconds of a step.
        times: Starts of the steps.
        phases: In the order in which a request meets them; phases that nobody spent time in are left out.
        e2e: Mean end-to-end seconds per step.
        e2e_mean: Mean over the window.
        requests: Requests per step.
        exactness: ``exact`` from rows; ``means`` from the servers' sums.
    """

    step: int
    times: list[datetime]
    phases: list[PhaseLine]
    e2e: list[float | None]
    e2e_mean: float | None
    requests: list[float]
    exactness: Exactness
