"""Repair of deduplication logs, so that replaying a batch completes what a crash or a full disk cut short.

For each inserted part the engine notes its block id in ``<table>/deduplication_logs/deduplication_log_N.txt`` *before*
it renames ``tmp_insert_…`` to the part. Killed (or refused by the disk) in between, a replay of the same token counts
as a duplicate and the part's rows are lost. Dropping the notes of parts that do not exist makes the replay exact. This
must happen before every open, since later parts and merges would cover the missing block, and after every failed
insert.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from collector.embedded.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from collector.embedded.engine import Engine

_log = structlog.get_logger()
# A partition id has no underscore, so a mutation's number can't be taken for a level.
_PART = re.compile(r"^(?P<partition>[^_]+)_(?P<first>\d+)_(?P<last>\d+)_(?P<level>\d+)(?:_\d+)?$")
_LOGS = "deduplication_logs"
_ADDED = "1"
_ATTEMPTS = 10


@dataclass(frozen=True)
class Part:
    """A part's name taken apart: partition and the range of blocks it holds."""

    partition: str
    first: int
    last: int

    @staticmethod
    def of(name: str) -> Part | None:
        """Parse ``<partition>_<first>_<last>_<level>[_<mutation>]``; None for any other name."""
        match = _PART.match(name)
        if match is None or name.startswith(("tmp", "delete_tmp", "detached", "broken")):
            return None
        return Part(match["partition"], int(match["first"]), int(match["last"]))

    def covers(self, other: Part) -> bool:
        """Whether this part holds all blocks of the other."""
        return self.partition == other.partition and self.first <= other.first and self.last >= other.last


@dataclass(frozen=True)
class Table:
    """A table that deduplicates, by name and folder."""

    database: str
    name: str
    folder: Path

    @property
    def sql(self) -> str:
        """The quoted name."""
        return f"`{self.database}`.`{self.name}`"


def folders(root: Path) -> Iterator[Path]:
    """Table folders under the engine's folder that keep deduplication logs."""
    for pattern in ("store/*/*", "data/*/*"):
        for logs in sorted(root.glob(f"{pattern}/{_LOGS}")):
            if not logs.parent.is_symlink():
                yield logs.parent


def repair_folder(folder: Path, broken: Iterable[Part] = ()) -> int:
    """Drop the log lines of parts that are neither on disk nor covered; the table must be closed.

    Args:
        folder: The table's folder.
        broken: Parts that the engine put aside as damaged: their lines go, too.

    Returns:
        Lines dropped.

    Raises:
        OSError: A log can't be rewritten.
    """
    broken = tuple(broken)
    dropped = 0
    lost = _lost(folder, broken)
    for path in sorted((folder / _LOGS).glob("*.txt")):
        lines = path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if not lost(line)]
        if len(kept) == len(lines):
            continue
        dropped += len(lines) - len(kept)
        temporary = path.with_suffix(".repair")
        with temporary.open("w") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    return dropped


def damaged(folder: Path) -> bool:
    """Whether a log of the table notes a part that does not exist."""
    lines = [line for path in (folder / _LOGS).glob("*.txt") for line in path.read_text().splitlines()]
    lost = _lost(folder, ())
    return any(lost(line) for line in lines)


def _lost(folder: Path, broken: tuple[Part, ...]) -> Callable[[str], bool]:
    present = [part for entry in os.scandir(folder) if entry.is_dir() and (part := Part.of(entry.name))]
    exact = set(present)
    ranges: dict[str, list[Part]] = {}
    for part in present:
        if part.first != part.last:
            ranges.setdefault(part.partition, []).append(part)

    def lost(line: str) -> bool:
        fields = line.rstrip("\n").split("\t")
        if len(fields) < 3 or fields[0] != _ADDED:  # noqa: PLR2004 - operation, part, block id
            # A line torn by the crash names nothing that the engine could have acknowledged.
            return not line.endswith("\n") and fields[0] == _ADDED
        part = Part.of(fields[1])
        if part is None:
            return False
        if any(bad.covers(part) for bad in broken):
            return True
        return part not in exact and not any(big.covers(part) for big in ranges.get(part.partition, ()))

    return lost


def before_open(root: Path) -> int:
    """Repair every table of a closed engine.

    Returns:
        Lines dropped.

    Raises:
        OSError: A folder can't be read or written.
    """
    dropped = 0
    for folder in folders(root):
        found = repair_folder(folder)
        dropped += found
        if found:
            _log.warning("deduplication_repaired", table_folder=folder.name, lines=found)
    return dropped


def after_open(engine: Engine) -> int:
    """Make replay possible for parts that the engine found damaged and put aside at this start.

    Returns:
        Lines dropped.

    Raises:
        QueryError: A table can't be closed and reopened.
    """
    rows = engine.root(
        "SELECT database, table, groupArray(partition_id || '_' || toString(min_block_number) || '_'"
        " || toString(max_block_number) || '_' || toString(level)) FROM system.detached_parts"
        " WHERE reason LIKE 'broken%' AND partition_id IS NOT NULL AND min_block_number IS NOT NULL"
        " GROUP BY database, table FORMAT JSONCompactEachRow"
    )
    dropped = 0
    for line in rows.splitlines():
        database, name, names = json.loads(line)
        parts = [part for text in names if (part := Part.of(text))]
        for table in _tables(engine):
            if (table.database, table.name) == (database, name):
                found = _reopen(engine, table, parts)
                dropped += found
                _log.warning("damaged_parts_put_aside", table=table.name, parts=names, lines=found)
    return dropped


def after_failure(engine: Engine) -> int:
    """Repair the tables that a failed write left with notes of parts that do not exist; no write may run meanwhile.

    Returns:
        Lines dropped; 0 where nothing was wrong, and then no table was touched.

    Raises:
        QueryError: A table can't be closed and reopened.
        OSError: A log can't be rewritten (disk full): the caller must not take writes.
    """
    dropped = 0
    for table in _tables(engine):
        if damaged(table.folder):
            found = _reopen(engine, table, ())
            dropped += found
            _log.warning("deduplication_repaired", table=table.name, lines=found)
    return dropped


def _tables(engine: Engine) -> list[Table]:
    rows = engine.root(
        "SELECT database, name, data_paths[1] FROM system.tables WHERE notEmpty(data_paths)"
        # A materialized view lists its target's folder as its own: closing the view would mend nothing.
        " AND engine LIKE '%MergeTree' AND database NOT IN ('system', 'INFORMATION_SCHEMA', 'information_schema')"
        " FORMAT JSONCompactEachRow"
    )
    found = []
    for line in rows.splitlines():
        database, name, path = json.loads(line)
        folder = engine.folder / "db" / path if not path.startswith("/") else engine.folder.__class__(path)
        if (folder / _LOGS).is_dir():
            found.append(Table(database, name, folder))
    return found


def _reopen(engine: Engine, table: Table, broken: Iterable[Part]) -> int:
    engine.root(f"DETACH TABLE {table.sql} SYNC")
    try:
        return repair_folder(table.folder, broken)
    finally:
        _attach(engine, table)


def _attach(engine: Engine, table: Table) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            engine.root(f"ATTACH TABLE IF NOT EXISTS {table.sql}")
        except QueryError as error:
            if attempt == _ATTEMPTS - 1:
                raise
            _log.warning("attach_retried", table=table.name, error=error.message)
            time.sleep(0.1 * 2**attempt)
        else:
            return
