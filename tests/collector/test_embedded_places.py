"""Places at the store: shared fairly, given back in time, and never taken from its own by guests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from collector.embedded import stays
from collector.embedded.errors import QueryError
from collector.embedded.http import Gateway
from collector.embedded.limits import Limits
from collector.embedded.places import Client, Places, Stay, client_name
from collector.embedded.recycle import Past, Recycle
from collector.embedded.stays import time_limit, watch
from collector.store.address import READER_HEADER, locate, reader_token
from collector.store.client import Store
from tests.kits.store_calls import Answer, call
from tests.kits.store_process import start_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from collector.embedded.places import Group
    from tests.kits.store_process import StoreServer

ENDLESS = "SELECT count(), '{}' FROM system.numbers WHERE number % 7 = 9"
# One block of rows, or one row, takes hours, and the engine looks for a cancellation between blocks.
STUCK = {
    "editDistance": (
        "SELECT sum(editDistance(repeat('ab', 20000), repeat('ba', toUInt32(20000 + number % 2)))) FROM numbers(1000)"
    ),
    "polygonsUnionCartesian": (
        "SELECT polygonsUnionCartesian([[arrayMap(i -> (toFloat64(i), toFloat64(i % 2 * 100000)), range(60000))]],"
        " [[arrayMap(i -> (toFloat64(i % 2 * 100000), toFloat64(i)), range(60000))]])"
    ),
}
# What would run for long, too, and ends within its time: by a bound of the engine's, or since it looks at the clock.
ENDING = {
    "H3 rings": "SELECT sum(length(h3kRing(materialize(644325529233966508), toUInt16(9000)))) FROM numbers(100000)",
    "arrayFold": "SELECT arrayFold((acc, x) -> arrayPushBack(acc, x), range(2000000), emptyArrayUInt64())",
    "repeat": "SELECT sum(length(repeat('abcdefghij', toUInt32(1000000 + number % 2)))) FROM numbers(10000000)",
    "joins": "SELECT count() FROM numbers(2) AS a0 " + "".join(f", numbers(2) AS a{i}" for i in range(1, 100)),
}

RUNS = "query LIKE '%polygonsUnion%OUTFILE%' AND query NOT LIKE '%system.processes%'"


async def seated(places: Places, name: str) -> Stay:
    stay = places.arrive(name)
    await stay.enter()
    return stay


async def test_one_client_never_takes_all_places():
    places = Places(3, 2, (10, 10))
    first = [await seated(places, "greedy") for _ in range(2)]
    third = asyncio.create_task(places.arrive("greedy").enter())
    async with asyncio.timeout(10):
        other = await seated(places, "modest")
    assert not third.done()
    assert places.figures() == {"places": 3, "running": 3, "waiting": 1}
    other.end()
    await asyncio.sleep(0)
    assert not third.done()
    first[0].end()
    async with asyncio.timeout(10):
        await third


async def test_who_has_fewest_is_next_however_many_the_others_ask():
    places = Places(1, 1, (100, 100))
    holder = await seated(places, "a")
    order: list[str] = []

    async def ask(name: str) -> None:
        stay = await seated(places, name)
        order.append(name)
        stay.end()

    tasks = [asyncio.create_task(ask(name)) for name in ["a"] * 5 + ["b", "c"]]
    await asyncio.sleep(0)
    holder.end()
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks)
    assert order.index("b") <= 2
    assert order.index("c") <= 2
    assert places.figures() == {"places": 1, "running": 0, "waiting": 0}


async def test_waiting_is_bounded_in_all_and_for_each():
    places = Places(1, 1, (5, 3))
    stays = [places.arrive("a") for _ in range(3)]
    with pytest.raises(QueryError, match="TOO_MANY_SIMULTANEOUS_QUERIES"):
        places.arrive("a")
    stays += [places.arrive("b") for _ in range(2)]
    with pytest.raises(QueryError, match="TOO_MANY_SIMULTANEOUS_QUERIES"):
        places.arrive("c")
    for stay in stays * 2:
        stay.end()
    assert places.figures()["waiting"] == 0
    places.arrive("c").end()


async def test_a_place_given_to_somebody_who_has_just_left_goes_on():
    places = Places(1, 1, (5, 5))
    holder = await seated(places, "a")
    waiting = asyncio.create_task(seated(places, "b"))
    await asyncio.sleep(0)
    holder.end()
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        (await waiting).end()
    async with asyncio.timeout(10):
        (await seated(places, "c")).end()


async def test_those_who_wait_are_sent_away_when_the_store_is_recycled():
    places = Places(1, 1, (5, 5))
    await seated(places, "a")
    waiting = asyncio.create_task(seated(places, "b"))
    await asyncio.sleep(0)
    places.close("starts again")
    with pytest.raises(QueryError, match="SERVER_OVERLOADED"):
        await waiting
    with pytest.raises(QueryError) as caught:
        places.arrive("c")
    assert caught.value.status == 503


@pytest.mark.parametrize("reason", ["limit", "left"])
async def test_a_stay_past_its_time_is_cancelled_then_cut_then_ends_the_process(reason: str):
    places = Places(2, 2, (5, 5))
    stay, good = await seated(places, "a"), await seated(places, "b")
    steps: list[str] = []
    stay.when_late(lambda: steps.append("cancelled"))
    stay.when_cut(lambda: steps.append("cut"))
    stay.patience = 3.0
    if reason == "limit":
        stay.limit = 0.0
    else:
        stay.left = True
    recycle = Recycle(Past())
    recycle.listeners.append(lambda _why: steps.append("recycled"))
    working: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(stay.unless_cut(working))
    async with asyncio.timeout(60):
        await watch({"guest": places}, recycle, places.entered)
    assert steps == ["cancelled", "cut", "recycled"]
    with pytest.raises(QueryError, match="TIMEOUT_EXCEEDED"):
        await waiting
    assert not working.cancelled()
    assert ("time limit" in recycle.why) == (reason == "limit")
    assert not good.was_cut


async def test_while_nobody_is_there_nobody_is_looked_for(monkeypatch: pytest.MonkeyPatch):
    looks = 0
    spent = Stay.spend

    async def tick(_seconds: float) -> None:
        nonlocal looks
        looks += 1
        await yielding(0)

    yielding = asyncio.sleep
    monkeypatch.setattr(stays.asyncio, "sleep", tick)
    entered = asyncio.Event()
    groups: dict[Group, Places] = {name: Places(2, 2, (5, 5), entered) for name in ("own", "guest")}
    seen: list[Stay] = []
    monkeypatch.setattr(Stay, "spend", lambda stay, now, passed: (seen.append(stay), spent(stay, now, passed))[1])
    watching = asyncio.create_task(watch(groups, Recycle(Past()), entered))
    try:
        for _ in range(20):
            await yielding(0)
        assert not looks
        stay = await seated(groups["guest"], "a")
        async with asyncio.timeout(60):
            while not seen:
                await yielding(0)
        assert seen[0] is stay
        stay.end()
        for _ in range(20):
            await yielding(0)
        before = looks
        for _ in range(20):
            await yielding(0)
        assert looks == before
    finally:
        watching.cancel()


def test_clients_are_told_apart():
    assert client_name("127.0.0.1", "curl/8") != client_name("127.0.0.1", "python")
    assert client_name("10.0.0.1", "curl/8") == client_name("10.0.0.1", "python")
    assert client_name("2001:db8:1:2::5", "") == client_name("2001:db8:1:2:ffff::", "")
    assert client_name("2001:db8:1:2::5", "") != client_name("2001:db8:1:3::5", "")
    assert len(client_name("127.0.0.1", "x" * 10_000)) < 200
    groups = [Client("owner", own, "x").group for own in (True, False)]
    assert groups == ["owner", "owner"]
    assert [Client("reader", own, "x").group for own in (True, False)] == ["own", "guest"]


@pytest.mark.parametrize(
    ("sql", "settings", "seconds"),
    [
        ("SELECT 1", {}, float("inf")),
        ("SELECT 1 SETTINGS max_execution_time = 2", {}, 2),
        ("SELECT 1 SETTINGS max_threads = 1, max_execution_time = '2.5'", {"max_execution_time": "3"}, 2.5),
        ("SELECT 1", {"max_execution_time": "7"}, 7),
        ("SELECT 'max_execution_time = 2'", {}, float("inf")),
        ("SELECT 1 /* max_execution_time = 2 */", {"max_execution_time": "x"}, float("inf")),
        ("SELECT 1 SETTINGS max_execution_time = 0", {}, float("inf")),
    ],
)
def test_a_requests_own_time_limit(sql: str, settings: dict[str, str], seconds: float):
    assert time_limit(sql, settings) == seconds


def health(server: StoreServer) -> dict[str, object]:
    return dict(json.loads(call(server, method="GET", path="/healthz", owner=False).body))


def served(server: StoreServer) -> int:
    """Queries that have had a place."""
    return int(health(server)["queries"])  # type: ignore[call-overload]


def running(server: StoreServer, group: str = "guest") -> dict[str, int]:
    return dict(health(server)["places"][group])  # type: ignore[index]


@contextlib.contextmanager
def asking(server: StoreServer, sql: str, agent: str) -> Iterator[socket.socket]:
    """A guest that asks and never reads the answer."""
    text = sql.encode()
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {agent}\r\nContent-Length: {len(text)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head + text)
        yield connection


def until(server: StoreServer, group: str, key: str, count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (found := running(server, group)[key]) != count:
        assert time.monotonic() < deadline, (group, key, found)
        time.sleep(0.05)


def test_guests_in_a_crowd_leave_the_owner_and_its_readers_their_places(store_server: StoreServer):
    places = running(store_server)["places"]
    token = {READER_HEADER: reader_token((store_server.data.parent / "keys" / "store_owner.sha256").read_text())}
    with contextlib.ExitStack() as stack:
        for number in range(160):
            stack.enter_context(asking(store_server, ENDLESS.format("crowd"), f"guest-{number}"))
        until(store_server, "guest", "running", places, 60)
        until(store_server, "guest", "waiting", 128, 60)
        refused = call(store_server, "SELECT 1", owner=False, headers={"User-Agent": "late"})
        assert (refused.status, refused.headers["X-ClickHouse-Exception-Code"]) == (503, "202")
        assert refused.headers["Retry-After"] == "1"
        assert call(store_server, "SELECT 1").text == "1\n"
        assert call(store_server, "SELECT 2", owner=False, headers=token).text == "2\n"
        wrong = call(store_server, "SELECT 2", owner=False, headers={READER_HEADER: "f" * 64})
        assert wrong.status == 503
    until(store_server, "guest", "running", 0, 60)
    until(store_server, "guest", "waiting", 0, 60)


def test_a_client_that_does_not_read_gives_its_place_back(store_server: StoreServer):
    sql = "SELECT number FROM system.numbers SETTINGS max_execution_time = 1"
    before = served(store_server)
    with asking(store_server, sql, "deaf") as connection:
        # It has its place for a second, in which nobody may look.
        deadline = time.monotonic() + 60
        while served(store_server) == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        until(store_server, "guest", "running", 0, 60)
        assert health(store_server)["recycled"] == 0
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1 << 20):
                received = received[-100:] + piece
        assert not received.endswith(b"0\r\n\r\n")


def test_the_engine_puts_guests_behind_its_own(store_server: StoreServer):
    sql = "SELECT value FROM system.settings WHERE name = 'priority'"
    token = reader_token((store_server.data.parent / "keys" / "store_owner.sha256").read_text())
    guest = int(call(store_server, sql, owner=False).text)
    own = int(call(store_server, sql, owner=False, headers={READER_HEADER: token}).text)
    assert guest > own >= 1
    for sql in ("SELECT 1 SETTINGS priority = 1", "SELECT 1 SETTINGS low_priority_query_wait_time_ms = 0"):
        assert call(store_server, sql, owner=False).status >= 400
    assert call(store_server, "SELECT 1", owner=False, priority=1).status == 403


def test_our_own_readers_show_their_token_to_this_machine_alone(store_server: StoreServer):
    folder = store_server.data.parent
    with Store(locate(folder, store_server.url)) as store:
        store.command("SELECT 1")
        before = health(store_server)["queries"]
        assert store.address.token
        assert store.address.token not in repr(store.address)
        rows = store.rows("SELECT toUInt8(value) AS value FROM system.settings WHERE name = 'priority'")
        assert rows == [{"value": 1}]
        assert health(store_server)["queries"] == before + 1  # type: ignore[operator]
    assert not locate(folder, "http://store.example:8123").token
    assert not locate(folder / "elsewhere", store_server.url).token


@pytest.mark.parametrize("name", ENDING)
def test_what_the_engine_bounds_itself_gives_its_place_back(store_server: StoreServer, name: str):
    # What ends by its memory has time for that on a slow machine, too.
    answer = call(store_server, ENDING[name], owner=False, max_execution_time=1 if name == "joins" else 25)
    assert answer.status >= 400
    # 241: memory; 394: cancelled; 159: out of time, in the engine's own words.
    assert answer.headers["X-ClickHouse-Exception-Code"] in {"159", "241", "394"}
    assert "does not end" not in answer.text
    until(store_server, "guest", "running", 0, 60)
    assert health(store_server)["recycled"] == 0


async def test_whoever_asks_for_health_is_told_of_a_recycling_without_waiting_for_the_engine(tmp_path: Path):
    recycle = Recycle(Past())
    silent = Mock(recycle=recycle, check=asyncio.Event().wait)
    silent.figures.return_value, silent.writes.damage = {}, ""
    silent.engine.limits = Limits()
    gateway = Gateway(silent, tmp_path, "", "127.0.0.1")
    asked = asyncio.create_task(gateway.handle(make_mocked_request("GET", "/healthz")))
    await asyncio.sleep(0.01)
    recycle.order("a query does not end")
    answer = await asyncio.wait_for(asked, 30)
    assert isinstance(answer, web.Response)
    assert answer.status == 503
    assert json.loads(str(answer.text))["status"] == "recycling"


@pytest.mark.heavy
def test_a_query_that_will_not_end_has_the_engine_recycled_and_nothing_is_lost(tmp_path: Path):
    server = start_store(tmp_path)
    try:
        server.ask("CREATE TABLE kept (a UInt32) ENGINE = MergeTree ORDER BY a")
        for round_, (agent, leaves) in enumerate((("editDistance", False), ("polygonsUnionCartesian", True)), start=1):
            late = {"User-Agent": agent}
            server.ask(f"INSERT INTO kept VALUES ({round_})")
            if leaves:
                with asking(server, STUCK[agent], agent):
                    deadline = time.monotonic() + 60
                    while server.ask(f"SELECT count() FROM system.processes WHERE {RUNS}") != "1\n":
                        assert time.monotonic() < deadline
                        time.sleep(0.1)
            else:
                answer = call(server, f"{STUCK[agent]} SETTINGS max_execution_time = 1", owner=False, headers=late)
                assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (408, "159")
            seen: list[Answer] = []
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                # A request that is under way when the process is replaced is reset; nobody is refused.
                with contextlib.suppress(ConnectionResetError, ConnectionAbortedError):
                    seen.append(call(server, method="GET", path="/healthz", owner=False))
                    if json.loads(seen[-1].body)["recycled"] == round_:
                        break
                time.sleep(0.1)
            stopping = [json.loads(one.body) for one in seen if one.status == 503]
            # That it is told is `test_embedded_recycling`'s; a machine may be too busy to ask in that second.
            assert {one["status"] for one in stopping} <= {"recycling"}
            last = json.loads(seen[-1].body)
            assert (last["status"], last["recycled"]) == ("ok", round_)
            assert ("leaving" in last["recycled_reason"]) == leaves
            assert running(server)["running"] == 0
            assert server.process.poll() is None
            # The one who did it is refused, at the second time its neighbours on the machine as well.
            refused = call(server, "SELECT 1", owner=False, headers=late)
            assert (refused.status, refused.headers["X-ClickHouse-Exception-Code"]) == (429, "201")
            assert int(refused.headers["Retry-After"]) > 1
            assert call(server, "SELECT 1", owner=False, headers={"User-Agent": "other"}).status == [200, 429][leaves]
            assert health(server)["penalties"] == [1, 3][leaves]
            assert server.ask("SELECT count() FROM kept") == f"{round_}\n"
        # The fence is the first life's, and it still holds.
        fenced = call(server, "SELECT * FROM file('/etc/passwd', 'LineAsString')")
        assert fenced.status >= 400
    finally:
        assert server.stop() == 0
