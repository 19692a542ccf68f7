"""Ways out of the reader's cage, each refused; and what readers need, each allowed."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kits.store_process import StoreServer

ESCAPES = (
    # files by scalar function, in every spelling that once passed
    "SELECT file('/etc/passwd')",
    "SELECT `file`('/etc/passwd')",
    "SELECT \"file\"('/etc/passwd')",
    "SELECT `\\x66ile`('/etc/passwd')",
    "SELECT FILE('/etc/passwd')",
    "SELECT/**/file/* x */('/etc/passwd')",
    "SELECT * APPLY(file) FROM (SELECT '/etc/passwd')",
    "SELECT * APPLY(x -> file(x)) FROM (SELECT '/etc/passwd')",
    "SELECT * APPLY(`\\x66ile`) FROM (SELECT '/etc/passwd')",
    "SELECT * REPLACE(file('/etc/passwd') AS a) FROM (SELECT '1' AS a)",
    "SELECT COLUMNS('a') APPLY file FROM (SELECT '/etc/passwd' AS a)",
    "SELECT arrayMap(file, ['/etc/passwd'])",
    "SELECT arrayMap(x -> file(x), ['/etc/passwd'])",
    "WITH file('/etc/passwd') AS x SELECT x",
    "WITH (p) -> file(p) AS f SELECT f('/etc/passwd')",
    "SELECT 1 WHERE file('/etc/passwd') != ''",
    "SELECT 1 ORDER BY file('/etc/passwd')",
    "SELECT 1 LIMIT length(file('/etc/passwd'))",
    "SELECT 1 QUALIFY file('/etc/passwd') = ''",
    "SELECT count() OVER (ORDER BY file('/etc/passwd'))",
    "SELECT number FROM numbers(1) ORDER BY number WITH FILL FROM length(file('/etc/passwd'))",
    "DESCRIBE (SELECT file('/etc/passwd'))",
    "EXPLAIN SELECT file('/etc/passwd')",
    "EXPLAIN SYNTAX SELECT file('/etc/passwd')",
    # files by table function or by name
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM `/etc/passwd`",
    "SELECT * FROM default.`/etc/passwd`",
    "SELECT * FROM filesystem('/')",
    "SELECT * FROM sqlite('/tmp/a.db', 'a')",
    "SELECT * FROM (SELECT * FROM fileCluster('c', '/etc/passwd'))",
    "SELECT * FROM icebergLocal('/tmp')",
    "SELECT * FROM deltaLakeLocal('/tmp')",
    "SELECT * FROM paimonLocal('/tmp')",
    "SELECT 1 INTO OUTFILE '/tmp/escape'",
    "SELECT 1 INTO OUTFILE '/tmp/escape' TRUNCATE FORMAT CSV",
    "INSERT INTO FUNCTION file('/tmp/escape') SELECT 1",
    # our own memory and other processes
    "SELECT * FROM Python(owner_hash)",
    "SELECT * FROM python('self')",
    "SELECT * FROM `Python`(x)",
    "DESCRIBE TABLE Python(self)",
    "SELECT * FROM executable('id', 'TSV', 'a String')",
    # network
    "SELECT * FROM url('http://127.0.0.1/', 'LineAsString')",
    "SELECT * FROM urlCluster('c', 'http://127.0.0.1/', 'LineAsString')",
    "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM remoteSecure('127.0.0.1', system.one)",
    "SELECT * FROM cluster('default', system.one)",
    "SELECT * FROM s3('http://127.0.0.1/b/k')",
    "SELECT * FROM gcs('http://127.0.0.1/b/k')",
    "SELECT * FROM hdfs('hdfs://127.0.0.1/k', 'TSV', 'a String')",
    "SELECT * FROM azureBlobStorage('x', 'y', 'z')",
    "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT * FROM postgresql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT * FROM mongodb('127.0.0.1:1', 'd', 't', 'u', 'p', 'a String')",
    "SELECT * FROM redis('127.0.0.1:1', 'k', 'k String')",
    "SELECT * FROM jdbc('jdbc:x', 't')",
    "SELECT * FROM odbc('DSN=x', 't')",
    "SELECT aiGenerate('x', 'y')",
    # around row filters, and without end
    "SELECT * FROM merge('servescope', '.*')",
    "SELECT * FROM mergeTreeIndex('servescope', 'guarded')",
    "SELECT * FROM loop(guarded)",
    "WITH x AS (SELECT * FROM loop(guarded)) SELECT count() FROM x",
    "SELECT * FROM numbers(3) AS n, merge('servescope', '.*') AS m",
    "SELECT 1 WHERE 1 IN (SELECT * FROM loop(numbers(2)))",
    "SELECT * FROM view(SELECT * FROM merge('servescope', '.*'))",
    "SELECT sleep(3)",
    "SELECT sleepEachRow(1) FROM numbers(100)",
    "SELECT `sl\\x65ep`(3)",
    # control
    "SET max_memory_usage = 0",
    "SET ROLE owner",
    "SET profile = 'default'",
    "SYSTEM SHUTDOWN",
    "SYSTEM FLUSH LOGS",
    "KILL QUERY WHERE 1",
    "USE system",
    "CREATE TABLE x (a Int8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE x (a Int8)",
    "CREATE FUNCTION f AS x -> x",
    "CREATE USER x",
    "GRANT owner TO default",
    "DROP TABLE guarded",
    "TRUNCATE TABLE guarded",
    "ALTER TABLE guarded DELETE WHERE 1",
    "OPTIMIZE TABLE guarded",
    "DETACH TABLE guarded",
    "RENAME TABLE guarded TO g2",
    "INSERT INTO guarded VALUES (1)",
    "INSERT INTO guarded SELECT 1",
    "BACKUP TABLE guarded TO Disk('x', 'y')",
    "SELECT 1; SELECT 2",
    "SELECT 1; SET ROLE owner",
    "SELECT 1 PARALLEL WITH SELECT 2",
    # limits
    "SELECT 1 SETTINGS max_memory_usage = 0",
    "SELECT 1 SETTINGS max_memory_usage = 100000000000",
    "SELECT 1 SETTINGS max_execution_time = 0",
    "SELECT 1 SETTINGS max_execution_time = 100000",
    "SELECT 1 SETTINGS max_result_bytes = 0",
    "SELECT 1 SETTINGS max_threads = 100",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS profile = 'default'",
    "SELECT 1 SETTINGS additional_table_filters = {}",
    "SELECT 1 SETTINGS dialect = 'prql'",
    "SELECT 1 SETTINGS allow_ddl = 1",
    "SELECT * FROM (SELECT 1 SETTINGS timeout_overflow_mode = 'break')",
    "SELECT 1 FORMAT JSON SETTINGS max_untracked_memory = 10000000000",
    # what others do
    "SELECT * FROM system.processes",
    "SELECT * FROM system.`processes`",
    "SELECT * FROM `syst\\x65m`.processes",
    "SELECT 1 IN (SELECT query FROM system.processes)",
    "SHOW PROCESSLIST",
    "SELECT * FROM system.server_settings",
    "SELECT * FROM system.stack_trace",
    "SELECT * FROM system.users",
    "SELECT * FROM system.disks",
    "DESCRIBE TABLE system.named_collections",
    "SELECT getServerSetting('max_server_memory_usage')",
    "SELECT getMacro('x')",
)

ALLOWED = (
    "SELECT count() FROM guarded",
    "SELECT a, b.number FROM guarded AS g INNER JOIN numbers(5) AS b ON g.a = b.number",
    "WITH t AS (SELECT a FROM guarded) SELECT sum(a) FROM t",
    "SELECT arrayJoin([1, 2, 3]) AS x, x * 2",
    "SELECT number, rowNumberInAllBlocks() FROM numbers(3)",
    "SELECT quantilesDD(0.01, 0.5)(number) FROM numbers(100)",
    "SELECT sum(a) OVER (ORDER BY a) FROM guarded",
    "SELECT 'file', 'python', 'sleep'",
    "SELECT m['file'] FROM (SELECT map('file', 1) AS m)",
    "SELECT -- file('/etc/passwd')\n1 /* python(x) */",
    "SELECT * FROM generateSeries(1, 3)",
    "SELECT * FROM values('a UInt8', 1, 2)",
    "SELECT format('{} {}', 'a', 'b')",
    "SELECT name FROM system.tables WHERE database = 'servescope'",
    "SELECT name, type, table FROM system.columns WHERE database IN ('servescope') AND table = 'guarded'",
    "SELECT name FROM system.databases",
    "SELECT name FROM system.functions LIMIT 3",
    "SELECT name, value FROM system.settings LIMIT 3",
    "SELECT table_name FROM information_schema.tables LIMIT 1",
    "SHOW DATABASES",
    "SHOW TABLES",
    'SHOW TABLES FROM "servescope"',
    "SHOW CREATE TABLE guarded",
    "DESCRIBE TABLE guarded",
    "EXISTS TABLE guarded",
    "EXPLAIN SELECT count() FROM guarded",
    "EXPLAIN SYNTAX SELECT 1",
    "EXPLAIN PIPELINE SELECT 1",
    "SELECT version(), timezone(), currentDatabase(), now()",
    "SELECT 1 UNION ALL SELECT 2",
    "SELECT a FROM guarded ORDER BY a LIMIT 1 SETTINGS max_threads = 1, max_block_size = 100",
    "SELECT 1 FORMAT JSONCompact",
    "SELECT 1 AS settings, 2 AS format",
    "SELECT $$file('/etc/passwd')$$",
)


@pytest.fixture(scope="module", autouse=True)
def guarded(store_server: StoreServer) -> None:
    store_server.ask("CREATE TABLE IF NOT EXISTS guarded (a UInt32) ENGINE = MergeTree ORDER BY a")
    store_server.ask("INSERT INTO guarded VALUES (1), (2)")


def refusal(server: StoreServer, sql: str, query: str = "") -> str:
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.ask(sql, query=query, owner=False)
    text = caught.value.read().decode()
    caught.value.close()
    return text


@pytest.mark.parametrize("sql", ESCAPES)
def test_escape_is_refused(store_server: StoreServer, sql: str):
    text = refusal(store_server, sql)
    assert "[fence: " in text
    assert "root:" not in text


@pytest.mark.parametrize("sql", ALLOWED)
def test_reader_may(store_server: StoreServer, sql: str):
    store_server.ask(sql, owner=False)


@pytest.mark.parametrize(
    ("sql", "name", "value"),
    [
        ("SELECT {x:Identifier}('/etc/passwd')", "x", "file"),
        ("SELECT * APPLY({x:Identifier}) FROM (SELECT '/etc/passwd')", "x", "file"),
        ("SELECT * APPLY({x:Identifier}) FROM (SELECT '/etc/passwd')", "x", "`fi\\x6ce`"),
        ("SELECT * FROM {x:Identifier}", "x", "system.processes"),
        ("SELECT * FROM {x:Identifier}.processes", "x", "system"),
        ("SELECT * FROM system.{x:Identifier}", "x", "processes"),
        ("SELECT * FROM {x:Identifier}", "x", "/etc/passwd"),
    ],
)
def test_identifier_parameter_does_not_open_the_cage(store_server: StoreServer, sql: str, name: str, value: str):
    assert "[fence: " in refusal(store_server, sql, "?" + urllib.parse.urlencode({f"param_{name}": value}))


@pytest.mark.parametrize(
    "query",
    [
        {"max_memory_usage": "0"},
        {"max_execution_time": "0"},
        {"readonly": "0"},
        {"profile": "default"},
        {"additional_table_filters": "{}"},
        {"allow_introspection_functions": "1"},
        {"dialect": "kusto"},
        {"format_schema": "/etc/passwd"},
        {"database": "system"},
    ],
)
def test_url_does_not_open_the_cage(store_server: StoreServer, query: dict[str, str]):
    assert "[fence: " in refusal(store_server, "SELECT 1", "?" + urllib.parse.urlencode(query))


@pytest.mark.parametrize(
    "query",
    [
        {"user": "owner"},
        {"user": "owner", "password": "wrong"},
        {"user": "somebody"},
        {"user": "default", "password": "guess"},
    ],
)
def test_wrong_credentials_do_not_open_the_cage(store_server: StoreServer, query: dict[str, str]):
    assert "Code: 516" in refusal(store_server, "SELECT 1", "?" + urllib.parse.urlencode(query))


def test_role_parameter_changes_nothing(store_server: StoreServer):
    assert store_server.ask("SELECT currentRoles()", query="?role=owner", owner=False) == "['reader']\n"


def test_reader_limits_hold_without_asking(store_server: StoreServer):
    answer = store_server.ask(
        "SELECT getSetting('max_memory_usage') AS memory, getSetting('max_execution_time') AS seconds,"
        " getSetting('max_result_bytes') AS bytes, getSetting('readonly') AS readonly FORMAT JSONEachRow",
        owner=False,
    )
    found = json.loads(answer)
    assert int(found["memory"]) == 300_000_000
    assert int(found["bytes"]) == 256_000_000
    assert float(found["seconds"]) == 30
    assert int(found["readonly"]) == 1


def test_reader_memory_and_result_are_bounded(store_server: StoreServer):
    assert "Code: 241" in refusal(store_server, "SELECT groupArray(number) FROM numbers(1000000000)")
    narrow = "?max_result_bytes=100000"
    assert "Code: 396" in refusal(store_server, "SELECT number FROM numbers(100000)", narrow)


def test_owner_cannot_reach_beyond_the_fence_either(store_server: StoreServer):
    for path in ("/etc/passwd", "/proc/self/environ", str(store_server.data.parent / "keys" / "store_owner")):
        with pytest.raises(urllib.error.HTTPError) as caught:
            store_server.ask(f"SELECT file('{path}')")
        assert "Permission denied" in caught.value.read().decode()
        caught.value.close()


def test_explain_ast_has_an_answer_of_its_own(store_server: StoreServer):
    # It takes what stands behind it for the statement to explain: an answer's place, too.
    assert "SelectQuery" in store_server.ask("EXPLAIN AST SELECT 1")
    assert json.loads(store_server.ask("EXPLAIN AST SELECT 1 FORMAT JSON"))["rows"] > 1


@pytest.mark.parametrize(
    ("sql", "query", "rule"),
    [
        ("SELECT 1", {"default_format": "CSV; SELECT 2"}, "format"),
        ("SELECT 1 FORMAT NoSuch", {}, "format"),
        ("INSERT INTO guarded FORMAT NoSuch\n1\n", {}, "format"),
        ("SELECT \N{LEFT SINGLE QUOTATION MARK}'\N{RIGHT SINGLE QUOTATION MARK}; SELECT 2 --'", {}, "Multi-statements"),
        ("SELECT $a$'$a$; SELECT 2 --'", {}, "Multi-statements"),
        ("SELECT 1 INTO OUTFILE '/tmp/x'", {}, "file"),
    ],
)
def test_the_owner_too_runs_one_statement_as_it_was_checked(
    store_server: StoreServer, sql: str, query: dict[str, str], rule: str
):
    with pytest.raises(urllib.error.HTTPError) as caught:
        store_server.ask(sql, query="?" + urllib.parse.urlencode(query))
    text = caught.value.read().decode()
    caught.value.close()
    assert rule in text
    assert "Code: " in text


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        ("SELECT \N{LEFT SINGLE QUOTATION MARK}a; b FORMAT JSON\N{RIGHT SINGLE QUOTATION MARK}", "a; b FORMAT JSON\n"),
        ("SELECT $x$a; 'b$x$ -- FORMAT JSON", "a; \\'b\n"),
        ("SELECT 1 /* FORMAT JSON; /* */ */;", "1\n"),
        (
            "SELECT 1 AS \N{LEFT DOUBLE QUOTATION MARK}a;b\N{RIGHT DOUBLE QUOTATION MARK} FORMAT TSVWithNames",
            "a;b\n1\n",
        ),
        ("SELECT\N{NO-BREAK SPACE}'x' FORMAT CSV;;\n", '"x"\n'),
    ],
)
@pytest.mark.parametrize("owner", [True, False])
def test_quotes_and_comments_are_read_as_the_engine_does(store_server: StoreServer, sql: str, answer: str, owner: bool):
    assert store_server.ask(sql, owner=owner) == answer
