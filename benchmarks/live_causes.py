"""What a look at a live window costs: ``servescope causes`` asked every ten seconds of the last ten minutes.

A simulated fleet (`benchmarks.fleet`) is written into a store of its own: 100,000 requests in ten minutes with faults
among them, as many before, and some minutes more into which the window moves. The periods before the window are kept
(`analytics.causes.keeping`), as a running installation has them. Each look is taken twice: with the minutes that the
looks before left in the process, and with nothing kept, which is the reference. CPU seconds are of the process that
asks and of the store together, since a busy machine says little by time that passes; that is told beside it.

    python -m benchmarks.live_causes [--quick] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil
import structlog

from analytics.causes.account import account_of
from analytics.causes.blocks import KEPT
from analytics.causes.due import PERIOD_SECONDS
from analytics.causes.keeping import keep
from analytics.causes.kept import kept_for
from analytics.causes.load import load
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
STEP_SECONDS: Final = 10
_RATE: Final = 170
_WAYS: Final = ("live", "anew")


def measure(*, quick: bool) -> list[dict[str, Any]]:
    """The figures.

    Args:
        quick: A tenth of the requests and of the replicas, three looks instead of eight.

    Raises:
        RuntimeError: The store did not start, or the two ways say different things.
    """
    share, looks = (10, 3) if quick else (1, 8)
    seconds = 2 * WINDOW_SECONDS + (looks + 1) * STEP_SECONDS
    fleet = Fleet(seconds, _RATE / share, WINDOW_SECONDS, max(20 // share, 4))
    measures = ("asker", "store", "all", "passed")
    used: dict[str, list[float]] = {f"{way}_{name}": [] for way in _WAYS for name in measures}
    parts: dict[str, list[float]] = {"reading": [], "account": []}
    counted = 0
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="servescope-live-")))
        begin = (datetime.now(UTC) - timedelta(hours=1)).timestamp() // PERIOD_SECONDS * PERIOD_SECONDS
        start = datetime.fromtimestamp(begin, UTC)
        stack.enter_context(store_of(folder, lambda owner, _: fill(owner, start, fleet)))
        with Store(locate(folder, None, role="owner")) as owner:
            for period in (1, 2):
                keep(owner, begin + period * PERIOD_SECONDS)
        store = stack.enter_context(Store(locate(folder, None, role="reader")))
        (process,) = (one for one in psutil.Process(os.getpid()).children() if "collector.embedded" in one.cmdline())
        KEPT.forget()
        for turn in range(looks + 1):
            first = start + timedelta(seconds=WINDOW_SECONDS + turn * STEP_SECONDS)
            selection = Selection(Window(first, first + timedelta(seconds=WINDOW_SECONDS)))
            told = {}
            for way in _WAYS:
                asker, whole, passed, answer = _used(process, store, selection, anew=way == "anew")
                told[way] = answer
                if turn:  # the first look keeps, it has nothing yet
                    used[f"{way}_asker"].append(asker)
                    used[f"{way}_store"].append(whole - asker)
                    used[f"{way}_all"].append(whole)
                    used[f"{way}_passed"].append(passed)
            if told["live"] != told["anew"]:
                raise RuntimeError("what is worked out of kept minutes differs from what is worked out anew")
            counted = told["live"].requests
            _parts(Inquiry(store, selection), parts)
            _say(turn, used)
    reference = f"the same looks with nothing kept, {counted:,} requests"
    return [
        figure("live_causes_seconds", median(used["live_passed"]), "s", reference, median(used["anew_passed"]),
               GOAL_SECONDS)
    ] + [
        figure(f"live_causes_cpu_{whose}", median(used[f"live_{whose}"]), "s", reference,
               median(used[f"anew_{whose}"]), GOAL_SECONDS)
        for whose in ("all", "asker", "store")
    ] + [
        figure(f"live_causes_cpu_{part}", median(values[1:]), "s", "the asker's of a look with nothing kept",
               median(used["anew_asker"]), GOAL_SECONDS)
        for part, values in parts.items()
    ]  # fmt: skip


def _used(
    process: psutil.Process, store: Store, selection: Selection, *, anew: bool
) -> tuple[float, float, float, causes.Causes]:
    """CPU seconds of the asker, those with the store's, seconds that passed, and the answer.

    What is kept stays as it was where it is asked anew.
    """
    with KEPT.aside() if anew else contextlib.nullcontext():
        before, mine, begun = sum(process.cpu_times()[:2]), time.process_time(), time.perf_counter()
        answer = causes.ask(store, selection).result
        asker, passed = time.process_time() - mine, time.perf_counter() - begun
        return asker, asker + sum(process.cpu_times()[:2]) - before, passed, answer


def _parts(inquiry: Inquiry, parts: dict[str, list[float]]) -> None:
    """CPU seconds of the asker for reading and for the account, with what is kept."""
    kept = kept_for(inquiry)
    begun = time.process_time()
    evidence = load(inquiry, kept=kept.deployments)
    read = time.process_time()
    account_of(evidence, kept)
    parts["reading"].append(read - begun)
    parts["account"].append(time.process_time() - read)


def _say(turn: int, used: dict[str, list[float]]) -> None:
    told = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in used.items() if values)
    print(f"look {turn}: {told or 'kept'}", file=sys.stderr, flush=True)


def main() -> None:
    """Print one JSON object a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests, fewer looks")
    parser.add_argument("--json", action="store_true", help="the only form there is")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for figures alone
    for line in measure(quick=options.quick):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
