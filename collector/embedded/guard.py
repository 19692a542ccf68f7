"""What may run: for everyone one statement a request, for a reader only what can't reach beyond the tables.

The text is composed first: a reader's statement is taken back in the engine's own canonical form, where comments are
gone, escapes decoded and quotes of one kind, its format is a name that the engine knows, and the destination of its
answer stands where it will stand. That text is checked, and that text runs. Behind the guard a reader's handle is
locked, the engine's role forbids most of it again, and Landlock keeps the process to its folder.
"""

from __future__ import annotations

import re
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from collector.embedded import reader
from collector.embedded.canonical import Canonical, replace_tables
from collector.embedded.engine import Answer
from collector.embedded.errors import SYNTAX_ERROR, QueryError, refused
from collector.embedded.expansion import may_multiply, selects, too_much
from collector.embedded.pieces import plain
from collector.embedded.refusal import FenceError, check_text, insert_refused
from collector.embedded.statement import output_clause, tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from collector.embedded.engine import Engine, Handle
    from collector.embedded.request import Ask, Plan

_REMEMBERED_BYTES: Final = 4 << 20
_REMEMBERED_TEXT: Final = 64 << 10
_FILES: Final = re.compile("outfile|infile", re.IGNORECASE)
_EXPLAIN_AST: Final = re.compile(r"\s*+EXPLAIN\s++AST\b", re.IGNORECASE)
_PLACEHOLDER: Final = "/answer"


@dataclass(frozen=True)
class Admitted:
    """A statement that may run, as it runs.

    Attributes:
        sql: Its text, where it has no answer in a format.
        answer: The statement with an answer; None for any other.
        writes: It changes data or tables.
        settings: Settings to make before it.
    """

    sql: str
    answer: Answer | None = None
    writes: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


class Guard:
    """Admits statements; threads share it.

    Args:
        engine: The open engine, whose lists of functions and formats say what there is.
    """

    def __init__(self, engine: Engine) -> None:
        known = set(engine.root("SELECT lower(name) FROM system.table_functions").split())
        scalar = set(engine.root("SELECT lower(name) FROM system.functions").split())
        # A name that is a harmless function too is refused as a table alone.
        self._calls = frozenset(known - reader.TABLE_FUNCTIONS - (scalar - reader.FORBIDDEN)) | {"python", "file"}
        self._tables = frozenset(known - reader.TABLE_FUNCTIONS)
        self._wanted = self._tables | {"default", "system", *_ROW_FORMATS, *reader.STRUCTURED}
        self._names = reader.FORBIDDEN | {word for word in scalar if word.startswith("ai")}
        formats = [line.split("\t") for line in engine.root("SELECT name, is_output FROM system.formats").splitlines()]
        self._formats = {name.lower(): name for name, writes in formats if writes == "1"}
        self._input_formats = frozenset(
            engine.root("SELECT lower(name) FROM system.formats WHERE is_input").splitlines()
        )
        self._settings = reader.settings(engine.limits)
        self._masks = reader.masks()
        self._admitted: OrderedDict[tuple[str, ...], Admitted] = OrderedDict()
        self._remembered = 0
        self._lock = threading.Lock()

    def admit(self, handle: Handle, ask: Ask, plan: Plan) -> Admitted:
        """Check a statement and say what runs.

        Raises:
            QueryError: Refused; a ``FenceError`` where it is a reader's.
        """
        if ask.role == "reader":
            return self._admit_reader(handle, ask, plan)
        if plan.insert is not None:
            return self._admit_insert(handle, ask, plan)
        kind, count = handle.classify(plan.sql)
        if count > 1:
            raise _several()
        if ask.read_only and kind in {"MUTATING", "CONTROL"}:
            raise _get_writes()
        if _FILES.search(plan.sql) and any(
            token.word in {"OUTFILE", "INFILE"} for token in tokens(plan.sql) if token.depth == 0
        ):
            raise FenceError(
                "file", "INTO OUTFILE and FROM INFILE are a client's business", "Save the answer on your side"
            )
        if kind == "READ_ONLY" and count == 1:
            place, form = output_clause(plan.sql)
            written = self._format(form or ask.default_format)
            tail = plan.sql[place:] if form else f"FORMAT {written}"
            head = _explained(f"{plan.sql[:place]}\n")
            return Admitted(plan.sql, Answer(head, tail, written), settings=ask.settings)
        self._format(ask.default_format)
        return Admitted(plan.sql, writes=kind == "MUTATING", settings=ask.settings)

    def _admit_insert(self, handle: Handle, ask: Ask, plan: Plan) -> Admitted:
        if ask.read_only:
            raise _get_writes()
        if plan.insert is None or plan.path is None:
            raise FenceError("statement", "An insert without data")
        if plan.insert.form.lower() not in self._input_formats:
            raise FenceError("format", f"Unknown format {plan.insert.form}", "Inputs are in the table system.formats")
        sql = plan.insert.from_file(str(plan.path))
        if handle.classify(sql)[1] > 1:
            raise _several()
        return Admitted(sql, writes=True, settings=ask.settings)

    def _admit_reader(self, handle: Handle, ask: Ask, plan: Plan) -> Admitted:
        if plan.insert is not None:
            raise insert_refused()
        settings = self._url_settings(ask.settings)
        check_text(plan.sql)
        values = tuple(ask.parameters.values()) if "dentifier" in plan.sql else ()
        key = (plan.sql, ask.default_format, *values)
        with self._lock:
            found = self._admitted.get(key)
            if found is not None:
                self._admitted.move_to_end(key)
        if found is None:
            found = self._judge(handle, plan.sql, ask.default_format, values)
            self._remember(key, found)
        return Admitted(found.sql, found.answer, settings={**settings, **found.settings})

    def _remember(self, key: tuple[str, ...], found: Admitted) -> None:
        size = _size(key, found)
        if size > _REMEMBERED_TEXT:
            return
        with self._lock:
            if key not in self._admitted:
                self._remembered += size
            self._admitted[key] = found
            while self._remembered > _REMEMBERED_BYTES:
                self._remembered -= _size(*self._admitted.popitem(last=False))

    def _judge(self, handle: Handle, sql: str, default_format: str, values: Iterable[str]) -> Admitted:
        text = _canonical(handle, sql)
        statement = Canonical(text, self._wanted)
        self._check_kind(statement)
        hiding = self._check_names(statement)
        if "identifier" in statement.names:
            for value in values:
                self._check_identifier(value)
        settings = self._text_settings(statement)
        head, asked, rest = statement.answer()
        masked, count = replace_tables(head, self._masks)
        if count != hiding:
            raise FenceError(
                "table", "A table of system stands where its columns can't be hidden", "Write FROM system.x"
            )
        if len(masked) + len(rest) > reader.CANONICAL_BYTES:
            raise _long()
        if count:
            head = _canonical(handle, masked)
        form = self._reader_format(asked or default_format)
        answer = Answer(head, f"FORMAT {form}{rest}", form)
        composed = answer.into(_PLACEHOLDER)
        # Some formats are words of the language as well: the engine quotes those.
        again = _canonical(handle, composed).replace(f" FORMAT `{form}`", f" FORMAT {form}")
        if again != composed or handle.classify(composed) != ("CONTROL", 1):
            raise FenceError(
                "statements", "The engine reads the composed statement differently", "Write it more simply"
            )
        return Admitted("", answer, settings=settings)

    def _check_kind(self, statement: Canonical) -> None:
        if len(statement.text.encode()) > reader.CANONICAL_BYTES:
            raise _long()
        most = reader.SELECTS
        if may_multiply(statement.text, most) and _selects(statement, most) > most:
            raise FenceError(
                "length",
                f"The statement becomes more than {most} SELECTs, each name standing for its text",
                "Name a subquery less often, and none by a number or in APPLY, or ask in several statements",
            )
        if {"outfile", "infile"} & statement.names:
            raise FenceError(
                "file", "INTO OUTFILE and FROM INFILE are not for readers", "Save the answer on your own side"
            )
        if not reader.STATEMENTS.match(statement.text):
            raise FenceError(
                "statement",
                f"Not enough privileges: a reader can't run {statement.text[:40]!r}",
                "Use the owner's credentials",
            )

    def _check_names(self, statement: Canonical) -> int:
        """Check all names; how many stand for a table with columns to hide."""
        for name in sorted(statement.names & self._names):
            raise FenceError("function", f"The name {name} is not for readers", "Rename the alias or leave it out")
        self._check_calls(statement)
        _check_columns(statement)
        hiding = self._check_tables(statement)
        for index in statement.places(_ROW_FORMATS):
            form = statement.at(index + 2)
            if statement.at(index + 1) != "(" or form[:1] != "'":
                raise FenceError("format", "formatRow is called with a format's name", "Write formatRow('CSV', …)")
            self._reader_format(plain(form))
        return hiding

    def _check_tables(self, statement: Canonical) -> int:
        for index in statement.paths():
            if statement.at(index - 1) in {"FROM", "JOIN", "TABLE", "."}:
                raise FenceError(
                    "file", f"{plain(statement.at(index))!r} is a file's name", "Name a table of servescope"
                )
        if statement.in_database("default"):
            raise FenceError("table", "The database default is not for readers", "Name a table of servescope")
        return sum([times for near, times in statement.tables("system").items() if self._hides(*near)])

    def _check_calls(self, statement: Canonical) -> None:
        for index in statement.calls(self._tables):
            name = plain(statement.at(index)).lower()
            # After a comma it may be either: format(TSV, …) as a table names a format first.
            if (
                name in self._calls
                or statement.at(index - 1) in {"FROM", "JOIN", "TABLE"}
                or plain(statement.at(index + 2)).lower() in self._input_formats
            ):
                raise FenceError(
                    "table-function", f"The table function {name} is not for readers", "Query the tables of servescope"
                )

    def _hides(self, before: str, table: str, behind: str) -> bool:
        """Whether a table of ``system`` that stands so has columns to hide."""
        table = table.strip("`")
        if table not in _SYSTEM_TABLES:
            raise FenceError(
                "table", f"The table system.{table} is not for readers", f"Readable: {', '.join(reader.SYSTEM_TABLES)}"
            )
        if table not in self._masks:
            return False
        described = before == "TABLE"
        if not described and (before not in {"FROM", "JOIN"} or behind in {".", "FINAL"}):
            raise FenceError(
                "table",
                f"A reader's system.{table} stands after FROM or JOIN only",
                f"Give it an alias and use that: FROM system.{table} AS t",
            )
        # A description names columns and shows none.
        return not described

    def _check_identifier(self, value: str) -> None:
        parts = [part.strip('`" ').lower() for part in value.split(".")]
        simple = all(part.replace("_", "").isalnum() and part.isascii() for part in parts)
        forbidden = self._names | self._tables | {"default"}
        if not simple or any(part in forbidden for part in parts):
            raise FenceError("identifier", f"{value!r} is no identifier for readers", "Name a column or table")
        if "system" in parts and (parts[-1] not in reader.SYSTEM_TABLES or parts[-1] in self._masks):
            raise FenceError("identifier", f"{value!r} is not for readers", "Name a table of servescope")

    def _url_settings(self, asked: Mapping[str, str]) -> dict[str, str]:
        # A reader's handle is locked to reading: asking for that changes nothing.
        settings = {name: value for name, value in asked.items() if (name, value) not in _READING}
        for name, value in settings.items():
            self._check_setting(name, value)
        return settings

    def _text_settings(self, statement: Canonical) -> dict[str, str]:
        settings: dict[str, str] = {}
        for count, found in enumerate(statement.settings()):
            if count == reader.ASSIGNMENTS:
                raise FenceError("setting", f"Settings are set more than {count} times", "Set each once, at the end")
            if found.name not in self._settings:
                raise _unknown(found.name)
            if found.value is None:
                raise FenceError("setting", f"The value of {found.name} is no number, text or truth value")
            if found.inner and not self._settings[found.name].inner:
                raise FenceError(
                    "setting",
                    f"A reader sets {found.name} for the whole statement alone",
                    "Write SETTINGS at its end",
                )
            self._check_setting(found.name, found.value)
            if settings.setdefault(found.name, found.value) != found.value:
                raise FenceError("setting", f"{found.name} is set to two values", "Set it once, at the end")
        return settings

    def _check_setting(self, name: str, value: str) -> None:
        known = self._settings.get(name)
        if known is None:
            raise _unknown(name)
        if not known.allows(value):
            raise FenceError("bounds", f"{name} = {value[:64]!r} is out of a reader's bounds", f"It is {known.words}")

    def _format(self, name: str) -> str:
        known = self._formats.get(name.lower())
        if known is None:
            raise FenceError("format", f"Unknown format {name[:64]!r}", "Formats are in the table system.formats")
        return known

    def _reader_format(self, name: str) -> str:
        known = self._format(name)
        if known not in reader.FORMATS:
            raise FenceError(
                "format", f"The format {known} is not for readers", "Use JSON, CSV, Arrow, Native or another"
            )
        return known


_SYSTEM_TABLES: Final = frozenset(reader.SYSTEM_TABLES)
_ROW_FORMATS: Final = frozenset({"formatrow", "formatrownonewline"})
_READING: Final = frozenset({("readonly", "1"), ("readonly", "2")})


def _canonical(handle: Handle, sql: str) -> str:
    try:
        return handle.canonical(sql)
    except QueryError as error:
        handle.drain()
        message = error.message.split(": In scope")[0].split(": while executing")[0].split(": While executing")[0]
        if "Multi-statements" in message:
            raise _several() from None
        rule = "syntax" if error.code == SYNTAX_ERROR else "length"
        raise FenceError(rule, message.replace("(SYNTAX_ERROR)", "").strip()) from None
    except UnicodeDecodeError:
        raise FenceError("text", "The statement holds a string that is not UTF-8", "Use unhex() for bytes") from None


def _selects(statement: Canonical, most: int) -> int:
    if statement.quoted > reader.COUNTED_QUOTED:
        raise too_much(f"has more than {reader.COUNTED_QUOTED} names in quotes", "Quote fewer")
    return selects(statement.outline, most)


def _check_columns(statement: Canonical) -> None:
    """Check the text in which a table function takes its columns: a program of its own, with all functions there are.

    A name, a parameter or a text in brackets may stand for any text: the engine takes it, so that here it must be seen.
    """
    for index in statement.calls(reader.STRUCTURED):
        first = statement.at(index + 2)
        if first[:1] != "'" or statement.at(index + 3) not in {",", ")"} or reader.COMPUTED.search(plain(first)):
            raise FenceError(
                "table-function",
                f"A reader's {plain(statement.at(index))} begins with its columns, a name and a type each",
                "Write values('a UInt8, b String', (1, 'x'))",
            )


def _explained(head: str) -> str:
    # EXPLAIN AST takes everything behind it for what it explains, its own answer's place included.
    if _EXPLAIN_AST.match(head) is None:
        return head
    return f"SELECT * FROM ({head})"  # noqa: S608 - the statement as a subquery of itself


def _size(key: tuple[str, ...], found: Admitted) -> int:
    texts = [*key, found.sql, *found.settings, *found.settings.values()]
    if found.answer is not None:
        texts += [found.answer.head, found.answer.tail]
    return sum(map(sys.getsizeof, texts))


def _unknown(name: str) -> FenceError:
    return FenceError("setting", f"A reader can't change the setting {name[:128]}", "Leave it out")


def _long() -> FenceError:
    return FenceError("length", f"The statement is longer than {reader.CANONICAL_BYTES} bytes when written out")


def _several() -> FenceError:
    return FenceError("statements", "Syntax error (Multi-statements are not allowed)", "Send one at a time")


def _get_writes() -> QueryError:
    return refused(164, "READONLY", "Cannot execute a writing statement by GET, which implies readonly", "Use POST")
