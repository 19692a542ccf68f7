"""Where an average request spends its time.

Exact from rows; without any a mean per finished request from the servers' sums, which know no tenant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.latencies import quantiles_sql
from analytics.question import Command
from analytics.signals import PHASES, signal_of
from analytics.values import number, ratio
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from analytics.answer import Answer, Coverage, Exactness
    from analytics.inquiry import Reader
    from analytics.selection import Selection


COMMAND: Final = Command()
_SQL: Final = beside(__file__)


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


def ask(store: Reader, selection: Selection, *, points: int = 120) -> Answer[Phases]:
    """Mean seconds per phase over time, stacked up to the mean end-to-end time.

    Of the requests that have an end-to-end latency (`signals.SIGNALS`). From metrics, a mean per finished request.
    """
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    grid = Grid.of(selection.window, points)
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
    parts = _phases_of_metrics(inquiry, grid) if inquiry.of_all else []
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
