"""Which way a segment goes into the store: small ones as rows that are made here, all others as they are.

However small an insert is, the engine analyses each view that it reaches; the views that take the nested messages apart
cost more of that than all the others. A segment must take the same way each time it is inserted, since what was
stored of it is known by a token that goes with the way: the way follows from its name and its bytes alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import structlog

from collector import framing
from collector.plain import landed, metrics, traces
from collector.plain.landed import OddError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from collector.store.rows import Rows

LOG: Final = structlog.get_logger()

MARK: Final = "p"
"""Begins the last word of a segment's name where its way is chosen here; segments of older versions have none. Another
choice for the same bytes needs another mark."""
SMALL_BYTES: Final = 256 << 10
"""A larger segment costs less in the engine than here."""
_ROWS: Final = {"land_traces": traces.rows, "land_metrics": metrics.rows}


class RowStore(Protocol):
    """What is needed of ``collector.store.client.Store``."""

    def insert_segment(self, table: str, segment: Path | bytes, token: str) -> None:
        """Insert a file of length-delimited requests under a token."""

    def insert_rows(self, rows: Sequence[Rows], token: str) -> None:
        """Insert rows under a token."""


class Landing:
    """Brings segments into the landing tables.

    Args:
        store: Where they go.
    """

    def __init__(self, store: RowStore) -> None:
        self._store = store

    def insert_segment(self, table: str, segment: Path, token: str) -> None:
        """Insert a segment, once per token.

        Args:
            table: A key of ``collector.store.statements.LANDING``.
            segment: The file.
            token: Id of the segment.

        Raises:
            StoreError: ClickHouse refused it; nothing or a part was stored.
            StoreUnavailable: It does not answer; whether it was stored is unknown until it is repeated.
            OSError: The file can't be read.
        """
        if (rows := _rows(table, segment, token)) is not None:
            try:
                self._store.insert_rows(rows, token)
            except ValueError as error:
                LOG.warning("rows_do_not_fit", segment=token, error=str(error))
            else:
                return
        self._store.insert_segment(table, segment, token)


def _rows(table: str, segment: Path, token: str) -> list[Rows] | None:
    """A segment's rows, None where the engine has to read it."""
    if table not in _ROWS or not _is_marked(token) or segment.stat().st_size > SMALL_BYTES:
        return None
    signal = table.removeprefix("land_")
    requests = []
    with segment.open("rb") as file:
        for frame in framing.read(file):
            if not frame.intact:
                return None
            try:
                requests.append(landed.read(signal, frame.message))
            except OddError:
                return None
    try:
        return _ROWS[table](requests)
    except OddError:
        return None


def _is_marked(token: str) -> bool:
    words = token.split("-")
    return len(words) > 2 and words[2].startswith(MARK)  # noqa: PLR2004 - signal, time and the word that is looked at
