"""How full the KV cache is, preemptions and prefix hits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.question import Command
from analytics.samples import INSTANCE, INSTANCE_STEP, STEP, line_of, sampled, share_of
from analytics.series import Line
from analytics.values import number, ratio
from base.named_sql import beside

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.selection import Selection
    from analytics.series import Unit

COMMAND: Final = Command()
_SQL: Final = beside(__file__)


@dataclass(frozen=True, slots=True)
class InstanceCache:
    """KV cache of one instance.

    Attributes:
        instance: Name.
        usage_max: Fullest rank and model per step, 0 to 1.
        usage_mean: Mean per step, 0 to 1.
        preemptions: Per second and step.
        hit_share: Prefix cache hits over look-ups per step, in tokens.
        peak: Fullest over the window.
        mean: Mean of its steps.
        preempted: Preemptions in the window.
        hit_share_window: Hit share over the window.
        seconds_above_90: Seconds of samples whose usage was at least 0.9.
    """

    instance: str
    usage_max: list[float | None]
    usage_mean: list[float | None]
    preemptions: list[float | None]
    hit_share: list[float | None]
    peak: float | None
    mean: float | None
    preempted: float | None
    hit_share_window: float | None
    seconds_above_90: float


@dataclass(frozen=True, slots=True)
class Occupancy:
    """KV caches over time.

    Attributes:
        step: Seconds of a step.
        times: Starts of the steps.
        usage_max: Fullest cache of all instances per step.
        usage_mean: Mean over instances per step.
        preemptions: Per second, all instances.
        hit_share: Prefix cache hits over look-ups (tokens), all instances.
        cached_tokens: Prompt tokens that came from a cache, per second, from request rows.
        computed_tokens: Prompt tokens really computed, per second, from request rows.
        instances: Fullest first; servers that show no KV cache at all (Triton) are left out.
        cached_share: Cached over prompt tokens of all requests in the window, None without rows.
    """

    step: int
    times: list[datetime]
    usage_max: Line
    usage_mean: Line
    preemptions: Line
    hit_share: Line
    cached_tokens: Line
    computed_tokens: Line
    instances: list[InstanceCache]
    cached_share: float | None


def ask(store: Reader, selection: Selection, *, points: int = 120) -> Answer[Occupancy]:
    """KV usage per instance, preemptions, prefix hits and cached tokens per step."""
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    grid = Grid.of(selection.window, points)
    samples = sampled(inquiry, grid, (STEP, INSTANCE_STEP, INSTANCE))
    steps = samples[STEP]
    by_instance: dict[str, list[dict[str, Any]]] = {}
    for row in samples[INSTANCE_STEP]:
        by_instance.setdefault(str(row["instance"]), []).append(row)
    instances = [_instance(grid, row, by_instance[str(row["instance"])]) for row in samples[INSTANCE]]
    cached, computed, prompt_sum, cached_sum = grid.blank(), grid.blank(), 0.0, 0.0
    for row in inquiry.ask("cached_rows", step_ms=grid.step_ms) if cover.rows else ():
        place, prompt, hit = grid.at(row["slot"]), float(row["prompt"]), float(row["cached"])
        cached[place], computed[place] = hit, max(0.0, prompt - hit)
        prompt_sum, cached_sum = prompt_sum + prompt, cached_sum + hit

    def line(values: list[float | None], unit: Unit, rows: int = cover.samples) -> Line:
        return Line("", values, unit, "exact", rows)

    result = Occupancy(
        step=grid.step,
        times=grid.times,
        usage_max=line(line_of(steps, grid, "kv_peak"), "ratio"),
        usage_mean=line(line_of(steps, grid, "kv_average"), "ratio"),
        preemptions=line(grid.rates(line_of(steps, grid, "preemptions")), "per_second"),
        hit_share=line(share_of(steps, grid, "prefix_hits", "prefix_queries"), "ratio"),
        cached_tokens=line(grid.rates(cached), "tokens_per_second", cover.rows),
        computed_tokens=line(grid.rates(computed), "tokens_per_second", cover.rows),
        instances=sorted(
            (row for row in instances if row is not None), key=lambda row: (-(row.peak or 0.0), row.instance)
        ),
        cached_share=ratio(cached_sum, prompt_sum),
    )
    return inquiry.answer(
        result, cover, level="metrics", exactness="exact", rows=cover.samples, samples_used=cover.samples > 0
    )


def _instance(grid: Grid, whole: dict[str, Any], rows: list[dict[str, Any]]) -> InstanceCache | None:
    """One instance; None when its server shows no KV cache, no preemption and no prefix look-up."""
    if all(number(whole[column]) is None for column in ("kv_peak", "preemptions", "prefix_queries")):
        return None
    means = [value for value in line_of(rows, grid, "kv_average") if value is not None]
    return InstanceCache(
        instance=str(whole["instance"]),
        usage_max=line_of(rows, grid, "kv_peak"),
        usage_mean=line_of(rows, grid, "kv_average"),
        preemptions=grid.rates(line_of(rows, grid, "preemptions")),
        hit_share=share_of(rows, grid, "prefix_hits", "prefix_queries"),
        peak=number(whole["kv_peak"]),
        mean=sum(means) / len(means) if means else None,
        preempted=number(whole["preemptions"]),
        hit_share_window=ratio(number(whole["prefix_hits"]), number(whole["prefix_queries"])),
        seconds_above_90=number(whole["kv_full_seconds"]) or 0.0,
    )
