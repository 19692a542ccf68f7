"""The embedded store speaks the ClickHouse HTTP interface: plain HTTP, byte for byte where it matters."""

from __future__ import annotations

import base64
import gzip
import json
import re
import subprocess
import time
import zlib
from typing import TYPE_CHECKING

import lz4.block
import lz4.frame
import pytest
import zstandard

from tests.kits.needs import need
from tests.kits.store_calls import call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kits.store_process import StoreServer


@pytest.fixture
def table(store_server: StoreServer, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "t_" + re.sub(r"\W", "_", request.node.name)
    assert call(store_server, f"CREATE TABLE {name} (a UInt32, b String) ENGINE = MergeTree ORDER BY a").status == 200
    yield name
    call(store_server, f"DROP TABLE {name} SYNC")


def rows(server: StoreServer, table: str) -> str:
    return call(server, f"SELECT a, b FROM {table} ORDER BY a, b").text


def test_ping_and_health(store_server: StoreServer):
    assert call(store_server, method="GET", path="/ping", owner=False).body == b"Ok.\n"
    assert call(store_server, method="GET", owner=False).body == b"Ok.\n"
    health = call(store_server, method="GET", path="/healthz", owner=False)
    assert health.status == 200
    assert json.loads(health.body)["status"] == "ok"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-ClickHouse-User": "owner", "X-ClickHouse-Key": "wrong"},
        {"Authorization": "Basic " + base64.b64encode(b"owner:wrong").decode()},
        {"Authorization": "Basic " + base64.b64encode(b"nobody:").decode()},
        {"Authorization": "Basic %%%"},
        {"Authorization": "Bearer token"},
    ],
)
def test_wrong_credentials(store_server: StoreServer, headers: dict[str, str]):
    answer = call(store_server, "SELECT 1", headers=headers, owner=False)
    assert answer.status == 401
    assert answer.headers["X-ClickHouse-Exception-Code"] == "516"
    assert "AUTHENTICATION_FAILED" in answer.text


def test_owner_by_headers_and_url(store_server: StoreServer):
    by_header = {"X-ClickHouse-User": "owner", "X-ClickHouse-Key": store_server.owner_password}
    sql = "SELECT has(currentRoles(), 'owner')"
    assert call(store_server, sql, headers=by_header, owner=False).text == "1\n"
    assert call(store_server, sql, owner=False, user="owner", password=store_server.owner_password).text == "1\n"
    assert call(store_server, sql, owner=False).text == "0\n"


def test_a_foreign_host_name_is_refused(store_server: StoreServer):
    assert call(store_server, "SELECT 1", headers={"Host": "evil.example:8123"}, owner=False).status == 403
    assert call(store_server, "SELECT 1", headers={"Host": "localhost:8123"}, owner=False).status == 200


def test_query_in_url_body_or_both(store_server: StoreServer):
    assert call(store_server, method="GET", query="SELECT 1 + 1").text == "2\n"
    assert call(store_server, "SELECT 1 + 1;").text == "2\n"
    assert call(store_server, " + 1", query="SELECT 1").text == "2\n"
    assert call(store_server, "SELECT 1 + 1 -- comment").text == "2\n"
    assert call(store_server, method="POST").status == 400


def test_get_is_read_only(store_server: StoreServer):
    answer = call(store_server, method="GET", query="CREATE TABLE nope (a Int8) ENGINE = Memory")
    assert answer.headers["X-ClickHouse-Exception-Code"] == "164"


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("JSON", "application/json; charset=UTF-8"),
        ("CSVWithNames", "text/csv; charset=UTF-8; header=present"),
        ("TabSeparated", "text/tab-separated-values; charset=UTF-8"),
        ("JSONEachRow", "application/x-ndjson; charset=UTF-8"),
        ("Parquet", "application/octet-stream"),
        ("Native", "application/octet-stream"),
    ],
)
def test_formats_name_themselves(store_server: StoreServer, form: str, kind: str):
    in_sql = call(store_server, f"SELECT number AS n FROM numbers(3) FORMAT {form}")
    by_default = call(store_server, "SELECT number AS n FROM numbers(3)", default_format=form)
    for answer in (in_sql, by_default):
        assert answer.headers["X-ClickHouse-Format"] == form
        assert answer.headers["Content-Type"] == kind
    if form != "JSON":
        assert in_sql.body == by_default.body
    else:
        assert json.loads(in_sql.body)["data"] == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_every_format_streams_whole(store_server: StoreServer):
    text = call(store_server, "SELECT number AS n FROM numbers(300000) FORMAT CSVWithNames").text
    assert text == '"n"\n' + "".join(f"{n}\n" for n in range(300_000))
    found = json.loads(call(store_server, "SELECT number AS n FROM numbers(300000) FORMAT JSONCompact").body)
    assert found["rows"] == 300_000
    assert found["data"][-1] in ([299_999], ["299999"])


def test_statements_without_a_result_name_no_format(store_server: StoreServer, table: str):
    answer = call(store_server, f"ALTER TABLE {table} ADD COLUMN c UInt8")
    assert answer.status == 200
    assert answer.body == b""
    assert "X-ClickHouse-Format" not in answer.headers


def test_summary_counts(store_server: StoreServer, table: str):
    answer = call(store_server, "1\tx\n2\ty\n", query=f"INSERT INTO {table} FORMAT TSV")
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"] == "2"
    answer = call(store_server, f"SELECT * FROM {table}")
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["read_rows"] == "2"
    assert call(store_server, "SELECT 1", query_id="mine").headers["X-ClickHouse-Query-Id"] == "mine"


def test_errors_have_code_name_and_no_path(store_server: StoreServer):
    answer = call(store_server, "SELECT nope")
    assert answer.status == 404
    assert answer.headers["X-ClickHouse-Exception-Code"] == "47"
    assert answer.text.startswith("Code: 47. DB::Exception: ")
    assert "(UNKNOWN_IDENTIFIER)" in answer.text
    answer = call(store_server, "SELEC 1")
    assert answer.headers["X-ClickHouse-Exception-Code"] == "62"
    assert "OUTFILE '" not in answer.text
    answer = call(store_server, "SELECT 1 FROM nowhere.at_all")
    assert answer.headers["X-ClickHouse-Exception-Code"] in {"60", "81"}
    assert call(store_server, "SELECT 1", database="missing").headers["X-ClickHouse-Exception-Code"] == "81"


def test_an_insert_error_does_not_show_where_the_store_lives(store_server: StoreServer, table: str):
    answer = call(store_server, "x\ty\n", query=f"INSERT INTO {table} FORMAT TSV")
    assert answer.status == 400
    assert str(store_server.data) not in answer.text


def test_parameters_and_settings(store_server: StoreServer):
    answer = call(
        store_server,
        "SELECT {a:UInt8} + 1, {b:String}, {c:Array(String)}, {d:Identifier}, getSetting('max_block_size')"
        " FROM (SELECT 5 AS x)",
        param_a="3",
        param_b="tab\\tquote'",
        param_c="['p','q']",
        param_d="x",
        max_block_size=1234,
    )
    assert answer.text == "4\ttab\\tquote\\'\t['p','q']\t5\t1234\n"
    assert call(store_server, "SELECT 1", no_such_setting=1).headers["X-ClickHouse-Exception-Code"] == "115"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "lz4"])
def test_answers_are_compressed_when_asked(store_server: StoreServer, encoding: str):
    unpack = {
        "gzip": gzip.decompress,
        "deflate": zlib.decompress,
        "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
        "lz4": lz4.frame.decompress,
    }[encoding]
    for count in (10, 400_000):
        sql = f"SELECT number FROM numbers({count})"
        answer = call(store_server, sql, headers={"Accept-Encoding": encoding}, enable_http_compression=1)
        assert answer.headers["Content-Encoding"] == encoding
        assert unpack(answer.body).count(b"\n") == count
    assert "Content-Encoding" not in call(store_server, "SELECT 1", headers={"Accept-Encoding": encoding}).headers


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "lz4"])
@pytest.mark.parametrize("size", [2, 60_000])
def test_bodies_may_be_compressed(store_server: StoreServer, table: str, encoding: str, size: int):
    pack = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "zstd": zstandard.ZstdCompressor().compress,
        "lz4": lz4.frame.compress,
    }[encoding]
    data = "".join(f"{n}\tvalue {n * 7919 % 10007}\n" for n in range(size)).encode()
    headers = {"Content-Encoding": encoding}
    assert call(store_server, pack(data), headers=headers, query=f"INSERT INTO {table} FORMAT TSV").status == 200
    assert call(store_server, f"SELECT count(), sum(a) FROM {table}").text == f"{size}\t{size * (size - 1) // 2}\n"
    whole = f"INSERT INTO {table} FORMAT TSV\n".encode() + data
    assert call(store_server, pack(whole), headers=headers).status == 200
    assert call(store_server, f"SELECT count() FROM {table}").text == f"{2 * size}\n"
    broken = call(store_server, pack(data)[:-6], headers=headers, query=f"INSERT INTO {table} FORMAT TSV")
    assert broken.status >= 400
    assert broken.text.startswith("Code: ")


def test_native_compressed_blocks(store_server: StoreServer, table: str):
    def block(data: bytes) -> bytes:
        packed = lz4.block.compress(data, store_size=False)
        return bytes(16) + b"\x82" + (len(packed) + 9).to_bytes(4, "little") + len(data).to_bytes(4, "little") + packed

    body = block(b"1\tx\n") + block(b"2\ty\n3\tz\n")
    sql = f"INSERT INTO {table} FORMAT TSV"
    assert call(store_server, body, query=sql, decompress=1, async_insert=1, wait_for_async_insert=0).status == 200
    assert rows(store_server, table) == "1\tx\n2\ty\n3\tz\n"
    assert call(store_server, body[:-2], query=sql, decompress=1).status >= 400
    assert call(store_server, "SELECT 1", compress=1).headers["X-ClickHouse-Exception-Code"] == "48"


@pytest.mark.parametrize(
    ("head", "data", "found"),
    [
        ("INSERT INTO {t} VALUES ", "(1, 'a'), (2, 'b;c')", "1\ta\n2\tb;c\n"),
        ("INSERT INTO {t} (b, a) VALUES ", "('a(''', 1)", "1\ta(\\'\n"),
        ("INSERT INTO {t} FORMAT Values ", "(1, 'a')", "1\ta\n"),
        ("insert into {t} format CSV\n", '1,"a\nb"\n', "1\ta\\nb\n"),
        ("INSERT INTO {t} FORMAT JSONEachRow ", '{{"a": 1, "b": "FORMAT CSV"}}', "1\tFORMAT CSV\n"),
        ("INSERT INTO {t} (a) FORMAT TSV\n", "7\n", "7\t\n"),
        ("INSERT INTO servescope.{t} SETTINGS async_insert = 1 FORMAT TSV\n", "1\ta\n", "1\ta\n"),
        ("/* c */ INSERT INTO TABLE {t} -- d\n SETTINGS max_threads = 1 FORMAT TSV\n", "1\ta\n", "1\ta\n"),
        ("INSERT INTO `{t}` (`a`, `b`) FORMAT TabSeparated\r\n", "1\ta\n", "1\ta\n"),
    ],
)
def test_inserts_in_every_shape(store_server: StoreServer, table: str, head: str, data: str, found: str):
    statement, content = head.format(t=table), data.format()
    assert call(store_server, statement + content).status == 200
    assert rows(store_server, table) == found
    call(store_server, f"TRUNCATE TABLE {table}")
    assert call(store_server, content, query=statement).status == 200
    assert rows(store_server, table) == found
    call(store_server, f"TRUNCATE TABLE {table}")
    assert call(store_server, query=statement + content).status == 200
    assert rows(store_server, table) == found


def test_insert_select_and_a_large_body(store_server: StoreServer, table: str):
    data = "".join(f"{n}\t{'x' * 100}\n" for n in range(30_000))
    assert call(store_server, data, query=f"INSERT INTO {table} FORMAT TSV").status == 200
    assert call(store_server, f"INSERT INTO {table} SELECT a + 1000000, b FROM {table}").status == 200
    assert call(store_server, f"SELECT count() FROM {table}").text == "60000\n"


def test_no_spool_file_stays_behind(store_server: StoreServer, table: str):
    call(store_server, "bad", query=f"INSERT INTO {table} FORMAT TSV")
    call(store_server, "1\tx\n" * 100_000, query=f"INSERT INTO {table} FORMAT TSV")
    deadline = time.monotonic() + 30
    while left := [path for path in (store_server.data / "spool").iterdir() if path.suffix in {".body", ".out"}]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_client_side_files_are_refused(store_server: StoreServer, table: str):
    for sql in (f"INSERT INTO {table} FROM INFILE '/etc/passwd' FORMAT TSV", "SELECT 1 INTO OUTFILE '/tmp/out'"):
        assert call(store_server, sql).headers["X-ClickHouse-Exception-Code"] == "497"


def test_sessions_keep_tables_and_settings(store_server: StoreServer):
    session = "session-keeps"
    assert call(store_server, "CREATE TEMPORARY TABLE kept (a UInt8)", session_id=session).status == 200
    assert call(store_server, "INSERT INTO kept VALUES (3)", session_id=session).status == 200
    assert call(store_server, "SELECT nope", session_id=session).status == 404
    assert call(store_server, "SELECT throwIf(number = 5) FROM numbers(10)", session_id=session).status >= 400
    assert call(store_server, "SELECT * FROM kept", session_id=session).text == "3\n"
    assert call(store_server, "SELECT * FROM kept").status == 404
    size = "SELECT getSetting('max_block_size')"
    usual = call(store_server, size, session_id=session).text
    assert call(store_server, size, session_id=session, max_block_size=7).text == "7\n"
    assert call(store_server, size, session_id=session).text == usual
    call(store_server, "SET max_block_size = 99", session_id=session)
    assert call(store_server, size, session_id=session, max_block_size=7).text == "7\n"
    assert call(store_server, size, session_id=session).text == "99\n"
    call(store_server, "SELECT 1", session_id=session, close_session=1)
    gone = call(store_server, "SELECT 1", session_id=session, session_check=1)
    assert gone.headers["X-ClickHouse-Exception-Code"] == "372"


def test_curl_as_people_use_it(store_server: StoreServer, table: str):
    curl = need("curl")
    user = f"owner:{store_server.owner_password}"
    command = [curl, "-sS", "-u", user, store_server.url]
    subprocess.run([*command, "--data-binary", f"INSERT INTO {table} VALUES (1, 'x')"], check=True)
    found = subprocess.run(
        [*command, "-d", f"SELECT * FROM {table} FORMAT JSONEachRow"], check=True, capture_output=True
    )
    assert json.loads(found.stdout) == {"a": 1, "b": "x"}
    target = f"{store_server.url}/?query=INSERT%20INTO%20{table}%20FORMAT%20TSV"
    piped = subprocess.run(
        [*command[:-1], "-H", "Transfer-Encoding: chunked", "--data-binary", "@-", target],
        input=b"2\ty\n",
        check=True,
        capture_output=True,
    )
    assert piped.stdout == b""
    assert rows(store_server, table) == "1\tx\n2\ty\n"
