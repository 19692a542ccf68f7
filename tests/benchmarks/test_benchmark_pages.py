from __future__ import annotations

import itertools
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from base.named_sql import statements
from benchmarks.day import DAY_SECONDS, SQL, slices
from benchmarks.line import KEYS
from benchmarks.pages import PAGES, RANGES, Times, address, combinations, figures, windows

END = datetime(2026, 1, 2, tzinfo=UTC)


def test_slices_cover_the_day_without_gap_or_overlap_and_end_in_small_ones():
    found = list(slices(DAY_SECONDS))
    assert found[0][0] == 0
    assert found[-1][1] == DAY_SECONDS
    assert all(before[1] == after[0] for before, after in itertools.pairwise(found))
    assert found[-1][1] - found[-1][0] == 10
    assert max(last - first for first, last in found) == 3600


def test_every_statement_of_the_day_inserts():
    assert statements(SQL).keys() == {
        "requests_edge", "requests_engine", "samples", "histograms", "events", "incidents", "transitions",
        "last_incident",
    }  # fmt: skip
    assert all(sql.startswith("INSERT INTO ") for sql in statements(SQL).values())


def test_no_two_windows_are_the_same():
    fresh = windows(END)
    found = [next(fresh)(900) for _ in range(5)]
    assert len({(window.from_ms, window.to_ms) for window in found}) == 5
    assert all(window.seconds == 900 for window in found)
    assert found[0].end == END


def test_an_address_names_page_and_window():
    parts = urlsplit(address("http://127.0.0.1:1", "queue", next(windows(END))(60)))
    asked = parse_qs(parts.query)
    assert parts.path == "/queue"
    assert float(asked["to"][0]) - float(asked["from"][0]) == 60
    assert "sql" not in asked
    assert "sql" in parse_qs(urlsplit(address("http://127.0.0.1:1", "sql", next(windows(END))(60))).query)


def test_every_page_has_every_range_but_the_one_that_has_none():
    found = combinations()
    assert len(found) == (len(PAGES) - 1) * len(RANGES) + 1


def test_figures_have_the_shape_and_are_judged_by_the_goal():
    times = {("", "1h"): Times([1.0, 1.2, 9.0], [0.5, 0.5, 0.6]), ("queue", "1h"): Times([0.4], [0.1])}
    made = {figure["name"]: figure for figure in figures(times, "first_data")}
    assert all(tuple(figure) == KEYS for figure in made.values())
    assert made["page_overview_1h_first_data_p50"]["value"] == 1.2
    assert made["page_overview_1h_first_data_p50"]["met"]
    assert made["page_overview_1h_first_data_p50"]["ratio"] == 2.4
    assert made["page_overview_1h_first_data_max"]["value"] == 9.0
    assert not made["page_overview_1h_first_data_max"]["met"]
    assert made["pages_first_data_p50"]["value"] == 1.1
