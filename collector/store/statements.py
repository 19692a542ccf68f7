"""Statements that bring segments of the log into landing tables, as their bytes or as rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from base.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Signal = Literal["traces", "metrics", "logs"]

LANDING: Final[dict[str, tuple[Signal, str]]] = {
    "land_traces": ("traces", "ExportTraceServiceRequest"),
    "land_metrics": ("metrics", "ExportMetricsServiceRequest"),
    "land_logs": ("logs", "ExportLogsServiceRequest"),
}
"""Landing tables, the file of their message's text in ``schema/otlp/`` and the message's name."""

_OTLP: Final = Path(__file__).parents[1] / "schema" / "otlp"


_ONCE: Final = {
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # the views' plans are short, and looking for better ones costs a small insert a tenth of its time
    "query_plan_enable_optimizations": 0,
    # as many days of arrival as a segment waited for a store that was away
    "max_partitions_per_insert_block": 1000,
}


def segment_statement(database: str, table: str, token: str, settings: Mapping[str, object] | None = None) -> str:
    """The INSERT whose data are a segment's bytes.

    The message's text stands in the statement and not in the URL, whose lines are limited to 8 KB.

    Raises:
        ConfigError: The table is no landing table.
    """
    if table not in LANDING:
        raise ConfigError(f"{table!r} is no landing table", f"Use one of {', '.join(LANDING)}.")
    signal, message = LANDING[table]
    values: dict[str, object] = {
        "format_schema_source": "string",
        "format_schema": (_OTLP / f"{signal}.proto").read_text(encoding="utf-8"),
        "format_schema_message_name": message,
        "input_format_protobuf_oneof_presence": 1,
        "insert_deduplication_token": token,
        **_ONCE,
        **(settings or {}),
    }
    return f"INSERT INTO {database}.{table} SETTINGS {_pairs(values)} FORMAT Protobuf"


def rows_statement(database: str, table: str, columns: Iterable[str], token: str) -> str:
    """The INSERT whose data are a segment's rows for one landing table of plain columns, in the format Native."""
    values: dict[str, object] = {"insert_deduplication_token": token, **_ONCE}
    return f"INSERT INTO {database}.{table} ({', '.join(columns)}) SETTINGS {_pairs(values)} FORMAT Native"


def _pairs(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} = {_literal(value)}" for name, value in settings.items())


def _literal(value: object) -> str:
    if isinstance(value, int):
        return str(int(value))
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
