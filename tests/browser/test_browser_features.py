"""What few engines tell has its place on a page, in the words of who runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.test_browser_pages import CHART, TABLE, TILES, opened, whole

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.stage import Served

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def test_blocks_that_leave_the_gpu_are_told_of(stage: Served, page: Page) -> None:
    opened(page, f"{stage.url}/kv-cache", [TILES, CHART])
    whole(page)
    for key in ("underway", "pinned", "fetches", "hit-shares", "moved"):
        page.locator(f".st-key-half-{key}").wait_for()
    page.get_by_text("and their number only grew").wait_for()
    page.get_by_text("nobody fetched in time").wait_for()
    page.get_by_role("heading", name="Times of KV cache blocks").wait_for()
    page.get_by_text("Blocks go that would have been used again").wait_for()


def test_engines_tell_why_requests_wait_each_for_itself(stage: Served, page: Page) -> None:
    opened(page, f"{stage.url}/queue?recording=Live+and+recorded", [TILES, CHART])
    page.get_by_role("heading", name="Waiting by reason, by engine").wait_for()
    page.locator(".st-key-foot-reasons-by-engine").wait_for()


def test_sleeps_are_among_what_happened_to_instances(stage: Served, page: Page) -> None:
    opened(page, f"{stage.url}/instances", [TABLE])
    page.get_by_role("heading", name="Sleeps and weight updates").wait_for()
