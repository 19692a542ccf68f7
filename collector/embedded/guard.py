"""What may run: for everyone one statement a request, for a reader only what can't reach beyond the tables.

The role forbids most of it inside the engine. What a role can't forbid (``file`` as a scalar function, ``Python()``,
``merge``, ``loop``, ``sleep``, most system tables) is refused here, on the engine's own canonical text of the
statement: comments are gone there and escapes decoded, so that a word can't hide. The Landlock fence stands behind.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from collector.embedded.engine_config import FIXED_SETTINGS, READABLE_SYSTEM_TABLES
from collector.embedded.errors import ACCESS_DENIED, SYNTAX_ERROR, QueryError, refused
from collector.embedded.statement import Token, first_word, output_clause, tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from collector.embedded.engine import Engine, Handle
    from collector.embedded.request import Ask, Plan

_TABLE_FUNCTIONS = frozenset(
    {"numbers", "numbers_mt", "generateseries", "generate_series", "values", "view", "zeros", "zeros_mt", "null"}
)
# Words that may stand nowhere in a reader's statement, whatever they mean there: APPLY, lambdas and aliases make
# functions of names.
_WORDS = frozenset(
    {
        "addresstoline",
        "addresstosymbol",
        "catboostevaluate",
        "evalmlmethod",
        "executable",
        "file",
        "fuzzquery",
        "getmacro",
        "getserversetting",
        "outfile",
        "processlist",
        "python",
        "showcertificate",
        "sleep",
        "sleepeachrow",
    }
)
_SETTINGS = frozenset({"profile", "role", *FIXED_SETTINGS})
_SYSTEM = frozenset(READABLE_SYSTEM_TABLES)
_STATEMENT_LIMIT = 1 << 20
_REMEMBERED = 512


class Guard:
    """Admits statements; threads share it.

    Args:
        engine: The open engine, whose list of table functions says what there is to forbid.
    """

    def __init__(self, engine: Engine) -> None:
        known = engine.root("SELECT lower(name) FROM system.table_functions").split()
        scalar = engine.root("SELECT lower(name) FROM system.functions").split()
        # ``format`` is also a harmless function; as a table function it parses a literal.
        self._calls = frozenset(known) - _TABLE_FUNCTIONS - (frozenset(scalar) - _WORDS)
        self._calls |= {"python", "file"}
        self._artificial = frozenset(word for word in scalar if word.startswith("ai"))
        self._admitted: OrderedDict[tuple[str, str, str], str | None] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, handle: Handle, ask: Ask, plan: Plan) -> tuple[str | None, bool]:
        """Check a statement and tell its answer's format (None: no result set) and whether it writes.

        Raises:
            QueryError: Refused.
        """
        reader = ask.role == "reader"
        if plan.insert is not None:
            if reader:
                raise _denied("A reader can't insert", "Use the owner's credentials")
            if ask.read_only:
                raise _get_writes()
            return None, True
        if reader:
            return self._admit_reader(handle, ask, plan.sql), False
        kind, count = handle.classify(plan.sql)
        if count > 1:
            raise refused(SYNTAX_ERROR, "SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed)")
        if ask.read_only and kind in {"MUTATING", "CONTROL"}:
            raise _get_writes()
        if any(token.word in {"OUTFILE", "INFILE"} for token in tokens(plan.sql) if token.depth == 0):
            raise _denied("INTO OUTFILE and FROM INFILE are a client's business", "Save the answer on your side")
        if kind == "READ_ONLY" and count == 1:
            _, form = output_clause(plan.sql)
            return form or ask.default_format, False
        return None, kind == "MUTATING"

    def _admit_reader(self, handle: Handle, ask: Ask, sql: str) -> str | None:
        for setting in ask.settings:
            if setting.lower() in _SETTINGS:
                raise _denied(f"A reader can't change the setting {setting}", "Leave it out")
        if ask.database.lower() == "system":
            raise _denied("A reader can't make system the current database", "Name the tables: system.tables")
        key = (sql, ask.default_format, "\0".join(ask.parameters.values()) if "dentifier" in sql else "")
        with self._lock:
            if key in self._admitted:
                self._admitted.move_to_end(key)
                return self._admitted[key]
        form = self._check(handle, sql, ask.parameters) or ask.default_format
        with self._lock:
            self._admitted[key] = form
            if len(self._admitted) > _REMEMBERED:
                self._admitted.popitem(last=False)
        return form

    def _check(self, handle: Handle, sql: str, parameters: Mapping[str, str]) -> str:
        if len(sql) > _STATEMENT_LIMIT:
            raise refused(SYNTAX_ERROR, "SYNTAX_ERROR", f"The statement is longer than {_STATEMENT_LIMIT} bytes")
        kind, count = handle.classify(sql)
        if count > 1:
            raise refused(SYNTAX_ERROR, "SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed)")
        if kind not in {"READ_ONLY", "UNKNOWN"}:
            raise _denied(
                f"Not enough privileges: a reader can't run {first_word(sql) or 'this'} statements",
                "Use the owner's credentials",
            )
        canonical = _canonical(handle, sql)
        found = list(tokens(canonical))
        self._check_names(found)
        _check_settings(found)
        if any(token.text == "Identifier" for token in found):
            for value in parameters.values():
                self._check_identifier(value)
        return output_clause(canonical)[1]

    def _check_names(self, found: Sequence[Token]) -> None:
        for index, token in enumerate(found):
            name = _name(token)
            if not name:
                continue
            if name in _WORDS or name in self._artificial:
                raise _denied(f"The name {name} is not for readers", "Rename the alias or leave the function out")
            after = found[index + 1].text if index + 1 < len(found) else ""
            if after == "(" and name in self._calls:
                raise _denied(f"The table function {name} is not for readers", "Query the tables of servescope")
            if name == "system" and after == "." and index + 2 < len(found):
                table = _name(found[index + 2])
                if table not in _SYSTEM:
                    raise _denied(
                        f"The table system.{table} is not for readers", f"Readable: {', '.join(READABLE_SYSTEM_TABLES)}"
                    )

    def _check_identifier(self, value: str) -> None:
        parts = [part.strip('`" \t\n').lower() for part in value.split(".")]
        odd = any(sign in value for sign in "\\'`\"(")
        if odd or any(part in _WORDS or part in self._calls or part in self._artificial for part in parts):
            raise _denied(f"{value!r} is no identifier for readers", "Name a column or a table of servescope")
        if "system" in parts and parts[-1] not in _SYSTEM:
            raise _denied(f"{value!r} is not for readers", "Name a table of servescope")


def _check_settings(found: Sequence[Token]) -> None:
    inside = False
    for index, token in enumerate(found):
        if token.word == "SETTINGS":
            inside = True
            continue
        after = found[index + 1].text if index + 1 < len(found) else ""
        if inside and after == "=" and _name(token) in _SETTINGS:
            raise _denied(f"A reader can't change the setting {token.text}", "Leave it out")


def _canonical(handle: Handle, sql: str) -> str:
    escaped = sql.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    escaped = escaped.replace("\0", "\\0")
    try:
        text = handle.query("SELECT formatQuerySingleLine({q:String})", "TabSeparatedRaw", {"q": escaped}).data
    except QueryError as error:
        handle.drain()
        if error.code != SYNTAX_ERROR:
            raise
        message = error.message.split(": In scope")[0].split(": while executing")[0]
        raise QueryError(SYNTAX_ERROR, f"{message.replace(' (SYNTAX_ERROR)', '')} (SYNTAX_ERROR)") from None
    return text.decode(errors="replace")


def _name(token: Token) -> str:
    if token.kind == "word":
        return token.text.lower()
    if token.kind == "quoted":
        return token.text[1:-1].replace("\\", "").lower()
    return ""


def _denied(what: str, fix: str) -> QueryError:
    return refused(ACCESS_DENIED, "ACCESS_DENIED", what, fix)


def _get_writes() -> QueryError:
    return refused(164, "READONLY", "Cannot execute a writing statement by GET, which implies readonly", "Use POST")
