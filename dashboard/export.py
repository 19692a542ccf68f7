"""A result's lines as CSV: what a panel draws, for a spreadsheet."""

from __future__ import annotations

import csv
import io
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dashboard.escape import cell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def as_csv(result: Any) -> str:
    """One column a line over the result's ``times``; without times, its rows, or one row a list."""
    out = io.StringIO()
    writer = csv.writer(out)
    times: Sequence[Any] = getattr(result, "times", [])
    if times:
        columns = [(name, values) for name, values in _columns("", result) if len(values) == len(times)]
        columns = [(name, values) for name, values in columns if name != "times"]
        writer.writerow(["time", *(cell(name) for name, _ in columns)])
        for index, moment in enumerate(times):
            writer.writerow([moment.isoformat(), *(cell(values[index]) for _, values in columns)])
    elif rows := _rows(result):
        names = [item.name for item in fields(rows[0])]
        writer.writerow(names)
        for row in rows:
            writer.writerow([cell(_plain(getattr(row, name))) for name in names])
    else:
        for name, values in _columns("", result):
            writer.writerow([cell(name), *map(cell, values)])
    return out.getvalue()


def _rows(result: Any) -> Sequence[Any]:
    """The first list of dataclasses of a result that has no times."""
    for item in fields(result):
        value = getattr(result, item.name)
        if isinstance(value, list) and value and is_dataclass(value[0]):
            return value
    return []


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
