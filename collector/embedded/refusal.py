"""The guard's own refusals: which rule of the reader's fence a statement met before any of it ran."""

from __future__ import annotations

from typing import Final

from collector.embedded.errors import ACCESS_DENIED, SYNTAX_ERROR, UNKNOWN_FORMAT, QueryError
from collector.embedded.reader import HEREDOC_SIGNS, STATEMENT_BYTES

SETTING_CONSTRAINT_VIOLATION: Final = 452

RULES: Final = {
    "length": (SYNTAX_ERROR, "SYNTAX_ERROR"),
    "text": (SYNTAX_ERROR, "SYNTAX_ERROR"),
    "syntax": (SYNTAX_ERROR, "SYNTAX_ERROR"),
    "statements": (SYNTAX_ERROR, "SYNTAX_ERROR"),
    "statement": (ACCESS_DENIED, "ACCESS_DENIED"),
    "file": (ACCESS_DENIED, "ACCESS_DENIED"),
    "function": (ACCESS_DENIED, "ACCESS_DENIED"),
    "table-function": (ACCESS_DENIED, "ACCESS_DENIED"),
    "table": (ACCESS_DENIED, "ACCESS_DENIED"),
    "identifier": (ACCESS_DENIED, "ACCESS_DENIED"),
    "database": (ACCESS_DENIED, "ACCESS_DENIED"),
    "setting": (ACCESS_DENIED, "ACCESS_DENIED"),
    "bounds": (SETTING_CONSTRAINT_VIOLATION, "SETTING_CONSTRAINT_VIOLATION"),
    "format": (UNKNOWN_FORMAT, "UNKNOWN_FORMAT"),
}
"""Each rule's ClickHouse error code and name."""


class FenceError(QueryError):
    """A statement refused before it ran.

    Args:
        rule: A key of ``RULES``; the message carries it as ``[fence: rule]``, which no message of the engine does.
        what: What is refused.
        fix: What to do instead.
    """

    def __init__(self, rule: str, what: str, fix: str = "") -> None:
        code, name = RULES[rule]
        self.rule = rule
        super().__init__(code, f"{what.rstrip('.')}. {fix + '. ' if fix else ''}[fence: {rule}] ({name})")


def check_text(sql: str) -> None:
    """Refuse what no statement of a reader's can be, before anybody parses it.

    Raises:
        FenceError: Too long, or with signs that make the parser work for nothing.
    """
    if len(sql) > STATEMENT_BYTES or len(sql.encode(errors="replace")) > STATEMENT_BYTES:
        raise FenceError("length", f"The statement is longer than {STATEMENT_BYTES} bytes", "Make it shorter")
    if "\0" in sql:
        raise FenceError("text", "The statement holds a zero byte", "Write \\0 inside a string")
    if sql.count("$") > HEREDOC_SIGNS:
        raise FenceError("text", f"The statement has more than {HEREDOC_SIGNS} dollar signs", "Use a parameter")


def insert_refused() -> FenceError:
    """The refusal of a reader's INSERT."""
    return FenceError("statement", "Not enough privileges: a reader can't insert", "Use the owner's credentials")
