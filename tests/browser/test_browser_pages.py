"""Every page in a real browser: it draws, on light and on dark pages, with data, without and without a store."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.browser.conftest import LONG, fill_stage, start_stage

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Locator, Page

    from tests.browser.stage import Served

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
CHART = ".js-plotly-plot .main-svg"
TABLE = '[data-testid="stDataFrame"] canvas'
TILES = ".servescope-tiles"
BROKEN = '[data-testid="stException"], [data-testid="stErrorElementStack"]'
PAGES = {
    "": ("Is serving well?", [TILES, CHART, TABLE]),
    "latency": ("How long do requests take?", [TILES, CHART]),
    "queue": ("Does work pile up?", [TILES, CHART]),
    "kv-cache": ("Is the KV cache the limit?", [TILES, CHART, TABLE]),
    "tenants": ("Who uses it, and who harms whom?", [TILES, CHART, ".servescope-linked"]),
    "hardware": ("What does the hardware do?", [TILES, CHART, TABLE]),
    "instances": ("What serves here, and does it tell what it must?", [TILES, TABLE]),
    "requests": ("Which requests?", [TABLE]),
    "slos": ("Is the promise kept?", [TILES, TABLE, CHART]),
    "incidents": ("What is wrong?", [TILES, TABLE]),
    "sql": ("What else do you want to know?", [TABLE]),
}


def whole(page: Page) -> None:
    """No traceback, no raised element, no page wider than the window."""
    assert page.locator(BROKEN).count() == 0
    text = page.locator("body").inner_text()
    assert "Traceback" not in text
    assert "encountered an error" not in text
    wide, room = page.evaluate("(m => [m.scrollWidth, m.clientWidth])(document.querySelector('[data-testid=stMain]'))")
    assert wide <= room, f"{wide} px in {room} px"


def opened(page: Page, url: str, wanted: list[str]) -> None:
    page.goto(url)
    for selector in wanted:
        page.locator(selector).first.wait_for(state="visible")


def table(page: Page) -> Locator:
    return page.locator('[data-testid="stDataFrame"]').first


def click_row(page: Page, y: float) -> None:
    """Click into a row of the first table, whose cells are painted on a canvas."""
    table(page).locator("canvas").first.wait_for(state="visible")
    table(page).locator("table tbody tr").first.wait_for(state="attached")  # the canvas' accessible twin: it is painted
    table(page).click(position={"x": 260, "y": y})


@pytest.mark.parametrize("name", PAGES)
def test_every_page_draws(stage: Served, page: Page, name: str) -> None:
    question, wanted = PAGES[name]
    opened(page, f"{stage.url}/{name}", wanted)
    page.get_by_role("heading", name=question).wait_for()
    whole(page)


TITLES = """() => Object.fromEntries([...document.querySelectorAll('[class*="st-key-panel-"]')].map(panel => [
  [...panel.classList].find(name => name.startsWith('st-key-panel-')),
  panel.querySelector('.gtitle, strong')?.textContent ?? '',
]))"""
"""By panel: what its figure is called, or the first strong words where there is none."""
SETTLED = """() => {
  const panels = [...document.querySelectorAll('[class*="st-key-panel-"]')];
  const idle = document.querySelector('[data-testid="stApp"]').dataset.testScriptState === 'notRunning';
  return idle && panels.length && panels.every(panel => panel.querySelector('.gtitle, strong'));
}"""
"""No part of the page is being drawn, and each panel has its figure or its words."""


@pytest.mark.parametrize("name", ["", "latency", "queue", "kv-cache", "tenants", "hardware"])
def test_a_panel_without_data_is_called_as_its_figure(stage: Served, page: Page, name: str) -> None:
    opened(page, f"{stage.url}/{name}?range=1h", PAGES[name][1])
    whole(page)
    page.wait_for_function(SETTLED)
    drawn = page.evaluate(TITLES)
    opened(page, f"{stage.url}/{name}?from=2026-01-01T00:00:00Z&to=2026-01-01T00:10:00Z", ["text=Back to now"])
    page.get_by_text("No data").first.wait_for()
    page.wait_for_function(SETTLED)
    bare = page.evaluate(TITLES)
    assert bare.keys() & drawn.keys()
    assert all(bare.values()), "each is called something"
    assert "No data" not in bare.values()
    assert [key for key in bare.keys() & drawn.keys() if not drawn[key].startswith(bare[key])] == []


def test_dark_and_narrow(stage: Served, chromium: Browser) -> None:
    context = chromium.new_context(viewport={"width": 900, "height": 900}, color_scheme="dark")
    context.set_default_timeout(LONG)
    page = context.new_page()
    for name in ("", "requests", "incidents"):
        opened(page, f"{stage.url}/{name}", PAGES[name][1])
        whole(page)
        assert page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor") == "rgb(20, 22, 26)"
        cut = page.evaluate(
            "[...document.querySelectorAll('.servescope-name, .servescope-value')]"
            ".filter(e => e.scrollWidth > e.clientWidth).map(e => e.innerText)"
        )
        assert cut == []
        below = page.evaluate(
            "[...document.querySelectorAll('.js-plotly-plot')].filter(chart =>"
            " [...chart.querySelectorAll('.legendtext')].some(name =>"
            " name.getBoundingClientRect().bottom > chart.getBoundingClientRect().bottom))"
            ".map(chart => chart.innerText)"
        )
        assert below == []
    page.goto(f"{stage.url}/sql")
    run = page.get_by_role("button", name="Run")
    run.wait_for()
    assert run.evaluate("e => getComputedStyle(e).color") == "rgb(20, 22, 26)", "dark on the light accent of dark pages"
    context.close()


def test_the_front_page_answers_its_question_in_words(stage: Served, page: Page) -> None:
    opened(page, f"{stage.url}/", [TILES])
    answer = page.locator(".servescope-answer")
    answer.get_by_text("No:").wait_for()
    answer.get_by_text(re.compile("Of the|Nothing stands out|more than usual|no slower than usual")).first.wait_for()
    slowest = answer.locator('a[href^="requests?"]').first
    asked = parse_qs(urlsplit(slowest.get_attribute("href") or "").query)
    slowest.click()
    page.get_by_role("heading", name="Which requests?").wait_for()
    page.locator(TABLE).first.wait_for(state="visible")
    page.wait_for_function("new URLSearchParams(location.search).has('from')")
    assert parse_qs(urlsplit(page.url).query)["from"] == asked["from"]
    whole(page)


def test_sql_answers_and_refuses_in_plain_words(stage: Served, page: Page) -> None:
    opened(page, f"{stage.url}/sql?sql=SELECT%20count()%20AS%20n%20FROM%20requests", ["text=Read it, then press Run"])
    run = page.get_by_role("button", name="Run")
    run.click()
    page.get_by_text("1 row", exact=True).wait_for()
    opened(page, f"{stage.url}/sql?sql=DROP%20TABLE%20requests_t", ["text=Read it, then press Run"])
    assert page.locator(".servescope-trouble").count() == 0
    run.click()
    page.locator(".servescope-trouble").wait_for()
    assert "refused" in page.locator(".servescope-trouble").inner_text()
    whole(page)


def test_one_crosshair_for_all_charts(stage: Served, page: Page) -> None:
    opened(page, f"{stage.url}/queue?live=false", [CHART])
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot .nsewdrag').length >= 4")
    page.wait_for_function("[...document.querySelectorAll('.js-plotly-plot')].every(c => c.servescopeSource)")
    page.locator(".js-plotly-plot .nsewdrag").first.hover(position={"x": 300, "y": 60})
    page.locator(".servescope-crosshair").first.wait_for(state="attached")
    places = page.evaluate(
        "[...document.querySelectorAll('.servescope-crosshair')].map(e => Math.round(e.getBoundingClientRect().left))"
    )
    assert len(places) >= 3
    assert len(set(places)) <= 3  # the panels of a column stand under one another: so do their lines


def test_an_empty_store_then_a_filled_one_then_a_dead_one(page: Page, tmp_path: Path) -> None:
    server, served = start_stage(tmp_path, filled=False, slos=False)
    said = re.compile("No data|Nothing was wrong|No SLO is set|Read only")
    try:
        for name in ("latency", "requests", "slos", "incidents", "sql", ""):
            page.goto(f"{served.url}/{name}")
            page.get_by_role("heading", name=PAGES[name][0]).wait_for()
            page.get_by_text(said).first.wait_for()
            whole(page)
        fill_stage(server)
        page.locator('[class*="st-key-chart-queue"] .main-svg').first.wait_for(state="visible")  # by itself: it is live
        server.stop(9)
        page.get_by_text("does not answer").first.wait_for()
        page.get_by_text("servescope up").first.wait_for()
        page.locator('[class*="st-key-stale-queue"] .main-svg').first.wait_for(state="visible")
        page.get_by_text("Last good picture").first.wait_for()
        page.locator(".servescope-old").wait_for()
        assert page.locator(".servescope-trouble").count() == 1  # told once, however many panels met it
        whole(page)
    finally:
        served.stop()
        server.stop()
