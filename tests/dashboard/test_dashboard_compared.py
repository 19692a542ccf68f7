"""What another period or version was, drawn behind a chart and told by its pointer."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from analytics.answer import Answer
from analytics.selection import Filter, Selection
from analytics.window import Window
from collector.store.client import StoreUnavailable
from dashboard import page_context as contexts
from dashboard import panel as panels
from dashboard.figures import (
    Sized,
    Style,
    Trace,
    behind,
    beneath,
    by_size,
    has_lines,
    heatmap,
    histogram,
    lines,
    percentiles,
    stack,
)
from dashboard.figures.behind import BEHIND
from dashboard.navigation import found_views
from dashboard.page_context import PageContext
from dashboard.theme import LIGHT
from dashboard.tiles import Tile, change_in_words, compared
from dashboard.views import kv_cache, queue, tenants

START = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
TIMES = [START + timedelta(seconds=10 * index) for index in range(6)]
STYLE = Style(LIGHT, UTC, (START, START + timedelta(seconds=60)))
SELECTION = Selection(Window(START, START + timedelta(seconds=60)), Filter(model=("m",)))

YESTERDAY = Window(START - timedelta(days=1), START - timedelta(hours=23, minutes=59))


def drawn(name: str, values: list[float | None], *, late: float = 0.0, unit: str = "requests") -> Any:
    """A figure of one line, its steps some seconds late."""
    at = [moment + timedelta(seconds=late) for moment in TIMES]
    return lines(at, [Trace(name, values, "#111111")], STYLE, title="t", unit=unit)


def dashed(figure: Any) -> list[Any]:
    return [trace for trace in figure.data if trace.name == BEHIND and trace.line.dash]


def test_an_earlier_line_stands_behind_in_one_quiet_colour_and_the_pointer_tells_both() -> None:
    figure = drawn("running", [1.0, 2, 3, 4, 5, 6])
    behind(figure, drawn("running", [10.0, 20, None, 40, 50, 60]), STYLE, "the day before")
    (line,) = dashed(figure)
    assert figure.data[0] is line, "behind"
    assert (line.line.dash, line.line.color, line.connectgaps) == ("dash", LIGHT.quiet, False)
    assert list(line.y) == [10, 20, None, 40, 50, 60]
    told = list(figure.data[1].customdata)
    assert told[1] == "2 (the day before: 20)"
    assert told[2] == "3 (the day before: nothing)"
    assert figure.layout.title.text.endswith("· dashed: the day before</span>")
    assert figure.layout.yaxis.range[1] >= 60


def test_steps_that_begin_apart_are_told_by_the_nearest_and_none_by_one_far_away() -> None:
    figure = drawn("a", [1.0] * 6)
    behind(figure, drawn("a", [1.0, 2, 3, 4, 5, 6], late=4), STYLE, "then")
    assert [told.rpartition(": ")[2] for told in figure.data[1].customdata] == ["1)", "2)", "3)", "4)", "5)", "6)"]
    apart = drawn("a", [1.0] * 6)
    behind(apart, drawn("a", [7.0] * 6, late=30), STYLE, "then")
    assert [told.count("then") for told in apart.data[1].customdata] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("then", [None, drawn("a", [None] * 6)])
def test_a_period_without_data_is_told_as_that(then: Any) -> None:
    figure = drawn("a", [1.0] * 6)
    before = list(figure.data[0].customdata)
    behind(figure, then, STYLE, "the <b>day</b> before")
    assert dashed(figure) == []
    assert list(figure.data[0].customdata) == before
    assert figure.layout.title.text.endswith("· the &lt;b&gt;day&lt;/b&gt; before: nothing</span>")


def test_columns_have_one_line_of_their_sums() -> None:
    parts = [Trace("acme", [1.0] * 6, "#111111"), Trace("other tenants", [2.0] * 6, "#222222", compared="no")]
    figure, then = (stack(TIMES, parts, STYLE, title="t", unit="tokens") for _ in range(2))
    behind(figure, then, STYLE, "then")
    (line,) = dashed(figure)
    assert list(line.y) == [3.0] * 6
    assert line.x[0] == TIMES[0].replace(tzinfo=None) + timedelta(seconds=5), "in the middle of the column"
    by_name = {trace.name: trace for trace in figure.data}
    assert by_name["acme"].customdata[0] == "1 (then: 1)"
    assert by_name["other tenants"].customdata[0] == "2", "others were other tenants then"


def test_of_many_lines_none_is_drawn_and_of_percentiles_the_outermost() -> None:
    many = [Trace(f"n{index}", [1.0] * 6, "#111111") for index in range(3)]
    figure, then = (lines(TIMES, many, STYLE, title="t", unit="count") for _ in range(2))
    behind(figure, then, STYLE, "then")
    assert dashed(figure) == []
    assert figure.layout.title.text.endswith("· then: at the pointer</span>")
    assert figure.data[0].customdata[0] == "1 (then: 1)"
    values = {"p50": [0.1] * 6, "p90": [0.5] * 6, "p99": [1.0] * 6}
    figure = percentiles(TIMES, values, STYLE, title="t", signal="decode", log=True)
    low = {name: [value / 100 for value in line] for name, line in values.items()}
    behind(figure, percentiles(TIMES, low, STYLE, title="t", signal="decode", log=True), STYLE, "then")
    assert [line.y[0] for line in dashed(figure)] == [0.001, 0.01]
    assert figure.layout.yaxis.range[0] < -3 < 0 < figure.layout.yaxis.range[1]
    assert "then" in figure.data[3].customdata[0]


def test_a_distribution_has_another_behind() -> None:
    edges = [0.1, 0.2, 0.4]
    figure, then = (histogram(edges, counts, STYLE, title="t", colour="#111111") for counts in ([5, 1], [2, 9]))
    behind(figure, then, STYLE, "then")
    (line,) = dashed(figure)
    assert list(line.y) == [2, 9]
    assert figure.data[2].customdata[0].endswith("5 requests (then: 2 requests)")


def test_a_heatmap_has_another_beneath_with_the_same_axis_and_shades() -> None:
    marked = replace(STYLE, marks=[(TIMES[2], "a deploy")], bands=[(TIMES[1], TIMES[3], "an incident")])
    edges, then_edges = [0.1, 0.2, 0.4], [0.2, 0.4, 0.8]
    figure = heatmap(TIMES, edges, [[1] * 6, [20] * 6], marked, title="t")
    then = heatmap(TIMES, then_edges, [[20] * 6, [400] * 6], marked, title="t")
    assert not has_lines(figure)
    other = beneath(figure, then, marked, "the <b>day</b> before")
    assert other is then
    (cells,) = [trace for trace in figure.data if trace.type == "heatmap"]
    (others,) = other.data
    assert cells.z[1][0] == pytest.approx(others.z[0][0]), "twenty requests are as dark in both"
    assert cells.z[0][0] == pytest.approx(1 / (len(LIGHT.ramp) - 1)), "one is the faintest"
    assert others.z[1][0] == 1
    assert list(figure.layout.yaxis.range) == list(other.layout.yaxis.range)
    low, high = (10**end for end in other.layout.yaxis.range)
    assert low < edges[0]
    assert high > then_edges[-1]
    assert (other.layout.shapes, other.layout.annotations) == ((), ()), "what happened then was something else"
    assert other.layout.title.text.endswith("· the &lt;b&gt;day&lt;/b&gt; before, moved onto these times</span>")


def test_so_has_whatever_has_no_lines_and_nothing_is_told_as_that() -> None:
    figure = heatmap(TIMES, [0.1, 0.2], [[1] * 6], STYLE, title="t")
    assert beneath(figure, None, STYLE, "then") is None
    assert figure.layout.title.text.endswith("· then: nothing</span>")
    one, two = (
        by_size(
            [Sized("decode", [(1, 8), (8, 16)], [0.01 * of, 0.02 * of], [5, 6], "#111111")],
            STYLE,
            title="t",
            what="tokens",
        )
        for of in (1, 30)
    )
    assert not has_lines(one)
    assert beneath(one, two, STYLE, "then") is two
    assert list(one.layout.yaxis.range) == list(two.layout.yaxis.range)


def test_columns_whose_sum_says_nothing_are_told_by_the_pointer_alone() -> None:
    parts = [Trace(name, [0.5] * 6, "#111111", compared="hover") for name in ("idle", "KV blocks")]
    figure, then = (stack(TIMES, parts, STYLE, title="t", unit="ratio") for _ in range(2))
    behind(figure, then, STYLE, "then")
    assert dashed(figure) == []
    assert figure.data[0].customdata[0] == "50 % (then: 50 %)"


@pytest.mark.parametrize("name", ["overview", "latency", "queue", "kv_cache", "tenants", "hardware", "slos"])
def test_every_page_with_charts_over_time_compares(name: str) -> None:
    assert {view.title: view for view in found_views()}[
        importlib.import_module(f"dashboard.views.{name}").TITLE
    ].compares


@pytest.mark.parametrize(
    ("compare", "reference", "said"),
    [
        ("", None, ""),
        ("before", SELECTION.but(window=SELECTION.window.previous()), "the period before"),
        ("day", SELECTION.but(window=YESTERDAY), "the day before"),
        ("version 0.33", SELECTION.but(filter=Filter(model=("m",), version=("0.33",))), "version 0.33"),
    ],
)  # fmt: skip
def test_what_is_compared_with_is_the_same_selection_of_another_time_or_version(
    monkeypatch: pytest.MonkeyPatch, compare: str, reference: Selection | None, said: str
) -> None:
    monkeypatch.setattr(contexts, "zone", lambda: UTC)
    context = PageContext(SELECTION, live=False, choices=None, compare=compare)
    assert (context.reference, context.against) == (reference, said)


@dataclass(frozen=True)
class Result:
    """Of a question."""

    times: list[datetime]
    values: list[float | None]


def _page() -> None:
    """The script of the page under test."""
    import streamlit as st  # noqa: PLC0415 - the script that is run

    from dashboard import panel as panels  # noqa: PLC0415 - as above
    from dashboard.page_context import PageContext  # noqa: PLC0415 - as above
    from tests.dashboard import test_dashboard_compared as own  # noqa: PLC0415 - as above

    shown = PageContext(own.SELECTION, live=False, choices=None, compare="before", marks=False, compares={"queue"})

    def figure(result: own.Result) -> object:
        return own.lines(
            result.times, [own.Trace("a", result.values, "#111111")], own.STYLE, title="t", unit="requests"
        )

    panels.panel("p", "queue", shown, figure, missing="")
    panels.panel("q", "latency", shown, figure, missing="")
    panels.trouble(shown, st.container())


@pytest.mark.parametrize("fails", [False, True])
def test_a_panel_asks_its_question_of_both_and_draws_its_own_where_the_other_has_no_answer(
    monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    asked: list[tuple[str, Selection]] = []

    def ask(question: str, selection: Selection, **_: object) -> Answer[Any]:
        asked.append((question, selection))
        earlier = selection != SELECTION
        if earlier and fails:
            raise StoreUnavailable("the store does not answer", "Start it.")
        back = timedelta(seconds=60 if earlier else 0)
        result = Result([at - back for at in TIMES], [7.0 if earlier else 1.0] * 6)
        return Answer(result, "rows", "exact", 1, START, (), ())

    shown: list[Any] = []
    monkeypatch.setattr(panels, "ask", ask)
    monkeypatch.setattr(panels.st, "plotly_chart", lambda figure, **_: shown.append(figure) or SimpleNamespace())
    test = AppTest.from_function(_page, default_timeout=60).run()
    assert not test.exception
    assert asked == [
        ("queue", SELECTION),
        ("queue", replace(SELECTION, window=SELECTION.window.previous())),
        ("latency", SELECTION),
    ]
    told = ["1" if fails else "1 (the period before: 7)", "1"]
    assert [figure.data[-1].customdata[0] for figure in shown] == told
    assert len(dashed(shown[0])) == (0 if fails else 1)
    assert len(shown) == 2


def test_a_tile_says_what_became_of_its_figure_and_where_there_was_none() -> None:
    assert change_in_words(2.0, 0.5, "seconds", "the day before") == "+1.5 s"
    assert change_in_words(2.0, None, "seconds", "the day before") == "the day before: no figure"
    assert change_in_words(2.0, None, "seconds", "") == ""
    assert change_in_words(None, 0.5, "seconds", "the day before") == ""


def test_a_tile_keeps_its_own_note_where_nothing_is_compared() -> None:
    tile = Tile("Waiting", "4", "at most 9 at once")
    assert compared(tile, 4.0, None, "count", "") == tile
    assert compared(tile, 4.0, 1.0, "count", "the day before").note == "+3"


def _line(last: float) -> Any:
    return SimpleNamespace(values=[None, last], kind="")


def _told(question: str, *, earlier: bool) -> Any:
    """What a question answers, of now or of a period before in which everything was half of it."""
    of = 0.5 if earlier else 1.0
    if question == "queue":
        named = {name: _line(8 * of) for name in ("waiting", "running", "arrivals", "finished", "queue_p99", "drain")}
        return SimpleNamespace(**named, times=TIMES, step=10.0, littles_law={}, waiting_peak=9, drain_seconds=4 * of)
    if question == "tenants":
        shares = dict.fromkeys(("engine_share", "completion_share", "prompt_share", "request_share"), 0.8 * of)
        rows = [SimpleNamespace(tenant="acme", **shares), SimpleNamespace(tenant="b", **dict.fromkeys(shares, 0.1))]
        return SimpleNamespace(tenants=rows, left_out=0, fleet=SimpleNamespace(e2e_p95_seconds=2 * of))
    if question == "batching":
        return SimpleNamespace(
            tokens_per_step=[], inferences_per_execution=[], mean_tokens_per_step=60 * of, mean_batch_size=None
        )
    cache = SimpleNamespace(seconds_above_90=10 * of, peak=0.9 * of, preempted=4 * of)
    return SimpleNamespace(instances=[cache], cached_share=0.6 * of, usage_max=_line(1), preemptions=_line(1))


QUEUE_NOTES = ["+4", "+4", "+4 /s", "+4 /s", "+4 s", "+2 s"]
KV_NOTES = ["+45 points", "+5 s", "+2", "+30 points", "+30", "mean of the window"]
TENANT_NOTES = ["no change", *["acme, +40 points"] * 4, "+1 s"]


@pytest.mark.parametrize(
    ("view", "notes", "alone"),
    [
        (
            queue,
            QUEUE_NOTES,
            ["at most 9 at once", "", "", "", "", "if nobody else came"],
        ),
        (kv_cache, KV_NOTES, ["over the window", "the worst instance", "over the window", "of prompt tokens"]),
        (tenants, TENANT_NOTES, ["with requests", *["acme"] * 4, ""]),
    ],
    ids=lambda value: getattr(value, "TITLE", ""),
)
def test_tiles_of_every_page_that_compares_say_what_became_of_their_figures(
    monkeypatch: pytest.MonkeyPatch, view: Any, notes: list[str], alone: list[str]
) -> None:
    def ask(question: str, selection: Selection, **_: object) -> Answer[Any]:
        result = _told(question, earlier=selection != SELECTION)
        return Answer(result, "rows", "exact", 1, START, (), ())

    monkeypatch.setattr(view, "ask", ask)
    monkeypatch.setattr(PageContext, "settled", None)
    for compare, expected in (("before", notes), ("", alone)):
        context = PageContext(SELECTION, live=False, choices=None, compare=compare, marks=False, compares=set())
        shown = [tile.note for tile in view._tiles(context)]
        assert shown[: len(expected)] == expected
