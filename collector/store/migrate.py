"""Bring a store's tables and views to this version: numbered SQL files, applied in order, once each, forward only.

The same files serve the embedded store, a server and a cluster. ``{database}``, ``{on_cluster}``, ``{engine:X}`` and
``{ttl:NAME COLUMN DAYS}`` are filled in at run time, ``{part:name}`` is replaced by ``schema/parts/name.sql`` first,
so that a checksum covers what a file really says. The statement ``{replace:NAME COLUMN = EXPRESSION}`` puts the table
``NAME_next`` in the place of ``NAME``, whose rows move over; it is done when ``NAME`` has the column.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from base.errors import ServescopeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from collector.store.client import Store

TIMEOUT_SECONDS: Final = 3600.0
"""How long a store that applies migrations may be waited for: rows of a large table may have to move."""
SCHEMA: Final = Path(__file__).parents[1] / "schema"
_NAME: Final = re.compile(r"^\d{4}_[a-z0-9]+(?:_[a-z0-9]+)+\.sql$")
_PART: Final = re.compile(r"\{part:([a-z_]+)\}")
_ENGINE: Final = re.compile(r"\{engine:(\w+)(?:\(([^)]*)\))?\}")
_REPLACE: Final = re.compile(r"^\{replace:(\w+) (\w+) = (.+)\}$")
_TTL: Final = re.compile(r"\{ttl:(\w+) ([^}]+?) (\d+)\}")
_IDENTIFIER: Final = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")

_log = structlog.get_logger()


class MigrationError(ServescopeError):
    """The store's schema and this version's files do not fit together."""


@dataclass(frozen=True)
class Migration:
    """One file of the schema, its parts included.

    Attributes:
        name: File name without ``.sql``, for instance ``0004_requests_create``.
        text: The SQL with placeholders.
        checksum: Hex SHA-256 of ``text``.
    """

    name: str
    text: str = field(repr=False)
    checksum: str


@dataclass(frozen=True)
class Layout:
    """Where and how tables are made.

    Attributes:
        database: Name of the database.
        cluster: Name of a ClickHouse cluster; tables are then made ON CLUSTER and replicated. Not run against one yet.
        retention_days: Days to keep by TTL name (``requests``, ``otel_traces``, ``engine_samples``, …); the files
            hold the defaults. 0 keeps for ever.
    """

    database: str = "servescope"
    cluster: str = ""
    retention_days: Mapping[str, int] = field(default_factory=dict)


def load(folder: Path = SCHEMA) -> list[Migration]:
    """Read the numbered files of a folder in order.

    Raises:
        MigrationError: A file is not named ``NNNN_noun_verb.sql``, a number occurs twice, or a part is missing.
    """
    found: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        if not _NAME.match(path.name):
            raise MigrationError(f"{path.name} is not named NNNN_noun_verb.sql", "Rename it.")
        if found and found[-1].name[:4] == path.name[:4]:
            raise MigrationError(f"{found[-1].name} and {path.stem} have the same number", "Give one the next number.")
        text = _include(path.read_text(encoding="utf-8"), folder / "parts", path.name)
        found.append(Migration(path.stem, text, hashlib.sha256(text.encode()).hexdigest()))
    return found


def statements(text: str, layout: Layout) -> list[str]:
    """Fill in a migration's placeholders and cut it into statements (each ends with ``;`` at the end of a line).

    Raises:
        MigrationError: The database or cluster name is no plain identifier.
    """
    for name in filter(None, (layout.database, layout.cluster)):
        if not _IDENTIFIER.match(name):
            raise MigrationError(f"{name!r} is no plain name", "Use letters, digits and _ for database and cluster.")
    filled = _ENGINE.sub(lambda match: _engine(match[1], match[2] or "", layout), text)
    filled = _TTL.sub(lambda match: _ttl(match[2], layout.retention_days.get(match[1], int(match[3]))), filled)
    filled = filled.replace("{on_cluster}", f"ON CLUSTER {layout.cluster}" if layout.cluster else "")
    filled = filled.replace("{database}", layout.database)
    bare = "\n".join(line for line in filled.splitlines() if not line.lstrip().startswith("--"))
    return [statement for piece in re.split(r";[ \t]*(?:\n|$)", bare) if (statement := piece.strip())]


def of_new(layout: Layout, folder: Path = SCHEMA) -> list[str]:
    """Statements that bring an empty database to this version, for an engine that is reached without a ``Store``.

    Raises:
        MigrationError: See ``load`` and ``statements``.
    """
    plans = _lasting([statements(migration.text, layout) for migration in load(folder)], layout)
    place = rf"RENAME TABLE {layout.database}.\1_next TO {layout.database}.\1"
    return [_REPLACE.sub(place, statement) for plan in plans for statement in plan]


def pending(store: Store, layout: Layout | None = None, folder: Path = SCHEMA) -> list[Migration]:
    """The migrations a store lacks, in order.

    Raises:
        MigrationError: An applied file was changed since, is gone, or lies before one already applied.
        StoreError: ClickHouse refused a statement.
        StoreUnavailable: The store can't be reached.
    """
    layout = layout or Layout(database=store.address.database)
    files = load(folder)
    applied = _applied(store, layout)
    known = {migration.name for migration in files}
    if newer := sorted(applied.keys() - known):
        raise MigrationError(
            f"the store {store.address.url} was migrated by a newer version ({', '.join(newer)})",
            "Use that version or a later one; schemas only go forward.",
        )
    for migration in files:
        if migration.name in applied and applied[migration.name] != migration.checksum:
            raise MigrationError(
                f"migration {migration.name} was changed after it was applied to {store.address.url}",
                "Restore the file and put the change into a new numbered one.",
            )
    last = max(applied, default="")
    missing = [migration for migration in files if migration.name not in applied]
    if missing and missing[0].name < last:
        raise MigrationError(
            f"migration {missing[0].name} lies before {last}, which is applied already", "Give it the next number."
        )
    return missing


def apply(store: Store, *, dry_run: bool = False, layout: Layout | None = None, folder: Path = SCHEMA) -> list[str]:
    """Apply what a store lacks; repeating it changes nothing.

    Args:
        store: A store opened as owner; its database need not exist yet.
        dry_run: Only say what would be applied.
        layout: Database, cluster and retention; by default the store's database on one server.
        folder: Where the files are.

    Returns:
        Names of the migrations that were (or would be) applied, in order.

    Raises:
        MigrationError: See ``pending``.
        StoreError: ClickHouse refused a statement; running it again continues with that file.
        StoreUnavailable: The store can't be reached.
    """
    layout = layout or Layout(database=store.address.database)
    missing = pending(store, layout, folder)
    if dry_run:
        return [migration.name for migration in missing]
    if missing:
        for statement in statements(_BOOKKEEPING, layout):
            store.command(statement, use_database=False)
    plans = [statements(migration.text, layout) for migration in missing]
    for migration, plan in zip(missing, _lasting(plans, layout), strict=True):
        for statement in plan:
            if match := _REPLACE.match(statement):
                _replace(store, layout, match[1], match[2], match[3])
            else:
                store.command(statement)
        store.insert("schema_migrations", [{"name": migration.name, "checksum": migration.checksum}])
        _log.info("schema_migrated", migration=migration.name)
    return [migration.name for migration in missing]


def identity(store: Store) -> str:
    """What names a migrated store: the same as long as it keeps its tables, another when it is made anew.

    Raises:
        StoreError: It is not migrated.
        StoreUnavailable: It can't be reached.
    """
    return store.command("SELECT toString(min(applied_at)) FROM schema_migrations")


_COLUMNS: Final = """
SELECT name FROM system.columns
WHERE database = {database:String} AND table = {table:String} AND default_kind != 'ALIAS'
ORDER BY position
"""
_MOVING: Final = {
    "insert_allow_materialized_columns": 1,
    "max_partitions_per_insert_block": 0,
    "max_threads": 1,
    "max_block_size": 16384,
    "min_insert_block_size_rows": 131072,
    "min_insert_block_size_bytes": 64 << 20,
}
"""A table's rows move with the memory of a few blocks, however many they are."""

_BOOKKEEPING: Final = """
CREATE DATABASE IF NOT EXISTS {database} {on_cluster};
CREATE TABLE IF NOT EXISTS {database}.schema_migrations {on_cluster}
(
  name String,
  checksum String,
  applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = {engine:ReplacingMergeTree}
ORDER BY name;
"""


def _include(text: str, parts: Path, name: str, depth: int = 0) -> str:
    def part(match: re.Match[str]) -> str:
        path = parts / f"{match[1]}.sql"
        if depth > 5 or not path.is_file():  # noqa: PLR2004 – a part that includes itself
            raise MigrationError(f"{name} includes {match[0]}, which is missing or includes itself", f"Write {path}.")
        return _include(path.read_text(encoding="utf-8").rstrip("\n"), parts, name, depth + 1)

    return _PART.sub(part, text)


def _lasting(plans: Sequence[Sequence[str]], layout: Layout) -> list[list[str]]:
    # What a later file drops or replaces need not be made: a new store would spend more on that than on its schema.
    undone: set[str] = set()
    kept: list[list[str]] = []
    for plan in reversed(plans):
        kept.append([])
        for statement in reversed(plan):
            name = re.escape(layout.database) + r"\.(\w+)"
            made = re.match(rf"CREATE (?:TABLE|VIEW|MATERIALIZED VIEW) IF NOT EXISTS {name}", statement)
            if made and made[1] in undone:
                continue
            undone -= set(re.findall(name, statement))
            if ends := _REPLACE.match(statement) or re.match(
                rf"(?:DROP \w+ IF EXISTS|CREATE OR REPLACE VIEW) {name}", statement
            ):
                undone.add(ends[1])
            kept[-1].append(statement)
        kept[-1].reverse()
    return kept[::-1]


def _replace(store: Store, layout: Layout, name: str, column: str, expression: str) -> None:
    # Taken up again after a crash at any point: until the exchange the old table is whole, after it the new one is.
    place = {"database": layout.database, "table": name}
    columns = [str(row["name"]) for row in store.rows(_COLUMNS, place)]
    old, new = f"{layout.database}.{name}", f"{layout.database}.{name}_next"
    cluster = f" ON CLUSTER {layout.cluster}" if layout.cluster else ""
    if not columns:
        store.command(f"RENAME TABLE {new} TO {old}{cluster}")
    elif column not in columns:
        _log.info("table_moves", table=name)
        quoted = ", ".join(f"`{each}`" for each in columns)
        store.command(f"TRUNCATE TABLE {new}{cluster}")
        store.command(
            f"INSERT INTO {new} ({quoted}, `{column}`) SELECT {quoted}, {expression} FROM {old}",  # noqa: S608 – names of a migration
            settings=_MOVING,
        )
        store.command(f"EXCHANGE TABLES {new} AND {old}{cluster}")
    store.command(f"DROP TABLE IF EXISTS {new}{cluster} SYNC")


def _engine(name: str, arguments: str, layout: Layout) -> str:
    if not layout.cluster:
        return f"{name}({arguments})" if arguments else name
    path = f"'/clickhouse/tables/{{shard}}/{layout.database}/{{table}}', '{{replica}}'"
    return f"Replicated{name}({path}{', ' + arguments if arguments else ''})"


def _ttl(column: str, days: int) -> str:
    return f"TTL {column} + toIntervalDay({days})" if days else ""


def _applied(store: Store, layout: Layout) -> dict[str, str]:
    for thing in (f"DATABASE {layout.database}", f"TABLE {layout.database}.schema_migrations"):
        if store.command(f"EXISTS {thing}", use_database=False) != "1":
            return {}
    rows = store.rows(f"SELECT name, checksum FROM {layout.database}.schema_migrations FINAL")  # noqa: S608
    return {str(row["name"]): str(row["checksum"]) for row in rows}
