"""Reads ``journal.jsonl``, the form that the journal had before it was a database: one line, one transaction."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger()

Numbered = tuple[int, tuple[str, dict[str, Any]]]
"""A row for the store with its number: (number, (table, row))."""


def read(path: Path) -> tuple[dict[str, dict[str, Any]], list[Numbered], int]:
    """Sections, rows that wait for the store, and the highest number that a row had.

    A torn last line (power loss) is the transaction that never happened; one further up is left out, said aloud.

    Raises:
        OSError: The file can't be read.
    """
    sections: dict[str, dict[str, Any]] = {}
    rows: list[Numbered] = []
    sequence = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                record = None
            if not isinstance(record, dict):
                log.warning("journal_line_unreadable", path=str(path), line=number)
                continue
            for section, values in record.get("set", {}).items():
                kept = sections.setdefault(section, {})
                kept.update(values)
                for key in [key for key, value in values.items() if value is None]:
                    del kept[key]
            rows += [(int(at), (str(table), dict(row))) for at, table, row in record.get("rows", ())]
            sequence = max([sequence, record.get("mirrored", 0), *(at for at, _ in rows)])
            rows = [row for row in rows if row[0] > record.get("mirrored", 0)]
    return sections, rows, sequence
