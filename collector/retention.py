"""How long tables keep their rows: the schema's defaults, the configuration over them, brought to tables that exist."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from collector.store import migrate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collector.store.client import Store

LOG: Final = structlog.get_logger()

_TABLE: Final = re.compile(r"CREATE TABLE IF NOT EXISTS \{database\}\.(\w+).*?;\n", re.DOTALL)
_STATED: Final = re.compile(r"\{ttl:(\w+) ([^}]+?) (\d+)\}")
_PRESENT: Final = re.compile(r" TTL (.+?) \+ toIntervalDay\((\d+)\)")
_TABLES: Final = "SELECT name, create_table_query AS text FROM system.tables WHERE database = {database:String}"


class Term(NamedTuple):
    """How long one table keeps its rows by default.

    Attributes:
        name: Under what name the configuration sets it; tables that belong together share one.
        column: From what time it counts, an SQL expression.
        days: The default.
    """

    name: str
    column: str
    days: int


@cache
def terms() -> Mapping[str, Term]:
    """The terms of all tables whose rows go, by table, as the newest migration has them."""
    found: dict[str, Term] = {}
    for made in migrate.load():
        for table in _TABLE.finditer(made.text):
            if stated := _STATED.search(table[0]):
                found[table[1].removesuffix("_next")] = Term(stated[1], stated[2], int(stated[3]))
    return found


def defaults() -> dict[str, int]:
    """Days by name."""
    return {term.name: term.days for term in terms().values()}


def retain(store: Store, days: Mapping[str, int]) -> list[str]:
    """Make a migrated store keep its rows so long; repeating it changes nothing.

    Args:
        store: A store opened as owner.
        days: Days by name; 0 keeps for ever, a name that is missing has its default.

    Returns:
        The tables that were changed.

    Raises:
        StoreError: ClickHouse refused a statement.
        StoreUnavailable: The store can't be reached.
    """
    changed = []
    database = store.address.database
    for row in store.rows(_TABLES, {"database": database}):
        name = str(row["name"])
        term = terms().get(name)
        if term is None:
            continue
        present = _PRESENT.search(str(row["text"]))
        wanted = days.get(term.name, term.days)
        if wanted == (int(present[2]) if present else 0):
            continue
        _alter(store, f"{database}.{name}", term, wanted)
        changed.append(name)
        LOG.info("retention_changed", table=name, days=wanted or "for ever")
    return changed


def _alter(store: Store, table: str, term: Term, days: int) -> None:
    if not days:
        store.command(f"ALTER TABLE {table} REMOVE TTL")
        return
    # only each part's own limits are worked out anew, no part is written again
    store.command(f"ALTER TABLE {table} MODIFY SETTING materialize_ttl_recalculate_only = 1")
    store.command(f"ALTER TABLE {table} MODIFY TTL {term.column} + toIntervalDay({int(days)})")
