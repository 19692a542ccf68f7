"""What was answered to one who asks reaches no other: of another role, or another tenant."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from analytics.selection import Selection
from analytics.window import Window
from collector.store.asker import Asker
from dashboard import data

if TYPE_CHECKING:
    from collections.abc import Iterator

START = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
SELECTION = Selection(Window(START, START + timedelta(minutes=5)))
EVERYBODY, OWNER = Asker(), Asker("owner")
ONE, OTHER = Asker(tenant="a1"), Asker(tenant="a2")


class Rows:
    """A store that answers with the name of the one who asks."""

    def __init__(self, asker: Asker, asked: list[Asker]) -> None:
        self.asker, self._asked = asker, asked

    def rows(self, *_: object, **__: object) -> list[dict[str, Any]]:
        self._asked.append(self.asker)
        return [{"of": self.asker}]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Asker]]:
    seen: list[Asker] = []
    monkeypatch.setattr(data, "store", lambda who=None: Rows(who or data.asker(), seen))
    monkeypatch.setattr(data, "named", lambda _: lambda reader, *_a, **_k: reader.rows("SELECT 1")[0]["of"])
    data.forget()
    yield seen
    data.forget()


@contextmanager
def looking(monkeypatch: pytest.MonkeyPatch, who: Asker) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(data, "asker", lambda: who)
        yield


def test_a_kept_answer_is_for_those_who_may_see_the_same(monkeypatch: pytest.MonkeyPatch, asked: list[Asker]) -> None:
    for _ in range(2):
        for who in (EVERYBODY, OWNER, ONE, OTHER):
            with looking(monkeypatch, who):
                assert data.ask("traffic", SELECTION) == who
                assert data.ready("traffic", SELECTION)
    assert asked == [EVERYBODY, OWNER, ONE, OTHER], "each is asked once and shared with nobody"
    with looking(monkeypatch, Asker(tenant="a3")):
        assert not data.ready("traffic", SELECTION)


def test_a_kept_statement_is_for_those_who_may_see_the_same(asked: list[Asker]) -> None:
    for who in (ONE, OTHER, ONE):
        assert data.Shared(who).rows("SELECT 1") == [{"of": who}]
    assert asked == [ONE, OTHER]


class Later:
    """A pool whose work is done when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[None], Any, tuple[Any, ...]]] = []

    def submit(self, work: Any, *given: Any) -> Future[None]:
        self.waiting.append((Future(), work, given))
        return self.waiting[-1][0]

    def work(self) -> None:
        while self.waiting:
            future, work, given = self.waiting.pop(0)
            work(*given)
            future.set_result(None)


def test_what_is_asked_ahead_is_asked_for_who_looked(monkeypatch: pytest.MonkeyPatch, asked: list[Asker]) -> None:
    pool = Later()
    monkeypatch.setattr(data, "_POOL", pool)
    with looking(monkeypatch, ONE):
        data.ahead([("traffic", {}), ("queue", {})], SELECTION)
    with looking(monkeypatch, OTHER):  # the pool's threads draw no page
        pool.work()
        assert not data.ready("queue", SELECTION)
    assert set(asked) == {ONE}
    with looking(monkeypatch, ONE):
        assert data.ready("traffic", SELECTION)
        assert data.ready("queue", SELECTION)


def test_a_store_is_of_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVESCOPE_CLICKHOUSE", "http://127.0.0.1:9")
    data.forget()
    stores = {who: data.store(who) for who in (EVERYBODY, OWNER, ONE, OTHER)}
    assert {who: store.asker for who, store in stores.items()} == {who: who for who in stores}
    assert data.store(ONE) is stores[ONE]
    data.forget()
