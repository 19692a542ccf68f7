"""How many steps of the interpreter a small answer takes: its cost lies there, and no single step shows it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import TYPE_CHECKING, Any

from agent.spool.writer import SpoolWriter
from agent.tap.client import ClientConnection
from agent.tap.core import Core
from agent.tap.counters import Counters
from agent.tap.limits import Limits
from agent.tap.open_requests import OpenRequests
from agent.tap.recorder import Recorder
from agent.tap.tenants import BoundedNames, Tenants
from agent.tap.upstream import Pool, UpstreamConnection
from tests.kits.tap import SALT

if TYPE_CHECKING:
    from pathlib import Path

MOST_CALLS = 150
"""Functions of Python that may be called for one; 144 when this was written, 196 before."""
ASKED = b'{"model":"tiny","prompt":"hello","stream":false}'
REQUEST = (
    b"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nAccept: */*\r\n"
    b"Authorization: Bearer sk-1\r\nUser-Agent: test\r\nContent-Length: %d\r\n\r\n%s" % (len(ASKED), ASKED)
)
TOLD = (
    b'{"id":"cmpl-1","object":"text_completion","model":"tiny","choices":[{"index":0,"text":" ok","finish_reason":'
    b'"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":1}}'
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(TOLD), TOLD)


class Wire:
    """A transport that takes everything; its socket is one of a pair that says nothing."""

    def __init__(self, end: socket.socket) -> None:
        self.written: list[bytes] = []
        self._end = end
        self.write = self.written.append
        self.is_closing = bool  # false, and no step of Python's, as it is none where it is real

    def get_extra_info(self, name: str) -> socket.socket | None:
        return self._end if name == "socket" else None

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def abort(self) -> None:
        pass


async def calls_of_a_small_answer(folder: Path, end: socket.socket) -> int:
    counters, opened = Counters(), OpenRequests(folder, 4)
    recorder = Recorder(SpoolWriter(folder), {"service.name": "tiny"}, counters, done=opened.done)
    recorder.start(asyncio.get_running_loop())
    names = BoundedNames(10)
    core = Core(
        pool=Pool("http", "127.0.0.1", 1, connect_seconds=1, idle_seconds=60, max_idle=4),
        records=recorder,
        counters=counters,
        tenants=Tenants(SALT, header="x-tenant-id", key_header="authorization", names={}, bound=names),
        models=BoundedNames(10),
        limits=Limits(),
        open=opened,
    )
    client, server = ClientConnection(core, set()), UpstreamConnection(core.pool)
    to_client, to_server = Wire(end), Wire(end)
    client.connection_made(to_client)  # type: ignore[arg-type]
    server.connection_made(to_server)  # type: ignore[arg-type]
    core.pool.give_back(server, 0.0)
    calls = 0

    def count(_frame: Any, what: str, _of: Any) -> None:
        nonlocal calls
        calls += what == "call"

    least = sys.maxsize
    for _ in range(8):  # the first ones fill what is remembered
        calls = 0
        sys.setprofile(count)
        client.data_received(REQUEST)
        server.data_received(ANSWER)
        sys.setprofile(None)
        least = min(least, calls)
    assert await asyncio.to_thread(recorder.close)
    opened.close()
    assert len(to_server.written) == len(to_client.written) == 8
    assert all(answer.endswith(TOLD) for answer in to_client.written)
    assert counters.requests._counts == {"ok": 8}
    assert not counters.faults._metrics
    return least


def test_a_small_answer_takes_few_steps(tmp_path: Path) -> None:
    ends = socket.socketpair()
    with contextlib.closing(ends[0]), contextlib.closing(ends[1]):
        assert asyncio.run(calls_of_a_small_answer(tmp_path, ends[0])) <= MOST_CALLS
