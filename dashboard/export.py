"""A result's lines as CSV: what a panel draws, for a spreadsheet, and of which selection that is."""

from __future__ import annotations

import csv
import io
from dataclasses import fields, is_dataclass
from datetime import datetime
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from analytics.window import iso
from base.formats import spell
from dashboard.escape import cell
from dashboard.links import RECORDING_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from analytics.selection import Selection


def as_csv(result: Any, selection: Selection | None = None) -> str:
    """One column a line over the result's ``times``; without times, its rows, or one row a list.

    The first column says in every line what it is of: files are renamed, and lines of several put together.

    Args:
        result: Of a question, or a list of the dataclasses that a table lists: lines over time in these are left out;
            or the table's own rows, cells by column.
        selection: What it is of; None leaves the column out.
    """
    out = io.StringIO()
    writer: Any = csv.writer(out)
    if selection is not None:
        writer = _Marked(writer, in_words(selection))
    times: Sequence[Any] = getattr(result, "times", [])
    if times:
        columns = [(name, values) for name, values in _columns("", result) if len(values) == len(times)]
        columns = [(name, values) for name, values in columns if name != "times"]
        writer.writerow(["time", *(cell(name) for name, _ in columns)])
        for index, moment in enumerate(times):
            writer.writerow([moment.isoformat(), *(cell(values[index]) for _, values in columns)])
    elif isinstance(result, list) and result and isinstance(result[0], dict):
        writer.writerow([cell(name) for name in result[0]])
        for row in result:
            writer.writerow([cell(_plain(value)) for value in row.values()])
    elif rows := result if isinstance(result, list) else _rows(result):
        names = [item.name for item in fields(rows[0])]
        if rows is result:
            names = [name for name in names if not any(_is_line(getattr(row, name)) for row in rows)]
        writer.writerow(names)
        for row in rows:
            writer.writerow([cell(_plain(getattr(row, name))) for name in names])
    else:
        for name, values in _columns("", result):
            writer.writerow([cell(name), *map(cell, values)])
    return out.getvalue()


def in_words(selection: Selection) -> str:
    """What was looked at: the window as ISO 8601 puts intervals, what was chosen, and whether recordings count."""
    window, chosen = selection.window, [f"{name} {', '.join(values)}" for name, values in selection.filter.chosen()]
    if selection.outcome:
        chosen.append(f"outcome {', '.join(selection.outcome)}")
    if among := selection.latency:
        low = "" if among.at_least is None else f" from {spell(among.at_least)}"
        high = "" if among.below is None else f" below {spell(among.below)}"
        chosen.append(f"{among.signal}{low}{high}")
    chosen += [trait.in_words() for trait in selection.traits]
    chosen += [f"{name} {getattr(selection, name)}" for name in selection.ids]
    chosen.append(RECORDING_NAMES[selection.filter.recording].lower())
    return "; ".join([f"{iso(window.start)}/{iso(window.end)}", *chosen])


class _Marked:
    """A writer whose lines begin with what they are of; the first is the head."""

    def __init__(self, writer: Any, mark: str) -> None:
        self._writer, self._marks = writer, chain(["selection"], repeat(cell(mark)))

    def writerow(self, row: Sequence[Any]) -> None:
        """As `csv.writer` has it."""
        self._writer.writerow([next(self._marks), *row])


def _rows(result: Any) -> Sequence[Any]:
    """The first list of dataclasses of a result that has no times."""
    for item in () if isinstance(result, list) else fields(result):
        value = getattr(result, item.name)
        if isinstance(value, list) and value and is_dataclass(value[0]):
            return value
    return []


def _is_line(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, int | float | None) for one in value)


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return value.isoformat() if isinstance(value, datetime) else value


def _columns(prefix: str, value: Any) -> Iterator[tuple[str, Sequence[Any]]]:
    if is_dataclass(value) and not isinstance(value, type):
        own = next((getattr(value, word) for word in ("name", "phase", "instance") if getattr(value, word, "")), "")
        for item in fields(value):
            yield from _columns(" ".join(part for part in (prefix, own, item.name) if part), getattr(value, item.name))
    elif isinstance(value, list | tuple) and value:
        if is_dataclass(value[0]):
            for item in value:
                yield from _columns(prefix, item)
        else:
            yield prefix, value
