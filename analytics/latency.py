"""How long requests take: percentiles, distribution, heatmap, and where the time goes.

Exact figures come from request rows. Where there are none, the engines' histograms give derived ones (wrong by up to
a bucket), and where only sums exist (Triton, llama.cpp) there is a mean and no percentile. A line, a bucket and a
phase say which. Metrics know no tenant: under a tenant filter they are not used at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analytics.buckets import LOWEST, Buckets, bounds_as_edges, log_edges, rebucket
from analytics.ground import Grid, Inquiry, number, quantiles_sql, ratio, weakest
from analytics.latency_shapes import Heatmap, Histogram, LatencyLine, Percentiles, PhaseLine, Phases
from analytics.lines import histogram_rows, latency_lines
from analytics.signals import PHASES, signal_of
from analytics.window import Answer, Filter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from analytics.ground import Reader
    from analytics.shapes import By
    from analytics.signals import LatencySignal
    from analytics.window import Coverage, Exactness, Window

__all__ = [
    "Heatmap",
    "Histogram",
    "LatencyLine",
    "Percentiles",
    "PhaseLine",
    "Phases",
    "heatmap",
    "histogram",
    "percentiles",
    "phases",
]


def percentiles(
    store: Reader,
    window: Window,
    filter: Filter = Filter(),  # noqa: A002, B008
    *,
    signal: LatencySignal = "ttft_seconds",
    by: By = "all",
    points: int = 120,
    limit: int = 12,
) -> Answer[Percentiles]:
    """p50, p90, p95, p99 and mean per step of one latency, split by model, instance, ….

    Percentiles interpolate linearly between the two nearest requests (as numpy's default does); above
    `ground.EXACT_LIMIT` requests they are estimated within 1 % and labelled ``derived``. A model or instance that has
    rows with this latency is told from rows alone, one that has none from metrics.
    """
    about = signal_of(signal)
    inquiry = Inquiry(store, "latency", window, filter)
    cover = inquiry.coverage()
    grid = Grid.of(window, points)
    shown, left_out = latency_lines(inquiry, cover, about, grid, by, limit)
    exact = [line for line in shown if line.level == "rows"]
    return inquiry.answer(
        Percentiles(signal, grid.step, grid.times, by, shown, left_out),
        cover,
        level="rows" if exact else "metrics",
        exactness=weakest([line.exactness for line in shown]),
        rows=sum(line.rows for line in exact or shown),
    )


def histogram(
    store: Reader,
    window: Window,
    filter: Filter = Filter(),  # noqa: A002, B008
    *,
    signal: LatencySignal = "ttft_seconds",
) -> Answer[Histogram]:
    """Distribution of one latency over the window."""
    about = signal_of(signal)
    inquiry = Inquiry(store, "latency", window, filter)
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
    for row in histogram_rows(inquiry, about, Grid.of(window, 1)):
        buckets.add(row["bounds"], row["buckets"], row["n"], row["total"])
    bounds, counts = buckets.merged() if buckets.n else ([], [])
    edges = bounds_as_edges(bounds) if bounds else []
    result = Histogram(signal, edges, counts if bounds else [], "derived", _bucket_note(bounds))
    return inquiry.answer(result, cover, level="metrics", exactness="derived", rows=buckets.n)


def heatmap(
    store: Reader,
    window: Window,
    filter: Filter = Filter(),  # noqa: A002, B008
    *,
    signal: LatencySignal = "ttft_seconds",
    points: int = 120,
) -> Answer[Heatmap]:
    """Requests per cell of time × latency."""
    about = signal_of(signal)
    inquiry = Inquiry(store, "latency", window, filter)
    cover = inquiry.coverage()
    grid = Grid.of(window, points)
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


def phases(store: Reader, window: Window, filter: Filter = Filter(), *, points: int = 120) -> Answer[Phases]:  # noqa: A002, B008
    """Mean seconds per phase over time, stacked up to the mean end-to-end time.

    Of the requests that have an end-to-end latency (`signals.SIGNALS`). From metrics, a mean per finished request.
    """
    inquiry = Inquiry(store, "latency", window, filter)
    cover = inquiry.coverage()
    grid = Grid.of(window, points)
    present = {"present": signal_of("e2e_seconds").present}
    found: list[dict[str, Any]] = []
    if cover.rows:
        sums = ", ".join(f"sum({phase}_seconds * weight)" for phase in PHASES)
        found = inquiry.ask("phases_rows", {**present, "phase_sums": sums}, step_ms=grid.step_ms)
    whole = next((row for row in found if row["whole"] and row["n"]), None)
    if whole is not None:
        met = [phase for phase, spent in zip(PHASES, whole["seconds"], strict=True) if spent]
        p99 = _tails(inquiry, cover, present, met)
        parts = [
            (int(row["slot"]), float(row["n"]), float(row["e2e"]), dict(zip(PHASES, row["seconds"], strict=True)))
            for row in found
            if not row["whole"]
        ]
        missing = 1 - float(whole["with_engine"]) / float(whole["n"])
        notes = [f"The engine told nothing of {missing:.0%} of these requests."] if missing >= 0.005 else []  # noqa: PLR2004 what rounds to 1 %
        total = (float(whole["n"]), float(whole["e2e"]), dict(zip(PHASES, map(float, whole["seconds"]), strict=True)))
        result = _stack(grid, parts, "exact", p99, total)
        return inquiry.answer(result, cover, level="rows", exactness="exact", rows=int(whole["n"]), notes=notes)
    parts = [] if filter.tenant else _phases_of_metrics(inquiry, grid)
    result = _stack(grid, parts, "means", {})
    return inquiry.answer(
        result, cover, level="metrics", exactness="means", rows=int(sum(n for _, n, _, _ in parts)), samples_used=True
    )


def _tails(
    inquiry: Inquiry, cover: Coverage, present: Mapping[str, str], met: Sequence[str]
) -> dict[str, float | None]:
    """p99 of the phases that took any time at all; each costs a pass over its column."""
    if not met:
        return {}
    tails = ", ".join(quantiles_sql(cover, f"{phase}_seconds", levels=(0.99,))[0] + "[1]" for phase in met)
    row = inquiry.ask("phases_tails", {**present, "phase_tails": tails})[0]
    return dict(zip(met, map(number, row["p99"]), strict=True))


def _bucket_note(bounds: Sequence[float]) -> str:
    if not bounds:
        return ""
    return f"The engine's buckets: nothing finer than {bounds[0]:g} s, nothing told apart above {bounds[-1]:g} s."


def _phases_of_metrics(inquiry: Inquiry, grid: Grid) -> list[tuple[int, float, float, dict[str, float]]]:
    found: dict[int, tuple[float, float, dict[str, float]]] = {}
    for name in ("phases_histograms", "phases_sums"):
        for row in inquiry.ask(name, step_ms=grid.step_ms):
            n, e2e, held = found.get(int(row["slot"]), (0.0, 0.0, dict.fromkeys(PHASES, 0.0)))
            for phase in PHASES:
                held[phase] += float(row.get(phase) or 0.0)
            if "ttft" in row:
                held["stall"] += max(0.0, float(row["ttft"]) - float(row["queue"]) - float(row["prefill"]))
            found[int(row["slot"])] = (n + float(row["n"] or 0), e2e + float(row["e2e"] or 0), held)
    return [(slot, n, e2e, held) for slot, (n, e2e, held) in sorted(found.items()) if n]


def _stack(
    grid: Grid,
    parts: Sequence[tuple[int, float, float, dict[str, float]]],
    exactness: Exactness,
    p99: Mapping[str, float | None],
    whole: tuple[float, float, dict[str, float]] | None = None,
) -> Phases:
    """Means per step and over the window, out of sums per slot: ``(slot, requests, e2e seconds, phase seconds)``.

    ``whole`` has the sums of the window; without it they are those of all slots.
    """
    names = (*PHASES, "unaccounted")
    lines = {name: grid.blank() for name in names}
    e2e_line, requests = grid.blank(), grid.zeros()
    for slot, n, e2e, seconds in parts:
        place = grid.at(slot)
        rest = _with_rest(e2e, seconds)
        requests[place], e2e_line[place] = n, e2e / n
        for name in names:
            lines[name][place] = rest[name] / n
    total_n, total_e2e, spent = whole or (
        sum(n for _, n, _, _ in parts),
        sum(e2e for _, _, e2e, _ in parts),
        {phase: sum(seconds[phase] for _, _, _, seconds in parts) for phase in PHASES},
    )
    sums = _with_rest(total_e2e, spent)
    shown = [
        PhaseLine(name, lines[name], ratio(sums[name], total_n), ratio(sums[name], total_e2e), p99.get(name))
        for name in names
        if sums[name] or (name == "unaccounted" and total_n)
    ]
    return Phases(grid.step, grid.times, shown, e2e_line, ratio(total_e2e, total_n), requests, exactness)


def _with_rest(e2e: float, seconds: Mapping[str, float]) -> dict[str, float]:
    """Phases and what no phase accounts for."""
    return {**seconds, "unaccounted": e2e - sum(seconds.values())}
