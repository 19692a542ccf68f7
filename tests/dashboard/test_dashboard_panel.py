"""A panel in each of its states, run as a page of its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from analytics.answer import Answer, Coverage
from analytics.selection import Selection
from analytics.window import Window
from collector.store.client import StoreUnavailable
from dashboard import page_context as contexts
from dashboard import panel as panels
from dashboard.page_context import PageContext

START = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)


def _page() -> None:
    """The script of the page under test; it reads what to answer from the module."""
    import streamlit as st  # noqa: PLC0415 - the script that is run

    from dashboard import panel as panels  # noqa: PLC0415 - as above
    from tests.dashboard.test_dashboard_panel import a_context  # noqa: PLC0415 - as above

    shown = a_context()
    panels.panel("p", "latency", shown, lambda result: result, missing="Start an agent.")
    panels.tiles(shown, "t", lambda: panels.ask("tiles").result)
    panels.trouble(shown, st.container())


def a_context() -> PageContext:
    """Ten minutes without marks."""
    return PageContext(Selection(Window(START, START + timedelta(minutes=10))), live=False, choices=None, marks=False)


def answer(result: Any, rows: int, state: str) -> Answer[Any]:
    """An answer of the given state."""
    return Answer(result, "rows", "exact", rows, START, ("SELECT 1",), ("kv_exhaustion",), state=state)  # type: ignore[arg-type]


def words_of(test: AppTest) -> str:
    return " ".join(item.value for item in [*test.markdown, *test.caption])


def run(monkeypatch: pytest.MonkeyPatch, given: Answer[Any] | Exception) -> AppTest:
    def ask(question: str, *_: object, **__: object) -> Answer[Any]:
        if isinstance(given, Exception):
            raise given
        return answer([], 0, "value") if question == "tiles" else given

    monkeypatch.setattr(panels, "ask", ask)
    test = AppTest.from_function(_page, default_timeout=60)
    test.run()
    assert not test.exception
    return test


@pytest.mark.parametrize(
    ("state", "said"), [("no_traffic", "**No traffic** in this window."), ("no_data", "Start an agent.")]
)
def test_no_traffic_is_a_value_and_no_data_says_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, state: str, said: str
) -> None:
    assert said in words_of(run(monkeypatch, answer(None, 0, state)))


DOWN: dict[str, Any] = {"instances_down": ("chat|0",)}


@pytest.mark.parametrize(
    ("state", "cover", "said"),
    [
        ("no_data", Coverage(samples=9, **DOWN), "**No data** in this window. :gray[chat\\|0 does not answer.]"),
        ("value", Coverage(samples=9, **DOWN), "**No data** in this window. :gray[chat\\|0 does not answer.]"),
        ("value", Coverage(samples=9, instances_up=("b",), **DOWN), "**Not shown** by the servers of this window."),
        ("no_traffic", Coverage(samples=9, instances_up=("b",), **DOWN), ":gray[chat\\|0 does not answer; the other"),
        ("no_data", Coverage(samples=9, instances_down=tuple("abcde")), ":gray[a, b, c and 2 more do not answer.]"),
    ],
)
def test_where_nothing_is_to_be_drawn_servers_that_are_down_are_named(
    monkeypatch: pytest.MonkeyPatch, state: str, cover: Coverage, said: str
) -> None:
    assert said in words_of(run(monkeypatch, replace(answer(None, 0, state), coverage=cover)))


def test_the_foot_says_what_the_figure_rests_on(monkeypatch: pytest.MonkeyPatch) -> None:
    foot = words_of(run(monkeypatch, answer(None, 0, "no_traffic")))
    assert "exact · 0 requests" in foot
    assert "with the recording kv_exhaustion" in foot


def test_a_store_that_does_not_answer_is_told_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    test = run(monkeypatch, StoreUnavailable("the store at http://127.0.0.1:1 does not answer", "Start it."))
    assert "No picture yet" in words_of(test)
    told = [item.proto.body for item in test.get("html")]
    assert sum("The store at http://127.0.0.1:1 does not answer" in body for body in told) == 1  # two parts met it
    assert any("Start it." in body for body in told)


def _edges() -> None:
    """The sentence about the settled edge."""
    import streamlit as st  # noqa: PLC0415 - the script that is run

    from dashboard import notes  # noqa: PLC0415 - as above
    from tests.dashboard.test_dashboard_panel import a_context  # noqa: PLC0415 - as above

    st.caption(notes.edge(a_context()))


def test_a_page_says_what_its_charts_do_at_the_settled_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    edge = SimpleNamespace(whole=False, settled_until=START + timedelta(minutes=8))
    monkeypatch.setattr(contexts, "ask", lambda *_: answer(edge, 1, "value"))
    test = AppTest.from_function(_edges, default_timeout=60).run()
    (told,) = (item.value for item in test.caption)
    assert "beyond the broken line are only those that are over, and what a tile tells of arrivals ends there" in told
