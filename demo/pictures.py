"""Take the pictures of the documents from a demo that runs: ``python -m demo.pictures [--data DIR] [--out DIR]``.

Each page is taken twice, on a light and on a dark screen, over the same minutes, which end where all that arrived is
known; what is recorded says so on the page itself. Needs Chromium and the development requirements.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from alerts.incidents.history import IncidentRow, incidents, story
from analytics.questions import requests
from analytics.selection import Filter, Selection
from analytics.window import Window
from base.command import ending_in_words
from base.errors import ConfigError, ServescopeError
from collector.store.address import locate
from collector.store.client import Store
from servescope import data_folder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES: Final = Path(__file__).parent.parent / "docs" / "images"
WIDE: Final = 1440
"""Pixels of a page's width."""
_TALLEST: Final = 2400
_SETTLED: Final = timedelta(seconds=45)
"""Before now, so that hardly a request of the window is still open."""
_PATIENCE_MS: Final = 180_000
_DRAWN: Final = """() => !document.querySelector('[data-testid=stApp][data-test-script-state=running]')
  && !document.querySelector('[data-testid=stSkeleton], [data-stale=true]')"""
_HEIGHT: Final = "document.querySelector('[data-testid=stMain]').scrollHeight"


@dataclass(frozen=True, slots=True)
class Picture:
    """One page: the file's name without mode, the address after the dashboard's, an element that tells it is drawn."""

    name: str
    address: str
    wanted: str


def pictures(store: Store, window: Window) -> list[Picture]:
    """The pages that the documents show, with the slowest request and the last incident of a window.

    Raises:
        ServescopeError: The window has no request of an LLM, or no incident opened in it or shortly before.
    """
    span = f"from={window.start.timestamp():.0f}&to={window.end.timestamp():.0f}"
    vllm = Filter(engine=("vllm",))
    asked = requests.ask(store, Selection(window, vllm), signal="queue_seconds", limit=1).result.requests
    opened = incidents(store, window.start - timedelta(hours=1), window.end)
    if not asked or not opened:
        missing = "request of a vLLM" if not asked else "incident"
        raise ServescopeError(f"The demo has no {missing} in these minutes", "Let it run for some minutes more")
    last = max(opened, key=lambda row: (_complete(store, row), row.opened_at))
    request = f"request={asked[0].key}&at={asked[0].time.timestamp():.3f}"
    chart, table = ".js-plotly-plot .main-svg", '[data-testid="stDataFrame"] canvas'
    return [
        Picture("overview", f"?{span}", chart),
        Picture("latency", f"latency?{span}", chart),
        Picture("caches", f"kv-cache?{span}", chart),
        Picture("requests", f"requests?{span}", table),
        Picture("request", f"requests?{request}", chart),
        Picture("incident", f"incidents?incident={last.id}", table),
    ]


def _complete(store: Store, row: IncidentRow) -> bool:
    """Whether an incident is over, and every question of its evidence was answered."""
    return row.state == "resolved" and not story(store, row.id).evidence.get("missing")


def take(browser: Browser, url: str, shown: list[Picture], mode: str, out: Path) -> None:
    """All pages in one mode, ``light`` or ``dark``, as ``<out>/<name>-<mode>.png``."""
    size = {"width": WIDE, "height": 1000}
    context = browser.new_context(viewport=size, color_scheme=mode, timezone_id="UTC")  # type: ignore[arg-type]
    context.set_default_timeout(_PATIENCE_MS)
    page = context.new_page()
    for picture in shown:
        page.set_viewport_size({"width": WIDE, "height": 1000})
        page.goto(f"{url}/{picture.address}")
        page.locator(picture.wanted).first.wait_for(state="visible")
        _settle(page)
        page.set_viewport_size({"width": WIDE, "height": min(int(page.evaluate(_HEIGHT)) + 8, _TALLEST)})
        _settle(page)
        page.screenshot(path=str(out / f"{picture.name}-{mode}.png"), animations="disabled")
        click.echo(f"{picture.name}-{mode}.png")
    context.close()


def _settle(page: Page) -> None:
    page.wait_for_function(_DRAWN)
    page.evaluate("document.fonts.ready")
    page.wait_for_timeout(1500)  # charts are drawn anew where the window's height brings or takes a scrollbar
    page.wait_for_function(_DRAWN)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=None, help="Data folder of the demo that runs.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=IMAGES, help="Folder of the pictures.")
@click.option(
    "--minutes", type=click.FloatRange(1, 60), default=5.0, show_default=True, help="Length of what is shown."
)
@click.option("--only", multiple=True, help="Only the picture of this name; may be repeated.")
def main(data: Path | None, out: Path, minutes: float, only: tuple[str, ...]) -> None:
    """Take the documents' pictures from a demo that has run for some minutes."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - of the development requirements alone

    with ending_in_words("pictures"):
        folder = data or data_folder.default("servescope-demo")
        run = folder / "run.json"
        if not run.exists():
            raise ConfigError(f"no demo runs in {folder}", "Start one, make demo, or name its folder: --data")
        url = json.loads(run.read_text(encoding="utf-8"))["urls"]["dashboard"]
        store = Store(locate(folder, None, role="reader"))
        end = datetime.now(UTC).replace(microsecond=0) - _SETTLED
        shown = pictures(store, Window(end - timedelta(minutes=minutes), end))
        shown = [picture for picture in shown if not only or picture.name in only]
        program = shutil.which("chromium") or shutil.which("google-chrome")
        out.mkdir(parents=True, exist_ok=True)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
            for mode in ("light", "dark"):
                take(browser, url, shown, mode, out)
            browser.close()


if __name__ == "__main__":
    sys.exit(main())
