"""How much work shares one engine step or execution."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.question import Command
from analytics.samples import SERIES, SERIES_STEP, WHOLE, line_of, sampled, share_of
from analytics.series import Line
from analytics.values import number, ratio
from base.named_sql import beside
from base.vocabulary import Distribution

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.selection import Selection
    from analytics.series import Unit

COMMAND: Final = Command()
_SQL: Final = beside(__file__)


@dataclass(frozen=True, slots=True)
class BatchSize:
    """Executions that had about as many items.

    Attributes:
        items_from: The fewest items.
        items_to: The most; None where there is no bound.
        executions: How many they are.
        compute_seconds: Their input, inference and output time, summed; None where it is not told.
    """

    items_from: int
    items_to: int | None
    executions: int
    compute_seconds: float | None


@dataclass(frozen=True, slots=True)
class ModelBatches:
    """What sizes a model's executions had.

    Attributes:
        model: Which.
        executions: How many there were.
        mean: Items of an average one.
        sizes: By items, fewest first; sizes without an execution are left out.
    """

    model: str
    executions: int
    mean: float | None
    sizes: list[BatchSize]


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
        batch_sizes: Executions of the window by their items, each model with most executions first; none where no
            server tells them.
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
    batch_sizes: list[ModelBatches]


def ask(store: Reader, selection: Selection, *, points: int = 120) -> Answer[Batching]:
    """Running requests, tokens per engine step and items per execution, per step; executions by their items."""
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    grid = Grid.of(selection.window, points)
    samples = sampled(inquiry, grid, (SERIES_STEP, SERIES, WHOLE))
    by_series: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in samples[SERIES_STEP]:
        by_series.setdefault((str(row["instance"]), str(row["model"])), []).append(row)
    sizes = inquiry.ask("batch_sizes") if cover.samples else []
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
        batch_sizes=_batch_sizes(sizes),
    )
    return inquiry.answer(
        result, cover, level="metrics", exactness="exact", rows=cover.samples, samples_used=cover.samples > 0
    )


def _batch_sizes(rows: Sequence[Mapping[str, Any]]) -> list[ModelBatches]:
    """Sizes by model; where servers of a model tell them in unlike steps, each step is there for itself."""
    spent = {
        (row["model"], tuple(row["bounds"])): row["buckets"]
        for row in rows
        if row["signal"] == Distribution.BATCH_COMPUTE_MICROSECONDS
    }
    found: dict[str, list[BatchSize]] = {}
    told: dict[str, tuple[int, float]] = {}
    for row in (one for one in rows if one["signal"] == Distribution.BATCH_SIZE):
        model, bounds = str(row["model"]), tuple(row["bounds"])
        compute = spent.get((row["model"], bounds))
        steps = pairwise([0, *map(int, bounds), None])
        for place, ((low, high), count) in enumerate(zip(steps, row["buckets"], strict=True)):
            if count:
                seconds = None if compute is None else compute[place] / 1e6
                found.setdefault(model, []).append(BatchSize((low or 0) + 1, high, int(count), seconds))
        executions, items = told.get(model, (0, 0.0))
        told[model] = executions + int(row["n"]), items + float(row["total"])
    made = [
        ModelBatches(model, executions, ratio(items, executions), sorted(found.get(model, []), key=_by_items))
        for model, (executions, items) in told.items()
    ]
    return sorted(made, key=lambda one: (-one.executions, one.model))


def _by_items(size: BatchSize) -> tuple[int, float]:
    return size.items_from, size.items_to if size.items_to is not None else float("inf")
