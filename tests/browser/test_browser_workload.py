"""What requests are, and what hands them on: the parts of pages that stand where there is something to tell."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.browser.test_browser_pages import CHART, TABLE, TILES, opened, whole

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from tests.browser.stage import Served

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
WHAT = "show=What+they+are&live=false"
LENGTHS = "Lengths in tokens"
WAYS = "Routes by status, most requests first"
ROUTERS = "Routers, busiest first"


def rows(page: Page, heading: str) -> list[list[str]]:
    """Cells of the table beneath a heading, by the twin of its canvas for those who don't see: figures in full."""
    place = page.locator('[data-testid="stElementContainer"]').filter(has=page.get_by_role("heading", name=heading))
    under = place.last.locator("xpath=following-sibling::*[.//*[@data-testid='stDataFrame']][1]")
    body = under.locator("table tbody tr")
    body.first.wait_for(state="attached")
    return [[cell.strip() for cell in row.locator("td").all_text_contents()] for row in body.all()]


def chart(page: Page, key: str) -> Locator:
    drawn = page.locator(f'[class*="st-key-chart-{key}"]')
    drawn.locator(".main-svg").first.wait_for(state="visible")
    return drawn


def test_what_requests_are_is_a_click_from_their_list(stage: Served, page: Page) -> None:
    opened(page, f"{stage.url}/requests?live=false", [TABLE])
    page.get_by_text("What they are", exact=True).click()
    page.get_by_role("heading", name=WAYS).wait_for()
    page.wait_for_function("new URLSearchParams(location.search).get('show') == 'What they are'")
    whole(page)


def test_endings_lengths_and_routes_are_of_the_requests_on_the_page(stage: Served, page: Page) -> None:
    opened(page, f"{stage.url}/requests?{WHAT}", [CHART, TABLE])
    endings = chart(page, "endings")
    for ending in ("not told", "server error"):
        endings.get_by_text(ending, exact=True).first.wait_for()
    lengths = chart(page, "lengths")
    for name in ("prompt", "answer"):
        lengths.get_by_text(name, exact=True).first.wait_for()
    page.get_by_role("heading", name=LENGTHS).wait_for()
    told = {row[0]: row[2:] for row in rows(page, LENGTHS)}
    assert told == {"prompts": ["120"] * 4, "answers": ["64"] * 4}
    ways = rows(page, WAYS)
    assert [row[:2] for row in ways] == [["/v1/completions", "200"], ["/v1/completions", "500"]]
    assert sum(float(row[3]) for row in ways) == pytest.approx(100)
    page.locator('[class*="st-key-foot-ways"]').get_by_text("CSV").first.wait_for()
    whole(page)


def test_what_is_narrowed_is_told_of_what_is_left(stage: Served, page: Page) -> None:
    opened(page, f"{stage.url}/requests?{WHAT}&outcome=server+error&model=resnet", [CHART, TABLE])
    page.get_by_role("heading", name=WAYS).wait_for()
    assert [row[1] for row in rows(page, WAYS)] == ["500"]
    assert page.get_by_role("heading", name=LENGTHS).count() == 0, "a model of images has no tokens"
    page.locator('[class*="st-key-panel-lengths"]').get_by_text("Not shown").wait_for()
    whole(page)


def test_where_no_request_is_left_the_page_says_how_to_have_some(stage: Served, page: Page) -> None:
    opened(page, f"{stage.url}/requests?{WHAT}&find=nobody", ["text=come from the tap"])
    page.get_by_role("heading", name=WAYS).wait_for()
    assert page.locator(CHART).count() == 0
    whole(page)


def test_routers_stand_beneath_the_instances_where_there_are_some(stage: Served, page: Page) -> None:
    opened(page, f"{stage.url}/instances?live=false", [TILES, TABLE])
    page.get_by_role("heading", name=ROUTERS).wait_for()
    (router,) = rows(page, ROUTERS)
    assert router[:6] == ["gateway", "vllm_production_stack_router", "gate", "3", "2.5", "4"]
    whole(page)
    opened(page, f"{stage.url}/instances?live=false&instance=vllm-0", [TILES, TABLE])
    page.get_by_role("heading", name=re.compile("^Ledger")).wait_for()
    assert page.get_by_role("heading", name=ROUTERS).count() == 0
    whole(page)
