"""What a reader may do, as tables: statements, functions, tables, settings, formats and their bounds.

Everything here is an allow-list, save the scalar functions: their number is in the thousands and they compute from
their arguments, so the few that reach beyond are named instead. ``docs/reference/readers.md`` says the same in words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collector.embedded.limits import Limits

STATEMENT_BYTES: Final = 262_144
"""UTF-8 bytes of a reader's statement, as sent."""

CANONICAL_BYTES: Final = 1_048_576
"""UTF-8 bytes of the engine's own form of it, which is what runs."""

HEREDOC_SIGNS: Final = 512
"""``$`` signs in a statement: the engine looks for each one's end through the whole text."""

ASSIGNMENTS: Final = 256
"""Settings set in a statement, each time counted."""

SELECTS: Final = 500
"""SELECTs that a statement may become once every name stands for its text: planning them heeds no time limit."""

COUNTED_WORDS: Final = 200_000
"""Words and signs of a statement in which SELECTs are counted so; a list of whole numbers is one."""

COUNTED_QUOTED: Final = 20_000
"""Names in quotes in it; the engine reads fewer columns."""

COUNTED_NAMES: Final = 5_000
"""Names that it gives, each time counted."""

COUNTED_SIGNS: Final = 30_000
"""Names that it uses, brackets and commas, save those with nothing in them that counts."""

COUNTED_USES: Final = 3_000
"""What it gives and uses that stands for SELECTs."""

PARSER_BACKTRACKS: Final = 50_000
"""Steps that the engine's parser may take back in a reader's statement."""

_EXPLAIN = r"EXPLAIN (?:(?:SYNTAX|QUERY TREE|PIPELINE|ESTIMATE) )?(?:\w+ = \d+,? )*(?:SELECT|WITH)"
STATEMENTS: Final = re.compile(
    r"(?:SELECT|WITH|DESCRIBE TABLE|EXISTS(?: TEMPORARY)? (?:TABLE|VIEW|DATABASE)"
    r"|SHOW (?:(?:FULL )?TABLES|DATABASES|CREATE (?:TABLE|VIEW|DATABASE)|(?:EXTENDED )?(?:FULL )?COLUMNS"
    r"|(?:EXTENDED )?INDEXES|FUNCTIONS|SETTINGS|ENGINES)"
    rf"|{_EXPLAIN})\b"
)
"""How a reader's statement may begin, in the engine's own form."""

TABLE_FUNCTIONS: Final = frozenset(
    {"generate_series", "generateseries", "null", "numbers", "numbers_mt", "values", "view"}
)
"""Table functions by their names in small letters."""

STRUCTURED: Final = frozenset({"null", "values"})
"""Those of them that take their columns as a text."""

COMPUTED: Final = re.compile(
    r"\b(?:DEFAULT|MATERIALIZED|EPHEMERAL|ALIAS|TTL|AUTO_INCREMENT)\b", re.ASCII | re.IGNORECASE
)
"""What has the engine compute something where columns are named: whatever functions are called there, and at once."""

FORBIDDEN: Final = frozenset(
    {
        "addresstoline",
        "addresstolinewithinlines",
        "addresstosymbol",
        "catboostevaluate",
        "defaultroles",
        "evalmlmethod",
        "executable",
        "file",
        "filesystemavailable",
        "filesystemcapacity",
        "filesystemunreserved",
        "fuzzquery",
        "getmacro",
        "getoskernelversion",
        "getserversetting",
        "hascolumnintable",
        "infile",
        "joinget",
        "joingetornull",
        "logtrace",
        "outfile",
        "processlist",
        "python",
        "serveruuid",
        "showcertificate",
        "sleep",
        "sleepeachrow",
        "structuretocapnprotoschema",
        "structuretoprotobufschema",
    }
)
"""Names that may stand nowhere in a reader's statement, whatever they mean there: APPLY, lambdas and aliases make
functions of names."""

SYSTEM_TABLES: Final = (
    "aggregate_function_combinators",
    "build_options",
    "collations",
    "columns",
    "contributors",
    "data_skipping_indices",
    "data_type_families",
    "databases",
    "detached_parts",
    "dictionaries",
    "documentation",
    "formats",
    "functions",
    "keywords",
    "licenses",
    "numbers",
    "numbers_mt",
    "one",
    "parts",
    "parts_columns",
    "projections",
    "settings",
    "settings_changes",
    "table_engines",
    "table_functions",
    "tables",
    "time_zones",
    "zeros",
    "zeros_mt",
)
"""Tables of ``system`` that a reader may read."""

_PATH: Final = "'' AS path"


def masks() -> dict[str, str]:
    """Columns of system tables that a reader sees replaced: by table, the list of a ``* REPLACE (…)``."""
    changeable = ", ".join(f"'{name}'" for name in sorted(SETTINGS))
    return {
        "databases": "'' AS data_path, '' AS metadata_path",
        "detached_parts": _PATH,
        "parts": _PATH,
        "parts_columns": _PATH,
        "settings": f"toUInt8(name NOT IN ({changeable})) AS readonly",
        "tables": "[] AS data_paths, '' AS metadata_path",
    }


@dataclass(frozen=True)
class Setting:
    """A setting that a reader may change.

    Attributes:
        low, high: Bounds of a number; both None for a text.
        choices: Values of a text; empty for any short one.
        inner: It only says how hard to work, so that it may stand in a subquery too.
    """

    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    inner: bool = False

    def allows(self, value: str) -> bool:
        """Whether ``value`` is within the bounds."""
        if self.low is None or self.high is None:
            return (
                value in self.choices
                if self.choices
                else len(value) <= _TEXT and (value.isprintable() or value == "\t")
            )
        try:
            return self.low <= float({"true": "1", "false": "0"}.get(value, value)) <= self.high
        except ValueError:
            return False

    @property
    def words(self) -> str:
        """The bounds in words."""
        if self.low is None or self.high is None:
            return "one of " + ", ".join(self.choices) if self.choices else f"a text of at most {_TEXT} characters"
        return "0 or 1" if (self.low, self.high) == (0, 1) else f"a number from {self.low:,} to {self.high:,}"


_TEXT: Final = 128
_FLAG: Final = Setting(0, 1)
_COUNT: Final = Setting(0, 10**15, inner=True)
_ANY: Final = Setting()

SETTINGS: Final[dict[str, Setting]] = {
    # How much a query may take.
    "max_execution_time": _COUNT,
    "max_memory_usage": _COUNT,
    "max_result_bytes": _COUNT,
    "max_threads": _COUNT,
    "max_block_size": Setting(1, 1_000_000, inner=True),
    "max_result_rows": _COUNT,
    "max_rows_to_read": _COUNT,
    "max_bytes_to_read": _COUNT,
    "max_rows_to_group_by": _COUNT,
    "max_rows_to_sort": _COUNT,
    "result_overflow_mode": Setting(choices=("throw", "break")),
    "read_overflow_mode": Setting(choices=("throw", "break")),
    # What a query means.
    "aggregate_functions_null_for_empty": _FLAG,
    "any_join_distinct_right_table_keys": _FLAG,
    "cast_keep_nullable": _FLAG,
    "count_distinct_implementation": Setting(
        choices=("uniq", "uniqCombined", "uniqCombined64", "uniqHLL12", "uniqExact")
    ),
    "date_time_input_format": Setting(choices=("basic", "best_effort", "best_effort_us")),
    "date_time_output_format": Setting(choices=("simple", "iso", "unix_timestamp")),
    "empty_result_for_aggregation_by_empty_set": _FLAG,
    "enable_positional_arguments": _FLAG,
    "extremes": _FLAG,
    "final": _FLAG,
    "group_by_use_nulls": _FLAG,
    "join_algorithm": Setting(
        choices=("default", "auto", "hash", "parallel_hash", "partial_merge", "full_sorting_merge", "grace_hash")
    ),
    "join_use_nulls": _FLAG,
    "log_comment": _ANY,
    "optimize_aggregation_in_order": _FLAG,
    "optimize_move_to_prewhere": _FLAG,
    "optimize_read_in_order": _FLAG,
    "prefer_column_name_to_alias": _FLAG,
    "session_timezone": _ANY,
    "transform_null_in": _FLAG,
    "union_default_mode": Setting(choices=("ALL", "DISTINCT")),
    # How an answer is written.
    "bool_false_representation": _ANY,
    "bool_true_representation": _ANY,
    "format_csv_delimiter": _ANY,
    "format_csv_null_representation": _ANY,
    "format_tsv_null_representation": _ANY,
    "output_format_arrow_compression_method": Setting(choices=("none", "lz4_frame", "zstd")),
    "output_format_arrow_fixed_string_as_fixed_byte_array": _FLAG,
    "output_format_arrow_low_cardinality_as_dictionary": _FLAG,
    "output_format_arrow_string_as_string": _FLAG,
    "output_format_binary_encode_types_in_binary_format": _FLAG,
    "output_format_binary_write_json_as_string": _FLAG,
    "output_format_csv_crlf_end_of_line": _FLAG,
    "output_format_decimal_trailing_zeros": _FLAG,
    "output_format_json_array_of_rows": _FLAG,
    "output_format_json_escape_forward_slashes": _FLAG,
    "output_format_json_map_as_array_of_tuples": _FLAG,
    "output_format_json_named_tuples_as_objects": _FLAG,
    "output_format_json_quote_64bit_floats": _FLAG,
    "output_format_json_quote_64bit_integers": _FLAG,
    "output_format_json_quote_decimals": _FLAG,
    "output_format_json_quote_denormals": _FLAG,
    "output_format_json_validate_utf8": _FLAG,
    "output_format_native_write_json_as_string": _FLAG,
    "output_format_parquet_compression_method": Setting(choices=("none", "snappy", "lz4", "gzip", "zstd")),
    "output_format_parquet_string_as_string": _FLAG,
    "output_format_pretty_color": Setting(choices=("0", "1", "auto")),
    "output_format_pretty_max_rows": Setting(0, 10_000),
    "output_format_pretty_row_numbers": _FLAG,
    "output_format_tsv_crlf_end_of_line": _FLAG,
    "output_format_write_statistics": _FLAG,
}
"""Settings that a reader may change, in the URL or in the statement; ``settings`` knows the store's own bounds."""


def settings(limits: Limits) -> dict[str, Setting]:
    """Settings that a reader of a store with these limits may change."""
    return SETTINGS | {
        "max_execution_time": Setting(0.001, limits.reader_seconds, inner=True),
        "max_memory_usage": Setting(1_000_000, limits.reader_memory, inner=True),
        "max_result_bytes": Setting(1, limits.reader_result, inner=True),
        "max_threads": Setting(1, limits.reader_threads, inner=True),
    }


FORMATS: Final = frozenset(
    {
        "Arrow",
        "ArrowStream",
        "Avro",
        "BSONEachRow",
        "CSV",
        "CSVWithNames",
        "CSVWithNamesAndTypes",
        "CustomSeparated",
        "CustomSeparatedWithNames",
        "CustomSeparatedWithNamesAndTypes",
        "Hash",
        "JSON",
        "JSONColumns",
        "JSONColumnsWithMetadata",
        "JSONCompact",
        "JSONCompactColumns",
        "JSONCompactEachRow",
        "JSONCompactEachRowWithNames",
        "JSONCompactEachRowWithNamesAndTypes",
        "JSONCompactEachRowWithProgress",
        "JSONCompactStrings",
        "JSONCompactStringsEachRow",
        "JSONCompactStringsEachRowWithNames",
        "JSONCompactStringsEachRowWithNamesAndTypes",
        "JSONCompactStringsEachRowWithProgress",
        "JSONEachRow",
        "JSONEachRowWithProgress",
        "JSONL",
        "JSONLines",
        "JSONObjectEachRow",
        "JSONStrings",
        "JSONStringsEachRow",
        "JSONStringsEachRowWithProgress",
        "LineAsString",
        "LineAsStringWithNames",
        "LineAsStringWithNamesAndTypes",
        "MD",
        "Markdown",
        "MsgPack",
        "NDJSON",
        "Native",
        "Npy",
        "Null",
        "ORC",
        "Parquet",
        "Pretty",
        "PrettyCompact",
        "PrettyCompactMonoBlock",
        "PrettyCompactNoEscapes",
        "PrettyCompactNoEscapesMonoBlock",
        "PrettyJSONEachRow",
        "PrettyJSONLines",
        "PrettyMonoBlock",
        "PrettyNDJSON",
        "PrettyNoEscapes",
        "PrettyNoEscapesMonoBlock",
        "PrettySpace",
        "PrettySpaceMonoBlock",
        "PrettySpaceNoEscapes",
        "PrettySpaceNoEscapesMonoBlock",
        "Prometheus",
        "Raw",
        "RawBLOB",
        "RawWithNames",
        "RawWithNamesAndTypes",
        "RowBinary",
        "RowBinaryWithNames",
        "RowBinaryWithNamesAndTypes",
        "SQLInsert",
        "TSKV",
        "TSV",
        "TSVRaw",
        "TSVRawWithNames",
        "TSVRawWithNamesAndTypes",
        "TSVWithNames",
        "TSVWithNamesAndTypes",
        "TabSeparated",
        "TabSeparatedRaw",
        "TabSeparatedRawWithNames",
        "TabSeparatedRawWithNamesAndTypes",
        "TabSeparatedWithNames",
        "TabSeparatedWithNamesAndTypes",
        "Values",
        "Vertical",
        "XML",
    }
)
"""Formats that a reader's answer may have: those that need no schema, file or registry."""
