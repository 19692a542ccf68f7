"""One store with data, one dashboard and one Chromium for all browser tests; without Chromium they are skipped."""

from __future__ import annotations

import shutil
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

from collector.store.address import StoreAddress
from collector.store.client import Store
from collector.store.migrate import apply
from tests.browser.stage import Served, fill, serve, write_run
from tests.kits.needs import lack
from tests.kits.store_process import ROOT, StoreServer, start_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Page

LONG = 60_000
"""Milliseconds that an element may take on a busy machine."""


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_stage(folder: Path, *, filled: bool, slos: bool = True) -> tuple[StoreServer, Served]:
    """A store (with data or empty) and a dashboard on it."""
    server = start_store(folder)
    with Store(StoreAddress(server.url, user="owner", password=server.owner_password)) as owner:
        apply(owner)
    if filled:
        fill_stage(server)
    write_run(folder, server.url)
    arguments = ("--slos", str(ROOT / "demo" / "slos.yaml"), "--refresh", "20") if slos else ("--refresh", "3")
    try:
        return server, serve(folder, free_port(), folder / "dashboard.log", *arguments)
    except BaseException:
        server.stop()
        raise


def fill_stage(server: StoreServer) -> None:
    """Put ten minutes up to now into a store."""
    with Store(StoreAddress(server.url, user="owner", password=server.owner_password)) as owner:
        fill(owner, datetime.now(UTC))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A headless Chromium; a missing one skips, or fails where nothing may be skipped."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        lack("needs Chromium (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def stage(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The dashboard on a filled store."""
    server, served = start_stage(tmp_path_factory.mktemp("stage"), filled=True)
    yield served
    served.stop()
    server.stop()


@pytest.fixture(scope="session")
def viewer(chromium: Browser) -> Iterator[BrowserContext]:
    """A viewer with a laptop in a zone that is not UTC; his browser keeps what it has loaded."""
    context = chromium.new_context(viewport={"width": 1440, "height": 1000}, timezone_id="Asia/Tokyo")
    context.set_default_timeout(LONG)
    yield context
    context.close()


@pytest.fixture
def page(viewer: BrowserContext) -> Iterator[Page]:
    """A new page, and so a new visit to the dashboard."""
    opened = viewer.new_page()
    yield opened
    opened.close()
