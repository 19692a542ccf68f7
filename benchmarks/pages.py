"""From navigation to the first figure of every page of the dashboard, over a day of demo-shaped data.

A store and a dashboard of their own; a headless Chromium goes to each page again and again, every time over a window
that nobody has asked for (shifted by a millisecond), so that no answer is kept from before. The clock is the
browser's own: from the start of the navigation to the first tile, chart or table in the page. The reference is the
slowest single question of that page, asked alone of the same store between two visits.

Without Chromium the questions of each page are asked side by side, as the dashboard does, and their figures say so.

    python -m benchmarks.pages [--quick] [--json] [--data DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

import structlog

from alerts.incidents.history import incidents
from alerts.rules.file import load
from alerts.slo_status import slo_statuses
from analytics.questions import (
    batching,
    events,
    gpus,
    heatmap,
    histogram,
    hosts,
    instances,
    kvcache,
    latency,
    phases,
    queue,
    requests,
    traffic,
)
from analytics.selection import Selection
from analytics.window import Window
from base.keys import ensure_keys
from benchmarks.day import DAY_SECONDS, fill
from benchmarks.tap import figure, free_port
from collector.store.address import locate
from collector.store.client import Store
from collector.store.migrate import apply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from playwright.sync_api import Page

GOAL_SECONDS: Final = 1.5
RANGES: Final = {"15m": 900, "1h": 3_600, "24h": DAY_SECONDS}
FIRST: Final = '.servescope-tiles, .js-plotly-plot .main-svg, [data-testid="stDataFrame"] canvas'
"""What counts as a figure: a row of tiles, a drawn chart, a painted table."""
_ROOT: Final = Path(__file__).parent.parent
_SLOS: Final = _ROOT / "demo" / "slos.yaml"
_START_SECONDS: Final = 120
_VISIT_MS: Final = 60_000
_SETTLE_MS: Final = 30_000
_AT_REST: Final = '[data-testid="stApp"][data-test-script-state="notRunning"]'
_SIDE_BY_SIDE: Final = 4
_REFERENCE: Final = "the page's slowest question, asked alone in the same run"
_STATEMENT: Final = "SELECT time, tenant, model, e2e_seconds FROM requests ORDER BY time DESC LIMIT 50"
_WATCH: Final = """
window.firstFigure = null;
const look = () => {
  if (window.firstFigure === null && document.querySelector(%s)) window.firstFigure = performance.now();
};
new MutationObserver(look).observe(document, {childList: true, subtree: true});
"""

PAGES: Final[dict[str, list[Callable[[Store, Selection], object]]]] = {
    "": [
        traffic.ask,
        lambda store, selection: latency.ask(store, selection, signal="e2e_seconds"),
        queue.ask,
        phases.ask,
        instances.ask,
        events.ask,
    ],
    "latency": [
        lambda store, selection: latency.ask(store, selection, signal="e2e_seconds"),
        lambda store, selection: heatmap.ask(store, selection, signal="e2e_seconds"),
        lambda store, selection: histogram.ask(store, selection, signal="e2e_seconds"),
        phases.ask,
    ],
    "queue": [queue.ask],
    "hardware": [gpus.ask, hosts.ask],
    "kv-cache": [
        kvcache.ask,
        batching.ask,
    ],
    "requests": [lambda store, selection: requests.ask(store, selection, limit=200)],
    "slos": [lambda store, selection: slo_statuses(store, load(_SLOS), selection.window.end)],
    "incidents": [lambda store, selection: incidents(store, selection.window.start, selection.window.end)],
    "sql": [lambda store, _: store.rows(_STATEMENT)],
}
"""Path of a page → the questions it asks."""


@dataclass
class Times:
    """Seconds of one page and range."""

    seen: list[float] = field(default_factory=list)
    """To the first figure, a visit each."""
    alone: list[float] = field(default_factory=list)
    """Of its slowest question, asked alone, a visit each."""


def combinations() -> list[tuple[str, str]]:
    """Page and range of every figure; the SQL page has no range and is visited once a round."""
    return [(page, name) for page in PAGES for name in (RANGES if page != "sql" else ["15m"])]


def address(url: str, page: str, window: Window) -> str:
    """The link to a page over a window."""
    more = {"sql": _STATEMENT} if page == "sql" else {}
    span = {"from": f"{window.start.timestamp():.3f}", "to": f"{window.end.timestamp():.3f}"}
    return f"{url}/{page}?{urlencode(span | more)}"


def figures(times: dict[tuple[str, str], Times], how: str) -> list[dict[str, Any]]:
    """The figures of a run: median and longest over everything, then of each page and range.

    Args:
        times: By page and range.
        how: Part of each name: ``first_data`` or ``questions``.
    """
    everything = Times(
        [seconds for held in times.values() for seconds in held.seen],
        [seconds for held in times.values() for seconds in held.alone],
    )
    named = {"pages": everything, **{f"page_{page or 'overview'}_{name}": held for (page, name), held in times.items()}}
    return [
        figure(
            f"{name}_{how}_{suffix}", round(of(held.seen), 3), "s", _REFERENCE, round(of(held.alone), 3), GOAL_SECONDS
        )
        for name, held in named.items()
        for suffix, of in (("p50", median), ("max", max))
    ]


def windows(end: datetime) -> Iterator[Callable[[int], Window]]:
    """Makers of windows of some seconds, each ending a millisecond before the one before."""
    for number in count():
        at = end.timestamp() - number / 1000
        yield lambda seconds, at=at: Window(  # type: ignore[misc]
            datetime.fromtimestamp(at - seconds, UTC), datetime.fromtimestamp(at, UTC)
        )


def visit(page: Page, url: str) -> float:
    """Go there; seconds from the start of the navigation to the first figure.

    Raises:
        RuntimeError: There is none after a minute; names the address.
    """
    from playwright.sync_api import TimeoutError as Late  # noqa: PLC0415 - not there everywhere

    page.goto(url, wait_until="commit")
    try:
        page.wait_for_function("window.firstFigure !== null", timeout=_VISIT_MS)
    except Late:
        raise RuntimeError(f"no figure after {_VISIT_MS // 1000} s at {url}") from None
    seconds = float(page.evaluate("window.firstFigure")) / 1000
    try:  # the page finishes before the next one starts, so that none pays for another's questions
        page.locator(_AT_REST).wait_for(timeout=_SETTLE_MS)
    except Late:
        print(f"still at work after {_SETTLE_MS // 1000} s: {url}", file=sys.stderr)
    print(f"{seconds:6.2f} s  {urlsplit(url).path}", file=sys.stderr, flush=True)
    return seconds


def slowest_alone(store: Store, questions: Sequence[Callable[[Store, Selection], object]], window: Window) -> float:
    """Seconds of the slowest question, one after the other."""
    return max(_timed(ask, store, window) for ask in questions)


def side_by_side(store: Store, questions: Sequence[Callable[[Store, Selection], object]], window: Window) -> float:
    """Seconds until the first of a page's questions has its answer while the others run, as the dashboard asks them."""
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        return next(pool.submit(_timed, ask, store, window) for ask in questions).result()


def measure_in_browser(
    program: str, url: str, store: Store, end: datetime, rounds: int
) -> dict[tuple[str, str], Times]:
    """Visit every page once to warm up, then every page over every range ``rounds`` times."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - not there everywhere

    times = {key: Times() for key in combinations()}
    fresh = windows(end)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        context = browser.new_context(viewport={"width": 1440, "height": 1000}, timezone_id="UTC")
        context.add_init_script(_WATCH % json.dumps(FIRST))
        page = context.new_page()
        for path in PAGES:  # first use of everything, and of the whole day
            visit(page, address(url, path, next(fresh)(RANGES["24h"])))
        for _ in range(rounds):
            for (path, name), held in times.items():
                held.seen.append(visit(page, address(url, path, next(fresh)(RANGES[name]))))
                held.alone.append(slowest_alone(store, PAGES[path], next(fresh)(RANGES[name])))
        browser.close()
    return times


def measure_questions(store: Store, end: datetime, rounds: int) -> dict[tuple[str, str], Times]:
    """What can be measured without a browser."""
    times = {key: Times() for key in combinations()}
    fresh = windows(end)
    for _ in range(rounds):
        for (path, name), held in times.items():
            held.seen.append(side_by_side(store, PAGES[path], next(fresh)(RANGES[name])))
            held.alone.append(slowest_alone(store, PAGES[path], next(fresh)(RANGES[name])))
    return times


def chromium() -> str | None:
    """The browser's program, when it and Playwright are there."""
    try:
        import playwright.sync_api  # noqa: F401, PLC0415 - not there everywhere
    except ImportError:
        return None
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return next((path for path in found if path), None)


def measure(*, quick: bool, data: Path | None = None) -> list[dict[str, Any]]:
    """The figures.

    Args:
        quick: One visit of each page and range instead of five.
        data: Folder of a Servescope that runs, whose newest day is looked at instead of a made one.

    Raises:
        RuntimeError: A process did not start.
    """
    rounds = 1 if quick else 5
    with contextlib.ExitStack() as stack:
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="servescope-pages-")))
        if data is None:
            stack.enter_context(store_of(folder))
        store = stack.enter_context(Store(locate(folder, None, role="reader")))
        newest = store.rows("SELECT toUnixTimestamp64Milli(max(time)) AS ms FROM requests_t")[0]["ms"]
        end = datetime.fromtimestamp(int(newest) / 1000, UTC)
        if (program := chromium()) is None:
            print("no Chromium or no Playwright: only the questions of each page are measured", file=sys.stderr)
            return figures(measure_questions(store, end, rounds), "questions")
        url = stack.enter_context(_dashboard(folder))
        return figures(measure_in_browser(program, url, store, end, rounds), "first_data")


def _timed(ask: Callable[[Store, Selection], object], store: Store, window: Window) -> float:
    begun = time.perf_counter()
    ask(store, Selection(window))
    return time.perf_counter() - begun


@contextlib.contextmanager
def store_of(folder: Path, fill: Callable[[Store, datetime], int] = fill) -> Iterator[None]:
    """An embedded store with data in it, and the ``run.json`` by which a dashboard finds it.

    Args:
        folder: Data folder, made.
        fill: Writes data up to a time, and says how many requests.

    Raises:
        RuntimeError: The store did not start.
    """
    keys, port = ensure_keys(folder / "keys"), free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["collector.embedded", "--data", str(folder / "store"), "--port", str(port)]
    with _process([*command, "--owner-hash-file", str(keys.store_owner_hash_file)], f"{url}/ping"):
        told = {"pid": os.getpid(), "started": datetime.now(UTC).isoformat(), "urls": {"store": url}}
        (folder / "run.json").write_text(json.dumps(told))
        with Store(locate(folder, None, role="owner"), timeout_seconds=300) as owner:
            apply(owner)
            begun = time.monotonic()
            made = fill(owner, datetime.now(UTC).replace(microsecond=0))
            print(f"{made:,} requests in {time.monotonic() - begun:.0f} s", file=sys.stderr)
        yield


@contextlib.contextmanager
def _dashboard(folder: Path) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["dashboard", "--data", str(folder), "--port", str(port), "--slos", str(_SLOS)]
    with _process(command, f"{url}/_stcore/health"):
        yield url


@contextlib.contextmanager
def _process(module: list[str], health: str) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", *module], cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(health):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{module[0]} did not start; run python -m {' '.join(module)} to see why")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own loopback URL
            return True
    except (urllib.error.URLError, OSError):
        return False


def main() -> None:
    """Print one JSON object a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one visit of each page and range instead of five")
    parser.add_argument("--json", action="store_true", help="the only form there is")
    parser.add_argument("--data", type=Path, help="folder of a running Servescope, instead of a made day")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for figures alone
    for line in measure(quick=options.quick, data=options.data):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
