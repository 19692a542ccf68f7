"""The page of what readers may do, tried line by line against a store."""

from __future__ import annotations

import re
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

import pytest

from collector.embedded import reader
from collector.embedded.front import HEAD_SECONDS, IDLE_CONNECTIONS, URL_BYTES, URL_PARAMETERS
from collector.embedded.limits import Limits
from collector.embedded.refusal import RULES
from tests.kits.docs import REFERENCE

if TYPE_CHECKING:
    from tests.kits.store_process import StoreServer

PAGE = (REFERENCE / "readers.md").read_text()
ROW = re.compile(r"^\| (?P<first>.+?) \|(?P<rest>.*)\|$", re.MULTILINE)
SAMPLES = {
    "session_timezone": "UTC",
    "format_csv_delimiter": "\t",
    "max_result_bytes": "1000000",
    "max_bytes_to_read": "1000000",
    "max_memory_usage": "300000000",
    "max_execution_time": "30",
    "union_default_mode": "ALL",
}


def part(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[tuple[str, str]]:
    """First cells, without their ticks, and second cells of a part's table."""
    found = [(row["first"].strip(), row["rest"].split("|")[0].strip()) for row in ROW.finditer(part(title))]
    return [(first.strip("`"), second) for first, second in found[1:] if not first.startswith("---")]


def names(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def ask(server: StoreServer, sql: str, **url: str) -> str:
    """A reader's answer, or the rule that refused it."""
    query = "?" + urllib.parse.urlencode(url)
    request = urllib.request.Request(f"{server.url}/{query}", data=sql.encode())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode()
        found = re.search(r"\[fence: ([a-z-]+)\]", text)
        return f"`{found[1]}`" if found else text
    return "allowed"


@pytest.fixture(scope="module", autouse=True)
def readers_page(store_server: StoreServer) -> None:
    store_server.ask("CREATE TABLE IF NOT EXISTS readers_page (a UInt32) ENGINE = MergeTree ORDER BY a")
    store_server.ask("INSERT INTO readers_page VALUES (1)")


def test_every_rule_is_on_the_page():
    assert dict(rows("Rules")) == {rule: str(code) for rule, (code, _) in RULES.items()}


@pytest.mark.parametrize(("sql", "expected"), rows("Statements"))
def test_statements(store_server: StoreServer, sql: str, expected: str):
    assert ask(store_server, sql) == expected


@pytest.mark.parametrize(("call", "expected"), rows("Table functions"))
def test_table_functions(store_server: StoreServer, call: str, expected: str):
    assert ask(store_server, f"SELECT * FROM {call} LIMIT 1") == expected


def test_table_functions_are_complete():
    allowed = {call.split("(")[0].lower() for call, expected in rows("Table functions") if expected == "allowed"}
    assert allowed == reader.TABLE_FUNCTIONS


@pytest.mark.parametrize(("name", "expected"), rows("Functions"))
def test_functions(store_server: StoreServer, name: str, expected: str):
    assert ask(store_server, f"SELECT {name}('x')") == expected
    assert ask(store_server, f"SELECT 1 AS `{name}`") == expected


def test_functions_are_complete():
    found = {name.lower() for name, _ in rows("Functions")}
    assert found - {"aigenerate"} == reader.FORBIDDEN - {"infile", "outfile"}


@pytest.mark.parametrize(("table", "hidden"), rows("Tables of the engine"))
def test_tables(store_server: StoreServer, table: str, hidden: str):
    assert ask(store_server, f"SELECT * FROM system.{table} LIMIT 1") == "allowed"
    for column in names(hidden):
        sql = f"SELECT countIf(notEmpty(t.{column})) FROM system.{table} AS t"
        assert store_server.ask(sql, owner=False) == "0\n"
        assert column in store_server.ask(f"DESCRIBE TABLE system.{table}", owner=False)


def test_no_other_table_of_the_engine_is_readable(store_server: StoreServer):
    tables = store_server.ask("SELECT name FROM system.tables WHERE database = 'system'").split()
    listed = {table for table, _ in rows("Tables of the engine")}
    assert listed == set(reader.SYSTEM_TABLES)
    assert listed <= set(tables)
    others = [table for table in tables if table not in listed]
    assert [table for table in others if ask(store_server, f"SELECT 1 FROM system.{table}") != "`table`"] == []


def test_no_readable_table_names_the_data_folder(store_server: StoreServer):
    folder = str(store_server.data)
    for table, _ in rows("Tables of the engine"):
        answer = store_server.ask(f"SELECT * FROM system.{table} LIMIT 5000 FORMAT TSVRaw", owner=False)
        assert folder not in answer, table
    for schema in ("information_schema.tables", "information_schema.columns", "information_schema.schemata"):
        assert folder not in store_server.ask(f"SELECT * FROM {schema} FORMAT TSVRaw", owner=False)


def test_settings_are_complete_and_say_their_bounds():
    known = {
        name: setting.words + (", *inner*" if setting.inner else "")
        for name, setting in reader.settings(Limits()).items()
    }
    assert dict(rows("Settings")) == known


def sample(name: str) -> str:
    setting = reader.settings(Limits())[name]
    if name in SAMPLES:
        return SAMPLES[name]
    if setting.choices:
        return setting.choices[-1]
    if setting.low is None or setting.high is None:
        return "x"
    return str(max(setting.low, min(setting.high, 2)))


def test_settings_are_taken_in_url_and_statement(store_server: StoreServer):
    listed = [name for name, _ in rows("Settings")]
    assert ask(store_server, "SELECT 1", **{name: sample(name) for name in listed}) == "allowed"
    clause = ", ".join(f"{name} = '{sample(name)}'" for name in listed)
    assert ask(store_server, f"SELECT 1 SETTINGS {clause}") == "allowed"
    inner = ", ".join(f"{name} = {sample(name)}" for name, words in rows("Settings") if words.endswith("*inner*"))
    assert ask(store_server, f"SELECT * FROM (SELECT 1 SETTINGS {inner})") == "allowed"
    assert ask(store_server, "SELECT 1", readonly="1") == ask(store_server, "SELECT 1", readonly="2") == "allowed"


@pytest.mark.parametrize("name", [name for name, _ in rows("Settings")])
def test_settings_have_bounds(store_server: StoreServer, name: str):
    assert ask(store_server, "SELECT 1", **{name: "9" * 200}) == "`bounds`"


def test_a_setting_in_the_statement_counts(store_server: StoreServer):
    sql = "SELECT getSetting('max_threads'), getSetting('max_block_size'), toDateTime(0)"
    answer = store_server.ask(f"{sql} SETTINGS max_threads = 1, max_block_size = 77", owner=False)
    assert answer == "1\t77\t1970-01-01 00:00:00\n"
    iso = store_server.ask(f"{sql} FORMAT CSV SETTINGS date_time_output_format = 'iso'", owner=False)
    assert iso == '2,65409,"1970-01-01T00:00:00Z"\n'


def test_readers_see_what_they_may_change(store_server: StoreServer):
    sql = "SELECT name FROM system.settings WHERE readonly = 0 ORDER BY name"
    assert store_server.ask(sql, owner=False).split() == sorted(name for name, _ in rows("Settings"))


def test_settings_that_name_files_are_refused(store_server: StoreServer):
    sql = "SELECT name FROM system.settings WHERE match(name, '(path|file|schema|template|url|cache|dialect)')"
    listed = {name for name, _ in rows("Settings")}
    found = [name for name in store_server.ask(sql).split() if name not in listed]
    assert len(found) > 50
    tried = ["output_format_schema", "input_format_record_errors_file_path", "use_query_cache", *found[::4]]
    assert [name for name in tried if ask(store_server, "SELECT 1", **{name: "x"}) != "`setting`"] == []


def test_formats(store_server: StoreServer):
    allowed, refused = part("Formats").split("Refused, ")
    assert names(allowed) - {"FORMAT", "default_format", "X-ClickHouse-Format", "formatRow"} == reader.FORMATS
    for form in sorted(reader.FORMATS):
        sql = "SELECT 'x' AS name, 1.5 AS value" if form == "Prometheus" else "SELECT 1.5 AS value"
        assert ask(store_server, sql, default_format=form.lower()) == "allowed", form
        assert ask(store_server, f"{sql} FORMAT {form}") == "allowed", form
    for form in names(refused):
        assert ask(store_server, "SELECT 1", default_format=form) == "`format`", form
        assert ask(store_server, f"SELECT 1 FORMAT {form}") == "`format`", form


def test_limits_are_as_written():
    limits = Limits()
    assert dict(rows("Limits")) == {
        "A statement": f"{reader.STATEMENT_BYTES} bytes",
        "A statement in the engine's own form": f"{reader.CANONICAL_BYTES} bytes",
        "Dollar signs in it": str(reader.HEREDOC_SIGNS),
        "Steps that the parser takes back": str(reader.PARSER_BACKTRACKS),
        "SELECTs, each name taken for what it stands for, the view `requests` for ten": str(reader.SELECTS),
        "In a statement of several SELECTs that gives names: words and signs, strings and lists of numbers as one": str(
            reader.COUNTED_WORDS
        ),
        "The same: names in quotes": str(reader.COUNTED_QUOTED),
        "The same: names that are given": str(reader.COUNTED_NAMES),
        "The same: names, brackets and commas, as far as names or SELECTs stand among them": str(reader.COUNTED_SIGNS),
        "The same: uses of names that stand for SELECTs": str(reader.COUNTED_USES),
        "The engine's own, answered with 400: parts of a statement, rounds of a recursive WITH": "50000, 1000",
        "Settings set in it": f"{reader.ASSIGNMENTS} times",
        "A request's first line, as for everybody": f"{URL_BYTES >> 20} MiB, {URL_PARAMETERS} parameters",
        "Time for a connection's first head, as for everybody": f"{HEAD_SECONDS:g} s",
        "Idle connections of all clients together": str(IDLE_CONNECTIONS),
        "Time": f"{limits.reader_seconds} s",
        "Memory": f"{limits.reader_memory // 1_000_000} MB",
        "Answer": f"{limits.reader_result // 1_000_000} MB as the engine counts its columns",
        "Threads": str(limits.reader_threads),
        "Sessions, temporary tables, query cache": "none",
    }


def refused(server: StoreServer, sql: str) -> tuple[int, int]:
    """HTTP status and the engine's code of what it refuses."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(f"{server.url}/", data=sql.encode()), timeout=60)
    with caught.value as error:
        found = re.search(r"Code: (\d+)", error.read().decode())
        return error.code, int(found[1]) if found else 0


def test_the_engines_own_bounds_are_as_written_and_the_statements_fault(store_server: StoreServer):
    def list_of(parts: int) -> str:
        return f"SELECT {','.join(repr('a') for _ in range(parts))}"

    def rounds(count: int) -> str:
        return (
            f"WITH RECURSIVE c AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM c WHERE n < {count}) SELECT max(n) FROM c"
        )

    assert ask(store_server, list_of(500)) == ask(store_server, rounds(990)) == "allowed"
    assert refused(store_server, list_of(50_001)) == (400, 168)
    assert refused(store_server, rounds(1_010)) == (400, 306)


def test_a_session_of_a_reader_keeps_nothing(store_server: StoreServer):
    for sql, rule in (("SET max_threads = 1", "`statement`"), ("CREATE TEMPORARY TABLE kept (a UInt8)", "`statement`")):
        assert ask(store_server, sql, session_id="kept") == rule
    assert ask(store_server, "SELECT 1 SETTINGS max_threads = 1", session_id="kept") == "allowed"
    own = "SELECT getSetting('max_threads')"
    query = urllib.parse.urlencode({"session_id": "kept", "query": own})
    with urllib.request.urlopen(f"{store_server.url}/?{query}", timeout=60) as answer:
        assert answer.read() == store_server.ask(own, owner=False).encode()
