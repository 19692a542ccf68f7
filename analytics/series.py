"""Shapes that several questions return: a line over time, a tile, and the words for a selection.

A value of None in a line is a step without data and is drawn as a gap; 0.0 is a true zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from analytics.answer import Exactness, State

Unit = Literal[
    "seconds", "per_second", "ratio", "count", "tokens", "tokens_per_second", "bytes_per_second", "flop_per_second"
]

By = Literal["all", "model", "instance", "deployment", "version", "region", "tenant"]
"""What a question may split its lines by; ``tenant`` exists in request rows alone."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line over time.

    Attributes:
        name: What it is of: a model, an instance, …; empty for the whole selection.
        values: One per time of the result's ``times``; None where the step has no data.
        unit: Unit of the values.
        exactness: How far the values can be trusted.
        rows: Requests or samples behind the whole line.
    """

    name: str
    values: list[float | None]
    unit: Unit
    exactness: Exactness = "exact"
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure of a row of tiles, with its sparkline.

    Attributes:
        value: Over the whole window, or the newest for a gauge; None where nothing can say it. Without traffic a rate
            is 0 and a latency None.
        unit: Unit of value and sparkline.
        state: *No traffic* and *no data* are told apart.
        reason: Why there is no value, in plain English; empty where there is one.
        line: Sparkline over the result's ``times``.
        peak: Highest step of the line; of running and waiting the highest within one second. None without values.
        exactness: How far it can be trusted.
        rows: Requests or samples it rests on.
    """

    value: float | None
    unit: Unit
    state: State
    reason: str
    line: list[float | None]
    peak: float | None
    exactness: Exactness
    rows: int
