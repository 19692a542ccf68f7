"""What few engines show: signals that lie in the map of a sample, and distributions that no latency is, of a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from analytics.buckets import Buckets
from analytics.series import Line
from analytics.values import number
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from analytics.grid import Grid
    from analytics.inquiry import Inquiry
    from analytics.series import Unit

_SQL: Final = beside(__file__)


def delta(signal: str) -> str:
    """The name in the map of what a counter gained."""
    return f"{signal.removesuffix('_total')}_delta"


@dataclass(frozen=True, slots=True)
class Told:
    """What servers told of some signals, per step; None where none did.

    Attributes:
        grid: The steps.
        samples: Samples of the window.
        added: Name → what a step's samples add up to.
        level: Name → mean of a step within a series, added up over series.
        of_each: Name → what a step adds up to, mean over series.
        most: Name → the highest value of any series in a step.
    """

    grid: Grid
    samples: int
    added: Mapping[str, list[float | None]]
    level: Mapping[str, list[float | None]]
    of_each: Mapping[str, list[float | None]]
    most: Mapping[str, list[float | None]]

    def whole(self, name: str) -> float | None:
        """What the window adds up to."""
        return whole(self.added[name])

    def rates(self, name: str) -> list[float | None]:
        """What was added, per second."""
        return self.grid.rates(self.added[name])

    def lines(self, named: Mapping[str, Sequence[float | None]], unit: Unit) -> list[Line]:
        """Lines of those that have a value at all."""
        return [
            Line(name, list(values), unit, "exact", self.samples)
            for name, values in named.items()
            if any(value is not None for value in values)
        ]


def told(inquiry: Inquiry, grid: Grid, names: Sequence[str], samples: int) -> Told:
    """Ask for signals by their names in the map; none is there where no sample is."""
    added, level, of_each, most = ({name: grid.blank() for name in names} for _ in range(4))
    for row in inquiry.ask("signals", sql=_SQL, step_ms=grid.step_ms, names=list(names)) if samples else ():
        place, name = grid.at(row["slot"]), str(row["name"])
        added[name][place], level[name][place] = number(row["added"]), number(row["level"])
        of_each[name][place], most[name][place] = number(row["of_each"]), number(row["most"])
    return Told(grid, samples, added, level, of_each, most)


def newest(inquiry: Inquiry, names: Sequence[str]) -> dict[str, float]:
    """Name → what servers showed last within the window, together; those that none shows are absent."""
    rows = inquiry.ask("newest", sql=_SQL, names=list(names))
    return {str(row["name"]): float(row["value"]) for row in rows if row["value"] is not None}


def times(inquiry: Inquiry, names: Sequence[str]) -> dict[str, Buckets]:
    """Distributions of the window by name; those that no server shows are absent."""
    found: dict[str, Buckets] = {}
    for row in inquiry.ask("times", sql=_SQL, names=list(names)):
        found.setdefault(str(row["signal"]), Buckets()).add(row["bounds"], row["buckets"], row["n"], row["total"])
    return found


def whole(values: Sequence[float | None]) -> float | None:
    """A line's sum; None where it has no value."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
