"""The pager's own memory on disk: a small key-value store whose transactions land whole or not at all.

It is the truth of the outbox and of every alert's state, so that neither a restart nor a store that is away makes the
pager forget or page twice; the tables in the store are its mirror. SQLite keeps it: a transaction is synced before
:meth:`Journal.write` returns. A disk that takes nothing holds up no page: what could not be written stays in memory,
the pager says so, and it is written as soon as there is room.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections import deque
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, Final

import structlog

from alerts import journal_jsonl
from base import locks
from base.errors import DataFolderInUseError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

log = structlog.get_logger()

MAX_ROWS: Final = 50_000
"""Mirror rows kept while the store is away; the oldest go first, said aloud."""
MAX_ASIDE: Final = 100
"""Mirror rows kept that the store refuses for good; the oldest go first."""
ASIDE: Final = "aside"
"""Section of rows that were set aside: by their number, ``{"table", "row", "error"}``."""
META: Final = "meta"
TAKEN_UP: Final = "taken_up"
"""Key of `META`: what the store knew has been taken up, so that nothing is paged twice."""

Row = tuple[str, dict[str, Any]]
"""A table and one of its rows."""

_SCHEMA: Final = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS entry (
  section TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (section, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (number INTEGER PRIMARY KEY, target TEXT NOT NULL, content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
# An exclusive lock keeps the index of the WAL in memory: no third file, none that a full disk could refuse.
_ENTRIES: Final = "SELECT section, key, value FROM entry"
_WAITING: Final = "SELECT number, target, content FROM waiting ORDER BY number"
_COUNTER: Final = "SELECT value FROM counter WHERE name = 'sequence'"
_PUT: Final = "INSERT OR REPLACE INTO entry (section, key, value) VALUES (?, ?, ?)"
_DROP: Final = "DELETE FROM entry WHERE section = ? AND key = ?"
_QUEUE: Final = "INSERT OR REPLACE INTO waiting (number, target, content) VALUES (?, ?, ?)"
_UNQUEUE: Final = "DELETE FROM waiting WHERE number < ?"
_COUNT: Final = "INSERT OR REPLACE INTO counter (name, value) VALUES ('sequence', ?)"


class Journal:
    """Sections of keys and JSON values, and rows on their way to the store.

    Args:
        folder: Holds ``journal.sqlite`` and ``lock``; made when missing. A ``journal.jsonl`` of an older version is
            taken over once and renamed; a file that is no database any more is set aside as ``journal.broken``.

    Raises:
        DataFolderInUseError: Another pager uses the folder.
        OSError: The folder can't be written, or what is there can't be read.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / "journal.sqlite"
        self._guard = threading.RLock()
        try:
            self._held = locks.take(folder / "lock")
        except locks.HeldError as error:
            raise DataFolderInUseError(
                f"Another alerts process uses {folder}", "Stop it, or give this one its own --data folder"
            ) from error
        self._sections: dict[str, dict[str, Any]] = {}
        self._rows: deque[tuple[int, Row]] = deque()
        self._sequence, self._dropped, self._aside = 0, 0, 0
        self._unsaved: dict[tuple[str, str], str | None] = {}
        self._saved_rows = 0
        self._error = ""
        self._database: sqlite3.Connection | None = None
        self._inode = 0
        try:
            self._open()
            self._take_over(folder / "journal.jsonl")
        except BaseException:
            self._let_go()
            raise

    @property
    def fresh(self) -> bool:
        """What the store knows has not been taken up yet."""
        return self.get(META, TAKEN_UP) is None

    @property
    def dropped_rows(self) -> int:
        """Mirror rows given up because the store was away for too long."""
        return self._dropped

    @property
    def aside_rows(self) -> int:
        """Mirror rows set aside since the start."""
        return self._aside

    @property
    def waiting(self) -> int:
        """Rows that the store has not got yet."""
        return len(self._rows)

    @property
    def error(self) -> str:
        """Why what is in memory alone can't be written, empty when all is on disk."""
        return self._error

    def section(self, name: str) -> dict[str, Any]:
        """A copy of one section."""
        with self._guard:
            return dict(self._sections.get(name, {}))

    def get(self, section: str, key: str) -> Any:
        """One value, None when absent."""
        with self._guard:
            return self._sections.get(section, {}).get(key)

    def write(self, changes: Mapping[str, Mapping[str, Any]], rows: Sequence[Row] = ()) -> None:
        """One transaction: set values (None deletes) and queue rows for the store.

        On disk when this returns, or, where the disk takes nothing, in memory alone (see `error`).

        Raises:
            ValueError: A value is no JSON; nothing of the transaction happened then.
        """
        if not rows and not any(changes.values()):
            return
        texts = {
            (section, key): None if value is None else _text(value)
            for section, values in changes.items()
            for key, value in values.items()
        }
        for _, row in rows:
            _text(row)
        with self._guard:
            for (section, key), text in texts.items():
                if text is None:
                    self._sections.get(section, {}).pop(key, None)
                else:
                    self._sections.setdefault(section, {})[key] = changes[section][key]
            self._unsaved |= texts
            for queued in rows:
                self._sequence += 1
                self._rows.append((self._sequence, queued))
            self._bound()
            self._save()

    def flush(self) -> None:
        """Try again to write what the disk did not take."""
        with self._guard:
            if self._error:
                self._save()

    def waiting_rows(self, limit: int = 1000) -> list[tuple[int, Row]]:
        """The oldest rows that the store has not got yet, with their numbers."""
        with self._guard:
            return list(islice(self._rows, limit))

    def set_aside(self, number: int, queued: Row, error: str) -> None:
        """Keep a row that the store refuses for good; `mirrored` takes it off the queue with its batch."""
        table, row = queued
        kept = sorted(self.section(ASIDE), key=int)
        oldest = dict.fromkeys(kept[: max(0, len(kept) + 1 - MAX_ASIDE)])
        self._aside += 1
        log.error("alert_history_row_set_aside", table=table, number=number, error=error, kept_in=str(self._path))
        self.write({ASIDE: {**oldest, str(number): {"table": table, "row": row, "error": error}}})

    def mirrored(self, number: int) -> None:
        """The store has all rows up to this number."""
        with self._guard:
            while self._rows and self._rows[0][0] <= number:
                self._rows.popleft()
            self._save()

    def close(self) -> None:
        """Let go of the files."""
        with self._guard:
            self.flush()
            self._let_go()

    def _let_go(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        self._held.close()

    def _bound(self) -> None:
        while len(self._rows) > MAX_ROWS:
            self._rows.popleft()
            self._dropped += 1
            if self._dropped % 1000 == 1:
                log.error("alert_history_rows_dropped", dropped=self._dropped, kept=MAX_ROWS)

    def _open(self) -> None:
        try:
            self._connect()
            self._load()
        except sqlite3.OperationalError as error:
            self._disconnect()
            if self._path.exists() and self._path.stat().st_size:
                raise OSError(f"{self._path} can't be read: {error}") from error
            self._failed(error)
        except (sqlite3.DatabaseError, ValueError) as error:
            self._disconnect()
            aside = self._path.with_name("journal.broken")
            log.error("journal_broken", error=str(error), set_aside=str(aside))  # noqa: TRY400 the error is said
            self._path.replace(aside)
            self._path.with_name("journal.sqlite-wal").unlink(missing_ok=True)
            self._connect()

    def _connect(self) -> None:
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        self._database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._database.executescript(_SCHEMA)
        self._inode = self._path.stat().st_ino

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _load(self) -> None:
        assert self._database is not None  # noqa: S101 connected a line before
        for section, key, value in self._database.execute(_ENTRIES):
            self._sections.setdefault(section, {})[key] = json.loads(value)
        for number, table, row in self._database.execute(_WAITING):
            self._rows.append((number, (table, json.loads(row))))
        counted = self._database.execute(_COUNTER).fetchone()
        self._sequence = max(counted[0] if counted else 0, self._rows[-1][0] if self._rows else 0)
        self._saved_rows = self._sequence

    def _take_over(self, old: Path) -> None:
        if not old.exists() or not self.fresh:
            return
        sections, rows, sequence = journal_jsonl.read(old)
        self._rows.extend(rows)
        self._sequence = max(self._sequence, sequence)
        self.write({**sections, META: {TAKEN_UP: True}})
        if not self._error:
            old.replace(old.with_name("journal.jsonl.taken-over"))
        log.info("journal_taken_over", path=str(old), rows=len(rows))

    def _save(self) -> None:
        """Write what memory has and the disk has not; one transaction."""
        try:
            if self._database is None or not self._path.exists() or self._path.stat().st_ino != self._inode:
                self._anew()
            assert self._database is not None  # noqa: S101 connected above
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(_PUT, [(*k, text) for k, text in self._unsaved.items() if text is not None])
            self._database.executemany(_DROP, [k for k, text in self._unsaved.items() if text is None])
            fresh = takewhile(lambda numbered: numbered[0] > self._saved_rows, reversed(self._rows))
            self._database.executemany(_QUEUE, [(n, table, _text(row)) for n, (table, row) in fresh])
            self._database.execute(_UNQUEUE, (self._rows[0][0] if self._rows else self._sequence + 1,))
            self._database.execute(_COUNT, (self._sequence,))
            self._database.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return
        self._unsaved.clear()
        self._saved_rows = self._sequence
        if self._error:
            log.info("journal_written_again", path=str(self._path))
            self._error = ""

    def _anew(self) -> None:
        """Make the file again, all of it: it is not there, or is another one."""
        self._disconnect()
        self._connect()
        self._unsaved |= {(s, key): _text(v) for s, values in self._sections.items() for key, v in values.items()}
        self._saved_rows = 0

    def _failed(self, error: Exception) -> None:
        said = f"{self._path} can't be written: {error}"
        if not self._error:
            log.error("journal_in_memory", error=said, effect="pages go on from memory until there is room")
        self._error = said
        try:
            if self._database is not None and self._database.in_transaction:
                self._database.execute("ROLLBACK")
        except sqlite3.Error as second:
            log.error("journal_opened_anew", error=str(second))  # noqa: TRY400 the first error is said above
            self._disconnect()


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
