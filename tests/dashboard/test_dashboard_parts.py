from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from zoneinfo import ZoneInfo

import pytest

from alerts.incidents.history import AlertRow, IncidentRow
from alerts.slo_status import SloStatus
from analytics.questions.choices import Choices
from analytics.questions.story import Phase, Story
from analytics.selection import Filter, LatencyRange, Selection
from analytics.signals import SIGNALS
from analytics.window import Window
from base.errors import ServescopeError
from collector.store.client import StoreError
from dashboard import notes
from dashboard.cell_pictures import keys, phase_bar
from dashboard.data import explain
from dashboard.export import as_csv
from dashboard.links import RECORDING_NAMES, RECORDINGS, link, narrowed, outcome_of
from dashboard.one_incident import after, latencies_of, links
from dashboard.one_request import PHASES, read_slowly
from dashboard.page_context import PageContext
from dashboard.shared_cache import SharedCache
from dashboard.shell import moment
from dashboard.theme import DARK, LIGHT, Palette, colour_of
from dashboard.tiles import Tile, row
from dashboard.views.requests import bounds
from dashboard.views.slos import tiles_of
from dashboard.views.sql import plain_type

START = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
WINDOW = Window(START, START + timedelta(minutes=10))


def test_a_result_is_worked_out_once_for_all_who_ask_at_the_same_time() -> None:
    once, began, go, made = SharedCache(60, 10), threading.Event(), threading.Event(), []

    def slow() -> int:
        made.append(1)
        began.set()
        assert go.wait(30)
        return 42

    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(once.get("key", slow)), daemon=True) for _ in range(4)]
    threads[0].start()
    assert began.wait(30)
    for thread in threads[1:]:
        thread.start()
    assert not once.ready("key")
    go.set()
    for thread in threads:
        thread.join(30)
    assert (got, made, once.ready("key")) == ([42] * 4, [1], True)


def test_a_failure_is_not_kept_and_the_old_go_first() -> None:
    now = [0.0]
    once = SharedCache(10, 2, clock=lambda: now[0])

    def fail() -> None:
        raise ServescopeError("no", "yes")

    with pytest.raises(ServescopeError):
        once.get("a", fail)
    assert once.get("a", lambda: 1) == 1
    assert once.get("a", lambda: 2) == 1
    now[0] = 11
    assert once.get("a", lambda: 3) == 3
    for key in "bc":
        once.get(key, lambda: 0)
    assert not once.ready("a")


def test_tiles_escape_what_they_are_told_and_judge_by_word_and_mark() -> None:
    html = row([Tile("<b>", "1 & 2", "over", judged="broken"), Tile("plain", "3")], LIGHT)
    assert "<b>" not in html
    assert "1 &amp; 2" in html
    assert html.count("servescope-broken") == 1
    assert 'title="&lt;b&gt;: 1 &amp; 2. over"' in html
    assert "servescope-old" in row([], DARK, old=True)


@pytest.mark.parametrize(("number", "wide", "middle"), [(10, 10, 5), (6, 6, 3), (12, 6, 4), (7, 7, 4), (1, 1, 1)])
def test_rows_of_tiles_are_as_full_as_can_be(number: int, wide: int, middle: int) -> None:
    assert f"--wide:{wide};--middle:{middle}" in row([Tile("n", "v")] * number, LIGHT)


def test_a_sparkline_needs_two_values_and_shows_zero_as_a_hair() -> None:
    assert "clip-path" not in row([Tile("n", "v", line=[None, 1.0])], LIGHT)
    two = row([Tile("n", "v", line=[1.0, 2.0])], LIGHT)
    assert "polygon(0.0% 100.0%, 0.0% 54.0%, 100.0% 8.0%, 100.0% 100.0%)" in two
    zero = row([Tile("n", "v", line=[0.0, 0.0])], LIGHT)
    assert "polygon(0.0% 100.0%, 0.0% 94.0%, 100.0% 94.0%, 100.0% 100.0%)" in zero


def test_a_gap_of_a_sparkline_is_empty_and_a_value_alone_is_a_step_wide() -> None:
    drawn = row([Tile("n", "v", line=[2.0, 2.0, None, 0.0, None])], LIGHT)
    one = "0.0% 100.0%, 0.0% 8.0%, 25.0% 8.0%, 25.0% 100.0%"
    other = "62.5% 100.0%, 62.5% 94.0%, 87.5% 94.0%, 87.5% 100.0%"
    assert f"polygon({one}, {other})" in drawn


def test_a_requests_phases_are_one_bar() -> None:
    bar = phase_bar([("queue", 3.0), ("decode", 1.0), ("stall", 0.0)], LIGHT)
    assert bar is not None
    assert unquote(bar).count("<rect") == 2
    assert f'width="93.0" height="16" fill="{colour_of("queue", LIGHT)}"' in unquote(bar)
    assert phase_bar([("queue", 0.0)], LIGHT) is None
    assert "compute infer" in keys(["compute_infer"], LIGHT)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_no_two_phases_share_a_colour(colours: Palette) -> None:
    phases = [*(name for name, _ in PHASES), "unaccounted"]
    assert len({colour_of(phase, colours) for phase in phases}) == len(phases)


def test_links_keep_window_and_filter() -> None:
    made = link("latency", Selection(WINDOW, Filter(model=("a b",), tenant=("x", "y"), recording="exclude")))
    asked = parse_qs(urlsplit(made).query)
    assert moment(asked["from"][0]) == WINDOW.start
    assert moment(asked["to"][0]) == WINDOW.end
    assert (asked["model"], asked["tenant"], asked["recording"]) == (["a b"], ["x", "y"], ["Live only"])
    assert not asked.keys() & {"outcome", "order_by", "at_least", "below", "find"}


@pytest.mark.parametrize(
    "among",
    [
        {},
        {"outcome": ("server_error", "timeout"), "latency": LatencyRange("queue_seconds", 0.1, 1 / 3)},
        {"latency": LatencyRange("tpot_seconds", below=0.05), "trace_id": "0af7651916cd43dd8448eb211c80319c"},
        {"latency": LatencyRange("e2e_seconds", 2.5), "request_id": "a b&c"},
    ],
)
def test_what_a_link_narrows_by_is_read_out_of_it(among: dict[str, Any]) -> None:
    meant = Selection(WINDOW, **among)
    asked = parse_qs(urlsplit(link("requests", meant)).query)
    title = asked.get("order_by", [SIGNALS["e2e_seconds"].title])[0]
    low, high = (float(asked[name][0]) if name in asked else None for name in ("at_least", "below"))
    read = narrowed(
        Selection(WINDOW), signal=next(name for name, signal in SIGNALS.items() if signal.title == title),
        outcome=map(outcome_of, asked.get("outcome", [])), at_least=low, below=high, find=asked.get("find", [""])[0],
    )  # fmt: skip
    assert read == meant.but(trace_id="", request_id=meant.trace_id or meant.request_id), "found by any of its ids"


@pytest.mark.parametrize(
    "text", ["1777888800", "2026-05-04T10:00:00Z", "2026-05-04T10:00:00", "2026-05-04T12:00:00+02:00"]
)
def test_a_links_times_are_seconds_or_iso(text: str) -> None:
    assert moment(text) == START


def test_a_nonsense_time_is_refused() -> None:
    with pytest.raises(ValueError, match="yesterday"):
        moment("yesterday")


@dataclass(frozen=True)
class _Series:
    name: str
    values: list[float | None]


@dataclass(frozen=True)
class _Over:
    times: list[datetime]
    lines: list[_Series]


@dataclass(frozen=True)
class _Found:
    rows: list[_Series]


def test_csv_has_a_column_a_line_or_a_row_a_row() -> None:
    over = _Over([START, START + timedelta(seconds=1)], [_Series("p50", [1.0, None]), _Series("p99", [2.0, 3.0])])
    assert as_csv(over).splitlines() == [
        "time,lines p50 values,lines p99 values",
        "2026-05-04T10:00:00+00:00,1.0,2.0",
        "2026-05-04T10:00:01+00:00,,3.0",
    ]
    assert as_csv(_Found([_Series("a", [1.0])])).splitlines() == ["name,values", "a,1.0"]


def test_a_csv_says_in_each_line_what_it_is_of() -> None:
    whole = Selection(WINDOW, Filter(model=("a", "=b"), recording="exclude"))
    span = "2026-05-04T10:00:00.000Z/2026-05-04T10:10:00.000Z"
    assert as_csv([_Series("a", [1.0]), _Series("b", [2.0])], whole).splitlines() == [
        "selection,name",
        f'"{span}; model a, =b; live only",a',
        f'"{span}; model a, =b; live only",b',
    ]
    among = Selection(WINDOW, outcome=("timeout",), latency=LatencyRange("e2e_seconds", 2.5), request_id="r-1")
    told = f"{span}; outcome timeout; e2e_seconds from 2.5 s; request_id r-1; live and recorded"
    assert as_csv(_Over([START], [_Series("p50", [1.0])]), among).splitlines()[1].startswith(f"{told},2026-05-04T10")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(2.5, None, "from 2.5 s up"), (0.25, 2.5, "from 250 ms to 2.5 s"), (None, 2.5, "to 2.5 s")],
)
def test_bounds_of_a_list_are_told_without_the_one_that_is_not_there(
    low: float | None, high: float | None, said: str
) -> None:
    assert bounds(low, high) == said


def test_a_refusal_is_cut_to_what_a_page_holds() -> None:
    what, fix = explain(StoreError(47, "UNKNOWN_IDENTIFIER", "x" * 900))
    assert what == "ClickHouse refused a question (UNKNOWN_IDENTIFIER)"
    assert len(fix) < 300
    assert explain(ServescopeError("the store is away", "Start it"))[0] == "The store is away"


def test_an_incidents_links_lead_to_its_time_and_place() -> None:
    incident = IncidentRow(
        "1", START, START, START + timedelta(minutes=1), "resolved", "critical", "t", "t",
        {"model": "a&b", "rule": "x"}, "", 60.0,
    )  # fmt: skip
    made = links(incident)
    assert made.count("model=a%26b") == 5
    assert made.count("recording=Live+only") == 5
    assert f"from={(START - timedelta(minutes=3)).timestamp():.3f}" in made
    assert "rule=" not in made
    alerts = [AlertRow("r", labels, "firing", START, 1.0, 1.0, "", "1") for labels in ({"instance": "i-1"}, {})]
    made = links(incident, alerts)
    assert made.count("instance=i-1") == 5
    assert made.count("recording=Live+only") == 5
    asked = []

    def recorded(selection: Selection) -> bool:
        asked.append(selection.filter)
        return True

    assert links(incident, alerts, recorded=recorded).count("recording=Recorded+only") == 5
    assert asked == [Filter(instance=("i-1",))]
    assert links(incident, recorded=recorded).count("recording=Live+only") == 5, (
        "of no server that could be a recorded one"
    )


@pytest.mark.parametrize("recording", RECORDING_NAMES)
def test_a_link_says_in_any_case_what_its_sender_saw_of_recordings(recording: Any) -> None:
    asked = parse_qs(urlsplit(link("latency", Selection(WINDOW, Filter(recording=recording)))).query)
    assert RECORDINGS[asked["recording"][0]] == recording


NOTHING = Choices([], [], [], [], [], [], [], ["kv"], [])


@pytest.mark.parametrize(
    ("chosen", "known", "said"),
    [
        (Filter(recording="exclude"), NOTHING, "**Only recordings here.**"),
        (Filter(recording="exclude"), None, ""),
        (Filter(recording="exclude"), replace(NOTHING, recordings=[]), ""),
        (Filter(recording="include"), NOTHING, ""),
        (Filter(recording="exclude"), replace(NOTHING, instances=["a"]), ""),
        (Filter(recording="exclude", instance=("a", "b")), replace(NOTHING, instances=["a"]), ""),
        (Filter(recording="exclude", instance=("b",)), replace(NOTHING, instances=["a"]), "**Nothing live** of this"),
        (Filter(recording="exclude", model=("b",)), replace(NOTHING, models=["a"]), "**Nothing live** of this model."),
    ],
)  # fmt: skip
def test_where_nothing_is_live_the_page_says_that_recordings_are_there(
    chosen: Filter, known: Choices | None, said: str
) -> None:
    told = notes.left_out(PageContext(Selection(WINDOW, chosen), live=False, choices=known))
    assert told.startswith(said)
    assert bool(told) == bool(said)


def test_moments_around_an_opening() -> None:
    assert [after(value) for value in (0.3, 6.2, -693)] == ["at once", "6 s after", "12 min before"]


def _status(**more: object) -> SloStatus:
    base: dict[str, object] = {
        "name": "s", "description": "d", "target": 0.9, "period_seconds": 86400.0, "labels": {}, "total": 100.0,
        "bad": 5.0, "good_ratio": 0.95, "budget_ratio": 0.5, "burn_rates": {30.0: 1.2}, "state": "ok",
    }  # fmt: skip
    return SloStatus(**{**base, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "value", "judged"),
    [
        (_status(), "50 %", ""),
        (_status(state="burning"), "50 %", "risk"),
        (_status(budget_ratio=-2.7, state="exhausted"), "none", "broken"),
        (_status(budget_ratio=None, state="no_traffic", total=0.0), "no traffic", ""),
    ],
)
def test_a_budget_is_judged_where_something_was_promised(status: SloStatus, value: str, judged: str) -> None:
    tile = tiles_of(status)[0]
    assert (tile.value, tile.judged) == (value, judged)


def test_a_long_name_in_a_tile_gets_the_room_of_two_lines() -> None:
    assert "servescope-long" in row([Tile("Model", "meta-llama/Llama-3.1-8B-Instruct")], LIGHT)
    assert "servescope-long" not in row([Tile("Lasts", "7 min 56 s")], LIGHT)


def test_where_nobody_asked_no_budget_burns_at_a_rate() -> None:
    assert tiles_of(_status())[2].value == "1.2 ×"
    quiet = tiles_of(_status(budget_ratio=None, good_ratio=None, state="no_traffic", total=0.0, burn_rates={30.0: 0.0}))
    assert [tile.value for tile in quiet] == ["no traffic", "–", "–"]


def test_evidence_says_of_which_requests_its_latencies_are_in_the_viewers_zone() -> None:
    window = {"start": "2026-05-04T10:00:00.000Z", "end": "2026-05-04T10:05:00.000Z"}
    told = latencies_of(window, ZoneInfo("Asia/Tokyo"))
    assert told == "; latencies of those that arrived 04 May 19:00:00 to 04 May 19:05:00"
    assert [latencies_of(odd, UTC) for odd in ({}, {"start": "![x](http://h.example)", "end": None})] == ["", ""]


def test_a_search_word_is_a_trace_or_a_request() -> None:
    whole = Selection(WINDOW)
    assert whole.found_by(" cmpl-1 ") == Selection(WINDOW, request_id="cmpl-1")
    assert whole.found_by("") is whole


def test_types_say_what_one_gets() -> None:
    assert plain_type("SimpleAggregateFunction(max, LowCardinality(String))") == "String"
    assert plain_type("DateTime64(3, 'UTC')") == "DateTime64(3, 'UTC')"
    assert plain_type("Map(LowCardinality(String), String)") == "Map(String, String)"


@pytest.mark.parametrize(
    ("phases", "seconds"),
    [
        ([("decode", 1.0), ("edge", 6.0)], 6.0),
        ([("decode", 1.0), ("edge", 0.02)], 0.0),  # the tap's own work
        ([("edge", 6.0), ("decode", 1.0)], 0.0),  # a request that came slowly
        ([], 0.0),
    ],
)
def test_a_request_tells_that_its_client_read_slowly(phases: list[tuple[str, float]], seconds: float) -> None:
    laid = [Phase(name, START, START + timedelta(seconds=took), took, "assumed") for name, took in phases]
    assert read_slowly(Story(None, START, START, laid, [], [], [], 0)) == seconds
