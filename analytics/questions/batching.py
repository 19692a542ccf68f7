"""How much work shares one engine step or execution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.question import Command
from analytics.samples import SERIES, SERIES_STEP, WHOLE, line_of, sampled, share_of
from analytics.series import Line
from analytics.values import number, ratio

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.selection import Selection
    from analytics.series import Unit

COMMAND: Final = Command()


@dataclass(frozen=True, slots=True)
class Batching:
    """Batches over time; lists are per instance and model, named ``instance · model``, busiest first.

    Attributes:
        step: Seconds of a step.
        times: Starts of the steps.
        running: Requests in the engine, mean per step, one line each.
        tokens_per_step: Tokens of an average engine step (vLLM).
        steps_per_second: Engine steps per second (vLLM).
        inferences_per_execution: Mean batch size (Triton: items over executions).
        executions_per_second: Executions per second (Triton).
        mean_batch_size: Items over executions of the window, all of the selection; None without such a server.
        mean_tokens_per_step: Tokens over engine steps of the window; None without such a server.
    """

    step: int
    times: list[datetime]
    running: list[Line]
    tokens_per_step: list[Line]
    steps_per_second: list[Line]
    inferences_per_execution: list[Line]
    executions_per_second: list[Line]
    mean_batch_size: float | None
    mean_tokens_per_step: float | None


def ask(store: Reader, selection: Selection, *, points: int = 120) -> Answer[Batching]:
    """Running requests, tokens per engine step and items per execution, per step."""
    inquiry = Inquiry(store, selection)
    cover = inquiry.coverage()
    grid = Grid.of(selection.window, points)
    samples = sampled(inquiry, grid, (SERIES_STEP, SERIES, WHOLE))
    by_series: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in samples[SERIES_STEP]:
        by_series.setdefault((str(row["instance"]), str(row["model"])), []).append(row)
    whole: dict[str, Any] = next(iter(samples[WHOLE]), {})

    def lines(values: Callable[[list[dict[str, Any]]], list[float | None]], unit: Unit) -> list[Line]:
        made = [
            Line(" · ".join(part for part in key if part), values(rows), unit, "exact", len(rows))
            for key, rows in by_series.items()
        ]
        shown = [line for line in made if any(value is not None for value in line.values)]
        return sorted(shown, key=lambda line: (-sum(value or 0.0 for value in line.values), line.name))

    result = Batching(
        step=grid.step,
        times=grid.times,
        running=lines(lambda rows: line_of(rows, grid, "running"), "count"),
        tokens_per_step=lines(lambda rows: share_of(rows, grid, "batch_tokens", "steps_with_tokens"), "tokens"),
        steps_per_second=lines(lambda rows: grid.rates(line_of(rows, grid, "engine_steps")), "per_second"),
        inferences_per_execution=lines(lambda rows: share_of(rows, grid, "inferences", "executions"), "count"),
        executions_per_second=lines(lambda rows: grid.rates(line_of(rows, grid, "executions")), "per_second"),
        mean_batch_size=ratio(number(whole.get("inferences")), number(whole.get("executions"))),
        mean_tokens_per_step=ratio(number(whole.get("batch_tokens")), number(whole.get("steps_with_tokens"))),
    )
    return inquiry.answer(
        result, cover, level="metrics", exactness="exact", rows=cover.samples, samples_used=cover.samples > 0
    )
