"""Rows are held back while nobody reads, and are there for whoever does."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import shutil
import time
import urllib.error
import urllib.request
from functools import partial
from typing import TYPE_CHECKING

import pytest

from agent.tap.report import encode
from base.vocabulary import TAP_LOST
from collector.embedded import demand
from collector.embedded.demand import Demand
from collector.store.address import StoreAddress
from collector.store.client import Store
from tests.kits.collector_process import CollectorProcess, spans
from tests.kits.schema_tools import fresh_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kits.store_process import StoreServer

SOON = 30
ATTEMPTS = 4


async def test_nobody_waits_where_no_collector_listens():
    async with asyncio.timeout(SOON):
        await Demand().supplied()


async def test_a_reader_waits_until_the_collector_has_brought_its_rows_in():
    shop = Demand()
    async with asyncio.timeout(SOON):
        listening = await _listening(shop, pause=0.0, done=False)
        readers = [asyncio.create_task(shop.supplied()) for _ in range(3)]
        assert await listening is True
        await asyncio.sleep(0)
        assert not any(reader.done() for reader in readers)
        again = await _listening(shop, pause=0.0, done=True)
        await asyncio.gather(*readers)
        assert not again.done()
        again.cancel()


async def test_two_collectors_are_both_waited_for():
    shop = Demand()
    async with asyncio.timeout(SOON):
        both = [await _listening(shop, pause=0.0, done=False) for _ in range(2)]
        reader = asyncio.create_task(shop.supplied())
        assert await asyncio.gather(*both) == [True, True]
        first = await _listening(shop, pause=0.0, done=True)
        assert not reader.done()
        second = await _listening(shop, pause=0.0, done=True)
        await reader
        first.cancel()
        second.cancel()


async def test_a_collector_is_called_once_in_a_pause():
    shop = Demand()
    async with asyncio.timeout(SOON):
        called = await _listening(shop, pause=3600.0, done=False)
        reader = asyncio.create_task(shop.supplied())
        assert await called
        again = await _listening(shop, pause=3600.0, done=True)
        await reader
        await shop.supplied()
        assert not again.done()
        again.cancel()


async def test_a_collector_that_does_not_come_back_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demand, "PATIENCE_SECONDS", 0.01)
    shop = Demand()
    async with asyncio.timeout(SOON):
        called = await _listening(shop, pause=0.0, done=False)
        await shop.supplied()
        assert called.done()
        await shop.supplied()


async def test_who_reads_between_two_calls_of_a_collector_is_not_missed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demand, "LISTEN_SECONDS", 0.0)
    shop = Demand()
    async with asyncio.timeout(SOON):
        assert await shop.wanted(0.0, done=False) is False
        reader = asyncio.create_task(shop.supplied())
        await asyncio.sleep(0)
        assert not reader.done()
        assert await shop.wanted(0.0, done=False) is True
        assert await shop.wanted(0.0, done=True) is False
        await reader


async def test_a_collector_that_hangs_up_is_called_no_more():
    shop = Demand()
    async with asyncio.timeout(SOON):
        gone = await _listening(shop, pause=0.0, done=False)
        gone.cancel()
        await asyncio.sleep(0)
        await shop.supplied()


async def test_a_store_that_stops_sends_everybody_away():
    shop = Demand()
    async with asyncio.timeout(SOON):
        called = await _listening(shop, pause=0.0, done=False)
        reader = asyncio.create_task(shop.supplied())
        assert await called
        other = await _listening(shop, pause=0.0, done=False)
        shop.close()
        await reader
        assert await other is False
        assert await shop.wanted(0.0, done=False) is False


async def _listening(shop: Demand, *, pause: float, done: bool) -> asyncio.Task[bool]:
    made = asyncio.create_task(shop.wanted(pause, done=done))
    await asyncio.sleep(0)
    return made


def test_only_the_owner_may_listen(store_server: StoreServer):
    for query, code in (("", 403), ("?signal=traces", 403), ("?pause=soon", 400), ("?user=owner&password=wrong", 516)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{store_server.url}/demand{query}", timeout=SOON)
        with refused.value as error:
            assert error.code == code or error.headers["X-ClickHouse-Exception-Code"] == str(code)


@pytest.fixture
def holding(store_server: StoreServer, tmp_path: Path) -> Iterator[CollectorProcess]:
    """A collector that brings nothing in by itself once it listens."""
    shutil.copytree(store_server.data.parent / "keys", tmp_path / "keys")
    # with its schema: a collector that makes it for long has been told by then that nobody reads
    with fresh_store(store_server) as owner:
        url = f"{store_server.url}/?database={owner.address.database}"
        with CollectorProcess(tmp_path, url, {"seal_seconds": 0.2, "unasked_seal_seconds": 600}).start() as made:
            yield made
            assert made.stop() == 0


def test_rows_come_when_somebody_reads(holding: CollectorProcess, store_server: StoreServer):
    name = holding.clickhouse.partition("database=")[2]
    count = f"SELECT count() FROM {name}.otel_traces"
    holding.post("traces", spans(0, 1))

    def seen() -> int:
        return int(store_server.ask(count))

    def packed() -> int:
        asked = urllib.request.Request(store_server.url, gzip.compress(count.encode()), {"Content-Encoding": "gzip"})
        with contextlib.suppress(urllib.error.HTTPError):  # a reader, and the database is not the one he may read
            urllib.request.urlopen(asked, timeout=SOON)
        return _pending(holding)

    # before the store has called for the first time, the collector can't know that it does
    all_signals = f"{count}, system.one"
    _until(lambda: (int(store_server.ask(all_signals)), holding.health()["store"]["unhurried"]), (1, True))
    numbers = itertools.count(1)
    _stays_out(holding, numbers, lambda: store_server.ask("SELECT 1 AS one"))
    # one reader waits a second at most; without any, rows would wait for ten minutes
    _until(seen, 1 + (posted := next(numbers) - 1))
    # whose patience ended sees rows a moment before the collector hears that they are there
    _until(lambda: _pending(holding), 0)
    _stays_out(holding, itertools.count(posted + 1), lambda: None)
    _until(packed, 0)


def test_what_nobody_reads_stays_out(holding: CollectorProcess, store_server: StoreServer):
    name = holding.clickhouse.partition("database=")[2]
    count = f"SELECT count() FROM {name}.otel_traces"
    _until(lambda: (store_server.ask(f"{count}, system.one"), holding.health()["store"]["unhurried"]), ("0\n", True))
    numbers = itertools.count(0)
    _stays_out(holding, numbers, lambda: store_server.ask(f"SELECT count() FROM {name}.host_samples"))
    _until(lambda: store_server.ask(count), f"{next(numbers)}\n")


def test_a_tap_that_lost_something_has_it_told_though_nobody_reads(
    holding: CollectorProcess, store_server: StoreServer
):
    name = holding.clickhouse.partition("database=")[2]
    count = f"SELECT count() FROM {name}.otel_metrics_sum, system.one"
    _until(lambda: (store_server.ask(count), holding.health()["store"]["unhurried"]), ("0\n", True))
    numbers = itertools.count(0)
    said = partial(_lost, 0.0)
    _stays_out(holding, numbers, lambda: None, signal="metrics", made=said)
    holding.post("metrics", _lost(1.0, next(numbers)))
    _until(lambda: _pending(holding, "metrics"), 0)


def _lost(value: float, number: int) -> bytes:
    return encode([(TAP_LOST, value, {"reason": "spool"}, True)], {"service.instance.id": "a"}, time.time_ns(), number)


def test_who_is_unhurried_takes_the_rows_that_are_there(holding: CollectorProcess, store_server: StoreServer):
    name = holding.clickhouse.partition("database=")[2]
    count = "SELECT count() AS n FROM otel_traces"
    with Store(StoreAddress(store_server.url, name, "owner", store_server.owner_password)) as store:
        _until(lambda: (store.rows(f"{count}, system.one"), holding.health()["store"]["unhurried"]), ([{"n": 0}], True))
        time.sleep(2)  # whoever was called for that, however late, has brought in what there was
        holding.post("traces", spans(0, 1))
        time.sleep(0.5)  # calls are a pause apart
        assert store.unhurried.rows(count) == [{"n": 0}]
        assert _pending(holding) == 1
        _until(lambda: store.rows(count), [{"n": 1}])


def test_rows_are_not_held_back_where_the_store_does_not_tell(holding: CollectorProcess):
    assert holding.health()["store"]["unhurried"] is False
    holding.post("traces", spans(0, 1))
    holding.wait_drained(SOON)


def _stays_out(
    collector: CollectorProcess,
    numbers: Iterator[int],
    read: Callable[[], object],
    signal: str = "traces",
    made: Callable[[int], bytes] = lambda number: spans(number, 1),
) -> None:
    """Post a record that a read brings in no more than time does; a call for what was read before may be late, once."""
    for number in itertools.islice(numbers, ATTEMPTS):
        collector.post(signal, made(number))
        time.sleep(0.5)  # calls are a pause apart
        read()
        time.sleep(1)
        if _pending(collector, signal):
            return
        _until(lambda: _pending(collector, signal), 0)
    pytest.fail("what nobody reads of is brought in")


def _until(asked: Callable[[], object], wanted: object) -> None:
    deadline = time.monotonic() + SOON
    while (found := asked()) != wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == wanted


def _pending(collector: CollectorProcess, signal: str = "traces") -> int:
    return int(collector.health()["ledger"][signal]["pending"])
