"""A chart's legend lies within the chart, however many rows it needs in the narrowest place for it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from plotly.offline import get_plotlyjs

from dashboard.figures import CONFIG, Share, Style, Trace, lines, shares, stack
from dashboard.figures.base import LEFT, RIGHT
from dashboard.theme import DARK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from playwright.sync_api import Browser, Page

START = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
TIMES = [START + timedelta(seconds=10 * index) for index in range(6)]
STYLE = Style(DARK, UTC, (START, START + timedelta(seconds=60)))
PHASES = ("edge", "transit", "frontend", "queue", "prefill", "transfer", "decode", "cached compute", "unaccounted")
HALF, WHOLE = 250 + LEFT + RIGHT, 690 + LEFT + RIGHT
"""Pixels of a chart on a page of 900: half of it, and all."""
DRAWN = """([figure, config, width]) => new Promise(done => {
  const chart = document.body.appendChild(document.createElement('div'));
  chart.style.width = `${width}px`;
  Plotly.newPlot(chart, figure.data, figure.layout, config).then(() => {
    const box = chart.querySelector('.main-svg').getBoundingClientRect();
    const bar = chart.querySelector('.legend .scrollbar')?.getBoundingClientRect();
    const entries = [...chart.querySelectorAll('.legendtext')].map(text => text.getBoundingClientRect());
    done({
      below: Math.max(...entries.map(entry => entry.bottom)) - box.bottom,
      scrolled: bar ? bar.height : 0,
    });
    chart.remove();
  });
})"""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def sheet(chromium: Browser) -> Iterator[Page]:
    page = chromium.new_page()
    page.set_content("<body style='margin:0'></body>")
    page.add_script_tag(content=get_plotlyjs())
    yield page
    page.close()


def traces(names: Sequence[str]) -> list[Trace]:
    return [Trace(name, [1.0] * 6, "#3366cc") for name in names]


def names(count: int, letters: int) -> list[str]:
    """Names of servers, as long as they are told to be."""
    return [f"{index:x}-llama-3.1-70b-instruct-awq"[:letters] for index in range(count)]


def drawn(sheet: Page, figure: Any, width: int) -> dict[str, float]:
    found: dict[str, float] = sheet.evaluate(DRAWN, [json.loads(figure.to_json()), CONFIG, width])
    return found


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("shown", [PHASES, *(names(count, letters) for count in (2, 7, 9) for letters in (4, 12, 25))])
def test_all_names_of_a_stack_can_be_read(sheet: Page, shown: Sequence[str], *, wide: bool) -> None:
    figure = stack(TIMES, traces(shown), STYLE, title="Where the time goes", unit="seconds", wide=wide)
    seen = drawn(sheet, figure, WHOLE if wide else HALF)
    assert seen["below"] <= 0, seen
    assert seen["scrolled"] == 0, seen


def test_of_many_names_the_rest_is_scrolled_to(sheet: Page) -> None:
    figure = stack(TIMES, traces(names(30, 25)), STYLE, title="By server", unit="seconds")
    assert drawn(sheet, figure, HALF)["scrolled"] > 0
    assert figure.layout.height < 500


def test_so_can_those_of_lines_and_of_sizes(sheet: Page) -> None:
    many = names(6, 14)
    figures = (
        lines(TIMES, traces(many), STYLE, title="Depth", unit="requests"),
        shares(
            [Share(name, {"1": 1.0}, ["1"], "#3366cc") for name in many], ["1"], STYLE, title="By items", what="items"
        ),
    )
    for figure in figures:
        seen = drawn(sheet, figure, HALF)
        assert seen["below"] <= 0, seen
        assert seen["scrolled"] == 0, seen
