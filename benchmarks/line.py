"""All benchmarks in turn, each in a process of its own; one JSON object a figure on stdout, progress on stderr.

    python -m benchmarks.line [--quick] [--json] [--only NAME …]

A figure: ``{"name", "value", "unit", "reference", "reference_value", "ratio", "goal", "met"}``. Every reference is
run in the same run. A benchmark that fails or cannot run here gives one figure without a value, ``met`` null when it
was left out and false when it failed, and a ``reason``. The exit code is 0 either way: figures are judged by who reads
them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

KEYS: Final = ("name", "value", "unit", "reference", "reference_value", "ratio", "goal", "met")
PROMETHEUS: Final = "/usr/bin/prometheus"
_ROOT: Final = Path(__file__).parent.parent
ENVOY: Final = (
    os.environ.get("SERVESCOPE_ENVOY") or shutil.which("envoy") or str(_ROOT / ".venv-envoy" / "bin" / "envoy")
)
_CLEANUP_SECONDS: Final = 90
_TOLD: Final = 300
"""Letters of a failure that are told."""


class ShapeError(ValueError):
    """A benchmark printed something that is no figure; says what."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One of the benchmarks.

    Attributes:
        name: Its module in this package.
        seconds: After so long it is stopped.
        needs: A program without which it cannot run; empty: none.
    """

    name: str
    seconds: float
    needs: str = ""


BENCHMARKS: Final = (
    Benchmark("ingest", 900),
    Benchmark("scrape", 300, needs=PROMETHEUS),
    Benchmark("tap", 600),
    Benchmark("envoy", 600, needs=ENVOY),
    Benchmark("gpu", 300),
    Benchmark("idle", 600),
    Benchmark("steady", 1200),
    Benchmark("guard", 300),
    Benchmark("pages", 1_800),
    Benchmark("beside", 1_200),
    Benchmark("probe", 300),
)


def figures_of(text: str) -> list[dict[str, Any]]:
    """The figures that a benchmark printed, a line each.

    Raises:
        ShapeError: A line is no JSON object of `KEYS`, or there is none.
    """
    found = []
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            made = json.loads(line)
        except ValueError:
            raise ShapeError(f"printed a line that is no JSON: {line[:_TOLD]}") from None
        if not isinstance(made, dict) or tuple(made) != KEYS:
            raise ShapeError(f"printed a figure with other keys than {', '.join(KEYS)}: {line[:_TOLD]}")
        found.append(made)
    if not found:
        raise ShapeError("printed no figure")
    return found


def without_value(name: str, reason: str, *, failed: bool) -> dict[str, Any]:
    """The figure of a benchmark that has none, and why."""
    return dict.fromkeys(KEYS) | {"name": name, "met": False if failed else None, "reason": reason}


def lacking(benchmark: Benchmark) -> str:
    """Why it cannot run here; empty when it can."""
    if benchmark.needs and shutil.which(benchmark.needs) is None:
        return f"{benchmark.needs} is not there, and the reference is run in the same run"
    return ""


def run(benchmark: Benchmark, *, quick: bool) -> list[dict[str, Any]]:
    """Run one; always at least one figure."""
    if reason := lacking(benchmark):
        return [without_value(benchmark.name, reason, failed=False)]
    command = [sys.executable, "-m", f"benchmarks.{benchmark.name}", "--json", *(["--quick"] if quick else [])]
    with subprocess.Popen(
        command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            out, errors = process.communicate(timeout=benchmark.seconds)
        except subprocess.TimeoutExpired:
            _stop(process)
            return [without_value(benchmark.name, f"not done after {benchmark.seconds:g} s", failed=True)]
        except BaseException:
            _stop(process)
            raise
    if process.returncode:
        told = errors.strip().rpartition("\n")[2][:_TOLD] or "said nothing"
        return [without_value(benchmark.name, f"ended with code {process.returncode}: {told}", failed=True)]
    try:
        return figures_of(out)
    except ShapeError as error:
        return [without_value(benchmark.name, str(error), failed=True)]


def summary(figures: list[dict[str, Any]]) -> str:
    """One line for people: how many goals were met, and the names of those missed."""
    judged = [figure for figure in figures if figure["met"] is not None]
    missed = [str(figure["name"]) for figure in judged if not figure["met"]]
    return f"{len(judged) - len(missed)} of {len(judged)} goals met" + (
        f"; missed: {', '.join(missed)}" if missed else ""
    )


def _stop(process: subprocess.Popen[str]) -> None:
    """Let it clean up after itself; what is left of its group is killed."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_CLEANUP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_each(benchmarks: Sequence[Benchmark], about: str) -> None:
    """Run those that the command line names, all by default; print each one's figures as soon as it is done.

    Args:
        benchmarks: To choose from.
        about: What ``--help`` says.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter runs: rougher figures")
    parser.add_argument("--json", action="store_true", help="the only form there is")
    parser.add_argument("--only", nargs="+", choices=[one.name for one in benchmarks], help="these alone")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    for benchmark in benchmarks:
        if options.only and benchmark.name not in options.only:
            continue
        begun = time.monotonic()
        print(f"{benchmark.name} … (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
        figures = run(benchmark, quick=options.quick)
        for figure in figures:
            print(json.dumps(figure), flush=True)
        found += figures
        print(f"{benchmark.name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    print(summary(found), file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_each(BENCHMARKS, __doc__)
