"""Statements that viewers write: read only and within limits, whatever the account of the store may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import pandas as pd

ROWS: Final = 100_000
"""Most rows of an answer; it is cut there, and the page says so."""
LIMITS: Final[dict[str, int]] = {
    "max_execution_time": 20,
    "max_memory_usage": 1_000_000_000,
    "max_result_rows": ROWS,
    "max_result_bytes": 100_000_000,
}
"""Seconds, bytes of memory, rows and bytes of the answer."""
READ_ONLY: Final = 2
"""No writing, no DDL; settings of the statement's own are allowed, as in the examples of ClickHouse's documentation."""
_PRESENT: Final = "SELECT name, value, readonly AS fixed FROM system.settings WHERE name IN {names:Array(String)}"


class Account(Protocol):
    """The part of `collector.store.client.Store` that is used here."""

    def rows(
        self, sql: str, parameters: Mapping[str, object] | None = None, settings: Mapping[str, object] | None = None
    ) -> list[dict[str, Any]]:
        """Rows of a SELECT."""

    def frame(
        self, sql: str, parameters: Mapping[str, object] | None = None, settings: Mapping[str, object] | None = None
    ) -> pd.DataFrame:
        """A SELECT as a frame."""


def fenced(account: Account) -> dict[str, object]:
    """Settings that make a statement of this account read only and limited.

    A limit that the account has already, and tighter, stays; what its server keeps it from setting is not sent, unless
    it is needed: then the server refuses the statement.

    Raises:
        ServescopeError: The store does not answer, or refuses.
    """
    names = ["readonly", "result_overflow_mode", *LIMITS]
    present = {str(row["name"]): row for row in account.rows(_PRESENT, {"names": names})}
    settings: dict[str, object] = {}
    if str(present.get("readonly", {}).get("value", "0")) not in {"1", str(READ_ONLY)}:
        settings["readonly"] = READ_ONLY
    for name, limit in LIMITS.items():
        held = float(str(present.get(name, {}).get("value", 0)))
        if not 0 < held <= limit:
            settings[name] = limit
    if not present.get("result_overflow_mode", {}).get("fixed"):
        settings["result_overflow_mode"] = "break"
    return settings


def read(account: Account, statement: str) -> pd.DataFrame:
    """The answer to a statement that somebody wrote; at most about `ROWS` rows.

    Raises:
        ServescopeError: The store does not answer, or refuses, for instance what would write.
    """
    return account.frame(statement, settings=fenced(account)).head(ROWS)
