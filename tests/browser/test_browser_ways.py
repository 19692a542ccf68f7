"""The ways between pages lead where they say, and keep what was chosen."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.browser.conftest import LONG
from tests.browser.stage import INCIDENT
from tests.browser.test_browser_pages import CHART, TABLE, TILES, click_row, opened, whole

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

    from tests.browser.stage import Served

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def test_filter_stays_in_the_url_across_pages_and_reloads(stage: Served, page: Page) -> None:
    opened(page, f"{stage.url}/?model=resnet&range=1h", [TILES])
    page.get_by_role("link", name="Latency").click()
    page.get_by_role("heading", name="How long do requests take?").wait_for()
    page.locator(CHART).first.wait_for(state="visible")
    # The address follows the page by a message of its own.
    page.wait_for_function("new URLSearchParams(location.search).has('model')")
    asked = parse_qs(urlsplit(page.url).query)
    assert asked["model"] == ["resnet"]
    assert asked["range"] == ["1h"]
    page.reload()
    page.locator(CHART).first.wait_for(state="visible")
    page.wait_for_function("new URLSearchParams(location.search).has('model')")
    assert parse_qs(urlsplit(page.url).query)["model"] == ["resnet"]
    page.get_by_text("resnet", exact=True).first.wait_for()
    assert page.get_by_text("Recorded data is on this page").count() == 0, "none of that model's data is recorded"


def test_a_filter_is_in_the_address_of_a_page_that_is_gone_to_before_the_bar_is_drawn(
    stage: Served, chromium: Browser
) -> None:
    """The browser sends an address without the filter then, since no widget has told it that it is one."""
    context = chromium.new_context(viewport={"width": 1440, "height": 1000})
    context.set_default_timeout(LONG)
    page = context.new_page()
    held: list[Route] = []
    page.route(re.compile(r"/(Multiselect|Selectbox|Checkbox)\.[^/]*\.js"), lambda route: held.append(route))  # noqa: PLW0108 - of a built-in it cannot tell the name
    opened(page, f"{stage.url}/?model=resnet&range=1h", [TILES])
    page.get_by_role("link", name="Latency").click()
    page.get_by_role("heading", name="How long do requests take?").wait_for()
    assert held, "the bar's widgets wait"
    for one in held:
        one.continue_()
    page.unroute_all()
    page.wait_for_function("new URLSearchParams(location.search).has('model')")
    asked = parse_qs(urlsplit(page.url).query)
    assert asked["model"] == ["resnet"]
    assert asked["range"] == ["1h"]
    page.get_by_text("resnet", exact=True).first.wait_for()
    context.close()


def test_recordings_are_left_out_until_they_are_asked_for(stage: Served, page: Page) -> None:
    recorded, hint = (
        page.get_by_text("Recorded data is on this page"),
        page.get_by_text("Nothing live of this instance"),
    )
    opened(page, f"{stage.url}/queue", [TILES, CHART])
    assert recorded.count() == 0
    legend = page.locator('[class*="st-key-chart-runningby"]')
    legend.get_by_text("vllm-0").first.wait_for()
    assert legend.get_by_text("vllm-1").count() == 0, "the recording's server"
    opened(page, f"{stage.url}/queue?instance=vllm-1", [TILES])
    hint.wait_for()
    assert page.locator(CHART).count() == 0
    page.get_by_role("button", name="Show them").click()
    recorded.wait_for()
    page.locator(CHART).first.wait_for(state="visible")
    hint.wait_for(state="hidden")
    page.wait_for_function("new URLSearchParams(location.search).get('recording') == 'Live and recorded'")
    page.get_by_role("link", name="Latency").click()
    page.get_by_role("heading", name="How long do requests take?").wait_for()
    recorded.wait_for()
    whole(page)


def test_what_a_page_compares_with_stays_in_the_address_and_stands_in_its_charts(stage: Served, page: Page) -> None:
    opened(page, f"{stage.url}/queue?range=5m&live=false&compare=Against+period+before", [CHART])
    page.get_by_text("dashed: the period before").first.wait_for()
    whole(page)
    page.get_by_role("link", name="Latency").click()
    page.get_by_role("heading", name="How long do requests take?").wait_for()
    page.get_by_text("dashed: the period before").first.wait_for()
    page.wait_for_function("new URLSearchParams(location.search).get('compare') == 'Against period before'")
    opened(page, f"{stage.url}/queue?range=5m&live=false&compare=Against+week+before", [CHART])
    page.get_by_text("the week before: nothing").first.wait_for()
    assert page.get_by_text("dashed:").count() == 0
    whole(page)


def test_a_span_of_time_stays_across_pages_until_one_goes_back_to_now(stage: Served, page: Page) -> None:
    opened(page, f"{stage.url}/latency?from=2026-01-01T00:00:00Z&to=2026-01-01T00:10:00Z", ["text=Back to now"])
    page.get_by_text("01 Jan 09:00:00 to 01 Jan 09:10:00").wait_for()  # in the viewer's zone
    page.get_by_role("link", name="Queue").click()
    page.get_by_role("heading", name="Does work pile up?").wait_for()
    page.wait_for_url(re.compile(r"from=2026-01-01T00"))
    page.get_by_role("button", name="Back to now").click()
    page.get_by_text("Back to now").wait_for(state="hidden")
    page.locator(CHART).first.wait_for(state="visible")
    assert "from=" not in page.url


def test_a_box_on_the_heatmap_lists_the_requests_in_it(stage: Served, page: Page) -> None:
    opened(
        page,
        f"{stage.url}/latency?model=llama&recording=Live+and+recorded",
        ["text=Recorded data is on this page", CHART],
    )
    heatmap = page.locator('[class*="st-key-chart-heatmap"] .js-plotly-plot')
    heatmap.locator(".heatmaplayer image").first.wait_for(state="attached")
    heatmap.scroll_into_view_if_needed()
    link = page.get_by_role("link", name=re.compile("List the requests from"))
    for _ in range(4):  # a refresh in the middle of a drag ends the drag
        area = heatmap.locator(".nsewdrag").first.bounding_box()
        assert area is not None
        page.mouse.move(area["x"] + area["width"] * 0.45, area["y"] + 6)
        page.mouse.down()
        page.mouse.move(area["x"] + area["width"] * 0.97, area["y"] + area["height"] * 0.3, steps=6)
        page.mouse.up()
        try:
            link.wait_for(timeout=8000)
            break
        except Exception:  # noqa: BLE001 - the last failure is raised below
            continue
    address = link.get_attribute("href")
    assert address is not None
    counted = re.search(r"[\d,]+ requests?(?= ·)", link.locator("xpath=..").inner_text())
    assert counted is not None
    told = counted.group()
    asked = parse_qs(urlsplit(address).query)
    assert asked["model"] == ["llama"]
    low, high = float(asked["at_least"][0]), float(asked["below"][0])
    assert 0 < low < high < 10
    opened(page, f"{stage.url}/{address}", [TABLE])
    page.get_by_text(re.compile(r"Only end-to-end time from .* as drawn on the heatmap")).wait_for()
    page.get_by_text(re.compile(rf"^{told} match")).first.wait_for()
    whole(page)
    opened(page, f"{stage.url}/{address}&show=What+is+different", ['[class*="st-key-foot-difference"]'])
    page.get_by_text(re.compile(rf"^{told} beside [\d.,]+ of the rest of the window")).wait_for()
    only = page.locator(".servescope-linked").get_by_role("link", name="only").first
    if only.count():
        narrowed = parse_qs(urlsplit(only.get_attribute("href") or "").query)
        assert narrowed["at_least"] == asked["at_least"], "a step further, not another box"
    whole(page)
    opened(page, f"{stage.url}/{address}&show=Why+slow", ['[class*="st-key-foot-why-these"]'])
    page.get_by_text(re.compile("took .* in sum|No account")).first.wait_for()
    whole(page)


def test_a_tenants_name_leads_to_its_pages_and_its_number_to_its_requests(stage: Served, page: Page) -> None:
    opened(page, f"{stage.url}/tenants?live=false", [".servescope-linked"])
    row = page.locator(".servescope-linked tr").filter(has_text="hooli").first
    number = row.locator("td").first.inner_text()
    assert parse_qs(urlsplit(row.get_by_role("link", name="hooli").get_attribute("href") or "").query)["tenant"] == [
        "hooli"
    ]
    row.locator("td a").first.click()
    page.get_by_text(re.compile(rf"^{number} requests? match")).wait_for()
    whole(page)


def test_a_click_on_a_row_tells_the_request_and_its_link_tells_it_again(stage: Served, page: Page) -> None:
    opened(page, f"{stage.url}/requests", [TABLE])
    click_row(page, 62)
    page.get_by_role("heading", name="What happened to this request?").wait_for()
    page.locator('[class*="st-key-story"] .main-svg').first.wait_for(state="visible")
    whole(page)
    address = page.url
    assert "request=" in address
    opened(page, address, ['[class*="st-key-story"] .main-svg'])
    for phase in ("queue", "prefill", "decode"):
        page.locator('[class*="st-key-story"]').get_by_text(phase, exact=True).first.wait_for()
    why = page.locator('[class*="st-key-panel-why"]')
    why.get_by_text(re.compile("such a request takes .* when all is well|No reference|No account")).first.wait_for()
    whole(page)
    page.get_by_role("button", name="Back to the list").click()
    page.get_by_role("heading", name="Which requests?").wait_for()


def test_an_incident_is_told_and_taken(stage: Served, page: Page) -> None:
    opened(page, f"{stage.url}/incidents?id={INCIDENT}", ["text=Timeline", TILES, TABLE])  # as pages link to it
    page.get_by_role("heading", name=re.compile("waiting 56 on vllm-0")).wait_for()
    page.get_by_text("Evidence, frozen when it opened").wait_for()
    cause = page.get_by_role("link", name="KV cache full")
    assert (cause.get_attribute("href") or "").startswith("kv-cache?from=")
    page.get_by_text("Next: Let in less.").wait_for()
    whole(page)
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("button", name="Acknowledge").click()
    page.get_by_text("Ada takes it").wait_for()
    opened(page, f"{stage.url}/", [TILES])
    page.locator(".servescope-answer").get_by_role("link", name=re.compile("waiting 56 on vllm-0")).click()
    page.get_by_role("heading", name="What happened in this incident?").wait_for()
