"""Streams of the embedded store: errors inside them, cancellation, memory, sessions, nothing left over."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from collector.embedded.pipe import Pipe
from tests.kits.store_calls import Answer, call

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kits.store_process import StoreServer


def test_rows_of_a_failed_query_never_show_again(store_server: StoreServer):
    for owner in (True, False):
        for sql in (
            "SELECT throwIf(number = 60000) FROM numbers(100000) SETTINGS max_block_size = 1000",
            "SELECT number FROM numbers(100000) SETTINGS max_result_bytes = 1000, max_block_size = 100",
        ):
            for session in ("", "leaky"):
                call(store_server, sql, owner=owner, session_id=session)
                assert call(store_server, "SELECT 'mine'", owner=owner, session_id=session).text == "mine\n"
                listed = call(store_server, "EXISTS TABLE nothing_here", owner=owner, session_id=session)
                assert listed.text == "0\n"


def test_an_error_inside_a_stream_is_marked(store_server: StoreServer):
    answer = call(store_server, "SELECT throwIf(number = 3000000), number FROM numbers(4000000)", owner=False)
    assert answer.status == 200
    assert answer.broken
    tag = answer.headers["X-ClickHouse-Exception-Tag"].encode()
    found = re.search(
        rb"\r\n__exception__\r\n" + tag + rb"\r\n(.*)\n(\d+) " + tag + rb"\r\n__exception__\r\n$",
        answer.body,
        re.DOTALL,
    )
    assert found is not None
    assert found[1].startswith(b"Code: 395.")
    assert int(found[2]) == len(found[1]) + 1


def processes(server: StoreServer, mark: str) -> int:
    sql = f"SELECT count() FROM system.processes WHERE query LIKE '%{mark}%' AND query NOT LIKE '%system.processes%'"
    return int(call(server, sql).text)


def wait_for(server: StoreServer, mark: str, count: int, seconds: float) -> float:
    begun = time.monotonic()
    while processes(server, mark) != count:
        assert time.monotonic() - begun < seconds, f"{mark}: not {count} within {seconds} s"
    return time.monotonic() - begun


def test_a_session_serves_one_request_at_a_time(store_server: StoreServer):
    first: list[Answer] = []

    def slow() -> None:
        endless = "SELECT count(), 'busymark' FROM system.numbers WHERE number % 7 = 9"
        first.append(call(store_server, endless, session_id="busy"))

    thread = threading.Thread(target=slow, daemon=True)
    thread.start()
    wait_for(store_server, "busymark", 1, 60)
    second = call(store_server, "SELECT 1", session_id="busy")
    assert thread.is_alive()
    call(store_server, "KILL QUERY WHERE query LIKE '%busymark%' AND query NOT LIKE '%KILL%'")
    thread.join(60)
    assert first[0].headers["X-ClickHouse-Exception-Code"] == "394"
    assert second.headers["X-ClickHouse-Exception-Code"] == "373"
    assert call(store_server, "SELECT 1", session_id="busy").text == "1\n"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT number, '{mark}' FROM system.numbers",
        "SELECT count(), '{mark}' FROM system.numbers WHERE number % 7 = 9",
        "SELECT number, '{mark}' FROM system.numbers FORMAT JSON",
    ],
)
def test_a_disconnect_cancels_the_query(store_server: StoreServer, sql: str):
    mark = f"gone{abs(hash(sql))}"
    text = sql.format(mark=mark).encode()
    with socket.create_connection(("127.0.0.1", store_server.port), timeout=30) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
        wait_for(store_server, mark, 1, 60)
    # A second on a quiet machine; tests share theirs.
    assert wait_for(store_server, mark, 0, 30) < 30


def test_clients_that_leave_at_any_moment_leave_nothing_behind(store_server: StoreServer):
    for moment in range(60):
        text = f"SELECT number, 'early{moment}' FROM system.numbers".encode()
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(text)
        with socket.create_connection(("127.0.0.1", store_server.port), timeout=30) as connection:
            connection.sendall(head + text)
            time.sleep(moment / 2000)
    wait_for(store_server, "early", 0, 60)
    begun = time.monotonic()
    while left := [path.name for path in (store_server.data / "spool").glob("*.out")]:
        assert time.monotonic() - begun < 30, left
        time.sleep(0.05)


async def test_an_engine_that_opens_a_pipe_after_its_client_left_is_stopped(tmp_path: Path):
    def engine() -> str:
        with pipe.path.open("wb", buffering=0) as out:
            assert pipe.path.is_fifo()
            try:
                while True:
                    out.write(b"row\n" * 1000)
            except BrokenPipeError:
                return "stopped"

    pipe = Pipe(tmp_path)
    pipe.close()
    assert await pipe.read() == b""
    async with asyncio.timeout(30):
        assert await asyncio.to_thread(engine) == "stopped"
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - the loop is the test's own


async def test_a_query_that_ends_before_it_opens_its_pipe_leaves_none(tmp_path: Path):
    pipe = Pipe(tmp_path)
    pipe.close()
    pipe.finish()
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - the loop is the test's own


def test_endless_answers_do_not_fill_memory(store_server: StoreServer):
    def resident() -> int:
        with open(f"/proc/{store_server.process.pid}/status") as status:  # noqa: PTH123
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])  # type: ignore[index]

    before = resident()
    text = b"SELECT number, 'lazy' FROM system.numbers FORMAT JSON"
    with socket.create_connection(("127.0.0.1", store_server.port), timeout=30) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
        wait_for(store_server, "lazy", 1, 60)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        time.sleep(2)
        assert resident() - before < 150_000
    wait_for(store_server, "lazy", 0, 30)
