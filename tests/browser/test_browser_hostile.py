"""Names that would be links, pictures and formulas, in a real browser: nothing leaves, nothing is made of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

import pytest

from tests.browser.stage import HOSTILE, HOSTILE_AGO, HOSTILE_INCIDENT, SECONDS
from tests.browser.test_browser_pages import CHART, TABLE, TILES, opened, whole

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request

    from tests.browser.stage import Served

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
MADE = """() => [...document.querySelectorAll('a, img, image, iframe, embed, object, base, .katex, mjx-container')]
  .filter(e => new URL(e.getAttribute('href') || e.getAttribute('src') || '', location).host !== location.host
               && !/^(data|blob):/.test(e.getAttribute('href') || e.getAttribute('src') || '')
               || e.matches('.katex, mjx-container, iframe, embed, object, base'))
  .map(e => e.outerHTML.slice(0, 300))"""
STYLED = """() => [...document.querySelectorAll('strong, b, em, code, del, span[style*="color"]')]
  .filter(e => /^(red|bold|open me|code)$/.test(e.textContent.trim())).map(e => e.outerHTML.slice(0, 300))"""


def window() -> str:
    end = datetime.now(UTC) - HOSTILE_AGO + timedelta(seconds=120)
    start = end - timedelta(seconds=SECONDS + 240)
    return f"from={start.timestamp():.0f}&to={end.timestamp():.0f}&recording=Live+and+recorded"


VISITS: Final = (
    ("", "", [TILES, CHART, TABLE]),
    ("latency", "by=By model", [TILES, CHART]),
    ("latency", "by=By tenant", [TILES, CHART]),
    ("queue", "", [TILES, CHART]),
    ("kv-cache", "", [TILES, CHART, TABLE]),
    ("hardware", "", [TILES, CHART, TABLE]),
    ("tenants", "", [TILES, CHART, ".servescope-linked"]),
    ("instances", "", [TILES, TABLE]),
    ("requests", "".join(f"&model={quote(name)}" for name in HOSTILE[:5]), [TABLE]),
    ("incidents", "", [TILES, TABLE]),
    ("incidents", f"incident={HOSTILE_INCIDENT}", [TILES, TABLE]),
    ("sql", f"sql={quote('SELECT 1 AS `=1`, ' + repr(HOSTILE[2]) + ' AS `![x](http://evil.example/g.png)`')}", []),
    ("latency", f"to={quote(HOSTILE[1])}", [TILES]),
)
_FIRST = {0, 6, 8}


@pytest.mark.parametrize(
    ("path", "more", "wanted"),
    [
        pytest.param(path, more, wanted, marks=[] if place in _FIRST else pytest.mark.heavy)
        for place, (path, more, wanted) in enumerate(VISITS)
    ],
)
def test_no_request_leaves_and_no_link_is_made(
    stage: Served, page: Page, path: str, more: str, wanted: list[str]
) -> None:
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    page.on("request", note)
    span = window() if "to=" not in more else "from=1"
    opened(page, f"{stage.url}/{path}?{span}&{more}", wanted)
    if path == "sql":
        page.get_by_role("button", name="Run").click()
        page.get_by_text("1 row", exact=True).wait_for()
    page.wait_for_load_state("networkidle")
    for opener in page.locator('[data-testid="stExpander"] summary').all():
        opener.click()
    for chart in page.locator(".js-plotly-plot .nsewdrag").all()[:3]:
        chart.hover(position={"x": 150, "y": 60})
    whole(page)
    assert page.evaluate(MADE) == []
    assert page.evaluate(STYLED) == []
    home = urlsplit(stage.url).netloc
    away = {urlsplit(url).netloc for url in asked if urlsplit(url).scheme.startswith("http")} - {home}
    assert not away
