"""Which question of a page is worked out first."""

from __future__ import annotations

import contextlib
import socket
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from analytics.selection import Selection
from analytics.window import Window
from collector.store.client import StoreUnavailable
from dashboard import data

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_first_question_runs_alone_and_the_others_side_by_side(monkeypatch: pytest.MonkeyPatch):
    begun: list[str] = []
    may_end, together = threading.Event(), threading.Barrier(3, timeout=20)
    ended = threading.Semaphore(0)

    def maker(_: Any, question: str, *_rest: Any) -> Any:
        def make() -> str:
            begun.append(question)
            if question == "a.first":
                assert may_end.wait(20)
            else:
                together.wait()  # breaks unless both others are under way at the same time
            ended.release()
            return question

        return make

    monkeypatch.setattr(data, "_maker", maker)
    data.forget()
    window = Window(START, START + timedelta(minutes=5))
    data.ahead([("a.first", {}), ("b.second", {}), ("c.third", {})], Selection(window))
    assert not data.ready("b.second", Selection(window))
    may_end.set()
    together.wait()
    for _ in range(3):
        assert ended.acquire(timeout=20)
    assert begun[0] == "a.first"
    assert sorted(begun[1:]) == ["b.second", "c.third"]
    data.forget()


def test_what_is_known_is_not_asked_again(monkeypatch: pytest.MonkeyPatch):
    made: list[str] = []
    monkeypatch.setattr(data, "_maker", lambda _, question, *_rest: lambda: made.append(question))
    data.forget()
    window = Window(START, START + timedelta(minutes=7))
    data.ask("a.first", Selection(window))
    data.ahead([("a.first", {})], Selection(window))
    data.ask("a.first", Selection(window))
    assert made == ["a.first"]
    data.forget()


def test_a_store_that_hangs_is_waited_for_once_by_all_panels(monkeypatch: pytest.MonkeyPatch):
    came: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            with contextlib.suppress(OSError):  # the end of the test
                while True:
                    came.append(server.accept()[0])  # and never a word

        threading.Thread(target=take, daemon=True).start()
        monkeypatch.setenv("SERVESCOPE_CLICKHOUSE", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(data, "_STORE_SECONDS", 1.0)
        monkeypatch.setattr(data, "_LONG_SECONDS", 0.5)
        window = Window(START, START + timedelta(minutes=5))
        data.forget()
        try:
            with pytest.raises(StoreUnavailable):
                data.ask("queue", Selection(window))
            knocked = len(came)
            assert knocked > 0
            for question in ("phases", "traffic"):
                with pytest.raises(StoreUnavailable):
                    data.ask(question, Selection(window))
            assert len(came) == knocked, "nobody else waits"
            data._hung.forget()  # the moment is over
            with pytest.raises(StoreUnavailable):
                data.ask("phases", Selection(window))
            assert len(came) > knocked, "a moment later it is asked again"
        finally:
            data.forget()
            for one in came:
                one.close()
