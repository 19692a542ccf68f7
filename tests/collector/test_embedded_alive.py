"""A store's sign of life is told by its engine, to whoever is let in, and costs no statement."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING
from unittest.mock import AsyncMock, Mock

import pytest
from aiohttp.test_utils import make_mocked_request

from collector.embedded.http import Gateway
from collector.embedded.limits import Limits
from collector.embedded.recycle import Past, Recycle
from collector.store.address import StoreAddress
from collector.store.client import Store, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kits.store_process import StoreServer


def test_it_is_no_statement_and_tells_who_is_not_let_in(store_server: StoreServer):
    def queries() -> int:
        with urllib.request.urlopen(f"{store_server.url}/healthz", timeout=30) as answer:
            return int(json.load(answer)["queries"])

    with Store(StoreAddress(store_server.url, user="owner", password=store_server.owner_password)) as store:
        store.alive()
        before = queries()
        store.alive()
        assert queries() == before
        made = store._made
        assert made is not None
        made.headers["Authorization"] = "Basic b3duZXI6d3Jvbmc="  # type: ignore[attr-defined] # owner:wrong
        with pytest.raises(StoreError) as caught:
            store.alive()
        assert caught.value.code == 516


async def test_an_engine_that_says_nothing_gives_none(tmp_path: Path):
    silent = Mock(recycle=Recycle(Past()), check=AsyncMock(side_effect=[TimeoutError, None]))
    silent.arrive.return_value = stay = Mock(enter=AsyncMock())
    silent.engine.limits = Limits()
    gateway = Gateway(silent, tmp_path, "", "127.0.0.1")
    for wanted in (503, 200):
        answer = await gateway.handle(make_mocked_request("GET", "/alive"))
        assert answer.status == wanted
    assert stay.enter.await_count == stay.end.call_count == 2


def test_a_store_that_is_not_there_gives_none():
    with pytest.raises(StoreUnavailable):
        Store(StoreAddress("http://127.0.0.1:9")).alive()


@pytest.mark.parametrize(("status", "body"), [(404, b"There is no handle /alive"), (200, b"<html>hello</html>")])
def test_who_knows_of_none_is_asked_by_a_statement(status: int, body: bytes):
    store = Store(StoreAddress("http://127.0.0.1:9"))
    store._made = driver = Mock()
    driver.http.request.return_value = Mock(status=status, data=body, headers={})
    driver.command.return_value = 1
    store.alive()
    store.alive()
    assert driver.http.request.call_count == 1
    assert driver.command.call_count == 2
