"""What the store refuses before it reads a body, and whom it refuses whatever they send."""

from __future__ import annotations

import asyncio
import base64
import gzip
import lzma
import os
import socket
import zlib
from typing import TYPE_CHECKING

import lz4.frame
import pytest
import zstandard

from collector.embedded import unpack
from collector.embedded.body import Body, SpoolRoom, Terms
from collector.embedded.errors import QueryError
from collector.embedded.origin import Origins
from collector.embedded.unpack import read_some
from tests.kits.store_calls import call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from collector.embedded.unpack import Readable
    from tests.kits.store_process import StoreServer

BOMB = bytes(8 << 20)


def code(server: StoreServer, *args: str | bytes, **more: object) -> str | None:
    return call(server, *args, **more).headers.get("X-ClickHouse-Exception-Code")  # type: ignore[arg-type]


def raw(server: StoreServer, head: str, body: bytes = b"", *, owner: bool = False, timeout: float = 20) -> bytes:
    """Send a request's head (and what of the body is given), and return the first line and headers that come."""
    if owner:
        secret = base64.b64encode(f"owner:{server.owner_password}".encode()).decode()
        head += f"Authorization: Basic {secret}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as connection:
        connection.sendall(head.encode() + b"\r\n" + body)
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := connection.recv(65536)):
            answer += piece
    return answer


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "https://127.0.0.1.evil.example:8123"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "Cross-Site"},
    ],
)
def test_a_page_of_another_origin_is_refused(store_server: StoreServer, headers: dict[str, str]):
    for owner in (True, False):
        for method, sent in (("POST", "SELECT 1"), ("GET", "")):
            query = {} if sent else {"query": "SELECT 1"}
            answer = call(store_server, sent, method=method, headers=headers, owner=owner, **query)
            assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "497")
            assert "Access-Control-Allow-Origin" not in answer.headers


def test_programs_and_the_own_origin_are_served(store_server: StoreServer):
    here = f"127.0.0.1:{store_server.port}"
    for headers in (
        {},
        {"Origin": f"http://{here}", "Host": here, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"User-Agent": "Grafana/11", "X-Forwarded-For": "10.0.0.1"},
    ):
        assert call(store_server, "SELECT 1", headers=headers, owner=False).text == "1\n"
    assert call(store_server, method="OPTIONS", headers={"Origin": "http://evil.example"}).status == 405


def test_a_name_that_a_page_has_bound_to_us_is_refused():
    local = Origins("127.0.0.1")
    for host in ("evil.example", "evil.example:8123", "127.0.0.1.evil.example", "localhost.evil.example:1", "[x]"):
        with pytest.raises(QueryError):
            local.check({"Host": host})
    for host in ("127.0.0.1:8123", "localhost", "LOCALHOST:1", "[::1]:8123", ""):
        local.check({"Host": host})
    everywhere = Origins("0.0.0.0")
    everywhere.check({"Host": "store.cluster.internal:8123"})
    with pytest.raises(QueryError):
        everywhere.check({"Host": "evil.example:8123", "Origin": "http://evil.example:8123"})
    with pytest.raises(QueryError):
        everywhere.check({"Host": "evil.example:8123", "Sec-Fetch-Site": "same-origin"})


@pytest.mark.parametrize("where", ["url", "body"])
@pytest.mark.parametrize("encoding", ["gzip", "zstd", "xz", "lz4"])
def test_a_readers_insert_never_reaches_the_disk(store_server: StoreServer, where: str, encoding: str):
    pack = {
        "gzip": lambda data: gzip.compress(data, 1),
        "zstd": zstandard.ZstdCompressor().compress,
        "xz": lambda data: lzma.compress(data, preset=0),
        "lz4": lz4.frame.compress,
    }[encoding]
    sql = b"INSERT INTO nothing FORMAT TSV\n"
    data = pack(BOMB if where == "url" else sql + BOMB)
    query = {"query": sql.decode()} if where == "url" else {}
    before = written(store_server)
    answer = call(store_server, data, headers={"Content-Encoding": encoding}, owner=False, **query)
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "497")
    assert written(store_server) - before < 4 << 20


def written(server: StoreServer) -> int:
    """Bytes that the store's process has handed to the kernel."""
    with open(f"/proc/{server.process.pid}/io") as file:  # noqa: PTH123
        return int(file.read().split("wchar: ")[1].split()[0])


def test_a_reader_is_refused_while_its_body_is_still_to_come(store_server: StoreServer):
    head = "POST /?query=INSERT+INTO+t+FORMAT+TSV HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n"
    assert b" 403 " in raw(store_server, head)
    large = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000000\r\n"
    assert b" 413 " in raw(store_server, large)
    odd = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nContent-Encoding: br\r\n"
    assert b"X-ClickHouse-Exception-Code: 48" in raw(store_server, odd)
    form = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: "
    assert b" 413 " in raw(store_server, form + "9000000\r\n")
    assert b" 413 " in raw(store_server, form + "90000000\r\n", owner=True)
    get = "GET /?query=INSERT+INTO+t+FORMAT+TSV HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n"
    assert b"X-ClickHouse-Exception-Code: 164" in raw(store_server, get, owner=True)


def test_no_body_is_asked_for_that_would_be_refused(store_server: StoreServer):
    head = "POST /?query={} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nExpect: 100-continue\r\n"
    refused = raw(store_server, head.format("INSERT+INTO+t+FORMAT+TSV", 10))
    assert refused.startswith(b"HTTP/1.1 403 ")
    assert raw(store_server, head.format("SELECT+1", 1 << 30)).startswith(b"HTTP/1.1 413 ")
    wanted = raw(store_server, head.format("SELECT+1", 2), owner=True)
    assert wanted.startswith(b"HTTP/1.1 100 Continue")


def test_a_readers_statement_is_bounded_as_it_unpacks(store_server: StoreServer):
    text = gzip.compress(b"SELECT 1" + b" " * (16 << 20))
    assert code(store_server, text, headers={"Content-Encoding": "gzip"}, owner=False) == "62"
    assert code(store_server, b"SELECT 1" + b" " * (2 << 20), owner=False) == "307"


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "xz", "deflate"])
async def test_a_body_made_to_fill_a_disk_is_refused_for_everybody(
    tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(unpack, "_PLAIN_FREE", 1 << 20)
    pack = {
        "gzip": lambda data: gzip.compress(data, 9),
        "zstd": zstandard.ZstdCompressor(level=3).compress,
        "xz": lambda data: lzma.compress(data, preset=1),
        "deflate": lambda data: zlib.compress(data, 9),
    }[encoding]
    body = Body(tmp_path, Terms(1 << 30, 10, 10), SpoolRoom(1 << 30))
    try:
        await body.receive(chunks(pack(BOMB)))
        with pytest.raises(QueryError, match="TOO_MANY_BYTES"):
            body.as_file(body.reader(encoding), b"")
        assert on_disk(tmp_path) < 4 << 20
    finally:
        body.close()
    assert on_disk(tmp_path) == 0


async def test_all_bodies_together_take_no_more_than_their_room(tmp_path: Path):
    room = SpoolRoom(3_000_000)
    first, second = (Body(tmp_path, Terms(1 << 30, 10, 10), room) for _ in range(2))
    await first.receive(chunks(bytes(2_000_000)))
    with pytest.raises(QueryError, match="NOT_ENOUGH_SPACE"):
        await second.receive(chunks(bytes(2_000_000)))
    second.close()
    first.close()
    third = Body(tmp_path, Terms(1 << 30, 10, 10), room)
    await third.receive(chunks(bytes(2_000_000)))
    third.close()


async def test_a_body_that_stops_coming_is_not_waited_for(tmp_path: Path):
    async def stalls() -> AsyncIterator[bytes]:
        yield b"SELECT"
        await asyncio.Event().wait()

    body = Body(tmp_path, Terms(1 << 20, 0.05, 10), SpoolRoom(1 << 20))
    with pytest.raises(QueryError, match="SOCKET_TIMEOUT"):
        await body.receive(stalls())


def whole(reader: Readable) -> bytes:
    return b"".join(iter(lambda: read_some(reader, 3), b""))


@pytest.mark.parametrize(
    "data",
    [lzma.compress(b"x", preset=9), b"\xfd7zXZ\0" + os.urandom(64), lzma.compress(b"x")[:-4]],
    ids=["memory", "noise", "cut"],
)
async def test_xz_takes_bounded_memory_and_must_end(tmp_path: Path, data: bytes):
    body = Body(tmp_path, Terms(1 << 20, 10, 10), SpoolRoom(1 << 20))
    await body.receive(chunks(data))
    reader = body.reader("xz")
    with pytest.raises(QueryError, match="Cannot decompress"):
        whole(reader)


async def test_xz_streams_one_after_the_other_are_read(tmp_path: Path):
    body = Body(tmp_path, Terms(1 << 20, 10, 10), SpoolRoom(1 << 20))
    await body.receive(chunks(lzma.compress(b"one "), lzma.compress(b"two")))
    assert whole(body.reader("xz")) == b"one two"
