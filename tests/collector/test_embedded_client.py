"""An unmodified clickhouse-connect works against the embedded store."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import clickhouse_connect
import pandas as pd
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clickhouse_connect.driver.client import Client

    from tests.kits.store_process import StoreServer

COLUMNS = "a UInt32, b String, t DateTime64(3, 'UTC'), m Map(String, UInt8), n Nullable(Float64)"


@pytest.fixture
def client(store_server: StoreServer) -> Iterator[Client]:
    made = clickhouse_connect.get_client(
        host="127.0.0.1", port=store_server.port, username="owner", password=store_server.owner_password
    )
    yield made
    made.close()


@pytest.fixture
def table(client: Client, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"client_{request.node.name}"
    client.command(f"CREATE TABLE {name} ({COLUMNS}) ENGINE = MergeTree ORDER BY a")
    yield name
    client.command(f"DROP TABLE {name}")


def test_rows_in_and_out(client: Client, table: str):
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=dt.UTC)
    rows = [[1, "x", moment, {"k": 1}, None], [2, "ü\n\t'", moment, {}, 2.5]]
    summary = client.insert(table, rows)
    assert summary.written_rows == 2
    found = client.query(f"SELECT * FROM {table} ORDER BY a")
    # The driver hands UTC out without a zone.
    assert [list(row) for row in found.result_rows] == [
        [cell.replace(tzinfo=None) if isinstance(cell, dt.datetime) else cell for cell in row] for row in rows
    ]
    assert found.column_names == ("a", "b", "t", "m", "n")


def test_frames(client: Client, table: str):
    frame = pd.DataFrame({"a": range(1000), "b": [f"v{n}" for n in range(1000)], "n": [float(n) for n in range(1000)]})
    client.insert_df(table, frame)
    found = client.query_df(f"SELECT a, b, n FROM {table} ORDER BY a")
    assert found["a"].tolist() == frame["a"].tolist()
    assert found["b"].tolist() == frame["b"].tolist()
    assert found["n"].tolist() == frame["n"].tolist()


def test_arrow(client: Client, table: str):
    client.insert_arrow(table, pa.table({"a": pa.array([1, 2], pa.uint32()), "b": ["x", "y"]}))
    found = client.query_arrow(f"SELECT a, b FROM {table} ORDER BY a")
    assert found.column("a").to_pylist() == [1, 2]
    with client.query_arrow_stream("SELECT number FROM numbers(300000)") as batches:
        assert sum(batch.num_rows for batch in batches) == 300_000


def test_streaming(client: Client):
    with client.query_row_block_stream("SELECT number, toString(number) FROM numbers(500000)") as blocks:
        assert sum(len(block) for block in blocks) == 500_000
    with client.query_df_stream("SELECT number FROM numbers(200000)") as frames:
        assert sum(len(frame) for frame in frames) == 200_000
    with client.raw_stream("SELECT number FROM numbers(100000)", fmt="CSV") as stream:
        assert stream.read().count(b"\n") == 100_000


def test_an_error_in_a_stream_is_raised(client: Client):
    sql = "SELECT throwIf(number = 3000000), number FROM numbers(4000000)"
    with client.query_row_block_stream(sql) as blocks, pytest.raises(StreamFailureError):
        sum(len(block) for block in blocks)
    assert client.query("SELECT 'after'").result_rows == [("after",)]


def test_parameters_settings_and_commands(client: Client):
    values = {"a": 3, "b": "x'y\n\t\\z", "c": ["q'", "w"], "d": dt.date(2026, 1, 2)}
    found = client.query("SELECT {a:UInt32}, {b:String}, {c:Array(String)}, {d:Date}", parameters=values)
    assert found.result_rows == [(3, "x'y\n\t\\z", ["q'", "w"], dt.date(2026, 1, 2))]
    assert client.command("SELECT getSetting('max_threads')", settings={"max_threads": 3}) == 3
    assert client.command("SELECT 5") == 5
    assert client.query("SELECT 1 WHERE 0").result_rows == []
    assert client.query("SELECT 1 AS a, 'x' AS b LIMIT 0").column_names == ("a", "b")
    assert client.ping()
    assert client.min_version("25.6")


def test_raw_insert_and_session_tables(client: Client, table: str):
    client.raw_insert(table, ["a", "b"], b"8\tz\n9\ty\n", fmt="TSV")
    client.raw_insert(table, ["a", "b"], iter([b"10\tz\n", b"11\ty\n"]), fmt="TSV")
    assert client.command(f"SELECT sum(a) FROM {table}") == 38
    client.command("CREATE TEMPORARY TABLE mine (a Int8)")
    client.insert("mine", [[1], [2]], ["a"])
    assert client.query("SELECT sum(a) FROM mine").result_rows == [(3,)]


@pytest.mark.parametrize("compression", ["zstd", "lz4", "gzip", False])
def test_compression_both_ways(store_server: StoreServer, compression: str | bool):
    with clickhouse_connect.get_client(
        host="127.0.0.1",
        port=store_server.port,
        username="owner",
        password=store_server.owner_password,
        compress=compression,
    ) as made:
        name = f"packed_{compression}"
        made.command(f"CREATE OR REPLACE TABLE {name} (a UInt32) ENGINE = Memory")
        made.insert(name, [[n] for n in range(5000)])
        assert made.query(f"SELECT sum(a), count() FROM {name}").result_rows == [(12_497_500, 5000)]
        assert len(made.query("SELECT number FROM numbers(200000)").result_rows) == 200_000


def test_errors_carry_code_and_name(client: Client):
    with pytest.raises(DatabaseError, match=r"(?s)code: 60.*UNKNOWN_TABLE"):
        client.query("SELECT * FROM nothing_here")
    with pytest.raises(DatabaseError, match="code: 62"):
        client.command("SELEC 1")


def test_a_reader_needs_no_credentials(store_server: StoreServer):
    with clickhouse_connect.get_client(host="127.0.0.1", port=store_server.port) as reader:
        assert reader.query("SELECT number FROM numbers(3)").result_rows == [(0,), (1,), (2,)]
        assert len(reader.query_df("SELECT name FROM system.tables LIMIT 5")) == 5
        with pytest.raises(DatabaseError, match="code: 497"):
            reader.command("CREATE TABLE x (a Int8) ENGINE = Memory")
    with pytest.raises(DatabaseError, match="code: 516"):
        clickhouse_connect.get_client(host="127.0.0.1", port=store_server.port, username="owner", password="wrong")
