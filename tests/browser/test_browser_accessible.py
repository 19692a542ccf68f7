"""Every page as axe-core judges it, on light and on dark pages: nothing serious or critical, headings in order."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import LONG, start_stage
from tests.browser.stage import INCIDENT
from tests.browser.test_browser_pages import PAGES, TABLE, TILES, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.browser.stage import Served

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
HEADINGS = ("page-has-heading-one", "heading-order", "empty-heading")
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "resultTypes": ["violations"],
    "rules": {rule: {"enabled": True} for rule in HEADINGS},
}  # fmt: skip
WIDTHS = {"light": 1440, "dark": 900}
IDLE = """() => !document.querySelector('[data-testid=stApp][data-test-script-state=running], [data-stale=true]')"""


@contextmanager
def viewer(chromium: Browser, mode: str) -> Iterator[Page]:
    """A viewer of light or of dark pages."""
    size = {"width": WIDTHS[mode], "height": 1000}
    context = chromium.new_context(viewport=size, color_scheme=mode)  # type: ignore[arg-type]
    context.set_default_timeout(LONG)
    try:
        yield context.new_page()
    finally:
        context.close()


def faults(page: Page) -> list[str]:
    """What axe finds serious or critical, and what is wrong with headings, one line each."""
    page.wait_for_function(IDLE)
    page.evaluate("document.fonts.ready")
    found = Axe().run(page, options=RULES).response["violations"]
    return [
        f"{rule['id']}: {node['html'][:120]} {node['failureSummary']}"
        for rule in found
        if rule["impact"] in {"serious", "critical"} or rule["id"] in HEADINGS
        for node in rule["nodes"]
    ]


VISITS = [*((name, wanted) for name, (_, wanted) in PAGES.items()), (f"incidents?id={INCIDENT}", [TILES, TABLE])]


@pytest.mark.parametrize(
    ("mode", "visits"),
    [
        pytest.param("light", VISITS, id="light"),
        pytest.param("dark", VISITS[:1], id="the first dark one"),
        pytest.param("dark", VISITS, id="dark", marks=pytest.mark.heavy),
    ],
)
def test_pages_can_be_read(stage: Served, chromium: Browser, mode: str, visits: list[tuple[str, list[str]]]) -> None:
    told = {}
    with viewer(chromium, mode) as page:
        for path, wanted in visits:
            opened(page, f"{stage.url}/{path}{'&' if '?' in path else '?'}range=1h", wanted)
            told[path] = faults(page)
    assert {path: found for path, found in told.items() if found} == {}


@pytest.mark.heavy
def test_pages_without_data_can_be_read(chromium: Browser, tmp_path: Path) -> None:
    server, served = start_stage(tmp_path, filled=False, slos=False)
    told = {}
    try:
        with viewer(chromium, "light") as light, viewer(chromium, "dark") as dark:
            for path in ("", "queue", "requests", "slos"):
                for page in (light, dark):
                    opened(page, f"{served.url}/{path}", ["text=/No data|No SLO is set/"])
                    told[path, page is dark] = faults(page)
            server.stop(9)
            for page in (light, dark):
                opened(page, f"{served.url}/latency", [".servescope-trouble"])
                told["latency", page is dark] = faults(page)
    finally:
        served.stop()
        server.stop()
    assert {path: found for path, found in told.items() if found} == {}
