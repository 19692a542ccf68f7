"""The first line of the front page: yes, no, quiet and not yet known, each in words that lead somewhere."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from streamlit.testing.v1 import AppTest

from alerts.incidents.history import IncidentRow
from alerts.slo_status import SloStatus
from analytics.answer import Answer, Coverage
from analytics.selection import Filter, Selection
from analytics.window import Window
from base.errors import ServescopeError
from collector.store.client import StoreUnavailable
from dashboard import verdict
from dashboard.causes_in_words import as_html
from dashboard.later import Later
from dashboard.page_context import PageContext
from tests.dashboard.test_dashboard_why import a_cause, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from analytics.questions.causes import Causes

END = datetime(2026, 5, 4, 10, 0, 17, tzinfo=UTC)
WINDOW = Window(END - timedelta(minutes=15), END)
SELECTION = Selection(WINDOW)


def plain(said: list[tuple[str, str]]) -> str:
    return "".join(text for text, _ in said)


def an_incident(identifier: str = "i1", severity: str = "critical", **values: Any) -> IncidentRow:
    row = IncidentRow(
        identifier, END - timedelta(minutes=6), END, None, "open", severity, f"vision {identifier} is overloaded", "",
        {}, "", 360.0,
    )  # fmt: skip
    return replace(row, **values)


def a_status(name: str, left: float | None, state: str = "ok", burn: float = 0.5) -> SloStatus:
    good = None if left is None else 0.99
    return SloStatus(name, "", 0.95, 86400.0, {}, 100.0, 1.0, good, left, {30.0: burn}, state)


def test_what_is_wrong_comes_first_and_leads_to_its_page() -> None:
    said = verdict.incidents_in_words([an_incident("a&b"), *(an_incident(str(n)) for n in range(4))], live=True)
    assert plain(said).startswith("No: vision a&b is overloaded since ")
    assert "(critical, open); vision 0" in plain(said)
    assert plain(said).endswith("; 2 more.")
    assert [where for _, where in said if where] == [
        "incidents?incident=a%26b", "incidents?incident=0", "incidents?incident=1", "incidents",
    ]  # fmt: skip
    over = verdict.incidents_in_words([an_incident(resolved_at=END, state="resolved")], live=False)
    assert plain(over).startswith("Not at all times: vision i1 is overloaded ")
    assert "since" not in plain(over)


def test_yes_is_said_by_objectives_and_names_the_nearest_to_its_limit() -> None:
    found = [a_status("availability", 0.9), a_status("ttft", 0.43), a_status("idle", None, "no_traffic")]
    assert plain(verdict.objectives_in_words(found)) == (
        "Yes, by 2 objectives; nearest to its limit: ttft has 43 % of its budget left."
    )
    assert "ttft has spent its budget" in plain(verdict.objectives_in_words([a_status("ttft", -0.2, "exhausted")]))
    burning = [*found, a_status("chat", 0.6, "burning", 7.0)]
    assert plain(verdict.objectives_in_words(burning)) == "Not for long: chat spends its budget 7 × too fast."
    assert plain(verdict.objectives_in_words(found[2:])).startswith("Nobody asks anything")


def test_causes_are_told_with_their_share_and_whose() -> None:
    account = told(a_cause(instance="vllm-2", tenant="a7"), a_cause("restart", 0.3), a_cause("deploy", 0.1))
    said = verdict.causes_in_words(account, SELECTION, "the last 15 min")
    assert plain(said) == (
        "Of the 3 s that requests of the last 15 min took above the usual, 80 % is KV cache full on vllm-2, "
        "by tenant a7; 10 % restart."
    )
    assert "requests?from=" in as_html(said)
    assert "&amp;to=" in as_html(said)


def test_quiet_is_told_as_quiet_and_the_unexplained_as_such() -> None:
    def of(account: Causes) -> str:
        return plain(verdict.causes_in_words(account, SELECTION, "the last 15 min"))

    assert of(told(excess=0.1)) == "Nothing stands out from the usual in 1 request of the last 15 min."
    assert of(told(excess=-3.0)).startswith("Nothing stands out")
    assert of(told()) == "1 request of the last 15 min took 3 s more than usual, and no cause of it stands out."
    assert of(told(a_cause(seconds=0.9))).endswith("; 70 % is unexplained.")
    assert of(told(requests=0)) == ""
    quick = of(told(a_cause(), excess=-1.0))
    assert quick.startswith("Requests of the last 15 min were in sum no slower than usual, but 2.4 s went to KV cache")


@pytest.mark.parametrize("live", [True, False])
def test_the_question_is_of_the_newest_hour_and_moves_in_steps_while_live(live: bool) -> None:
    day = Window(END - timedelta(days=1), END)
    context = PageContext(Selection(day, Filter(model=("m",))), live=live, choices=None)
    asked = verdict.asked_about(context)
    assert asked.window.end == (END.replace(second=0) if live else END)
    assert timedelta(minutes=59, seconds=59) <= asked.window.end - asked.window.start <= timedelta(minutes=61)
    assert asked.filter.model == ("m",)
    later = replace(context, selection=context.selection.but(window=Window(day.start, END + timedelta(seconds=9))))
    assert (verdict.asked_about(later) == asked) is live
    tiny = PageContext(Selection(Window(END - timedelta(seconds=5), END)), live=live, choices=None)
    assert verdict.asked_about(tiny).window.end <= END


STAGE: dict[str, Any] = {}


def _page() -> None:
    """The script of the page under test."""
    import streamlit as st  # noqa: PLC0415 - the script that is run

    from dashboard import verdict  # noqa: PLC0415 - as above
    from tests.dashboard import test_dashboard_verdict as here  # noqa: PLC0415 - as above

    context = here.PageContext(here.SELECTION, live=True, choices=None, marks=False, asked=here.WINDOW)
    shown = verdict.Verdict(context, st.empty())
    if here.STAGE.get("slow"):
        st.markdown("The rest of the page.")
        return
    shown.first()
    st.markdown("The rest of the page.")
    shown.whole()
    here.STAGE["told"] = context.told


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    def open_(found: list[IncidentRow] | Exception, why: Answer[Any] | Exception | None, slos: Any = None) -> AppTest:
        def given(value: Any) -> Any:
            if isinstance(value, Exception):
                raise value
            return value

        monkeypatch.setattr(verdict, "store", lambda: None)
        monkeypatch.setattr(verdict, "incidents", lambda *_, **__: given(found))
        covered = Answer(None, "metrics", "exact", 1, END, (), (), Coverage(1, 1, instances_down=STAGE.get("down", ())))
        monkeypatch.setattr(verdict, "ask", lambda *_, **__: covered)
        monkeypatch.setattr(verdict, "soon", lambda *_, **__: given(why))
        monkeypatch.setattr(verdict, "soon_known", lambda *_, **__: given(slos))
        monkeypatch.setenv("SERVESCOPE_SLOS", "slos.yaml")
        return AppTest.from_function(_page, default_timeout=60)

    return open_


def html(test: AppTest) -> str:
    assert not test.exception
    assert "The rest of the page." in [item.value for item in test.markdown]
    return " ".join(item.proto.body for item in test.get("html"))


def answer(account: Causes) -> Answer[Any]:
    return Answer(account, "rows", "derived", account.requests, END, (), ())


def test_no_comes_with_why(page: Callable[..., AppTest]) -> None:
    rows = [an_incident("later", "warning"), an_incident("worst")]
    said = html(page(rows, answer(told(a_cause(tenant="<b>x</b>")))).run())
    assert "<b>No:</b> <a href=" in said
    assert said.index("vision worst") < said.index("vision later")
    assert "80 % is <a" in said
    assert "tenant &lt;b&gt;x&lt;/b&gt;" in said
    assert STAGE["told"] == {"later", "worst"}


def test_what_is_not_known_yet_is_said_and_what_was_known_stays(page: Callable[..., AppTest]) -> None:
    test = page([], None, [a_status("ttft", 0.43)])
    assert verdict.LOOKING in html(test.run())
    test = page([], answer(told(excess=0.1)), [a_status("ttft", 0.43)])
    assert "Nothing stands out from the usual" in html(test.run())
    page([], None, None)
    said = html(test.run())
    assert "Nothing stands out from the usual" in said
    assert "Yes,</b> by" in said
    assert verdict.LOOKING not in said


def test_while_a_page_is_drawn_anew_its_answer_stays(
    page: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    test = page([an_incident()], answer(told(excess=0.1)))
    before = html(test.run())
    assert "<b>No:</b>" in before
    monkeypatch.setitem(STAGE, "slow", True)
    assert html(test.run()) == before
    monkeypatch.delitem(STAGE, "slow")
    page(StoreUnavailable("the store does not answer", "Start it."), None)
    assert "servescope-answer" not in html(test.run())


def test_an_account_that_fails_leaves_the_rest_of_the_line(page: Callable[..., AppTest]) -> None:
    said = html(page([an_incident()], ServescopeError("the query took too long", "Ask for less")).run())
    assert "<b>No:</b>" in said
    assert "Why could not be worked out: the query took too long." in said
    assert "No incident</b> lasts. The objectives could not be asked: gone." in html(
        page([], answer(told(excess=0.1)), ServescopeError("gone", "")).run()
    )


def test_without_objectives_nobody_said_what_well_is(
    page: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    test = page([], answer(told(requests=0)))
    monkeypatch.delenv("SERVESCOPE_SLOS")
    assert '<a href="slos" target="_self">no objective is set</a>' in html(test.run())


def test_servers_that_are_down_are_named_whatever_incidents_say(
    page: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STAGE, "down", ("worst", "<b>x</b>"))
    said = html(page([], answer(told(requests=0)), [a_status("ttft", 0.43)]).run())
    assert '<b>Down:</b> <a href="instances?instance=worst"' in said
    assert "&lt;b&gt;x&lt;/b&gt;</a> do not answer." in said
    assert said.index("Down:") < said.index("Yes,</b> by")
    said = html(page([an_incident("worst")], answer(told(requests=0))).run())
    assert said.index("instances?instance=worst") < said.index("<b>No:</b>")


def test_of_many_that_are_down_some_are_named() -> None:
    assert plain(verdict.silent_in_words([f"s{number}" for number in range(9)])) == (
        "Down: s0, s1, s2, 6 more do not answer."
    )


def test_a_store_that_is_away_is_left_to_the_tiles(page: Callable[..., AppTest]) -> None:
    said = html(page(StoreUnavailable("the store does not answer", "Start it."), None).run())
    assert "servescope-answer" not in said


def test_what_takes_long_is_begun_once_and_fetched_when_it_is_there() -> None:
    later, go, begun = Later(workers=1, most=2), threading.Event(), []

    def slow() -> str:
        begun.append(1)
        assert go.wait(30)
        return "done"

    assert later.get("a", slow, 0) is None
    assert later.get("a", slow, 0) is None
    assert later.get("b", lambda: "b", 0) is None  # its one thread is busy
    assert later.get("c", lambda: "c", 0) is None  # and no more may wait
    go.set()
    assert later.get("a", slow, 30) == "done"
    assert later.get("b", lambda: "other", 30) == "b"
    assert later.get("c", lambda: "c", 30) == "c"
    assert begun == [1]


def test_a_failure_is_told_to_who_asks_next_and_then_tried_again() -> None:
    later = Later()

    def fail() -> None:
        raise ServescopeError("no", "yes")

    with pytest.raises(ServescopeError, match="no"):
        later.get("a", fail, 30)
    assert later.get("a", lambda: 1, 30) == 1
