"""What a page says of its beginning is of the data: a window that is wider than they are does not make them older."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from analytics.selection import Filter, Selection
from analytics.window import Window
from base.errors import ServescopeError
from dashboard import notes
from dashboard.page_context import PageContext

END = datetime(2026, 7, 3, 12, tzinfo=UTC)


def _told(monkeypatch: pytest.MonkeyPatch, age: float | None, *, live: bool = True) -> tuple[Window, str]:
    first = None if age is None else END - timedelta(seconds=age)
    monkeypatch.setattr(notes, "ask", lambda *_: SimpleNamespace(result=SimpleNamespace(at=first)))
    asked = Window(END - timedelta(hours=1), END)
    selection, begins = notes.begun(Selection(asked, Filter()))
    return selection.window, notes.beginning(PageContext(selection, live, None, asked=asked, begins=begins))


@pytest.mark.parametrize(
    ("age", "ago", "clock", "seconds"),
    [
        (7, "7 s ago", "11:59:53", 60),
        (34, "34 s ago", "11:59:26", 60),
        (59.6, "60 s ago", "11:59:00", 60),
        (60, "60 s ago", "11:59:00", 60),
        (63, "63 s ago", "11:58:57", 65),
        (1200, "20 min ago", "11:40:00", 1200),
    ],
)
def test_data_begin_when_the_first_row_came(
    monkeypatch: pytest.MonkeyPatch, age: float, ago: str, clock: str, seconds: float
) -> None:
    window, told = _told(monkeypatch, age)
    assert window.seconds == seconds
    assert f"Data begin {ago}, at 03 Jul {clock}" in told
    assert ("of one minute" in told) == (seconds <= 60)
    assert ("since then" in told) == (seconds > 60)


def test_of_the_past_it_is_told_without_an_age(monkeypatch: pytest.MonkeyPatch) -> None:
    _, told = _told(monkeypatch, 34, live=False)
    assert "Data begin at 03 Jul 11:59:26" in told


@pytest.mark.parametrize("age", [None, 3600, 3300])
def test_data_of_the_whole_window_need_no_words(monkeypatch: pytest.MonkeyPatch, age: float | None) -> None:
    window, told = _told(monkeypatch, age)
    assert (window.seconds, told) == (3600, "")


def test_a_store_that_does_not_answer_leaves_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise ServescopeError("no store")

    monkeypatch.setattr(notes, "ask", away)
    selection = Selection(Window(END - timedelta(hours=1), END), Filter())
    assert notes.begun(selection) == (selection, None)
