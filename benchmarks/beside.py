"""The dashboard's question about tenants, alone and beside three guests who scan without end.

A store of its own with two million requests of a day. The question is asked as the dashboard asks it, by a reader of
the installation; the guests are strangers, each a client of its own, whose scans end by nothing but the reader's time
limit and are asked again at once. Alone and beside take turns, so that a machine that is busy with other work is as
busy in both.

    python -m benchmarks.beside [--quick] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import socket
import sys
import tempfile
import threading
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import structlog

from analytics.questions import tenants
from analytics.selection import Selection
from base.named_sql import statements
from benchmarks.day import DAY_SECONDS, SQL
from benchmarks.pages import store_of, windows
from benchmarks.tap import figure
from collector.store.address import locate
from collector.store.client import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

RATIO_GOAL: Final = 1.5
"""Times that the question may take of its time alone, in the median."""
SCANS: Final = (
    "SELECT tenant, quantile(0.99)(e2e_seconds * number) FROM requests, numbers(100000) GROUP BY tenant",
    "SELECT count() FROM requests, numbers(100000) WHERE cityHash64(request_id, number) = 7",
    "SELECT count() FROM system.numbers WHERE number % 7 = 9",
)
"""What the guests ask, one each."""
_RATE: Final = 24
_HOUR_SECONDS: Final = 3_600
_STATE_SECONDS: Final = 60
_PAUSE_SECONDS: Final = 0.2


class Guest:
    """A stranger who asks the same question again and again.

    Args:
        url: Of the store.
        number: Tells guests and their questions apart.
    """

    def __init__(self, url: str, number: int) -> None:
        self._address = urlsplit(url).netloc
        self._number = number
        self._stop = threading.Event()
        self._connection = http.client.HTTPConnection(self._address, timeout=120)
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        headers = {"User-Agent": f"guest-{self._number}"}
        while not self._stop.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._connection.request("POST", "/?database=servescope", SCANS[self._number], headers)
                self._connection.getresponse().read()
            self._connection.close()
            self._stop.wait(_PAUSE_SECONDS)

    def stop(self) -> None:
        """Hang up, and ask no more."""
        self._stop.set()
        with contextlib.suppress(OSError):
            if isinstance(wire := self._connection.sock, socket.socket):
                wire.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)


def health(url: str) -> dict[str, Any]:
    """The store's health page."""
    with urllib.request.urlopen(f"{url}/healthz", timeout=60) as answer:  # noqa: S310 - our own loopback URL
        return dict(json.load(answer))


@contextlib.contextmanager
def guests(url: str) -> Iterator[None]:
    """All guests at work; they have left when this ends.

    Raises:
        RuntimeError: They don't get their places, or don't give them back.
    """
    present = [Guest(url, number) for number in range(len(SCANS))]
    try:
        _until_running(url, len(SCANS))
        yield
    finally:
        for guest in present:
            guest.stop()
    _until_running(url, 0)


def _until_running(url: str, count: int) -> None:
    deadline = time.monotonic() + _STATE_SECONDS
    while health(url)["places"]["guest"]["running"] != count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"there are not {count} guests at work after {_STATE_SECONDS} s")
        time.sleep(_PAUSE_SECONDS)


def fill(store: Store, end: datetime, hours: int) -> int:
    """Write both halves of the requests of some hours up to ``end``; how many."""
    named = statements(SQL)
    for hour in range(hours, 0, -1):
        start_ms = int((end - timedelta(hours=hour)).timestamp() * 1000)
        for name in ("requests_edge", "requests_engine"):
            store.command(named[name], {"start_ms": start_ms, "seconds": _HOUR_SECONDS, "rate": _RATE})
    while store.rows("SELECT 1 FROM system.merges LIMIT 1"):
        time.sleep(_PAUSE_SECONDS)
    return hours * _HOUR_SECONDS * _RATE


def figures(alone: list[float], beside: list[float], recycled: int) -> list[dict[str, Any]]:
    """The figures of a run: median and longest, in seconds, and how often the engine had to be started again."""
    reference = "the same question without guests, in the same run"
    made = [
        figure(f"tenants_beside_guests_{suffix}", of(beside), "s", reference, of(alone), RATIO_GOAL * of(alone))
        for suffix, of in (("p50", median), ("max", max))
    ]
    return [*made, figure("store_recycled_by_ordinary_scans", recycled, "times", "none", 0, 0)]


def measure(*, quick: bool, hours: int) -> list[dict[str, Any]]:
    """The figures.

    Args:
        quick: Two turns instead of five.
        hours: Of data.

    Raises:
        RuntimeError: The store did not start, or guests don't come or go.
    """
    alone: list[float] = []
    beside: list[float] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="servescope-beside-")))
        stack.enter_context(store_of(folder, lambda owner, end: fill(owner, end, hours)))
        store = stack.enter_context(Store(locate(folder, None, role="reader")))
        fresh = windows(datetime.now(UTC))

        def ask(times: list[float], how: str) -> None:
            window = next(fresh)(DAY_SECONDS)
            begun = time.perf_counter()
            counted = tenants.ask(store, Selection(window)).result.requests
            times.append(time.perf_counter() - begun)
            print(f"{times[-1]:6.2f} s  {how}, {counted:,.0f} requests", file=sys.stderr, flush=True)

        ask([], "first use")
        for _ in range(2 if quick else 5):
            for _ in range(3):
                ask(alone, "alone")
            with guests(store.address.url):
                for _ in range(3):
                    ask(beside, "beside")
        return figures(alone, beside, int(health(store.address.url)["recycled"]))


def main() -> None:
    """Print one JSON object a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twelfth of the data, fewer turns")
    parser.add_argument("--hours", type=int, help="of data, 86,400 requests each, instead of 24 (quick: 2)")
    parser.add_argument("--json", action="store_true", help="the only form there is")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for figures alone
    for line in measure(quick=options.quick, hours=options.hours or (2 if options.quick else 24)):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
