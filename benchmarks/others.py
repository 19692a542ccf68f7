"""What other tools say of the recorded faults that `benchmarks.causes` is asked about: vllm-doctor, inference-aiops.

Each recording's metrics pages are put as they were into a Prometheus (Debian's, by ``promtool``), which vllm-doctor is
pointed at through a door that asks every question as of the moment that is meant; inference-aiops reads the one page
that the server showed at that moment. A fault's moment is the end of its injection, when it is plainest; a quiet
window's is its end, and of quiet windows the longest are. Only vLLM's runs are asked about, since both tools
know vLLM alone (of what is in a page).

Right is the finding that each puts first, and the mapping is generous: any finding that points to what was done counts
(`DOCTOR`, `AIOPS`); a kind for which a tool has no words counts as not told. Neither knows tenants, nor says seconds.

    python -m benchmarks.others RUNS --doctor PROGRAM --aiops PROGRAM [--json]

Both are programs of a virtual environment of their own (``pip install vllm-doctor inference-aiops``).
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from bisect import bisect_right
from collections import defaultdict
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from agent.recording.folder import PAGES
from base.prompt_server import PromptServer
from benchmarks import idle
from benchmarks.causes import LENGTHS, QUIET_GOAL, RIGHT_GOAL, figure, runs_of, windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.causes import Run

DOCTOR: Final = {
    "kv_cache_full": {"kv_cache_pressure", "preemption_pressure"},
    "prefill_interference": {"ttft_bottleneck"},
    "batch_interference": {"tpot_bottleneck"},
    "queue_saturated": {"queue_pressure", "queue_latency"},
    "cold_prefix_cache": {"prefix_cache_efficiency"},
    "slow_client": {"error_rate"},
}
"""Cause → ids of vllm-doctor's rules that count as right."""
AIOPS: Final = {
    "kv_cache_full": ("KV-cache pressure",),
    "queue_saturated": ("Queue backpressure",),
    "cold_prefix_cache": ("Cold prefix cache",),
}
"""Cause → how a cause of inference-aiops begins that counts as right."""
_NOTHING: Final = ("No dominant bottleneck", "No bottleneck could be ranked")
_SAMPLE: Final = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})?\s+(\S+)\s*$")
_PATIENCE_SECONDS: Final = 60


class Pages:
    """The pages of all runs: what a server showed at a moment.

    Args:
        folder: The runs.
        runs: Those that are asked about.
    """

    def __init__(self, folder: Path, runs: list[Run]) -> None:
        self.times: list[float] = []
        self.texts: list[str] = []
        found = []
        for run in runs:
            with gzip.open(folder / run.name / PAGES, "rt") as lines:
                rows = [json.loads(line) for line in lines]
            found += [(float(row["t"]), str(row["text"])) for row in rows if row.get("status") == HTTPStatus.OK]
        for at, text in sorted(found):
            self.times.append(at)
            self.texts.append(text)

    def at(self, moment: float) -> str:
        """The newest page up to a moment, of whatever server was watched then."""
        place = bisect_right(self.times, moment)
        return self.texts[place - 1] if place else ""

    def write(self, path: Path) -> None:
        """All samples as OpenMetrics text with times, a metric after the other."""
        samples: dict[str, dict[str, list[tuple[float, str]]]] = defaultdict(lambda: defaultdict(list))
        for at, text in zip(self.times, self.texts, strict=True):
            for line in text.splitlines():
                if line.startswith("vllm:") and (hit := _SAMPLE.match(line)):
                    name, labels, value = hit.groups()
                    samples[name][labels or ""].append((at, value))
        with path.open("w", encoding="utf-8") as out:
            for name, series in samples.items():
                for labels, points in series.items():
                    out.writelines(f"{name}{labels} {value} {at:.3f}\n" for at, value in points)
            out.write("# EOF\n")


class Door(PromptServer):
    """Stands before Prometheus and for a server: what it is asked is answered as of `moment`.

    Args:
        prometheus: URL of Prometheus.
        pages: What a server showed.
    """

    def __init__(self, prometheus: str, pages: Pages) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.prometheus = prometheus
        self.pages = pages
        self.moment = 0.0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _Asked(http.server.BaseHTTPRequestHandler):
    server: Door

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        if asked.path == "/metrics":
            return self._answer(200, "text/plain; version=0.0.4", self.server.pages.at(self.server.moment).encode())
        pairs = {**dict(parse_qsl(asked.query)), "time": f"{self.server.moment:.3f}"}
        try:
            with urllib.request.urlopen(f"{self.server.prometheus}{asked.path}?{urlencode(pairs)}") as answer:  # noqa: S310
                return self._answer(200, str(answer.headers["Content-Type"]), answer.read())
        except urllib.error.HTTPError as error:
            return self._answer(error.code, "application/json", error.read())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@contextlib.contextmanager
def prometheus(folder: Path, pages: Pages) -> Iterator[str]:
    """Debian's Prometheus over the pages, by its URL."""
    text, data, port = folder / "pages.om", folder / "data", idle.free_block()
    pages.write(text)
    promtool = shutil.which("promtool") or sys.exit("needs promtool (Debian: apt-get install prometheus)")
    subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", str(text), str(data)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    (folder / "prometheus.yml").write_text("global: {}\n")
    program = subprocess.Popen(
        [
            shutil.which("prometheus") or "prometheus", f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={data}", f"--web.listen-address=127.0.0.1:{port}",
            "--storage.tsdb.retention.time=10y", "--log.level=error",
        ],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/-/ready"):  # noqa: S310
                break
            if time.monotonic() > deadline or program.poll() is not None:
                sys.exit("prometheus did not start")
            time.sleep(0.2)
        yield url
    finally:
        program.terminate()
        program.wait()


def doctor_says(program: str, url: str, seconds: float) -> list[str]:
    """Ids of vllm-doctor's findings, the gravest first.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    done = subprocess.run(
        [program, "diagnose", url, "--since", f"{max(1, round(seconds))}s", "--output", "json"],
        check=False, capture_output=True, text=True, timeout=_PATIENCE_SECONDS,
    )  # fmt: skip
    try:
        told = json.loads(done.stdout)
    except ValueError:
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr) from None
    return [str(one["id"]) for one in told["checks"] if one.get("finding")]


def aiops_says(program: str, home: Path) -> list[str]:
    """Causes of inference-aiops, the first it names first.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    done = subprocess.run(
        [program, "metrics", "diagnose"],
        check=True, capture_output=True, text=True, timeout=_PATIENCE_SECONDS,
        env={**os.environ, "INFERENCE_AIOPS_HOME": str(home), "NO_COLOR": "1", "TERM": "dumb"},
    )  # fmt: skip
    told = json.loads(done.stdout)
    return [one["cause"] for one in told["probableCauses"] if not one["cause"].startswith(_NOTHING)]


def measure(folder: Path, *, doctor: str, aiops: str) -> list[dict[str, Any]]:
    """Ask both about each fault and each quiet window."""
    runs = [run for run in runs_of(folder) if _is_vllm(folder / run.name)]
    pages = Pages(folder, runs)
    made = []
    with tempfile.TemporaryDirectory() as place, prometheus(Path(place), pages) as url:
        door = Door(url, pages)
        threading.Thread(target=door.serve_forever, daemon=True).start()
        home = Path(place)
        (home / "config.yaml").write_text(
            f"targets:\n  - {{name: recorded, host: 127.0.0.1, vllm_port: {door.server_port}, engine: vllm}}\n"
        )
        asked: dict[str, tuple[Callable[[float], list[str]], Callable[[str, str], bool]]] = {
            "vllm-doctor": (
                lambda seconds: doctor_says(doctor, door.url, seconds),
                lambda said, cause: said in DOCTOR.get(cause, ()),
            ),
            "inference-aiops": (
                lambda _: aiops_says(aiops, home),
                lambda said, cause: cause in AIOPS and said.startswith(AIOPS[cause]),
            ),
        }
        for name, (ask, right) in asked.items():
            hits = faults = silent = quiet = 0
            for run in runs:
                if run.fault:
                    door.moment = run.injected
                    said = ask(door.moment - run.fault[0])
                    hit = bool(said) and any(right(said[0], cause) for cause in (run.cause, run.also))
                    hits, faults = hits + hit, faults + 1
                    print(
                        f"{name}: {run.name}: wanted {run.cause} {run.also}; told {said or 'nothing'}", file=sys.stderr
                    )
                for first, last in windows(*run.quiet):
                    if last - first < max(LENGTHS) - 1e-6:
                        continue
                    door.moment = last
                    silent, quiet = silent + (not ask(last - first)), quiet + 1
            made.append(figure(f"{name}_first_right", hits, faults, RIGHT_GOAL))
            made.append(figure(f"{name}_quiet_windows_silent", silent, quiet, QUIET_GOAL))
        door.shutdown()
        door.server_close()
    return made


def _is_vllm(folder: Path) -> bool:
    if not (folder / PAGES).exists():
        return False
    with gzip.open(folder / PAGES, "rt") as lines:
        return "vllm:" in next(lines, "")


def main() -> None:
    """Print one JSON object a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--doctor", required=True, help="the program vllm-doctor")
    parser.add_argument("--aiops", required=True, help="the program inference-aiops")
    parser.add_argument("--json", action="store_true", help="figures are JSON in any case")
    given = parser.parse_args()
    for made in measure(given.runs, doctor=given.doctor, aiops=given.aiops):
        print(json.dumps(made))


if __name__ == "__main__":
    main()
