"""The chDB engine: one per process and data folder, and the handles that requests run on.

A handle serves one request (or one session that holds state) and is closed after any error: the engine hands the
rows of a failed query to the next query of the same handle.
"""

from __future__ import annotations

import re
import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import chdb

from collector.embedded.engine_config import reader_settings, write_config
from collector.embedded.errors import QUERY_WAS_CANCELLED, QueryError, from_engine
from collector.embedded.refusal import FenceError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from collector.embedded.limits import Limits

DATABASE = "servescope"
Role = Literal["owner", "reader"]
_READABLE = frozenset({DATABASE, "default", "information_schema", "INFORMATION_SCHEMA"})
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


@dataclass(frozen=True)
class Answer:
    """A statement with a result, open at the place where its answer's destination goes.

    Attributes:
        head: Text before ``INTO OUTFILE``.
        tail: ``FORMAT …`` and what follows it.
        form: The format's name.
    """

    head: str
    tail: str
    form: str

    @property
    def text(self) -> str:
        """The statement without a destination."""
        return f"{self.head} {self.tail}"

    def into(self, path: str) -> str:
        """The statement with its answer going into ``path``."""
        return f"{self.head} INTO OUTFILE {quote(path)} TRUNCATE COMPRESSION 'none' {self.tail}"


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
    """One connection to the engine, with a role, a current database and settings of its own.

    Args:
        address: The engine's connection string.
        setup: Statements that give it its role.
        folder: The data folder, which no error names.
    """

    def __init__(self, address: str, setup: str, folder: Path) -> None:
        self._connection = chdb.connect(address)
        # As it was given, and as the system calls it: the longer first, since one may begin with the other.
        self._folders = sorted({str(folder.absolute()), str(folder.resolve())}, key=len, reverse=True)
        self.tainted = False
        try:
            self._run(setup, "TabSeparated", None)
        except QueryError:
            self.close()
            raise

    def query(self, sql: str, form: str = "TabSeparated", parameters: Mapping[str, str] | None = None) -> Outcome:
        """Run one statement and return its whole answer in the format ``form``.

        Raises:
            QueryError: The engine refused or failed; the handle must be drained or closed.
        """
        return self._run(sql, form, parameters)

    def answer(self, answer: Answer, path: str, tag: str, parameters: Mapping[str, str]) -> Outcome:
        """Run a statement whose answer goes into the file or pipe at ``path``.

        Args:
            answer: The statement, as it was admitted.
            path: Where the engine writes.
            tag: Words in a comment by which ``Engine.kill`` finds it.
            parameters: Values of its placeholders.

        Raises:
            QueryError: The engine refused or failed; the handle must be drained or closed.
            FenceError: The text is not the one statement that it was taken for.
        """
        sql = f"{answer.into(path)}\n/* {tag} */"
        # The engine's own parser, on the very text that runs: writing into a file is what it must see, once.
        if self.classify(sql) != ("CONTROL", 1):
            raise FenceError("statements", "The statement and its answer's place are not one statement")
        return self._run(sql, answer.form, parameters)

    def use(self, settings: Mapping[str, str]) -> None:
        """Change settings for what follows.

        Raises:
            QueryError: The engine refuses one.
        """
        if settings:
            self._run(f"SET {assign(settings)}", "TabSeparated", None)

    def canonical(self, sql: str) -> str:
        """The engine's own text of one statement, on one line: comments gone, escapes decoded, names quoted one way.

        Raises:
            QueryError: The engine can't read it (62), or not within the parser's limits.
        """
        escaped = sql.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
        escaped = escaped.replace("\0", "\\0")
        found = self._run("SELECT formatQuerySingleLine({q:String})", "TabSeparatedRaw", {"q": escaped}).data
        return found.decode().removesuffix("\n")

    def classify(self, sql: str) -> tuple[str, int]:
        """Ask the engine's parser what ``sql`` would do: (class, number of statements); class UNKNOWN: unparsable."""
        found = self._connection._conn.classify_query(sql)  # noqa: SLF001 - the only way to the engine's own parser
        return found["query_class"].name, found["statement_count"]

    def drain(self) -> bool:
        """Throw away what a failed query left in the handle; False where it can't be trusted any more."""
        try:
            self._run("SELECT 1", "TabSeparated", None)
            clean = self._run("SELECT 'clean'", "TabSeparated", None).data == b"clean\n"
        except QueryError:
            return False
        self.tainted = not clean
        return clean

    def close(self) -> None:
        """Give the handle back to the engine; its temporary tables and settings end with it."""
        self._connection.close()

    def _run(self, sql: str, form: str, parameters: Mapping[str, str] | None) -> Outcome:
        try:
            return Outcome(self._connection.query(sql, form, params=dict(parameters or {})))
        except (chdb.ChdbError, RuntimeError, UnicodeDecodeError) as error:
            self.tainted = True
            found = from_engine(error)
        message = found.message
        for folder in self._folders:
            message = message.replace(folder, "<data>")
        raise QueryError(found.code, message)


class ReaderHandle(Handle):
    """A reader's handle: nothing runs on it before it is locked, and then only single statements that read.

    Locked means ``readonly = 1``, which a session can't leave: whatever statement got past everything else, under
    whatever role, could change no setting and no table, open no file or address, and make nothing.
    """

    def __init__(self, address: str, setup: str, folder: Path) -> None:
        super().__init__(address, setup, folder)
        self._locked = False

    def use(self, settings: Mapping[str, str]) -> None:
        """Change settings and lock the handle: once, before its statement.

        Raises:
            QueryError: The engine refuses one.
        """
        if self._locked:
            raise FenceError("setting", "A reader's handle is locked once its settings are made")
        self._run(f"SET {assign({**settings, 'readonly': '1'})}", "TabSeparated", None)
        self._locked = True

    def query(self, sql: str, form: str = "TabSeparated", parameters: Mapping[str, str] | None = None) -> Outcome:
        """Run one reading statement and return its whole answer in the format ``form``.

        Raises:
            QueryError: The engine refused or failed; the handle must be drained or closed.
            FenceError: More than one statement, or one that does not only read.
        """
        self._only_reads(sql)
        return super().query(sql, form, parameters)

    def answer(self, answer: Answer, path: str, tag: str, parameters: Mapping[str, str]) -> Outcome:
        """Run a reading statement whose answer goes into the file or pipe at ``path``; arguments as in ``Handle``.

        Raises:
            QueryError: The engine refused or failed; the handle must be drained or closed.
            FenceError: More than one statement, or one that does not only read.
        """
        self._only_reads(answer.text)
        return super().answer(answer, path, tag, parameters)

    def _only_reads(self, sql: str) -> None:
        kind, count = self.classify(sql)
        if count != 1:
            raise FenceError("statements", "Syntax error (Multi-statements are not allowed)")
        if kind != "READ_ONLY":
            raise FenceError("statement", "A reader's handle only reads")
        if not self._locked:
            self.use({})


class Engine:
    """The engine of one data folder. Threads may share it; each request takes a handle of its own.

    Args:
        folder: Engine's own folder (created); another process that holds it makes ``open`` fail.
        limits: Memory, time and result bounds.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.limits = limits
        self.folder = folder
        # A name that nobody can guess: no statement can take the role by it.
        self._owner = f"owner_{secrets.token_hex(16)}"
        self._config = write_config(folder, limits, self._owner)
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
                self._address,
                f"CREATE DATABASE IF NOT EXISTS {DATABASE} ENGINE = Atomic; USE {DATABASE}",
                self.folder,
            )
        except (chdb.ChdbError, RuntimeError) as error:
            raise from_engine(error) from None
        finally:
            # The role's name is in them.
            for path in (self._config, self._config.with_name("users.xml")):
                path.unlink(missing_ok=True)

    def handle(self, role: Role, database: str = "", settings: Mapping[str, str] | None = None) -> Handle:
        """Open a handle for ``role``; ``database`` '' is the store's own, and so is a reader's ``default``.

        Args:
            role: Who it is for.
            database: The current database.
            settings: The store's own choices for this handle; a reader can't change what its profile fixes.

        Raises:
            QueryError: Unknown database (81), or the engine is shutting down.
            FenceError: A database that a reader can't make its own.
        """
        database = database or DATABASE
        if role == "owner":
            chosen = f"SET {assign(settings)}; " if settings else ""
            return Handle(self._address, f"SET ROLE owner, {self._owner}; {chosen}USE {name(database)}", self.folder)
        if database not in _READABLE:
            raise FenceError("database", f"A reader can't make {database} the current database", "Name its tables")
        # In the engine's own database ``default`` a name that is no table is a file.
        database = DATABASE if database == "default" else database
        chosen = assign({**reader_settings(self.limits), **(settings or {})})
        # The profile comes last: its constraints bind this SET, too.
        return ReaderHandle(
            self._address, f"SET ROLE reader; USE {name(database)}; SET {chosen}; SET profile = 'reader'", self.folder
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
