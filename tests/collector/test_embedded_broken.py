"""An answer that fails after its first bytes is broken for every client, and one that waits has the right status."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import subprocess
import zlib
from typing import TYPE_CHECKING

import aiohttp
import clickhouse_connect
import lz4.frame
import pyarrow as pa
import pytest
import requests
import urllib3
import zstandard
from clickhouse_connect.driver.exceptions import ClickHouseError

from tests.kits.needs import need
from tests.kits.store_calls import call

if TYPE_CHECKING:
    from tests.kits.store_process import StoreServer

FAILS = "SELECT throwIf(number = 1000000), number FROM numbers(2000000)"

ERRORS = (ClickHouseError, urllib3.exceptions.HTTPError, pa.ArrowException, OSError)


def drain(source: socket.socket) -> None:
    while source.recv(1 << 20):
        pass


def test_curl_ends_with_an_error(store_server: StoreServer):
    curl = need("curl")
    for more in ([], ["--compressed"], ["--http1.0"]):
        done = subprocess.run(
            [curl, "-sS", *more, f"{store_server.url}/?enable_http_compression=1", "-d", FAILS],
            capture_output=True,
            check=False,
        )
        assert done.returncode != 0, more
        assert len(done.stdout) > 1000


def test_no_last_chunk_is_sent(store_server: StoreServer):
    with socket.create_connection(("127.0.0.1", store_server.port), timeout=60) as connection:
        text = FAILS.encode()
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
        answer = b""
        while piece := connection.recv(1 << 20):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"__exception__" in answer[-2000:]
    assert b"Code: 395." in answer[-2000:]
    assert not answer.endswith(b"0\r\n\r\n")


def test_before_http_1_1_the_connection_is_reset(store_server: StoreServer):
    with socket.create_connection(("127.0.0.1", store_server.port), timeout=60) as connection:
        text = FAILS.encode()
        connection.sendall(b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
        with pytest.raises(ConnectionResetError):
            drain(connection)


async def test_libraries_raise(store_server: StoreServer):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", store_server.port, timeout=60)) as connection:
        connection.request("POST", "/", FAILS)
        with pytest.raises(http.client.IncompleteRead):
            connection.getresponse().read()
    async with aiohttp.ClientSession() as session, session.post(store_server.url, data=FAILS) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    with urllib3.PoolManager() as pool, pytest.raises(urllib3.exceptions.HTTPError):
        pool.request("POST", store_server.url, body=FAILS, retries=False)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "lz4"])
def test_a_compressed_answer_has_no_end_but_can_be_read_up_to_the_error(store_server: StoreServer, encoding: str):
    answer = call(store_server, FAILS, headers={"Accept-Encoding": encoding}, enable_http_compression=1)
    assert answer.status == 200
    assert answer.broken
    if encoding == "lz4":
        frame = lz4.frame.LZ4FrameDecompressor()
        text, ended = frame.decompress(answer.body), frame.eof
    elif encoding == "zstd":
        stream = zstandard.ZstdDecompressor().decompressobj()
        text, ended = stream.decompress(answer.body), stream.eof
    else:
        inflate = zlib.decompressobj(31 if encoding == "gzip" else 15)
        text, ended = inflate.decompress(answer.body), inflate.eof
    assert not ended
    assert b"Code: 395." in text[-2000:]
    if encoding == "gzip":
        with pytest.raises(EOFError):
            gzip.decompress(answer.body)


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_clickhouse_connect_raises_in_every_kind_of_stream(store_server: StoreServer, compress: str | bool):
    client = clickhouse_connect.get_client(host="127.0.0.1", port=store_server.port, compress=compress)
    try:
        with client.query_arrow_stream(FAILS) as batches, pytest.raises(ERRORS):
            sum(batch.num_rows for batch in batches)
        with pytest.raises(ERRORS):
            client.query_arrow(FAILS)
        with client.query_row_block_stream(FAILS) as blocks, pytest.raises(ERRORS):
            sum(len(block) for block in blocks)
        with client.raw_stream(FAILS, fmt="CSV") as stream, pytest.raises(ERRORS):
            stream.read()
        assert client.query("SELECT 'after'").result_rows == [("after",)]
    finally:
        client.close()


@pytest.mark.parametrize("value", ["1", "true"])
def test_an_answer_may_be_waited_for(store_server: StoreServer, value: str):
    failed = call(store_server, FAILS, wait_end_of_query=value)
    assert failed.status == 500
    assert failed.headers["X-ClickHouse-Exception-Code"] == "395"
    assert failed.text.startswith("Code: 395.")
    for encoding in ("", "gzip"):
        whole = call(
            store_server,
            "SELECT number FROM numbers(1000000)",
            headers={"Accept-Encoding": encoding},
            wait_end_of_query=value,
            enable_http_compression=1,
        )
        assert (whole.status, whole.broken) == (200, False)
        text = gzip.decompress(whole.body) if encoding else whole.body
        assert text.count(b"\n") == 1_000_000
    assert call(store_server, "SELECT 1", wait_end_of_query=value, owner=False).text == "1\n"
    assert not list((store_server.data / "spool").glob("tmp*"))


def test_without_waiting_the_same_query_streams(store_server: StoreServer):
    answer = call(store_server, FAILS, wait_end_of_query="0")
    assert (answer.status, answer.broken) == (200, True)
    assert requests.post(store_server.url, data="SELECT 1", timeout=60).text == "1\n"


def test_an_error_that_is_not_utf8_is_an_error_like_any_other(store_server: StoreServer):
    for owner in (True, False):
        answer = call(store_server, "SELECT toUInt32(unhex('ff41'))", owner=owner)
        assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (400, "6")
        assert "\N{REPLACEMENT CHARACTER}A" in answer.text


def test_a_failed_insert_is_repaired_whatever_its_error_says(store_server: StoreServer):
    def failures() -> int:
        return int(json.loads(call(store_server, method="GET", path="/healthz").body)["failed_writes"])

    window = "SETTINGS non_replicated_deduplication_window = 100"
    statements = (
        "CREATE TABLE odd_land (a String) ENGINE = Null",
        f"CREATE TABLE odd_one (a String) ENGINE = MergeTree ORDER BY a {window}",
        f"CREATE TABLE odd_two (a UInt32) ENGINE = MergeTree ORDER BY a {window}",
        "CREATE MATERIALIZED VIEW odd_v1 TO odd_one AS SELECT a FROM odd_land",
        "CREATE MATERIALIZED VIEW odd_v2 TO odd_two AS SELECT toUInt32(a) AS a FROM odd_land",
    )
    for sql in statements:
        assert call(store_server, sql).status == 200
    try:
        before, told = failures(), len(store_server.log.read_text())
        answer = call(store_server, b"1\n\xff\xfe\n", query="INSERT INTO odd_land FORMAT TSV")
        assert answer.status == 400
        assert answer.headers["X-ClickHouse-Exception-Code"] in {"6", "72"}
        assert failures() == before + 1
        assert "write_failed" in store_server.log.read_text()[told:]
    finally:
        for name in ("odd_v1", "odd_v2", "odd_land", "odd_one", "odd_two"):
            call(store_server, f"DROP TABLE {name} SYNC")
