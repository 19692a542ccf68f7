from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from dashboard.figures import Interval, Lane, Style, Trace, heatmap, histogram, lines, percentiles, stack, story
from dashboard.figures.base import LEFT, RIGHT
from dashboard.theme import DARK, LIGHT, Palette, colour_of, contrast, tints

START = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
TIMES = [START + timedelta(seconds=10 * index) for index in range(6)]
STYLE = Style(LIGHT, ZoneInfo("Asia/Tokyo"), (START, START + timedelta(seconds=60)))


def texts(figure: object) -> list[str]:
    return [note.text for note in figure.layout.annotations]  # type: ignore[attr-defined]


def test_lines_name_themselves_at_their_ends_and_start_at_zero() -> None:
    traces = [Trace("running", [1.0, 2, 3, 4, 5, 6], "#111111"), Trace("waiting", [None, 0.0, 0, 0, 0, 9], "#222222")]
    figure = lines(TIMES, traces, STYLE, title="Depth", unit="requests")
    assert texts(figure) == ["running", "waiting"]
    assert not figure.layout.showlegend
    assert figure.layout.yaxis.range[0] == 0
    assert figure.data[1].y[0] is None
    assert figure.data[1].connectgaps is False
    assert "Depth" in figure.layout.title.text
    assert "requests" in figure.layout.title.text


def test_a_limit_is_named_beside_the_plot_where_no_line_runs() -> None:
    figure = lines(TIMES, [Trace("", [1.0] * 6, "#111111")], STYLE, title="Good", unit="ratio", limit=(0.9, "target"))
    named = next(note for note in figure.layout.annotations if note.text == "target")
    assert (named.x, named.xref, named.xanchor, named.y) == (1, "paper", "left", 0.9)


def test_labels_of_ends_that_lie_close_on_the_axis_do_not_cover_each_other() -> None:
    traces = [Trace("running", [1.0, 2, 8, 3, 2, 2], "#111111"), Trace("waiting", [0.0, 90, 99, 40, 9, 1], "#222222")]
    figure = lines(TIMES, traces, STYLE, title="Depth", unit="requests")
    running, waiting = figure.layout.annotations
    assert running.yshift - waiting.yshift >= 10


@pytest.mark.parametrize(
    "traces",
    [
        [Trace(f"n{index}", [1.0] * 6, "#111111") for index in range(5)],
        [Trace("a-very-long-instance-name", [1.0] * 6, "#111111")],
        [Trace("one", [1.0] * 6, "#111111"), Trace("gone", [1.0, None, None, None, None, None], "#222222")],
    ],
)
def test_many_long_or_early_ending_lines_get_a_legend(traces: list[Trace]) -> None:
    figure = lines(TIMES, traces, STYLE, title="t", unit="count")
    assert figure.layout.showlegend
    assert texts(figure) == []


def test_all_charts_over_time_share_range_and_margins() -> None:
    one = lines(TIMES, [Trace("", [1.0] * 6, "#111111")], STYLE, title="a", unit="count")
    two = percentiles(TIMES, {"p50": [0.1] * 6, "p99": [3.0] * 6}, STYLE, title="b", signal="decode", log=True)
    three = stack(TIMES, [Trace("queue", [1.0] * 6, "#111111")], STYLE, title="c", unit="seconds")
    four = heatmap(TIMES, [0.1, 1.0, 10.0], [[1] * 6, [0] * 6], STYLE, title="d")
    for figure in (one, two, three, four):
        assert (figure.layout.margin.l, figure.layout.margin.r) == (LEFT, RIGHT)
        assert tuple(figure.layout.xaxis.range) == tuple(one.layout.xaxis.range)
    assert one.layout.xaxis.range[0] == datetime(2026, 5, 4, 19, 0)  # noqa: DTZ001 - Plotly draws wall clocks


def test_percentiles_are_tints_of_one_colour_and_the_highest_is_the_strongest() -> None:
    figure = percentiles(TIMES, {"p50": [0.1] * 6, "p99": [3.0] * 6}, STYLE, title="b", signal="queue", counts=[7] * 6)
    assert [trace.line.color for trace in figure.data[:2]] == tints(LIGHT, colour_of("queue", LIGHT), 2)
    assert contrast(figure.data[0].line.color, LIGHT.page) < contrast(figure.data[1].line.color, LIGHT.page)
    assert figure.data[1].customdata[0] == "3 s · 7 requests"


def test_labels_of_deploys_never_cover_each_other_and_bands_have_none() -> None:
    bands = [
        (START + timedelta(seconds=2 * index), START + timedelta(seconds=2 * index + 1), f"incident {index}")
        for index in range(20)
    ]
    marks = [(START + timedelta(seconds=3 * index), f"vllm-{index} deploy") for index in range(20)]
    figure = lines(
        TIMES, [Trace("", [1.0] * 6, "#111111")], replace(STYLE, bands=bands, marks=marks), title="t", unit="count"
    )
    assert len(figure.layout.shapes) == 40
    assert 1 <= len(texts(figure)) <= 4
    assert all(text.endswith("deploy") for text in texts(figure))
    told = figure.data[-2]  # the last trace tells UTC
    assert len(told.x) == 40
    assert {"vllm-0 deploy", "incident 0"} <= set(told.customdata)


def test_labels_keep_apart_on_the_narrowest_chart() -> None:
    marks = [(at, f"triton-{index}, model x restarted") for index, at in enumerate(TIMES)]
    figure = lines(
        TIMES, [Trace("", [1.0] * 6, "#111111")], replace(STYLE, zone=UTC, marks=marks), title="t", unit="count"
    )
    start, end = STYLE.span
    taken = []
    for label in figure.layout.annotations:
        at = 250 * (label.x.replace(tzinfo=UTC) - start) / (end - start)
        wide = 5.4 * len(label.text)
        taken.append((at, at + wide) if label.xanchor == "left" else (at - wide, at))
    assert all(one[1] <= other[0] + 0.01 for one, other in pairwise(taken)), taken
    assert taken


def test_a_title_from_elsewhere_is_no_markup() -> None:
    named = "<b>x</b> & y"
    style = replace(STYLE, bands=[(START, START + timedelta(seconds=9), named)], marks=[(START, named)])
    figure = lines(TIMES, [], style, title="t", unit="count")
    assert texts(figure) == ["&lt;b&gt;x&lt;/b&gt; &amp; y"]
    assert figure.data[0].customdata == ("&lt;b&gt;x&lt;/b&gt; &amp; y",) * 2


def test_utc_comes_with_the_pointer_for_those_who_live_elsewhere() -> None:
    figure = lines(TIMES, [Trace("", [1.0] * 6, "#111111")], STYLE, title="t", unit="count")
    assert figure.data[-1].customdata[0] == "10:00:00 UTC"
    at_home = lines(TIMES, [Trace("", [1.0] * 6, "#111111")], replace(STYLE, zone=UTC), title="t", unit="count")
    assert len(at_home.data) == 1


def test_a_gap_of_a_stack_is_a_gap() -> None:
    """A column a step, from its start to its end: nothing is drawn where there is nothing, and nothing leads there."""
    traces = [
        Trace("queue", [None, None, 1.0, None, 2.0, None], "#111111"),
        Trace("decode", [None, None, 1.0, None, None, 0.0], "#222222"),
    ]
    figure = stack(TIMES, traces, STYLE, title="c", unit="seconds")
    queue, decode = figure.data[:2]
    assert (queue.type, figure.layout.barmode) == ("bar", "stack")
    assert list(queue.y) == [None, None, 1.0, None, 2.0, None]
    assert list(decode.y) == [None, None, 1.0, None, None, 0.0]
    assert (queue.offset, queue.width) == (0, 10_000)  # milliseconds of the step


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_a_heatmap_fades_into_the_page(palette: Palette) -> None:
    figure = heatmap(
        TIMES, [0.0, 0.1, math.inf], [[1, 0, 0, 0, 0, 3], [0] * 6], replace(STYLE, colours=palette), title="d"
    )
    drawn = figure.data[0]
    assert drawn.colorscale[0][1] == palette.page
    assert drawn.z[0][1] is None
    assert (drawn.zmin, drawn.zmax) == (0, 1), "Plotly takes the data's own ends unless it is given both"
    assert drawn.colorscale[1][0] <= drawn.z[0][0] < drawn.z[0][5] < 1, "one request is seen, and three are not many"
    assert figure.layout.dragmode == "select"
    assert "1 request<br>10:00:00 UTC" in figure.data[0].customdata[0][0]


def test_a_histogram_has_its_percentiles_and_no_infinity() -> None:
    figure = histogram([0.1, 1.0, math.inf], [3, 1], STYLE, title="h", colour="#111111", cuts={"p99": 0.9, "p50": None})
    assert all(math.isfinite(value) for value in figure.data[0].x)
    assert any("p99" in text for text in texts(figure))


def test_one_request_and_its_engine_share_an_axis() -> None:
    intervals = [Interval("queue", 0.0, 1.5, "#111111", "waiting"), Interval("decode", 1.5, 0.5, "#222222", "writing")]
    lanes = [
        Lane("KV cache in use", "share", [Trace("", [0.5, 0.9], "#333333")], 1.05),
        Lane(
            "Running and waiting",
            "requests",
            [Trace("running", [1, 2], "#444444"), Trace("waiting", [0, 7], "#555555")],
        ),
    ]
    figure = story(intervals, [-1.0, 1.0], lanes, STYLE, total=2.0, span=(-3.0, 5.0))
    axes = [figure.layout.xaxis, figure.layout.xaxis2, figure.layout.xaxis3]
    assert {tuple(axis.range) for axis in axes} == {(-3.0, 5.0)}
    assert {"1.5 s", "500 ms", "running", "waiting", "KV cache in use · share"} <= set(texts(figure))
    assert list(figure.data[0].base) == [0.0, 1.5]
    assert list(figure.layout.yaxis.ticktext) == ["queue", "decode"], "every phase is named, however many there are"
    assert len(figure.layout.shapes) == 3  # the request's own time, in every picture


def test_no_intervals_and_no_engine_still_draw() -> None:
    assert story([], [], [], STYLE, total=0.1, span=(0, 1)).layout.height > 0


def test_what_is_not_settled_lies_beyond_a_broken_line() -> None:
    style = replace(STYLE, settled=START + timedelta(seconds=40))
    trace = [Trace("", [1.0] * 6, "#111111")]
    for figure in (
        lines(TIMES, trace, style, title="t", unit="count"),
        stack(TIMES, trace, style, title="t", unit="count"),
        heatmap(TIMES, [0.1, 1.0], [[1] * 6], style, title="t"),
    ):
        veil, line = (shape for shape in figure.layout.shapes if shape.name == "unsettled")
        assert (veil.x0, veil.x1) == (datetime(2026, 5, 4, 19, 0, 40), figure.layout.xaxis.range[1])  # noqa: DTZ001 - Plotly draws wall clocks
        assert line.line.dash == "dash"
    whole = lines(TIMES, trace, replace(STYLE, settled=STYLE.span[1]), title="t", unit="count")
    assert not whole.layout.shapes
