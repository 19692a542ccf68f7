"""Cells, boxes and bars where they belong, and times of day where clocks are changed."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from analytics.questions.heatmap import Heatmap
from analytics.window import Window
from dashboard import words
from dashboard.figures import Style, Trace, daytime, heatmap, histogram, lines
from dashboard.theme import LIGHT
from dashboard.viewer import earlier
from dashboard.views import latency
from dashboard.views.latency import box_of, cells_in

START = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
TIMES = [START + timedelta(seconds=10 * index) for index in range(6)]
STYLE = Style(LIGHT, ZoneInfo("Asia/Tokyo"), (START, START + timedelta(seconds=60)))
BERLIN, NEW_YORK, LONDON = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("Europe/London")
BACK = [
    # zone, the instant at which clocks go back, and the two names
    (BERLIN, datetime(2026, 10, 25, 1, 0, tzinfo=UTC), "CEST", "CET"),
    (NEW_YORK, datetime(2026, 11, 1, 6, 0, tzinfo=UTC), "EDT", "EST"),
    (LONDON, datetime(2026, 10, 25, 1, 0, tzinfo=UTC), "BST", "GMT"),
]
FORTH = [
    (BERLIN, datetime(2026, 3, 29, 1, 0, tzinfo=UTC), "CET", "CEST"),
    (NEW_YORK, datetime(2026, 3, 8, 7, 0, tzinfo=UTC), "EST", "EDT"),
    (LONDON, datetime(2026, 3, 29, 1, 0, tzinfo=UTC), "GMT", "BST"),
]


def around(change: datetime, hours: float = 2) -> tuple[datetime, datetime]:
    return change - timedelta(hours=hours), change + timedelta(hours=hours)


def test_a_cell_is_drawn_from_its_start_to_its_end() -> None:
    edges = [0.0, 0.1, 1.0, math.inf]
    figure = heatmap(TIMES, edges, [[1] * 6, [2] * 6, [3] * 6], STYLE, title="d", step=10)
    cells = figure.data[0]
    assert list(cells.x) == [datetime(2026, 5, 4, 19, 0) + timedelta(seconds=10 * index) for index in range(7)]  # noqa: DTZ001 - Plotly draws wall clocks
    assert list(cells.y) == [0.05, 0.1, 1.0, 2.0]
    assert len(cells.z) == 3
    assert "19:00:10 to 19:00:20" in cells.customdata[0][1]
    alone = heatmap(TIMES[:1], edges, [[1], [2], [3]], STYLE, title="d", step=60)
    assert alone.data[0].x[1] - alone.data[0].x[0] == timedelta(seconds=60)


@pytest.mark.parametrize(
    "edges", [[0.1, 0.3, 1.0, 2.5], [0.0, 0.5, 1.0, math.inf], [2 ** (b / 4) for b in range(-8, 8)]]
)
def test_a_bar_stands_between_the_edges_of_its_bucket(edges: list[float]) -> None:
    bars = histogram(edges, [1] * (len(edges) - 1), STYLE, title="h", colour="#111111").data[0]
    smallest = next(edge for edge in edges if edge > 0)
    largest = max(edge for edge in edges if math.isfinite(edge))
    for middle, width, (low, high) in zip(bars.x, bars.width, pairwise(edges), strict=True):
        assert middle - width / 2 == pytest.approx(low or smallest / 2, rel=0.01)
        assert middle + width / 2 == pytest.approx(high if math.isfinite(high) else largest * 2, rel=0.01)


HEAT = Heatmap("e2e_seconds", 10, TIMES, [0.0, 0.1, 1.0, 10.0], [[1, 2, 3, 4, 5, 6], [10] * 6, [100] * 6], "exact")
WHOLE = Window(START + timedelta(seconds=4), START + timedelta(seconds=60))


@pytest.mark.parametrize(
    ("x", "y", "seconds", "latencies", "requests"),
    [
        ((10, 30), (0.1, 1.0), (10, 30), (0.1, 1.0), 20),
        ((11, 29), (0.11, 0.9), (10, 30), (0.1, 1.0), 20),  # more than half of each
        ((14, 26), (0.2, 5.0), (10, 30), (0.1, 10.0), 220),
        ((15.5, 23), (0.4, 0.5), (10, 20), (0.1, 1.0), 10),  # less than half of any: the cell in its middle
        ((21, 22), (0.01, 0.02), (20, 30), (0.0, 0.1), 3),
        ((-50, 500), (0.001, 900.0), (4, 60), (0.0, 10.0), 21 + 60 + 600),  # beyond all edges: never beyond the window
    ],
)  # fmt: skip
def test_a_box_takes_whole_cells(
    monkeypatch: pytest.MonkeyPatch, x: tuple[float, float], y: tuple[float, float], seconds: tuple[int, int],
    latencies: tuple[float, float], requests: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(latency, "zone", lambda: ZoneInfo("Asia/Tokyo"))
    style = replace(STYLE, span=(WHOLE.start, WHOLE.end))
    told = [daytime.drawn(START + timedelta(seconds=at), style.span, style.zone).isoformat(" ") for at in reversed(x)]
    found = cells_in(HEAT, WHOLE, *box_of({"x": told, "y": list(y)}, WHOLE))
    assert found is not None
    assert [(at - START).total_seconds() for at in (found.window.start, found.window.end)] == list(seconds)
    assert (found.low, found.high, found.requests) == (*latencies, requests)


def test_a_box_on_nothing_lists_nothing() -> None:
    assert cells_in(Heatmap("e2e_seconds", 10, TIMES, [], [], "exact"), WHOLE, WHOLE, 0.1, 1.0) is None


@pytest.mark.parametrize(("zone", "change", "before", "after"), [*BACK, *FORTH])
@pytest.mark.parametrize("hours", [0.5, 2, 12, 84, 300])
def test_an_axis_neither_folds_nor_tears(
    zone: ZoneInfo, change: datetime, before: str, after: str, hours: float
) -> None:
    span = around(change, hours)
    assert daytime.changes(span, zone)
    step = (span[1] - span[0]) / 60
    times = [span[0] + step * index for index in range(60)]
    style = Style(LIGHT, zone, span)
    figure = lines(times, [Trace("", [1.0] * 60, "#111111")], style, title="t", unit="count")
    assert {one - other for other, one in pairwise(figure.data[0].x)} <= {step, step + timedelta(microseconds=1)}
    assert [daytime.meant(daytime.drawn(at, span, zone), span, zone) for at in times] == times
    places, labels = figure.layout.xaxis.tickvals, figure.layout.xaxis.ticktext
    assert 2 <= len(places) <= 12
    assert list(places) == sorted(places)
    for place, label in zip(places, labels, strict=True):
        moment = daytime.meant(place, span, zone)
        assert label.startswith(f"{moment.astimezone(zone):%H:%M} {before if moment < change else after}")
    told = [text for trace in figure.data[1:] for text in trace.customdata]
    assert any(before in text for text in told)
    assert any(after in text for text in told)


def test_an_hour_that_comes_twice_is_told_apart() -> None:
    for zone, change, before, after in BACK:
        first, second = change - timedelta(minutes=30), change + timedelta(minutes=30)
        shown = [words.local_clock(at, zone, now=change) for at in (first, second)]
        assert shown[0].endswith(f" {before}")
        assert shown[1].endswith(f" {after}")
        assert shown[0].split()[0] == shown[1].split()[0]
        assert before in words.span(first, second, zone)
        assert after in words.span(first, second, zone)
        assert words.local_clock(change + timedelta(hours=2), zone, now=change)[-1].isdigit()


def test_a_span_across_a_change_says_both_offsets() -> None:
    zone, change, before, after = FORTH[0]
    told = words.span(change - timedelta(hours=1), change + timedelta(hours=1), zone)
    assert before in told.split(" to ")[0]
    assert after in told.split(" to ")[1]


@pytest.mark.parametrize(("zone", "change", "before", "after"), [*BACK, *FORTH])
def test_the_day_before_is_the_same_time_of_day(zone: ZoneInfo, change: datetime, before: str, after: str) -> None:
    del before, after
    noon = change + timedelta(hours=10)
    for days in (1, 7):
        found = earlier(noon, timedelta(days=days), zone)
        assert found.astimezone(zone).time() == noon.astimezone(zone).time()
        assert abs(noon - found - timedelta(days=days)) == timedelta(hours=1)
    assert earlier(noon, timedelta(days=1), UTC) == noon - timedelta(days=1)


def test_other_days_keep_plotlys_own_labels() -> None:
    for zone in (BERLIN, NEW_YORK, UTC):
        span = (START, START + timedelta(days=2))
        assert not daytime.changes(span, zone)
        figure = lines(
            TIMES, [Trace("", [1.0] * 6, "#111111")], replace(STYLE, zone=zone, span=span), title="t", unit="s"
        )
        assert figure.layout.xaxis.tickvals is None
