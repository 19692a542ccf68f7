"""Gathers steps and finished requests by who told them, and makes records of many rows each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from agent.probe.datagram import Finished, Step
from base.vocabulary import EVENT_FINISHED, EVENT_STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.otlp.columns import Value

MAX_STREAMS: Final = 512
MAX_ROWS: Final = 4_096
"""Rows of one stream that wait for the next batch."""
TIMES: Final = frozenset({"scheduled_ns", "completed_ns", "finished_ns"})
"""Columns that hold Unix times."""


class Teller(NamedTuple):
    """Who told of a row: a process, by the name it was given, and the rank that it told of (-1 for none)."""

    pid: int
    instance: str
    rank: int


class Batch(NamedTuple):
    """Rows of one teller, ready to be encoded.

    Attributes:
        teller: Whose they are.
        event: What they are.
        columns: Values by name, all of one length; a column of which nothing is known is left out.
        rows: How many.
        time_ns: Of the last of them.
    """

    teller: Teller
    event: str
    columns: dict[str, Sequence[Value]]
    rows: int
    time_ns: int


class Gathering:
    """Rows that wait for the next batch.

    Attributes:
        dropped: Rows for which there was no place.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._waiting: dict[tuple[Teller, str], list[Step | Finished]] = {}

    def add(self, teller: Teller, row: Step | Finished) -> None:
        """Take a row."""
        key = teller, EVENT_STEPS if isinstance(row, Step) else EVENT_FINISHED
        rows = self._waiting.get(key)
        if rows is None:
            if len(self._waiting) >= MAX_STREAMS:
                self.dropped += 1
                return
            rows = self._waiting[key] = []
        if len(rows) >= MAX_ROWS:
            self.dropped += 1
        else:
            rows.append(row)

    def take(self) -> list[Batch]:
        """All that waits, and forget it."""
        waiting, self._waiting = self._waiting, {}
        return [
            Batch(teller, event, _columns(rows), len(rows), _time(rows[-1]))
            for (teller, event), rows in waiting.items()
        ]


def _time(row: Step | Finished) -> int:
    return row.completed_ns if isinstance(row, Step) else row.finished_ns


def _columns(rows: Sequence[Step | Finished]) -> dict[str, Sequence[Value]]:
    told: Mapping[str, Sequence[Value]] = {
        name: [_known(name, value) for value in column]
        for name, column in zip(rows[0]._fields, zip(*rows, strict=True), strict=True)
    }
    return {name: column for name, column in told.items() if any(value is not None for value in column)}


def _known(name: str, value: float | str) -> Value:
    if isinstance(value, float):
        return value if math.isfinite(value) and value >= 0 else None
    if isinstance(value, str):
        return value or None
    return None if value < 0 or (value == 0 and name in TIMES) else value
