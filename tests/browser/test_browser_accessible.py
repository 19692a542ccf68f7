"""Every page as axe-core judges it, on light and on dark pages: nothing serious, nothing critical."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import LONG, start_stage
from tests.browser.stage import INCIDENT
from tests.browser.test_browser_pages import PAGES, TABLE, TILES, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Page

    from tests.browser.stage import Served

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "resultTypes": ["violations"]}
WIDTHS = {"light": 1440, "dark": 900}
IDLE = """() => !document.querySelector('[data-testid=stApp][data-test-script-state=running], [data-stale=true]')"""


@pytest.fixture(scope="module", params=WIDTHS)
def eyes(chromium: Browser, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    """A viewer of light pages, and one of dark ones."""
    size = {"width": WIDTHS[request.param], "height": 1000}
    context = chromium.new_context(viewport=size, color_scheme=request.param)  # type: ignore[arg-type]
    context.set_default_timeout(LONG)
    yield context
    context.close()


def faults(page: Page) -> list[str]:
    """What axe finds serious or critical, one line each."""
    page.wait_for_function(IDLE)
    page.evaluate("document.fonts.ready")
    found = Axe().run(page, options=RULES).response["violations"]
    return [
        f"{rule['id']}: {node['html'][:120]} {node['failureSummary']}"
        for rule in found
        if rule["impact"] in {"serious", "critical"}
        for node in rule["nodes"]
    ]


def test_every_page_can_be_read(stage: Served, eyes: BrowserContext) -> None:
    page = eyes.new_page()
    visits = [*((name, wanted) for name, (_, wanted) in PAGES.items()), (f"incidents?id={INCIDENT}", [TILES, TABLE])]
    told = {}
    for path, wanted in visits:
        opened(page, f"{stage.url}/{path}{'&' if '?' in path else '?'}range=1h", wanted)
        told[path] = faults(page)
    page.close()
    assert {path: found for path, found in told.items() if found} == {}


def test_a_page_without_data_can_be_read(eyes: BrowserContext, tmp_path: Path) -> None:
    server, served = start_stage(tmp_path, filled=False, slos=False)
    page = eyes.new_page()
    told = {}
    try:
        for path in ("", "queue", "requests", "slos"):
            opened(page, f"{served.url}/{path}", ["text=/No data|No SLO is set/"])
            told[path] = faults(page)
        server.stop(9)
        opened(page, f"{served.url}/latency", [".servescope-trouble"])
        told["latency"] = faults(page)
    finally:
        page.close()
        served.stop()
        server.stop()
    assert {path: found for path, found in told.items() if found} == {}
