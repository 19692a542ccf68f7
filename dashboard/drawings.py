"""Drawings and readings of a result's lines that several pages share."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from dashboard.figures import Trace, stack
from dashboard.theme import colour_of, unmeasured

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from analytics.questions.phases import Phases
    from analytics.series import Line
    from dashboard.page_context import PageContext

PHASES: Final = "Where an average request spends its time"


def phase_stack(result: Phases, context: PageContext) -> object:
    """Mean seconds per phase, stacked up to the end-to-end time."""
    colours = context.style.colours
    traces = [
        Trace(
            item.phase.replace("_", " "),
            item.seconds,
            colour_of(item.phase, colours),
            hatched=unmeasured(item.phase),
        )
        for item in result.phases
    ]
    return stack(
        result.times,
        traces,
        context.arrivals,
        title=PHASES,
        unit="seconds",
        wide=True,
    )


def one_each(shown: Sequence[Line], context: PageContext) -> list[Trace]:
    """A trace per line, in the colours of things without one of their own.

    Of names such as ``instance · model`` the instance is left out where all lines share it.
    """
    palette = context.style.colours.series
    heads = {line.name.partition(" · ")[0] for line in shown}
    shared = f"{heads.pop()} · " if len(heads) == 1 else ""
    return [
        Trace(line.name.removeprefix(shared) or line.name, line.values, palette[index % len(palette)])
        for index, line in enumerate(shown)
    ]


def newest(line: Line) -> float | None:
    """Value of the newest step that has one."""
    return next((value for value in reversed(line.values) if value is not None), None)


def with_values(shown: Sequence[Line]) -> list[Line]:
    """Lines that have at least one value."""
    return [line for line in shown if any(value is not None for value in line.values)]


def settled(line: Line, times: Sequence[datetime], step: float, context: PageContext) -> Line:
    """A line of arrivals without the steps that the settled edge cuts or leaves behind."""
    edge = context.settled
    if edge is None or edge <= context.window.start:
        return line
    last = edge - timedelta(seconds=step)
    kept = [value if at <= last else None for value, at in zip(line.values, times, strict=True)]
    return replace(line, values=kept)
