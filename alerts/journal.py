"""The pager's own memory on disk: a small key-value store whose transactions land whole or not at all.

The file is the truth of the outbox and of every alert's state, so that neither a restart nor a store that is away
makes the pager forget or page twice; the tables in the store are its mirror. One line is one transaction, synced
before :meth:`Journal.write` returns; a torn last line (power loss) is left out when the file is read again. The file
is rewritten whole when its changes outgrow what they describe.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import deque
from typing import IO, TYPE_CHECKING, Any, Final

import structlog

from agent.errors import DataFolderInUseError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

log = structlog.get_logger()

MAX_ROWS: Final = 50_000
"""Mirror rows kept while the store is away; the oldest go first, said aloud."""
REWRITE_BYTES: Final = 4 << 20

Row = tuple[str, dict[str, Any]]
"""A table and one of its rows."""


class Journal:
    """Sections of keys and JSON values, and rows on their way to the store.

    Args:
        folder: Holds ``journal.jsonl`` and ``lock``; made when missing.

    Raises:
        DataFolderInUseError: Another pager uses the folder.
        OSError: The folder can't be written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / "journal.jsonl"
        self._guard = threading.RLock()
        self._held = (folder / "lock").open("w")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._held.close()
            raise DataFolderInUseError(
                f"Another alerts process uses {folder}", "Stop it, or give this one its own --data folder"
            ) from error
        self._sections: dict[str, dict[str, Any]] = {}
        self._rows: deque[tuple[int, Row]] = deque()
        self._sequence = 0
        self._dropped = 0
        self.fresh = not self._path.exists()
        self._file: IO[bytes] | None = None
        try:
            self._read()
            self._rewrite()
        except BaseException:
            self._held.close()
            raise

    @property
    def dropped_rows(self) -> int:
        """Mirror rows given up because the store was away for too long."""
        return self._dropped

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

        Raises:
            OSError: The disk is full or gone; memory is unchanged then.
        """
        if not rows and not any(changes.values()):
            return
        with self._guard:
            record: dict[str, Any] = {"set": changes}
            if rows:
                record["rows"] = [[self._sequence + 1 + i, table, row] for i, (table, row) in enumerate(rows)]
            self._append(record)
            self._apply(record)
            if self._file is not None and os.fstat(self._file.fileno()).st_size > max(REWRITE_BYTES, 4 * self._base):
                self._rewrite()

    def waiting_rows(self, limit: int = 1000) -> list[tuple[int, Row]]:
        """The oldest rows that the store has not got yet, with their numbers."""
        with self._guard:
            return [self._rows[i] for i in range(min(limit, len(self._rows)))]

    def mirrored(self, number: int) -> None:
        """The store has all rows up to this number."""
        with self._guard:
            record = {"mirrored": number}
            self._append(record)
            self._apply(record)

    def close(self) -> None:
        """Let go of the files."""
        with self._guard:
            if self._file is not None:
                self._file.close()
                self._file = None
            self._held.close()

    def _append(self, record: Mapping[str, Any]) -> None:
        assert self._file is not None, "the journal is closed"  # noqa: S101 a fault of ours, not of the user
        start = os.fstat(self._file.fileno()).st_size
        try:
            line = memoryview(json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n")
            while line:
                line = line[os.write(self._file.fileno(), line) :]
            os.fsync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), start)
            raise

    def _apply(self, record: Mapping[str, Any]) -> None:
        for section, values in record.get("set", {}).items():
            kept = self._sections.setdefault(section, {})
            for key, value in values.items():
                if value is None:
                    kept.pop(key, None)
                else:
                    kept[key] = value
        for number, table, row in record.get("rows", ()):
            self._rows.append((number, (table, row)))
            self._sequence = number
        while len(self._rows) > MAX_ROWS:
            self._rows.popleft()
            self._dropped += 1
            if self._dropped % 1000 == 1:
                log.error("alert_history_rows_dropped", dropped=self._dropped, kept=MAX_ROWS)
        self._sequence = max(self._sequence, record.get("mirrored", 0))
        while self._rows and self._rows[0][0] <= record.get("mirrored", 0):
            self._rows.popleft()

    def _read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    record = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    record = None
                if not isinstance(record, dict):
                    log.warning("alert_journal_line_unreadable", path=str(self._path), line=number)
                    continue
                self._apply(record)

    def _rewrite(self) -> None:
        """Write what the journal says now into a new file and put it in the old one's place."""
        temporary = self._path.with_suffix(".new")
        rows: list[list[Any]] = [[number, table, row] for number, (table, row) in self._rows]
        snapshot: dict[str, Any] = {"set": self._sections, "rows": rows, "mirrored": 0}
        with temporary.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            if self._sequence:
                file.write(json.dumps({"mirrored": rows[0][0] - 1 if rows else self._sequence}).encode() + b"\n")
            file.write(json.dumps(snapshot, separators=(",", ":"), allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            self._base = file.tell()
        temporary.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        if self._file is not None:
            self._file.close()
        self._file = self._path.open("ab", buffering=0)
