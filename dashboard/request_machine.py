"""What one request's server ran on while it had the request: GPUs and machine, on the request's own axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dashboard import words
from dashboard.figures import Lane, Style, Trace
from dashboard.theme import colour_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analytics.machines import GpuPoint, HostPoint
    from analytics.questions.story import Story

_GIGA: Final = 1e9


def lanes(told: Story, style: Style) -> list[Lane]:
    """GPUs together, the machine, and what its processes waited for; what nobody told of is left out by the page."""
    return [*_gpus(told, style), *_machine(told, style)]


def _gpus(told: Story, style: Style) -> list[Lane]:
    points = told.gpus
    if not points or told.start is None:
        return []
    most = max(point.gpus for point in points)
    title = "GPU" if most == 1 else f"{most} GPUs, mean"
    notes = [_note(point) for point in points]
    traces = [
        Trace("busy", [point.busy for point in points], colour_of("gpu", style.colours), text=notes),
        Trace("slowed", [point.slowed for point in points], colour_of("slowed", style.colours)),
    ]
    return [Lane(title, "share", traces, 1.05, offsets=_offsets(told, points), holds=True)]


def _note(point: GpuPoint) -> str:
    told = [
        f"slowest clock {point.clock_hertz / _GIGA:.3g} GHz" if point.clock_hertz is not None else "",
        f"{point.power_watts:.0f} W" if point.power_watts is not None else "",
        f"fullest memory {words.ratio(point.memory)}" if point.memory is not None else "",
    ]
    return ", ".join(filter(None, told))


def _machine(told: Story, style: Style) -> list[Lane]:
    points = told.hosts
    if not points or told.start is None:
        return []
    offsets = _offsets(told, points)
    busy = [f"its processes: {point.cpus:.3g} CPUs" if point.cpus is not None else "" for point in points]
    shares = [
        Trace("in use", [point.used for point in points], colour_of("cpu", style.colours), text=busy),
        Trace("waited for", [point.pressed for point in points], colour_of("cpu_waits", style.colours)),
    ]
    waits = Trace("", [point.delayed for point in points], colour_of("cpu_waits", style.colours))
    return [
        Lane("CPUs of its machine", "share", shares, 1.05, offsets=offsets),
        Lane("Its processes wait for a CPU", "seconds a second", [waits], offsets=offsets),
    ]


def _offsets(told: Story, points: Sequence[GpuPoint] | Sequence[HostPoint]) -> list[float]:
    assert told.start is not None  # noqa: S101 - the callers asked
    return [(point.time - told.start).total_seconds() for point in points]
