"""Brings the journal's rows to the store's tables, in order, whenever the store is there."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from alerts.journal import Journal

_TIMES: Final = frozenset({"time", "opened_at", "updated_at", "resolved_at", "sent_at"})
_BATCH: Final = 1000


class Sink(Protocol):
    """What is needed of a store."""

    def insert(self, table: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Insert rows that have the same keys; equal batches count once."""
        ...


class Mirror:
    """One direction, one writer. A batch that failed is repeated unchanged, so that ClickHouse drops what it has."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._until: int | None = None

    def push(self, sink: Sink) -> int:
        """Insert everything that waits.

        Returns:
            Rows inserted.

        Raises:
            ServescopeError: The store is away or refuses; the rest waits.
        """
        done = 0
        while waiting := self._journal.waiting_rows(_BATCH):
            if self._until is None:
                self._until = waiting[-1][0]
            batch = [(number, row) for number, row in waiting if number <= self._until]
            ordered = sorted(batch, key=lambda item: item[1][0])
            for table, rows in groupby(ordered, key=lambda item: item[1][0]):
                sink.insert(table, [_typed(row) for _, (_, row) in rows])
            self._journal.mirrored(self._until)
            self._until = None
            done += len(batch)
        return done


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
