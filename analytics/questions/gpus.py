"""What the GPUs do: activity, memory, power and throttling, beside the tokens of whoever runs on them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.outliers import beside_median, outliers
from analytics.question import Command
from analytics.samples import INSTANCE_STEP, held, line_of, sampled
from analytics.values import moment, names, number, ratio
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.selection import Selection

COMMAND: Final = Command()
_SQL: Final = beside(__file__)
_HARMLESS: Final = frozenset({"idle", "application clocks", "sync boost", "display clocks"})
_COMPARED: Final = {
    "sm_clock_hertz": ("SM clock", (-1,)),
    "activity_ratio": ("activity", (-1, 1)),
    "power_watts": ("power", (-1, 1)),
    "temperature_celsius": ("temperature", (1,)),
    "memory_used_ratio": ("memory", (-1, 1)),
}
"""Figures in which a GPU may stand out from its like: name for people, and on which sides that says a thing."""


@dataclass(frozen=True, slots=True)
class GpuRow:
    """One GPU, or one part of one, over the window. A figure that it does not tell is None.

    Attributes:
        gpu: UUID.
        name: Product.
        index: On its machine.
        node: Machine.
        parent: UUID of the GPU it is a part of, empty for a whole one.
        instances: Whose processes ran on it; empty where nobody knows.
        ranks: Ranks of those, as their engine names them.
        recording: Recording that it comes from, empty when live.
        last_sample: Time of the newest sample.
        activity: Share of the GPU at work per step: of its multiprocessors where it tells, else of time with a kernel.
        memory: Memory used over all, per step.
        power: Watts per step.
        throttled: Share of samples that were slowed down, per step.
        tokens: Tokens generated per second and step: its share of what its instances made on all their GPUs.
        activity_ratio: Over the window, as all that follows.
        utilization_ratio: Share of time with a kernel running: 100 % on any busy LLM server.
        sm_occupancy_ratio, tensor_active_ratio, dram_active_ratio: What works inside it.
        memory_used_ratio: Mean memory used over all.
        power_watts, power_limit_watts: Mean power and the highest limit.
        temperature_celsius, memory_temperature_celsius: Highest.
        sm_clock_hertz: Mean.
        throttled_ratio: Share of samples that were slowed down.
        throttled_by: Why, without what is harmless.
        pcie_bytes_per_second, nvlink_bytes_per_second: Both ways together.
        tokens_per_second: Mean of ``tokens``.
        tokens_per_watt: That over the mean power: tokens per joule.
        xids: Faults that the driver reported within the window.
        ecc_uncorrected: New uncorrected memory errors.
        remap_pending: Whether a memory row waits for a reset to be replaced.
        stands_out: In words, how it differs from others of its kind; empty where it does not.
        distance: The greatest such difference, as a share of the median.
    """

    gpu: str
    name: str
    index: str
    node: str
    parent: str
    instances: list[str]
    ranks: list[str]
    recording: str
    last_sample: datetime
    activity: list[float | None]
    memory: list[float | None]
    power: list[float | None]
    throttled: list[float | None]
    tokens: list[float | None]
    activity_ratio: float | None
    utilization_ratio: float | None
    sm_occupancy_ratio: float | None
    tensor_active_ratio: float | None
    dram_active_ratio: float | None
    memory_used_ratio: float | None
    power_watts: float | None
    power_limit_watts: float | None
    temperature_celsius: float | None
    memory_temperature_celsius: float | None
    sm_clock_hertz: float | None
    throttled_ratio: float | None
    throttled_by: list[str]
    pcie_bytes_per_second: float | None
    nvlink_bytes_per_second: float | None
    tokens_per_second: float | None
    tokens_per_watt: float | None
    xids: float | None
    ecc_uncorrected: float | None
    remap_pending: bool
    stands_out: str
    distance: float


@dataclass(frozen=True, slots=True)
class Gpus:
    """All GPUs of a window.

    Attributes:
        step: Seconds of a step.
        times: Starts of the steps.
        gpus: What stands out and what was slowed down first.
        told: Where there is none: what an agent said of that last, empty where none said anything.
    """

    step: int
    times: list[datetime]
    gpus: list[GpuRow]
    told: str


def ask(store: Reader, selection: Selection, *, points: int = 120) -> Answer[Gpus]:
    """Activity, memory, power, throttling and tokens of every GPU, and which one stands out."""
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    grid = Grid.of(selection.window, points)
    by_gpu: dict[str, list[dict[str, Any]]] = {}
    wholes: list[dict[str, Any]] = []
    for row in inquiry.ask("gpus", step_ms=grid.step_ms):
        if row["no_slot"]:
            wholes.append(row)
        else:
            by_gpu.setdefault(str(row["gpu"]), []).append(row)
    faults = {str(row["gpu"]): row for row in inquiry.ask("faults")} if wholes else {}
    whose = _whose(inquiry, wholes)
    tokens = _tokens(inquiry, grid) if wholes and cover.samples else {}
    filter = selection.filter  # noqa: A001 - the contract's word
    if any((filter.instance, filter.model, filter.deployment, filter.engine, filter.version)):
        chosen = set(filter.instance) | set(tokens)
        wholes = [row for row in wholes if chosen & whose.get(str(row["gpu"]), {}).keys()]
    shares = _shares(whose)
    rows = [
        _row(
            grid,
            whole | faults[str(whole["gpu"])],
            by_gpu[str(whole["gpu"])],
            whose.get(str(whole["gpu"]), {}),
            tokens,
            shares,
        )
        for whole in wholes
    ]
    told = ""
    if not rows:
        told = "".join(str(row["message"]) for row in inquiry.ask("told"))
    result = Gpus(step=grid.step, times=grid.times, gpus=_judged(rows), told=told)
    samples = sum(int(row["samples"]) for row in wholes)
    return inquiry.answer(
        result, cover, level="metrics", exactness="exact", rows=samples, samples_used=True,
        state="value" if rows else "no_data",
    )  # fmt: skip


def _whose(inquiry: Inquiry, wholes: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Ranks by instance by GPU; what a recording or an exporter says of itself counts too."""
    found: dict[str, dict[str, list[str]]] = {}
    for whole in wholes:
        for instance in whole["named"]:
            found.setdefault(str(whole["gpu"]), {})[str(instance)] = []
    for row in inquiry.ask("whose"):
        found.setdefault(str(row["gpu"]), {})[str(row["instance"])] = list(names(row["ranks"]))
    return found


def _tokens(inquiry: Inquiry, grid: Grid) -> dict[str, list[float | None]]:
    """Tokens generated per second and step, by instance."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in sampled(inquiry, grid, (INSTANCE_STEP,))[INSTANCE_STEP]:
        rows.setdefault(str(row["instance"]), []).append(row)
    return {instance: grid.rates(line_of(some, grid, "generation_tokens")) for instance, some in rows.items()}


def _shares(whose: Mapping[str, Mapping[str, object]]) -> dict[str, int]:
    """On how many GPUs each instance runs."""
    found: dict[str, int] = {}
    for instances in whose.values():
        for instance in instances:
            found[instance] = found.get(instance, 0) + 1
    return found


def _row(
    grid: Grid,
    whole: Mapping[str, Any],
    steps: list[dict[str, Any]],
    whose: Mapping[str, list[str]],
    tokens: Mapping[str, list[float | None]],
    shares: Mapping[str, int],
) -> GpuRow:
    made = grid.blank()
    for instance in whose:
        for place, value in enumerate(tokens.get(instance, ())):
            if value is not None:
                made[place] = (made[place] or 0.0) + value / shares[instance]
    power = _line(steps, grid, "power")
    both = [(one, watts) for one, watts in zip(made, power, strict=True) if one is not None and watts is not None]
    known = [value for value in made if value is not None]
    activity = "sm_active" if number(whole["sm_active"]) is not None else "utilization"
    return GpuRow(
        gpu=str(whole["gpu"]),
        name=str(whole["name"]),
        index=str(whole["place"]),
        node=str(whole["machine"]),
        parent=str(whole["parent"]),
        instances=sorted(whose),
        ranks=list(names([rank for ranks in whose.values() for rank in ranks])),
        recording=str(whole["recorded"]),
        last_sample=moment(whole["newest_ms"]),
        activity=_line(steps, grid, activity),
        memory=_line(steps, grid, "memory_used"),
        power=power,
        throttled=_line(steps, grid, "throttled"),
        tokens=made,
        activity_ratio=number(whole[activity]),
        utilization_ratio=number(whole["utilization"]),
        sm_occupancy_ratio=number(whole["sm_occupancy"]),
        tensor_active_ratio=number(whole["tensor_active"]),
        dram_active_ratio=number(whole["dram_active"]),
        memory_used_ratio=number(whole["memory_used"]),
        power_watts=number(whole["power"]),
        power_limit_watts=number(whole["power_limit"]),
        temperature_celsius=number(whole["temperature"]),
        memory_temperature_celsius=number(whole["memory_temperature"]),
        sm_clock_hertz=number(whole["sm_clock"]),
        throttled_ratio=number(whole["throttled"]),
        throttled_by=[reason for reason in names(whole["reasons"]) if reason not in _HARMLESS],
        pcie_bytes_per_second=number(whole["pcie"]),
        nvlink_bytes_per_second=number(whole["nvlink"]),
        tokens_per_second=sum(known) / len(known) if known else None,
        tokens_per_watt=ratio(sum(one for one, _ in both), sum(watts for _, watts in both)) if both else None,
        xids=number(whole["xids"]),
        ecc_uncorrected=number(whole["ecc_uncorrected"]),
        remap_pending=bool(number(whole["remap_pending"])),
        stands_out="",
        distance=0.0,
    )


def _line(steps: list[dict[str, Any]], grid: Grid, column: str) -> list[float | None]:
    # an exporter looks at its GPUs each few seconds only, and what scrapes it as seldom
    return held(line_of(steps, grid, column), grid.step)


def _judged(rows: list[GpuRow]) -> list[GpuRow]:
    """The rows with what stands out among GPUs of one kind, those first."""
    told: dict[str, list[tuple[float, str]]] = {}
    for kind in {(row.name, bool(row.parent)) for row in rows}:
        peers = [row for row in rows if (row.name, bool(row.parent)) == kind]
        for figure, (name, sides) in _COMPARED.items():
            for gpu, away in outliers({row.gpu: getattr(row, figure) for row in peers}).items():
                if math.copysign(1, away) not in sides:
                    continue
                told.setdefault(gpu, []).append((abs(away), f"{name} {beside_median(away)}"))
    judged = [
        replace(
            row,
            stands_out=", ".join(text for _, text in sorted(told.get(row.gpu, []), reverse=True)),
            distance=max((away for away, _ in told.get(row.gpu, [])), default=0.0),
        )
        for row in rows
    ]
    return sorted(judged, key=lambda row: (-row.distance, -(row.throttled_ratio or 0.0), row.node, row.index))
