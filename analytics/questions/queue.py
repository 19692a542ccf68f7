"""How work piles up: arrivals, waiting, time to drain.

Arrivals stand against finishes, and a backlog against the time that it takes to drain.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from analytics.answer import Answer, weakest
from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.latencies import latency_lines
from analytics.outliers import beside_median, outliers
from analytics.question import Command
from analytics.samples import INSTANCE_STEP, SERIES, STEP, gauge_peaks, line_of, sampled
from analytics.series import Line
from analytics.signals import SIGNALS
from analytics.values import number, ratio
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from analytics.answer import Coverage, Exactness
    from analytics.inquiry import Reader
    from analytics.latencies import LatencyLine
    from analytics.selection import Selection

COMMAND: Final = Command()
_SQL: Final = beside(__file__)
_APART: Final = 1.0
"""Requests in flight by which a replica differs from the usual one at least: less is nothing to act on."""


@dataclass(frozen=True, slots=True)
class QueueDynamics:
    """Arrivals, finishes and the backlog between them.

    Attributes:
        step: Seconds of a step.
        times: Starts of the steps.
        arrivals: Per second: from rows; else worked out as finishes plus the change of running + waiting (derived).
        finished: Per second: from rows (arrival + end-to-end time); else the engine's counter.
        waiting, running: Mean number per step, summed over instances.
        queue_p50, queue_p99: Seconds in the engine's queue of the requests that arrived in the step (rows, or derived
            from the engine's histogram).
        queue_mean: Mean seconds in the queue, also where only sums exist.
        drain: Seconds until the waiting ones would have started at this step's finish rate, if nobody else came;
            None while none finish, and where only some requests are selected: those who wait are told of all.
        waiting_by_instance: One line per instance.
        running_by_instance: One line per instance.
        uneven: Instance → in words, how far its mean of requests in flight is from that of the other replicas of its
            model, where there are three at least; the furthest first.
        waiting_peak: Most waiting at one time: the highest sum over instances within a second; None without samples.
        drain_seconds: ``drain`` of the newest step that has samples: 0 when nobody waits.
        littles_law: ``arrival rate × mean end-to-end time`` beside the measured mean of running + waiting, both over
            the settled steps that have samples: ``{"expected", "measured"}``; far apart means requests that one of
            the two views does not see. Both None where only some requests are selected.
        exactness: Weakest of the lines.
    """

    step: int
    times: list[datetime]
    arrivals: Line
    finished: Line
    waiting: Line
    running: Line
    queue_p50: Line
    queue_p99: Line
    queue_mean: Line
    drain: Line
    waiting_by_instance: list[Line]
    running_by_instance: list[Line]
    uneven: dict[str, str]
    waiting_peak: float | None
    drain_seconds: float | None
    littles_law: dict[str, float | None]
    exactness: Exactness


def ask(store: Reader, selection: Selection, *, points: int = 120) -> Answer[QueueDynamics]:
    """Arrivals, finishes, waiting, running and queue time per step."""
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    grid = Grid.of(selection.window, points)
    samples = sampled(inquiry, grid, (STEP, INSTANCE_STEP, SERIES))
    steps = samples[STEP]
    waiting, running = line_of(steps, grid, "waiting"), line_of(steps, grid, "running")
    flow_rows = inquiry.ask("flow_rows", step_ms=grid.step_ms) if cover.rows else []
    arrivals, finished = _flow(inquiry, cover, grid, steps, flow_rows)
    queue = next(iter(latency_lines(inquiry, cover, SIGNALS["queue_seconds"], grid, "all", 1)[0]), None)
    drain = grid.blank()
    if inquiry.of_all:
        drain = [_drain(held, rate) for held, rate in zip(waiting, finished.values, strict=True)]
    flow = weakest([arrivals.exactness, finished.exactness])
    found = QueueDynamics(
        step=grid.step,
        times=grid.times,
        arrivals=arrivals,
        finished=finished,
        waiting=Line("", waiting, "count", "exact", cover.samples),
        running=Line("", running, "count", "exact", cover.samples),
        queue_p50=_queue_line(queue, "p50", grid),
        queue_p99=_queue_line(queue, "p99", grid),
        queue_mean=_queue_line(queue, "mean", grid),
        drain=Line("", drain, "seconds", "derived", cover.samples),
        waiting_by_instance=_by_instance(samples[INSTANCE_STEP], grid, "waiting"),
        running_by_instance=_by_instance(samples[INSTANCE_STEP], grid, "running"),
        uneven=_uneven(samples[SERIES]),
        waiting_peak=gauge_peaks(inquiry)["waiting"] if cover.samples else None,
        drain_seconds=next(
            (left for held, left in zip(reversed(waiting), reversed(drain), strict=True) if held is not None), None
        ),
        littles_law=(
            _littles_law(grid, inquiry.settled_ms, flow_rows, running, waiting)
            if inquiry.of_all
            else {"expected": None, "measured": None}
        ),
        exactness=weakest([flow, queue.exactness if queue else "exact"]),
    )
    return inquiry.answer(
        found,
        cover,
        level="rows" if cover.rows else "metrics",
        exactness=found.exactness,
        rows=cover.rows or cover.samples,
        samples_used=cover.samples > 0,
        notes=() if cover.rows else ("Arrivals are worked out from finishes and the change of running and waiting.",),
    )


def _flow(
    inquiry: Inquiry,
    cover: Coverage,
    grid: Grid,
    steps: Sequence[dict[str, Any]],
    flow_rows: Sequence[dict[str, Any]],
) -> tuple[Line, Line]:
    """Arrivals and finishes per second: from rows, else from the engine's counter of finished requests."""
    if cover.rows:
        arrived, done = grid.zeros(), grid.zeros()
        for row in flow_rows:
            arrived[grid.at(row["slot"])] = float(row["arrived"])
            done[grid.at(row["slot"])] = float(row["done"])
        return (
            Line("", grid.rates(arrived), "per_second", "exact", cover.rows),
            Line("", grid.rates(done), "per_second", "exact", cover.rows),
        )
    if not inquiry.of_all:
        return Line("", grid.blank(), "per_second", "exact"), Line("", grid.blank(), "per_second", "exact")
    finishes = line_of(steps, grid, "finished")
    inside = [
        None if a is None and b is None else (a or 0.0) + (b or 0.0)
        for a, b in zip(line_of(steps, grid, "running"), line_of(steps, grid, "waiting"), strict=True)
    ]
    arrivals = grid.blank()
    before = inside[0] if inside else None
    for place, (done_here, inside_here) in enumerate(zip(finishes, inside, strict=True)):
        if done_here is not None and inside_here is not None and before is not None:
            arrivals[place] = max(0.0, done_here + inside_here - before)
        before = inside_here if inside_here is not None else before
    return (
        Line("", grid.rates(arrivals), "per_second", "derived", cover.samples),
        Line("", grid.rates(finishes), "per_second", "exact", cover.samples),
    )


def _drain(waiting: float | None, rate: float | None) -> float | None:
    if waiting is None:
        return None
    return 0.0 if waiting == 0 else ratio(waiting, rate)


def _queue_line(line: LatencyLine | None, figure: str, grid: Grid) -> Line:
    if line is None:
        return Line("", grid.blank(), "seconds")
    return Line("", getattr(line, figure), "seconds", line.exactness, line.rows)


def _by_instance(rows: Sequence[dict[str, Any]], grid: Grid, column: str) -> list[Line]:
    held: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        held.setdefault(str(row["instance"]), []).append(row)
    lines = [
        Line(name, line_of(found, grid, column), "count", "exact", sum(int(row["samples"]) for row in found))
        for name, found in held.items()
    ]
    return sorted((line for line in lines if any(v is not None for v in line.values)), key=lambda line: line.name)


def _uneven(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    told: dict[str, float] = {}
    for model in {str(row["model"]) for row in rows}:
        shown = {str(row["instance"]): _in_flight(row) for row in rows if str(row["model"]) == model}
        peers = {instance: value for instance, value in shown.items() if value is not None}
        for instance, away in outliers(peers).items():
            if abs(peers[instance] - median(peers.values())) >= _APART:
                told[instance] = max(told.get(instance, away), away, key=abs)
    furthest = sorted(told.items(), key=lambda item: -abs(item[1]))
    return {instance: f"in flight {beside_median(away)}" for instance, away in furthest}


def _in_flight(row: Mapping[str, Any]) -> float | None:
    """Mean of running and waiting over the steps in which it was seen."""
    shown = [value for name in ("running", "waiting") if (value := number(row[name])) is not None]
    return ratio(sum(shown), number(row["slots"])) if shown else None


def _littles_law(
    grid: Grid,
    settled_ms: int,
    flow_rows: Sequence[dict[str, Any]],
    running: Sequence[float | None],
    waiting: Sequence[float | None],
) -> dict[str, float | None]:
    """L = λW (Little, 1961) over the settled steps that have samples; the two sides come from different sources.

    Beyond the settled edge arrivals lack those that are still open, which the gauges count. A window that begins before
    the first sample must not thin out the arrivals alone.
    """
    inside = {
        place: (a or 0.0) + (b or 0.0)
        for place, (a, b, kept) in enumerate(
            zip(running, waiting, grid.settled([1.0] * len(running), settled_ms), strict=True)
        )
        if kept and (a is not None or b is not None)
    }
    expected = None
    seen = [row for row in flow_rows if grid.at(row["slot"]) in inside]
    timed, spent = (sum(float(row[column]) for row in seen) for column in ("e2e_n", "e2e_sum"))
    if timed:
        arrived = sum(float(row["arrived"]) for row in seen)
        expected = arrived / sum(grid.covered[place] for place in inside) * spent / timed
    return {"expected": expected, "measured": sum(inside.values()) / len(inside) if inside else None}
