"""The store client: rows, frames, streams, inserts and errors, against the embedded store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

import pytest

from base.errors import ConfigError
from base.keys import ensure_keys
from base.prompt_server import PromptServer
from collector.store.address import StoreAddress, locate
from collector.store.client import Store, StoreError, StoreUnavailable
from collector.store.statements import segment_statement
from tests.kits.schema_tools import edge_span, framed, fresh_store, token, traces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import StoreServer


@pytest.fixture(scope="module")
def store(store_server: StoreServer) -> Iterator[Store]:
    with fresh_store(store_server) as made:
        made.command(
            "CREATE TABLE things (id UInt64, at DateTime64(3, 'UTC'), name String DEFAULT 'none') "
            "ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 100"
        )
        yield made


def test_rows_frame_and_command(store: Store):
    at = datetime(2026, 11, 24, 1, 2, 3, 456_000, UTC)
    store.insert("things", [{"id": 1, "at": at}, {"id": 2, "at": at}])
    rows = store.rows("SELECT id, at, name FROM things WHERE id = {i:UInt64}", {"i": 2})
    assert rows == [{"id": 2, "at": at, "name": "none"}]
    frame = store.frame("SELECT id, at FROM things WHERE id < 3 ORDER BY id")
    assert frame["id"].tolist() == [1, 2]
    assert frame["at"].dt.tz is not None
    assert store.command("SELECT max(id) FROM things WHERE id < 3") == "2"
    assert store.rows("SELECT id FROM things WHERE 0") == []


def test_an_arrow_table_has_texts_as_dictionaries_and_an_empty_one_its_columns(store: Store):
    made = "SELECT number, toLowCardinality(toString(number % 3)) AS name FROM numbers({n:UInt64})"
    table = store.arrow(made, {"n": 150_000})
    names = table.unify_dictionaries().combine_chunks().column("name").chunk(0)
    assert table.column("number").to_pylist() == list(range(150_000))
    assert len(names.dictionary) <= 4
    assert names.to_pylist()[-3:] == ["0", "1", "2"]
    assert store.arrow(made, {"n": 0}).column_names == ["number", "name"]
    with pytest.raises(StoreError, match="395"):
        store.arrow("SELECT throwIf(number = 140000) FROM numbers(150000)")


def test_values_are_never_pasted(store: Store):
    nasty = "'; DROP TABLE things; -- \\ \n {x:String}"
    assert store.rows("SELECT {s:String} AS s, {a:Array(String)} AS a", {"s": nasty, "a": [nasty, "b"]}) == [
        {"s": nasty, "a": [nasty, "b"]}
    ]


def test_a_token_counts_once_and_rows_must_agree(store: Store):
    name = token()
    for value in (10, 11):
        store.insert("things", [{"id": value, "at": datetime.now(UTC)}], token=name)
    assert store.rows("SELECT id FROM things WHERE id IN (10, 11)") == [{"id": 10}]
    store.insert("things", [])
    with pytest.raises(ConfigError, match="different columns"):
        store.insert("things", [{"id": 1}, {"at": 2}])


@pytest.mark.parametrize("form", ["path", "bytes"])
def test_segments_from_a_file_and_from_memory(store: Store, tmp_path: Path, form: str):
    trace, bits = os.urandom(16), int.from_bytes(os.urandom(2), "big")
    spans = [edge_span(trace=trace, bits=bits + n, filler="x" * 2000) for n in range(400)]
    body = framed(traces(spans[:200]), traces(spans[200:]))
    path = tmp_path / "segment"
    path.write_bytes(body)
    name = token()
    for _ in range(2):
        store.insert_segment("land_traces", path if form == "path" else body, name)
    found = store.rows("SELECT count() AS n FROM otel_traces WHERE TraceId = {t:String}", {"t": trace.hex()})
    assert found == [{"n": 400}]
    with pytest.raises(StoreError) as caught:
        store.insert_segment("land_traces", body[:-3], token())
    assert caught.value.code != 0
    with pytest.raises(ConfigError, match="no landing table"):
        store.insert_segment("things", body, token())


def test_errors_name_code_and_cause(store: Store):
    with pytest.raises(StoreError, match="nope") as caught:
        store.rows("SELECT nope")
    assert (caught.value.code, caught.value.name) == (47, "UNKNOWN_IDENTIFIER")
    assert "version" not in caught.value.message
    with pytest.raises(StoreError) as caught:
        list(store.stream("SELECT throwIf(number = 3000000), repeat('x', 50) FROM numbers(4000000)", "TSV"))
    assert caught.value.code == 395
    assert store.rows("SELECT 1 AS x") == [{"x": 1}]


def test_a_dead_store_is_unavailable():
    dead = Store(StoreAddress("http://127.0.0.1:9", password="secret"))
    with pytest.raises(StoreUnavailable, match=r"http://127.0.0.1:9 does not answer.*servescope up"):
        dead.rows("SELECT 1")
    assert not dead.ping()
    assert "secret" not in repr(dead.address)


@pytest.mark.parametrize(
    ("status", "body"), [(404, b"nothing here"), (502, b"bad gateway"), (200, b"<html>hello</html>")]
)
def test_what_is_no_clickhouse_is_told_and_may_be_one_later(status: int, body: bytes):
    """Unavailable and not refused: what waits for a proxy whose ClickHouse is away must wait on."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815 - http.server's own name

        def log_message(self, *_: object) -> None: ...

    with PromptServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        wrong = Store(StoreAddress(f"http://127.0.0.1:{server.server_address[1]}"))
        with wrong, pytest.raises(StoreUnavailable, match="is no ClickHouse"):
            wrong.rows("SELECT 1")
        server.shutdown()
        thread.join()


def test_a_store_that_comes_up_later_is_found(store: Store, store_server: StoreServer):
    late = Store(StoreAddress(store_server.url))
    assert late.ping()
    late.close()
    assert late.rows("SELECT 1 AS x") == [{"x": 1}]


def test_streams_arrive_in_pieces(store: Store):
    pieces = list(store.stream("SELECT number FROM numbers(300000)", "TSV"))
    assert len(pieces) > 1
    assert b"".join(pieces).count(b"\n") == 300_000
    lines = b"".join(store.stream("SELECT {n:UInt8} AS n", parameters={"n": 7}))
    assert json.loads(lines) == {"n": 7}


def test_threads_share_one_store(store: Store):
    def ask(number: int) -> int:
        return int(store.rows("SELECT {n:UInt64} + sum(number) AS n FROM numbers(20000)", {"n": number})[0]["n"])

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(40)))
    assert answers == [number + 199_990_000 for number in range(40)]


def test_a_reader_may_read_and_no_more(store_server: StoreServer):
    with Store(StoreAddress(store_server.url)) as reader:
        assert reader.rows("SELECT 1 AS x") == [{"x": 1}]
        with pytest.raises(StoreError):
            reader.command("CREATE DATABASE mine", use_database=False)


@pytest.mark.parametrize(
    ("url", "plain", "user", "password"),
    [
        ("http://127.0.0.1:8123", "http://127.0.0.1:8123", "", ""),
        ("https://me:p%40ss@ch.example/sub/", "https://ch.example/sub", "me", "p@ss"),
        ("http://[::1]:8123", "http://[::1]:8123", "", ""),
    ],
)
def test_addresses(url: str, plain: str, user: str, password: str):
    address = StoreAddress.parse(url)
    assert (address.url, address.user, address.password) == (plain, user, password)


def test_an_address_names_the_database():
    assert StoreAddress.parse("http://me:pw@ch:8123/?database=observed").database == "observed"
    assert StoreAddress.parse("http://ch:8123").database == "servescope"
    for query, fault in (("databse=x", "databse="), ("database=a;b", "no plain name"), ("database=", "no plain name")):
        with pytest.raises(ConfigError, match=fault):
            StoreAddress.parse(f"http://ch:8123/?{query}")


@pytest.mark.parametrize("url", ["127.0.0.1:8123", "clickhouse://h", "http://", "http://u:geheim@h:port"])
def test_wrong_addresses_are_named_without_their_secret(url: str):
    with pytest.raises(ConfigError, match="no address of a ClickHouse store") as caught:
        StoreAddress.parse(url)
    assert "geheim" not in str(caught.value)


def test_locating_by_run_file_and_keys(tmp_path: Path):
    with pytest.raises(ConfigError, match="no Servescope runs in"):
        locate(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"urls": {"store": "http://127.0.0.1:4711"}}))
    assert locate(tmp_path) == StoreAddress("http://127.0.0.1:4711")
    assert locate(tmp_path, role="owner") == StoreAddress("http://127.0.0.1:4711", role="owner")
    keys = ensure_keys(tmp_path / "keys")
    assert locate(tmp_path, role="owner").password == keys.store_owner
    assert locate(tmp_path, "http://elsewhere:8123", role="owner") == StoreAddress(
        "http://elsewhere:8123", role="owner"
    )
    assert locate(tmp_path, "http://a:b@127.0.0.1:1", role="owner").user == "a"
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="names no store"):
        locate(tmp_path)


def test_the_statement_escapes_what_it_is_given():
    text = segment_statement("d", "land_logs", "it's \\ odd", {"max_threads": 2})
    assert text.startswith("INSERT INTO d.land_logs SETTINGS ")
    assert "insert_deduplication_token = 'it\\'s \\\\ odd'" in text
    assert "max_threads = 2" in text
    assert text.endswith(" FORMAT Protobuf")


def test_importing_the_client_does_not_import_pandas():
    code = (
        "import sys, collector.store.client, collector.store.migrate, collector.settle; print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
