"""How long ``servescope causes`` takes of very many requests, and where the time goes.

A simulated fleet (`benchmarks.fleet`) is written into a store of its own: a window of ten minutes with 100,000 requests
and faults in it, and as many requests before. The question is asked as a reader of the installation asks it, each time
of a window that nobody has asked for. The reference is the one statement that no answer can do without: reading the
window's requests.

Then the periods before the window are kept (`analytics.causes.keeping`), and it is asked again.

    python -m benchmarks.causes_scale [--quick] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import structlog

from analytics.causes.account import account_of
from analytics.causes.due import PERIOD_SECONDS
from analytics.causes.keeping import keep
from analytics.causes.load import SQL, load
from analytics.inquiry import Inquiry
from analytics.questions import causes
from analytics.selection import Selection
from analytics.window import Window
from benchmarks.fleet import Fleet, fill
from benchmarks.pages import store_of
from benchmarks.tap import figure
from collector.store.address import locate
from collector.store.client import Store

GOAL_SECONDS: Final = 1.0
WINDOW_SECONDS: Final = 600
_RATE: Final = 170


def measure(*, quick: bool) -> list[dict[str, Any]]:
    """The figures.

    Args:
        quick: A tenth of the requests and of the replicas, two rounds instead of five.

    Raises:
        RuntimeError: The store did not start.
    """
    share = 10 if quick else 1
    fleet = Fleet(2 * WINDOW_SECONDS, _RATE / share, WINDOW_SECONDS, max(20 // share, 4))
    parts: dict[str, list[float]] = {
        name: [] for name in ("whole", "cpu", "read", "account", "statement", "keep", "kept", "kept_cpu")
    }
    counted = 0
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="servescope-causes-")))
        begin = (datetime.now(UTC) - timedelta(hours=1)).timestamp() // PERIOD_SECONDS * PERIOD_SECONDS
        start = datetime.fromtimestamp(begin, UTC)
        stack.enter_context(store_of(folder, lambda owner, _: fill(owner, start, fleet)))
        store = stack.enter_context(Store(locate(folder, None, role="reader")))
        for turn in range(2 if quick else 5):
            first = start + timedelta(seconds=WINDOW_SECONDS, milliseconds=turn)
            selection = Selection(Window(first, first + timedelta(seconds=WINDOW_SECONDS)))
            _ask(store, selection, parts["whole"], parts["cpu"])
            inquiry = Inquiry(store, selection)
            begun = time.perf_counter()
            evidence = load(inquiry)
            parts["read"].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            account_of(evidence)
            parts["account"].append(time.perf_counter() - begun)
            counted = int(evidence.requests.inside.sum())
            begun = time.perf_counter()
            inquiry.arrow("rows", {"period": ""}, SQL, reference_ms=selection.window.from_ms, stride=1)
            parts["statement"].append(time.perf_counter() - begun)
            print(
                f"{parts['whole'][-1]:6.2f} s whole, {parts['read'][-1]:.2f} reading, "
                f"{parts['account'][-1]:.2f} account, {counted:,} requests in the window, "
                f"{len(evidence.requests):,} read",
                file=sys.stderr,
                flush=True,
            )
        owner = stack.enter_context(Store(locate(folder, None, role="owner")))
        for until in range(PERIOD_SECONDS, WINDOW_SECONDS + 1, PERIOD_SECONDS):
            begun = time.perf_counter()
            keep(owner, start.timestamp() + until)
            parts["keep"].append(time.perf_counter() - begun)
        for turn in range(2 if quick else 5):
            first = start + timedelta(seconds=WINDOW_SECONDS, milliseconds=100 + turn)
            selection = Selection(Window(first, first + timedelta(seconds=WINDOW_SECONDS)))
            _ask(store, selection, parts["kept"], parts["kept_cpu"])
    reference, least = f"the statement that reads the window's {counted:,} requests", median(parts["statement"])
    return [
        figure(f"causes_of_a_window{name}", median(parts[part]), "s", reference, least, goal * GOAL_SECONDS)
        for name, part, goal in (
            ("", "whole", 1),
            ("_cpu", "cpu", 1),
            ("_reading", "read", 0.5),
            ("_account", "account", 0.5),
            ("_kept", "kept", 1),
            ("_kept_cpu", "kept_cpu", 1),
            ("_keeping_a_period", "keep", 10),
        )
    ]


def _ask(store: Store, selection: Selection, seconds: list[float], cpu: list[float]) -> None:
    begun, used = time.perf_counter(), time.process_time()
    causes.ask(store, selection)
    seconds.append(time.perf_counter() - begun)
    cpu.append(time.process_time() - used)


def main() -> None:
    """Print one JSON object a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests, fewer turns")
    parser.add_argument("--json", action="store_true", help="the only form there is")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for figures alone
    for line in measure(quick=options.quick):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
