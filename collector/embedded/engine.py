"""The chDB engine: one per process and data folder, and the handles that requests run on.

A handle serves one request (or one session that holds state) and is closed after any error: the engine hands the
rows of a failed query to the next query of the same handle.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any, Literal

import chdb

from collector.embedded.engine_config import Limits, reader_settings, write_config
from collector.embedded.errors import QUERY_WAS_CANCELLED, QueryError, from_engine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DATABASE = "servescope"
Role = Literal["owner", "reader"]
_SETTING = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


def quote(text: str) -> str:
    """Write ``text`` as a ClickHouse string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def name(text: str) -> str:
    """Write ``text`` as a ClickHouse identifier."""
    return "`" + text.replace("\\", "\\\\").replace("`", "\\`") + "`"


def assign(settings: Mapping[str, str]) -> str:
    """Write settings as ``a = 'x', b = 'y'``.

    Raises:
        QueryError: A name that no setting can have.
    """
    for key in settings:
        if not _SETTING.match(key):
            raise QueryError(115, f"Setting {key!r} is neither a builtin setting nor a custom one. (UNKNOWN_SETTING)")
    return ", ".join(f"{key} = {quote(value)}" for key, value in settings.items())


class Outcome:
    """What a query left behind: bytes and counts.

    Attributes:
        data: The formatted answer, empty for statements without one.
        rows_read, bytes_read, rows_written, bytes_written: As in ``X-ClickHouse-Summary``.
        seconds: Time inside the engine.
    """

    __slots__ = ("bytes_read", "bytes_written", "data", "rows_read", "rows_written", "seconds")

    def __init__(self, result: Any) -> None:
        self.data: bytes = result.bytes() if result.size() else b""
        self.rows_read: int = result.rows_read()
        self.bytes_read: int = result.bytes_read()
        self.rows_written: int = result.rows_written()
        self.bytes_written: int = result.bytes_written()
        self.seconds: float = result.elapsed()


class Handle:
    """One connection to the engine, with a role, a current database and settings of its own."""

    def __init__(self, address: str, setup: str) -> None:
        self._connection = chdb.connect(address)
        self.tainted = False
        try:
            self.query(setup)
        except QueryError:
            self.close()
            raise

    def query(self, sql: str, form: str = "TabSeparated", parameters: Mapping[str, str] | None = None) -> Outcome:
        """Run one statement and return its whole answer in the format ``form``.

        Raises:
            QueryError: The engine refused or failed; the handle must be drained or closed.
        """
        try:
            return Outcome(self._connection.query(sql, form, params=dict(parameters or {})))
        except (chdb.ChdbError, RuntimeError) as error:
            self.tainted = True
            raise from_engine(error) from None

    def classify(self, sql: str) -> tuple[str, int]:
        """Ask the engine's parser what ``sql`` would do: (class, number of statements); class UNKNOWN: unparsable."""
        found = self._connection._conn.classify_query(sql)  # noqa: SLF001 - the only way to the engine's own parser
        return found["query_class"].name, found["statement_count"]

    def drain(self) -> bool:
        """Throw away what a failed query left in the handle; False where it can't be trusted any more."""
        try:
            self.query("SELECT 1")
            clean = self.query("SELECT 'clean'").data == b"clean\n"
        except QueryError:
            return False
        self.tainted = not clean
        return clean

    def close(self) -> None:
        """Give the handle back to the engine; its temporary tables and settings end with it."""
        self._connection.close()


class Engine:
    """The engine of one data folder. Threads may share it; each request takes a handle of its own.

    Args:
        folder: Engine's own folder (created); another process that holds it makes ``open`` fail.
        limits: Memory, time and result bounds.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.limits = limits
        self.folder = folder
        self._config = write_config(folder, limits)
        self._address = f"{folder / 'db'}?config-file={self._config}"
        self._root: Handle | None = None
        self._root_lock = threading.Lock()

    def open(self) -> None:
        """Start the engine and make the database.

        Raises:
            QueryError: The folder is held by another process, or is damaged.
        """
        try:
            self._root = Handle(
                self._address, f"CREATE DATABASE IF NOT EXISTS {DATABASE} ENGINE = Atomic; USE {DATABASE}"
            )
        except (chdb.ChdbError, RuntimeError) as error:
            raise from_engine(error) from None

    def handle(self, role: Role, database: str = "") -> Handle:
        """Open a handle for ``role``, its limits set and closed against SQL; ``database`` '' is the store's own.

        Raises:
            QueryError: Unknown database (81), or the engine is shutting down.
        """
        database = database or DATABASE
        if role == "owner":
            return Handle(self._address, f"SET ROLE owner; USE {name(database)}")
        return Handle(
            self._address,
            f"SET ROLE reader; SET {assign(reader_settings(self.limits))}; SET profile = 'reader'; "
            f"USE {name(database)}",
        )

    def root(self, sql: str, parameters: Mapping[str, str] | None = None) -> str:
        """Run a statement of the store's own and return its tab-separated answer.

        Raises:
            QueryError: The statement failed.
        """
        with self._root_lock:
            if self._root is None:
                raise QueryError(QUERY_WAS_CANCELLED, "The store is shutting down. (QUERY_WAS_CANCELLED)")
            try:
                return self._root.query(sql, "TabSeparatedRaw", parameters).data.decode(errors="replace")
            except QueryError:
                self._root.drain()
                raise

    def kill(self, tag: str) -> None:
        """Cancel the query that carries ``tag`` in its text; nothing where it has ended."""
        self.root(f"KILL QUERY WHERE position(query, {quote(tag)}) > 0 AND position(query, 'KILL QUERY') = 0 ASYNC")

    def close(self) -> None:
        """Stop the engine; every other handle must be closed by then."""
        with self._root_lock:
            if self._root is not None:
                self._root.close()
                self._root = None
