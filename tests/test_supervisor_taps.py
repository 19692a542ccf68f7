"""What clients see of a tap's restarts under the supervisor, which holds its socket: nothing is refused."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from agent.tap.open_requests import KILLED, TABLE
from base.vocabulary import Edge
from servescope.launch.supervisor import Part, Supervisor
from tests.kits.tap import (
    DONE,
    PATIENCE,
    STREAM_HEAD,
    Peer,
    answer,
    attribute,
    chunked,
    connect,
    event,
    post,
    spooled,
    tap_command,
    upstream,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@contextlib.asynccontextmanager
async def supervised(folder: Path, upstream_port: int) -> AsyncIterator[tuple[Supervisor, Part, int]]:
    """A tap under a supervisor's watch; yields both and the port that clients use."""
    part = Part("tap-one", tap_command(folder, upstream_port), listen=("127.0.0.1", 0), stop_seconds=PATIENCE)
    supervisor = Supervisor(folder / "data", [part], {}, lambda _: None)
    supervisor.data.mkdir()
    supervisor._launch(part)
    watching = asyncio.create_task(supervisor._watch())
    assert part.listener is not None
    try:
        yield supervisor, part, part.listener.getsockname()[1]
    finally:
        supervisor._stop()
        await watching
        await supervisor._stop_all()


class Asking:
    """Clients that ask one request after the other, each on a connection of its own."""

    def __init__(self, port: int, clients: int) -> None:
        self.whole: list[str] = []
        self.broken: list[str] = []
        self.refused = 0
        self._port = port
        self._stop = False
        self._tasks = [asyncio.create_task(self._ask(client)) for client in range(clients)]

    async def _ask(self, client: int) -> None:
        number = 0
        while not self._stop:
            name = f"r-{client}-{number}"
            number += 1
            try:
                async with connect(self._port) as peer:
                    try:
                        await peer.send(post(b"/v1/completions", b'{"model":"m"}', b"X-Request-Id: " + name.encode()))
                        got = await asyncio.wait_for(peer.reader.read(), PATIENCE)
                    except ConnectionError:
                        got = b""
                    (self.whole if got.endswith(b'"tiny"}') else self.broken).append(name)
            except ConnectionRefusedError:
                self.refused += 1
            await asyncio.sleep(0.005)

    async def served(self, more: int) -> None:
        """Wait until so many more requests were served."""
        until = len(self.whole) + more
        async with asyncio.timeout(PATIENCE):
            while len(self.whole) < until:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)


class Server:
    """Answers at once, or holds every request until it may go on."""

    def __init__(self) -> None:
        self.held = 0
        self.go = asyncio.Event()
        self.go.set()

    async def serve(self, peer: Peer) -> None:
        while True:
            await peer.request()
            self.held += 1
            await asyncio.wait_for(self.go.wait(), PATIENCE)
            self.held -= 1
            await peer.send(answer(b'{"id":"whole","model":"tiny"}'))

    async def hold(self, requests: int) -> None:
        """Hold what comes from now on; back when so many are held."""
        self.held = 0
        self.go.clear()
        async with asyncio.timeout(PATIENCE):
            while self.held < requests:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


async def kill_again_and_again(folder: Path, kills: int) -> None:
    server = Server()
    async with upstream(server.serve) as up, supervised(folder, up.port) as (_, part, port):
        asking = Asking(port, 4)
        await asking.served(5)
        for _ in range(kills):
            part.restarts = 0
            assert part.process is not None
            await server.hold(2)
            part.process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(part.process.wait)
            server.go.set()
            await asking.served(5)
        await asking.stop()
    spans = spooled(folder / "spool")
    rows = Counter(attribute(span, Edge.REQUEST_ID) for span in spans)
    killed = {attribute(s, Edge.REQUEST_ID) for s in spans if attribute(s, Edge.ERROR_TYPE) == KILLED}
    assert asking.refused == 0
    assert len(asking.broken) >= kills
    assert set(rows) - set(asking.broken) == set(asking.whole)
    assert set(rows.values()) == {1}
    assert len(killed) >= kills
    assert killed <= set(asking.broken)
    for span in spans:
        if attribute(span, Edge.ERROR_TYPE) == KILLED:
            assert attribute(span, Edge.REQUEST_MODEL) in {"m", None}  # read after the request was sent on
            assert span.end_time_unix_nano >= span.start_time_unix_nano > 1_600_000_000_000_000_000
    assert not list((folder / "spool").glob(f"*/open/*/{TABLE}"))  # an empty folder goes with a later start


async def test_a_killed_tap_refuses_nobody_and_every_request_has_one_row(tmp_path: Path):
    await kill_again_and_again(tmp_path, 1)


@pytest.mark.heavy
@pytest.mark.timeout(600)
async def test_a_tap_killed_again_and_again_refuses_nobody_and_every_request_has_one_row(tmp_path: Path):
    await kill_again_and_again(tmp_path, int(os.environ.get("SERVESCOPE_KILLS", "8")))


async def test_a_tap_that_drains_has_its_successor_beside_it(tmp_path: Path):
    finish = asyncio.Event()

    async def script(peer: Peer) -> None:
        while b"long" not in (await peer.request())[1]:  # to close now would cut off who is next on this connection
            await peer.send(answer(b'{"id":"whole","model":"tiny"}'))
        await peer.send(STREAM_HEAD, chunked(event("a"), end=False))
        await asyncio.wait_for(finish.wait(), PATIENCE)
        await peer.send(chunked(DONE))

    async with upstream(script) as up, supervised(tmp_path, up.port) as (_, part, port), connect(port) as long:
        await long.send(post(b"/v1/completions", b'{"model":"m","prompt":"long"}', b"X-Request-Id: long"))
        await long.head()
        asking = Asking(port, 2)
        await asking.served(3)
        old = part.process
        assert old is not None
        old.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            while part.process is old:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asking.served(10)
        assert old.poll() is None  # its stream is open still, and others were served
        finish.set()
        assert (await asyncio.wait_for(long.reader.read(), PATIENCE)).endswith(b"0\r\n\r\n")
        assert await asyncio.to_thread(old.wait, PATIENCE) == 0
        await asking.stop()
    assert (asking.refused, asking.broken) == (0, [])
    rows = Counter(attribute(span, Edge.REQUEST_ID) for span in spooled(tmp_path / "spool"))
    assert rows == Counter([*asking.whole, "long"])
