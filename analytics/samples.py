"""Engine samples added up per step, model or instance: the one statement that several questions read."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from analytics.counters import FRAGMENTS
from analytics.values import number
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from analytics.grid import Grid
    from analytics.inquiry import Inquiry

_SQL: Final = beside(__file__)
_HELD_SECONDS: Final = 120.0
STEP: Final = "(slot)"
INSTANCE_STEP: Final = "(slot, name_of_instance)"
SERIES_STEP: Final = "(slot, name_of_instance, name_of_model)"
MODEL: Final = "(name_of_model)"
INSTANCE: Final = "(name_of_instance)"
SERIES: Final = "(name_of_instance, name_of_model)"
WHOLE: Final = "()"
"""What a row may stand for."""

_KEYS: Final = (("slot", "slot", "0"), ("model", "name_of_model", "''"), ("instance", "name_of_instance", "''"))


def sampled(inquiry: Inquiry, grid: Grid, sets: Sequence[str], *, beside_rows: bool = False) -> dict[str, list[Any]]:
    """Rows of ``samples.by_step`` for each of ``sets``; the whole is left out when there is no sample at all.

    Args:
        inquiry: The question.
        grid: Its steps.
        sets: Of the constants above.
        beside_rows: Whether ``…_elsewhere`` leave out instances whose requests are known from rows.
    """
    found: dict[str, list[Any]] = {name: [] for name in sets}
    shapes = {
        ("slot" not in name, "model" not in name, "instance" not in name): name
        for name in (STEP, INSTANCE_STEP, SERIES_STEP, MODEL, INSTANCE, SERIES, WHOLE)
    }
    listed = ", ".join(sets)
    keys = (  # a column that no set has cannot be selected
        f"{column} AS {name}, grouping({column}) AS no_{name}"
        if column in listed
        else f"{nothing} AS {name}, 1 AS no_{name}"
        for name, column, nothing in _KEYS
    )
    covered = _SQL["known_by_rows"] if beside_rows else "SELECT '', '' WHERE 0"
    fragments = FRAGMENTS | {"keys": ",\n    ".join(keys), "sets": listed, "covered": covered}
    rows = inquiry.ask("by_step", fragments, sql=_SQL, step_ms=grid.step_ms)
    for row in rows:
        if row["samples"]:
            found[shapes[bool(row["no_slot"]), bool(row["no_model"]), bool(row["no_instance"])]].append(row)
    return found


def gauge_peaks(inquiry: Inquiry) -> dict[str, float | None]:
    """``running`` and ``waiting``: the highest sums over instances within one second, None where no server shows it."""
    row = inquiry.ask("gauge_peaks", sql=_SQL)[0]
    return {name: number(row[name]) for name in ("running", "waiting")}


def line_of(rows: Iterable[Any], grid: Grid, column: str) -> list[float | None]:
    """One column of rows per step as a line."""
    line = grid.blank()
    for row in rows:
        line[grid.at(row["slot"])] = number(row[column])
    return line


def held(line: Sequence[float | None], step: float) -> list[float | None]:
    """A line of samples that come more seldom than steps, each value holding until the next may be expected.

    Args:
        line: A value in each step in which a sample came.
        step: Seconds of a step.

    A value holds for as long as samples usually are apart (the median), two minutes at most: what is silent for longer
    stays a gap.
    """
    told = [place for place, value in enumerate(line) if value is not None]
    if len(told) < 3:  # noqa: PLR2004 - two distances are the least that are usual
        return list(line)
    apart = sorted(later - earlier for earlier, later in pairwise(told))
    usual = min(apart[len(apart) // 2], int(_HELD_SECONDS / step))
    found = list(line)
    for place in told:
        for after in range(place + 1, min(place + usual, len(line))):
            if line[after] is not None:
                break
            found[after] = line[place]
    return found


def share_of(rows: Iterable[Any], grid: Grid, part: str, whole: str) -> list[float | None]:
    """``part / whole`` of rows per step as a line; None where the whole is 0 or unknown."""
    line = grid.blank()
    for row in rows:
        over, under = number(row[part]), number(row[whole])
        line[grid.at(row["slot"])] = over / under if over is not None and under else None
    return line


def last(line: Iterable[float | None]) -> float | None:
    """The newest value of a line."""
    return next((value for value in reversed(list(line)) if value is not None), None)


def peak(line: Iterable[float | None]) -> float | None:
    """The highest value of a line."""
    return max((value for value in line if value is not None), default=None)
