"""Brings the journal's rows to the store's tables, in order, whenever the store is there."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Protocol

from base.errors import ConfigError, ServescopeError
from collector.store.client import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from alerts.journal import Journal, Row

_TIMES: Final = frozenset({"time", "opened_at", "updated_at", "resolved_at", "sent_at"})
_BATCH: Final = 1000
REFUSED: Final = frozenset(
    {6, 26, 27, 32, 33, 36, 38, 41, 53, 69, 70, 72, 117, 128, 131, 190, 321, 349, 407, 441, 469, 691}
)
"""Codes by which ClickHouse refuses the values of rows (parsing, ranges, types, enums, constraints). What is wrong with
the server or its tables is not among them: that passes, and the rows wait for it."""
_OF_THE_DRIVER: Final = "DataError"
"""Raised by the driver before anything is sent."""


class Sink(Protocol):
    """What is needed of a store."""

    def insert(self, table: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Insert rows that have the same keys; equal batches count once."""
        ...


class HistoryWriter:
    """One direction, one writer. A batch that failed is repeated unchanged, so that ClickHouse drops what it has.

    One that is refused for what its rows hold is halved until the rows that are refused stand alone; these are set
    aside in the journal, and the rest goes on.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._until: int | None = None

    def push(self, sink: Sink) -> int:
        """Insert everything that waits.

        Returns:
            Rows inserted or set aside.

        Raises:
            ServescopeError: The store is away, or refuses for what is not a row's fault; the rest waits.
        """
        done = 0
        while waiting := self._journal.waiting_rows(_BATCH):
            if self._until is None:
                self._until = waiting[-1][0]
            batch = [(number, row) for number, row in waiting if number <= self._until]
            for (table, _), rows in groupby(sorted(batch, key=_shape), key=_shape):
                self._insert(sink, table, list(rows))
            self._journal.mirrored(self._until)
            self._until = None
            done += len(batch)
        return done

    def _insert(self, sink: Sink, table: str, rows: Sequence[tuple[int, Row]]) -> None:
        try:
            sink.insert(table, [_typed(row) for _, (_, row) in rows])
        except Exception as error:
            if not _for_good(error):
                raise
            if len(rows) == 1:
                self._journal.set_aside(*rows[0], str(error) or type(error).__name__)
                return
            middle = len(rows) // 2
            self._insert(sink, table, rows[:middle])
            self._insert(sink, table, rows[middle:])


def _shape(item: tuple[int, Row]) -> tuple[str, list[str]]:
    """The table and the columns: rows that an older version wrote may have others."""
    table, row = item[1]
    return table, sorted(row)


def _for_good(error: Exception) -> bool:
    """Whether it is the rows that are wrong, so that no repetition mends it."""
    if isinstance(error, StoreError):
        return error.code in REFUSED or error.name == _OF_THE_DRIVER
    if isinstance(error, ServescopeError | OSError):
        return isinstance(error, ConfigError)
    return True  # a value of another kind than its column's, over which the driver trips


def _typed(row: Mapping[str, Any]) -> dict[str, object]:
    typed: dict[str, object] = {}
    for name, value in row.items():
        if name in _TIMES and value is not None:
            typed[name] = datetime.fromtimestamp(value, UTC)
        elif name == "payload":
            typed[name] = json.dumps(value)
        else:
            typed[name] = value
    return typed
