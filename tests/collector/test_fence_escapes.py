"""Ways around the reader's fence, each refused by the guard's own rule before anything ran."""

from __future__ import annotations

import re
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kits.store_process import StoreServer

FILE = "/tmp/servescope-escape"
Q = "\N{LEFT SINGLE QUOTATION MARK}"
P = "\N{RIGHT SINGLE QUOTATION MARK}"
D = "\N{LEFT DOUBLE QUOTATION MARK}"
E = "\N{RIGHT DOUBLE QUOTATION MARK}"
OUT = f"SELECT 1 INTO OUTFILE '{FILE}' TRUNCATE FORMAT TSV"


def within(sql: str, levels: int) -> str:
    """A statement within itself."""
    inner = "SELECT 1"
    for _ in range(levels):
        inner = sql.format(inner)
    return inner


def doubling(levels: int) -> str:
    """A statement that becomes twice as many subqueries with each line."""
    steps = (f"c{n} AS (SELECT a.x + b.x AS x FROM c{n - 1} AS a, c{n - 1} AS b)" for n in range(1, levels))
    return f"WITH c0 AS (SELECT 1 AS x), {', '.join(steps)} SELECT * FROM c{levels - 1}"


STATEMENTS = (
    # a second statement, hidden from whoever splits at semicolons or quotes otherwise than the engine
    ("statements", f"SELECT 1; {OUT}"),
    ("statements", f"SELECT {Q}a\\{P}; SET ROLE owner; {OUT} --'"),
    ("statements", f"SELECT {Q}'{P}; {OUT} -- '"),
    ("statements", f'SELECT 1 AS {D}"{E}; {OUT} -- "'),
    ("statements", f"SELECT 1 AS {D}`{E}; {OUT} -- `"),
    ("statements", f"SELECT $a$'$a$; {OUT} -- '"),
    ("statements", f"SELECT $$'$$; {OUT} -- '"),
    ("syntax", f"SELECT $a b$'$a b$; {OUT} -- '"),
    ("statements", f"SELECT '\\\\'; {OUT} -- '"),
    ("statements", f"SELECT ''''; {OUT} -- '"),
    ("statements", f"SELECT 1 AS `\\``; {OUT} -- `"),
    ("statements", f'SELECT 1 AS """"; {OUT} -- "'),
    ("statements", f"SELECT 1 -- '\n; {OUT} -- '"),
    ("statements", f"SELECT 1 # '\n; {OUT} -- '"),
    ("statements", f"SELECT 1 #! '\n; {OUT} -- '"),
    ("statements", f"SELECT 1 // '\n; {OUT} -- '"),
    ("statements", f"SELECT 1 /* ' */; {OUT} -- '"),
    ("statements", f"SELECT 1 /* /* */ ' */; {OUT} -- '"),
    ("statements", f"SELECT 1 FORMAT CSV; {OUT}"),
    ("statements", f"SELECT 1 FORMAT CSV SETTINGS max_threads = 1; {OUT}"),
    ("statements", f"SELECT 1\N{NO-BREAK SPACE};\N{NO-BREAK SPACE}{OUT}"),
    ("statements", f"SELECT 1\N{ZERO WIDTH SPACE};\N{ZERO WIDTH NO-BREAK SPACE}{OUT}"),
    ("statements", f"SELECT 1\N{IDEOGRAPHIC SPACE};\n\n{OUT}"),
    ("statements", "SELECT 1; SET ROLE owner"),
    ("statements", "SELECT 1;; SELECT 2"),
    ("statements", f"EXPLAIN SELECT 1; {OUT}"),
    ("statements", f"SHOW TABLES; {OUT}"),
    ("statements", "SELECT 1; SELECT 2 /* never closed"),
    # text that the engine can't read is not tried
    ("text", "SELECT 1\0"),
    ("text", f"SELECT 1\0; {OUT}"),
    ("text", f"SELECT '\0'; {OUT}"),
    ("text", "SELECT " + "$a$" * 300),
    ("syntax", "SELECT 'never closed"),
    ("syntax", f"SELECT {Q}never closed"),
    ("syntax", "SELECT 1 /* /* */"),
    ("file", f"SELECT 1 PARALLEL WITH {OUT}"),
    ("statements", "SELECT 1 PARALLEL WITH SELECT 2"),
    ("statements", "SELECT 1 PARALLEL WITH DROP TABLE guarded"),
    ("length", "SELECT " + "1," * 140_000 + "1"),
    ("length", "SELECT " + "(" * 5000 + "1" + ")" * 5000),
    ("length", " UNION ALL ".join(["SELECT 1"] * 501)),
    ("length", "SELECT " + ", ".join(["(SELECT 1)"] * 500)),
    ("length", " UNION ALL ".join(["SELECT count() FROM requests"] * 46)),
    ("length", doubling(9)),
    ("length", doubling(2000)),
    ("length", "EXPLAIN " + doubling(13)),
    ("length", "SELECT * FROM view(" + doubling(13) + ")"),
    ("length", within("SELECT number IN ({}) FROM numbers(1) GROUP BY 1, 1, 1", 8)),
    ("length", within("SELECT number IN ({}) FROM numbers(1) ORDER BY -1 DESC, number, (1)", 8)),
    ("length", within("SELECT * APPLY(x -> x IN ({})) FROM numbers(1)", 1)),
    ("length", "SELECT " + "CASE WHEN 1 THEN " * 4000 + "1"),
    ("length", "SELECT " + "NOT " * 5000 + "1"),
    # an answer into a file
    ("file", OUT),
    ("file", f"SELECT 1 INTO/**/OUTFILE '{FILE}'"),
    ("file", f"select 1 into outfile '{FILE}' append and stdout"),
    ("file", f"SELECT 1 UNION ALL SELECT 2 INTO OUTFILE '{FILE}'"),
    ("file", f"SHOW TABLES INTO OUTFILE '{FILE}'"),
    ("file", f"DESCRIBE TABLE guarded INTO OUTFILE '{FILE}'"),
    ("file", f"EXPLAIN SELECT 1 INTO OUTFILE '{FILE}'"),
    ("file", f"SELECT 1 INTO OUTFILE {Q}{FILE}{P}"),
    ("file", f"SELECT 1 INTO OUTFILE $${FILE}$$"),
    ("file", "SELECT * FROM '/etc/passwd'"),
    ("file", "SELECT * FROM `/etc/passwd`"),
    ("file", 'SELECT 1 IN (SELECT * FROM "/etc/passwd")'),
    ("file", "SELECT * FROM guarded AS g INNER JOIN `/etc/passwd` AS p ON 1"),
    # what a statement is
    ("statement", "SET max_threads = 1"),
    ("statement", "SET ROLE ALL"),
    ("statement", "SET DEFAULT ROLE owner TO default"),
    ("statement", "USE default"),
    ("statement", "EXECUTE AS default SELECT 1"),
    ("statement", "EXPLAIN AST DROP TABLE guarded"),
    ("statement", "EXPLAIN AST INSERT INTO guarded VALUES (1)"),
    ("statement", "EXPLAIN CURRENT TRANSACTION"),
    ("statement", "CHECK TABLE guarded"),
    ("statement", "CHECK GRANT SELECT ON *.*"),
    ("statement", "SHOW GRANTS"),
    ("statement", "SHOW ACCESS"),
    ("statement", "SHOW USERS"),
    ("statement", "SHOW CURRENT ROLES"),
    ("statement", "SHOW CREATE USER default"),
    ("statement", "SHOW CREATE ROLE owner"),
    ("statement", "SHOW CREATE SETTINGS PROFILE reader"),
    ("statement", "SHOW MERGES"),
    ("statement", "SHOW CLUSTERS"),
    ("statement", "BEGIN TRANSACTION"),
    ("statement", "INSERT INTO guarded FORMAT CSV\n1\n"),
    ("statement", "/* x */ insert INTO guarded VALUES (1)"),
    ("statement", "INSERT INTO FUNCTION null('a Int8') SELECT 1"),
    ("statement", "CREATE VIEW v AS SELECT 1"),
    ("statement", "CREATE TEMPORARY TABLE x ENGINE = File(CSV, '/tmp/x') AS SELECT 1"),
    ("statement", "ATTACH TABLE guarded"),
    ("statement", "DELETE FROM guarded WHERE 1"),
    ("statement", "UPDATE guarded SET a = 1 WHERE 1"),
    ("statement", "RESTORE TABLE guarded FROM Disk('a', 'b')"),
    ("statement", "SYSTEM RELOAD CONFIG"),
    # settings: in every place that takes them
    ("setting", f"SELECT 1 SETTINGS output_format_schema = '{FILE}'"),
    ("setting", f"SELECT 1 FORMAT Protobuf SETTINGS output_format_schema = '{FILE}'"),
    ("setting", f"SELECT 1 SETTINGS input_format_record_errors_file_path = '{FILE}'"),
    ("setting", "SELECT 1 SETTINGS format_schema = '/etc/passwd:X'"),
    ("setting", "SELECT 1 SETTINGS format_template_row = '/etc/passwd'"),
    ("setting", "SELECT 1 SETTINGS format_template_resultset = '/etc/passwd'"),
    ("setting", "SELECT 1 SETTINGS into_outfile_create_parent_directories = 1"),
    ("setting", "SELECT 1 SETTINGS rename_files_after_processing = 'x'"),
    ("setting", "SELECT 1 SETTINGS use_query_cache = 1"),
    ("setting", "SELECT 1 SETTINGS use_query_cache = 1, query_cache_share_between_users = 1"),
    ("setting", "SELECT 1 SETTINGS implicit_select = 1"),
    ("setting", "SELECT 1 SETTINGS max_query_size = 1000000000"),
    ("setting", "SELECT 1 SETTINGS max_parser_depth = 1000000"),
    ("setting", "SELECT 1 SETTINGS max_threads = 1, allow_ddl = 1"),
    ("setting", "SELECT 1 SETTINGS `readonly` = 0"),
    ("setting", "SELECT 1 SETTINGS `read\\x6fnly` = 0"),
    ("setting", "SELECT 1 SETTINGS readonly = DEFAULT"),
    ("setting", "SELECT 1 SETTINGS max_threads = DEFAULT"),
    ("setting", "SELECT 1 SETTINGS allow_introspection_functions"),
    ("setting", "SELECT 1 SETTINGS param_x = 'file'"),
    ("setting", "SELECT 1 SETTINGS additional_table_filters = {'guarded': '1'}"),
    ("setting", "SELECT * FROM (SELECT 1 SETTINGS readonly = 0)"),
    ("setting", "SELECT * FROM (SELECT 1 SETTINGS join_use_nulls = 1)"),
    ("setting", "SELECT (SELECT 1 SETTINGS allow_ddl = 1)"),
    ("setting", "SELECT 1 IN (SELECT 1 SETTINGS url_base = 'http://x')"),
    ("setting", "WITH x AS (SELECT 1 SETTINGS s3_base = 'x') SELECT * FROM x"),
    ("setting", "SELECT * FROM view(SELECT 1 SETTINGS dialect = 'kusto')"),
    ("setting", "SELECT 1 SETTINGS readonly = 0 UNION ALL SELECT 2"),
    ("setting", "SELECT 1 UNION ALL (SELECT 2 SETTINGS readonly = 0)"),
    ("setting", "EXPLAIN SELECT 1 SETTINGS readonly = 0"),
    ("setting", "EXPLAIN SELECT * FROM (SELECT 1 SETTINGS readonly = 0)"),
    ("setting", "DESCRIBE TABLE guarded SETTINGS readonly = 0"),
    ("setting", "DESCRIBE (SELECT 1 SETTINGS readonly = 0)"),
    ("setting", "SHOW TABLES SETTINGS readonly = 0"),
    ("setting", "EXISTS TABLE guarded SETTINGS readonly = 0"),
    ("setting", "SHOW CREATE TABLE guarded SETTINGS readonly = 0"),
    ("statement", "SELECT 1 SETTINGS max_threads = 1 SETTINGS readonly = 0"),
    ("setting", "SELECT 1 SETTINGS max_threads = 1 FORMAT CSV SETTINGS readonly = 0"),
    ("setting", "SELECT 1 settings readonly = 0"),
    ("setting", "SELECT " + ", ".join(["(SELECT 1 SETTINGS max_threads = 1)"] * 257)),
    ("setting", "SELECT 1 /* */ SETTINGS /* */ readonly /* */ = /* */ 0"),
    ("setting", "SELECT 1 SETTINGS max_threads = 1 UNION ALL SELECT 2 SETTINGS max_threads = 2"),
    ("bounds", "SELECT 1 SETTINGS max_threads = 64"),
    ("bounds", "SELECT 1 SETTINGS max_threads = -1"),
    ("bounds", "SELECT 1 SETTINGS max_execution_time = '1e9'"),
    ("bounds", "SELECT 1 SETTINGS max_execution_time = 'inf'"),
    ("bounds", "SELECT 1 SETTINGS max_execution_time = 'nan'"),
    ("bounds", "SELECT 1 SETTINGS max_memory_usage = '100G'"),
    ("bounds", "SELECT * FROM (SELECT 1 SETTINGS max_memory_usage = 0)"),
    ("bounds", "SELECT 1 SETTINGS max_block_size = 100000000"),
    ("bounds", "SELECT 1 SETTINGS date_time_output_format = '/etc/passwd'"),
    # formats
    ("format", "SELECT 1 FORMAT NoSuch"),
    ("format", "SELECT 1 FORMAT Protobuf"),
    ("format", "SELECT 1 FORMAT Template"),
    ("format", "SELECT 1 FORMAT CapnProto"),
    ("format", "SELECT 1 FORMAT AvroConfluent"),
    ("format", "SELECT 1 FORMAT MySQLWire"),
    ("format", "SELECT 1 FORMAT `CSV; SET ROLE owner`"),
    ("format", f"SELECT 1 FORMAT `CSV INTO OUTFILE '{FILE}'`"),
    ("format", "SELECT 1 FORMAT LineAsStringWithNo"),
    ("format", "SELECT 1 FORMAT dataframe"),
    ("format", "SELECT formatRow('Protobuf', 1 AS x)"),
    ("format", "SELECT `format\\x52ow`('Template', 1 AS x)"),
    ("format", "SELECT formatRowNoNewline(concat('Proto', 'buf'), 1 AS x)"),
    ("format", "SELECT arrayMap(x -> formatRow(x, 1), ['Protobuf'])"),
    ("format", "SELECT * APPLY(formatRow) FROM (SELECT 'Protobuf' AS a)"),
    # table functions and functions
    ("table-function", "SELECT * FROM format(Parquet, 'PAR1')"),
    ("table-function", "SELECT * FROM format(Arrow, 'x')"),
    ("table-function", "SELECT * FROM format(Native, 'a UInt8', 'x')"),
    ("table-function", "SELECT * FROM numbers(1) AS n, format(ORC, 'x') AS f"),
    ("table-function", "SELECT * FROM numbers(1) AS n INNER JOIN `f\\x6frmat`(Npy, 'x') AS f ON 1"),
    ("table-function", "DESCRIBE TABLE format(Avro, 'x')"),
    ("table-function", "SELECT * FROM eval('SELECT 1')"),
    ("table-function", "SELECT * FROM viewIfPermitted(SELECT 1 ELSE null('a Int8'))"),
    ("table-function", "SELECT * FROM generateRandom('a Int8')"),
    ("table-function", "SELECT * FROM mergeTreeProjection('servescope', 'guarded', 'p')"),
    ("table-function", "SELECT * FROM arrowstream(x)"),
    ("table-function", "SELECT * FROM ytsaurus('a', 'b', 'c', 'd Int8')"),
    ("table-function", "SELECT * FROM dictionary('x')"),
    ("table-function", "SELECT * FROM zeros(10)"),
    # the text of a table's columns is a program: the engine computes what stands in it
    ("table-function", "SELECT * FROM null('a UInt8 DEFAULT toUInt8(file(\\'x\\'))')"),
    ("table-function", "SELECT b FROM values('a Int8, b String ALIAS file(\\'x\\')', 1)"),
    ("table-function", "SELECT 1 IN (SELECT b FROM `v\\x61lues`($$a Int8, b String\nmaterialized/**/hostName()$$, 1))"),
    ("table-function", "SELECT b FROM VALUES(('a Int8, b String ALIAS serverUUID()'), 1)"),
    ("table-function", "SELECT b FROM values('a Int8, b String ALIAS serverUUID()' AS x, 1)"),
    ("table-function", "WITH 'a Int8, b String ALIAS serverUUID()' AS s SELECT b FROM values(s, 1)"),
    ("table-function", "SELECT * FROM null(concat('a UInt8 DEF', 'AULT sleep(1)'))"),
    ("table-function", "SELECT * FROM null('a UInt8 DEF' || 'AULT sleep(1)')"),
    ("table-function", "SELECT * FROM null('a DateTime TTL a + toIntervalDay(file(\\'x\\'))')"),
    ("table-function", "DESCRIBE TABLE null('a UInt8 EPHEMERAL toUInt8(file(\\'x\\'))')"),
    ("table-function", "SELECT * FROM view(SELECT * FROM values('a UInt8 default getMacro(\\'x\\')', 1))"),
    ("function", "SELECT structureToProtobufSchema('a UInt8 DEFAULT toUInt8(file(\\'x\\'))')"),
    ("function", "SELECT structureToCapnProtoSchema(materialize('a UInt8'))"),
    ("function", "SELECT hasColumnInTable('127.0.0.1:1', 'u', 'p', 'd', 't', 'c')"),
    ("function", "SELECT defaultRoles()"),
    ("function", "SELECT joinGet('default./etc/passwd', 'x', 1)"),
    ("function", "SELECT `join\\x47etOrNull`('default./etc/passwd', 'x', 1)"),
    ("function", "SELECT logTrace('x')"),
    ("function", "SELECT 1 AS python"),
    ("function", "SELECT x.file FROM (SELECT 1) AS x"),
    # tables of the engine's, and the paths in them
    ("table", "SELECT path FROM system.disks"),
    ("table", "SELECT * FROM system.query_cache"),
    ("table", "SELECT * FROM system . /* */ `disks`"),
    ("table", "SELECT * FROM system.remote_data_paths"),
    ("table", "SELECT 1 FROM numbers(1) AS n, system.tables"),
    ("table", "SELECT 1 FROM system.tables WHERE system.tables.metadata_path != ''"),
    ("table", "SELECT ('a', 'b') IN (system.tables)"),
    ("table", "SELECT * FROM system.parts FINAL"),
    ("table", "SHOW CREATE TABLE system.disks"),
    ("table", "EXISTS TABLE system.disks"),
    ("table", "DESCRIBE TABLE system.users"),
    ("table", "SELECT * FROM SYSTEM.tables"),
    ("table", "SELECT system.metadata_path FROM system.tables AS system"),
    ("table", "SELECT * FROM default.guarded"),
)

URLS: tuple[tuple[str, dict[str, str]], ...] = (
    ("format", {"default_format": f"CSV; SET ROLE owner; {OUT}"}),
    ("format", {"default_format": f"CSV INTO OUTFILE '{FILE}'"}),
    ("format", {"default_format": "CSV SETTINGS readonly = 0"}),
    ("format", {"default_format": "CSV\n-- "}),
    ("format", {"default_format": "`CSV`"}),
    ("format", {"default_format": "dataframe"}),
    ("format", {"default_format": "Protobuf"}),
    ("database", {"database": "system"}),
    ("database", {"database": "x`; SET ROLE owner; --"}),
    ("setting", {"output_format_schema": FILE}),
    ("setting", {"input_format_record_errors_file_path": FILE}),
    ("setting", {"format_template_row": "/etc/passwd"}),
    ("setting", {"use_query_cache": "1"}),
    ("setting", {"select": "file('/etc/passwd')"}),
    ("setting", {"filter": "1"}),
    ("setting", {"format": "CSV"}),
    ("setting", {"implicit_select": "1"}),
    ("setting", {"readonly": "0"}),
    ("setting", {"max_threads = 1; SET ROLE owner; --": "1"}),
    ("setting", {"no_such_setting": "1"}),
    ("bounds", {"max_threads": "64"}),
    ("bounds", {"max_execution_time": "1; SET ROLE owner"}),
    ("bounds", {"log_comment": "x" * 1000}),
)


@pytest.fixture(scope="module", autouse=True)
def guarded(store_server: StoreServer) -> None:
    store_server.ask("CREATE TABLE IF NOT EXISTS guarded (a UInt32) ENGINE = MergeTree ORDER BY a")


def rule(server: StoreServer, body: bytes, query: str = "", headers: dict[str, str] | None = None) -> str:
    """The rule that refused a reader's request."""
    request = urllib.request.Request(f"{server.url}/{query}", data=body, headers=headers or {})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    text = caught.value.read().decode()
    caught.value.close()
    found = re.search(r"\[fence: ([a-z-]+)\]", text)
    return found[1] if found else f"not by the guard: {text}"


@pytest.mark.parametrize(("expected", "sql"), STATEMENTS)
def test_a_statement_is_refused_by_the_guard(store_server: StoreServer, expected: str, sql: str):
    assert rule(store_server, sql.encode()) == expected


@pytest.mark.parametrize(("expected", "url"), URLS)
def test_a_url_is_refused_by_the_guard(store_server: StoreServer, expected: str, url: dict[str, str]):
    assert rule(store_server, b"SELECT 1", "?" + urllib.parse.urlencode(url)) == expected


def test_a_format_in_a_header_is_a_name(store_server: StoreServer):
    found = rule(store_server, b"SELECT 1", headers={"X-ClickHouse-Format": f"CSV; SET ROLE owner; {OUT}"})
    assert found == "format"
    assert rule(store_server, b"SELECT 1", headers={"X-ClickHouse-Database": "system"}) == "database"


def test_query_and_body_are_one_text(store_server: StoreServer):
    query = "?" + urllib.parse.urlencode({"query": "SELECT 1"})
    assert rule(store_server, f"; {OUT}".encode(), query) == "statements"
    assert rule(store_server, f"INTO OUTFILE '{FILE}'".encode(), query) == "file"
    opened = "?" + urllib.parse.urlencode({"query": "SELECT 1 /*"})
    assert rule(store_server, f"*/; {OUT}".encode(), opened) == "statements"


def test_bytes_that_are_no_text_are_refused(store_server: StoreServer):
    assert rule(store_server, b"SELECT '\xff'") == "text"
    assert rule(store_server, b"SELECT '\xe2\x80\x98; SET ROLE owner") == "syntax"


def test_the_columns_of_a_table_are_no_parameter(store_server: StoreServer):
    query = "?" + urllib.parse.urlencode({"param_x": "a Int8, b String ALIAS serverUUID()"})
    for call in ("values({x:String}, 1)", "null({x:String})"):
        assert rule(store_server, f"SELECT b FROM {call}".encode(), query) == "table-function"


@pytest.mark.parametrize(
    "value",
    ["file", "`file`", "system.disks", "system.tables", "default.x", "a/b", "x; SET ROLE owner", "a\0", "Python", ""],
)
def test_an_identifier_is_a_plain_name(store_server: StoreServer, value: str):
    query = "?" + urllib.parse.urlencode({"param_x": value})
    assert rule(store_server, b"SELECT * FROM {x:Identifier}", query) == "identifier"


def test_no_escape_left_a_file(store_server: StoreServer, tmp_path: Path):
    inside = store_server.data / "escape"
    for path in (inside, tmp_path / "escape"):
        for sql in (f"SELECT 1 INTO OUTFILE '{path}'", f"SELECT 1; SELECT 1 INTO OUTFILE '{path}'"):
            rule(store_server, sql.encode())
        rule(store_server, b"SELECT 1", "?" + urllib.parse.urlencode({"output_format_schema": str(path)}))
        forged = f"CSV; SET ROLE owner; SELECT 1 INTO OUTFILE '{path}' FORMAT TSV"
        rule(store_server, b"SELECT 1", "?" + urllib.parse.urlencode({"default_format": forged}))
        assert not path.exists()
