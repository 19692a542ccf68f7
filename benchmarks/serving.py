"""vLLM's own throughput with the probe's step logger and middleware and without, by ``vllm bench serve``, in pairs.

A real vLLM on the CPU serves the demo's tiny model. Each run has a server of its own: whatever a start brings by chance
(where memory lies, in which order things hash) then counts as noise between pairs and not as the probe's, and no second
server takes turns on the cores. The two runs of a pair get the same requests, and pairs begin with the plain server and
with the other by turns, so that a machine that gets slower or faster favours neither.

The probe tells the agent's own parts (``benchmarks.witness``); they are there beside the plain servers too, where they
are told nothing. A run counts when each step's tokens and each request came there; if not, there are no figures and the
exit code is 1.

On few cores the server keeps to the last one, as in the demo, and client and agent to the others: all that the probe
does is then taken from the engine, which has a GPU elsewhere.

    python -m benchmarks.serving [--vllm VENV] [--pairs 5] [--requests N] [--details] [--keep DIR] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Final

from scipy import stats

from base.errors import ServescopeError
from benchmarks.idle import free_block
from benchmarks.witness import INSTANCE, Received, Witness
from servescope.launch.supervisor import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RATIO_GOAL: Final = 0.98
"""Least share of the plain server's throughput."""
CONFIDENCE: Final = 0.95
INPUT_TOKENS: Final = 32
OUTPUT_TOKENS: Final = 64
"""Well within one block of the tiny model's cache, with the prompt: nobody waits for room."""
CONCURRENCY: Final = 32
"""As many as the server runs at once."""
WARMUPS: Final = 64
MEASURES: Final = (
    ("request_throughput", "requests/s", True),
    ("output_throughput", "tokens/s", True),
    ("mean_ttft_ms", "ms", False),
    ("mean_tpot_ms", "ms", False),
)
"""What ``vllm bench serve`` calls it, its unit, and whether there is a goal."""
_START_SECONDS: Final = 300.0
_RUN_SECONDS: Final = 600.0
_STOP_SECONDS: Final = 60.0
_ROWS_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 0.5
_TOLD: Final = 600
"""Letters of a failure that are told."""
_MODEL: Final = "tiny"
"""What the demo calls its model, and its folder."""
_ROOT: Final = Path(__file__).parent.parent
VLLM: Final = _ROOT / ".venv-vllm" / "bin" / "vllm"
"""The demo's."""


class UnprovenError(ServescopeError):
    """A run that says nothing: not all was served, or not all that was served was told."""


@dataclass(frozen=True, slots=True)
class Run:
    """One server's run.

    Attributes:
        found: What the client found, by the names of ``vllm bench serve``.
        received: What the agent made of what it was told.
    """

    found: dict[str, float]
    received: Received


@dataclass(frozen=True, slots=True)
class Pair:
    """Both runs of the same requests."""

    plain: Run
    probed: Run


def prove(run: Run, *, probed: bool, requests: int) -> None:
    """Make sure that a run was what it is said to be.

    Args:
        run: The run.
        probed: Whether step logger and middleware are in this server.
        requests: That were to be served, without those that warm it up.

    Raises:
        UnprovenError: It was not; says what is missing.
    """
    fix = "Give a folder with --keep and see vllm.log there"
    found, received = run.found, run.received
    if found["completed"] != requests or found["failed"]:
        served = f"{found['completed']:g} of {requests} requests, {found['failed']:g} failed"
        raise UnprovenError(f"vllm bench serve completed {served}", fix)
    if not probed:
        if received.steps or received.requests:
            raise UnprovenError("The plain server told of steps or requests", "Take the probe out of its environment")
        return
    asked = requests + WARMUPS
    if not received.steps or received.tokens != asked * OUTPUT_TOKENS:
        made = f"{received.steps} steps that generated {received.tokens} of {asked * OUTPUT_TOKENS} tokens"
        raise UnprovenError(f"The step logger told of {made}", fix)
    if received.requests != asked:
        raise UnprovenError(f"The middleware told of {received.requests} of {asked} requests", fix)
    if received.lost:
        raise UnprovenError(f"{received.lost} of the probe's records were lost", "Take a machine with less to do")


def interval(logs: Sequence[float]) -> tuple[float, float] | None:
    """Ends of the 95 % interval of the mean of logarithms of ratios, as ratios; None of fewer than two.

    By Student's t over the pairs: they are few, and their spread is known from themselves alone.
    """
    if len(logs) < 2:  # noqa: PLR2004 - one has no spread
        return None
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(logs) - 1)) * stdev(logs) / math.sqrt(len(logs))
    return math.exp(fmean(logs) - half), math.exp(fmean(logs) + half)


def figures(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """The figures: means with their intervals, pair by pair, how much plain servers differ, and what was told.

    Goals of throughput: its mean ratio is at least 0.98; it is so with 95 % certainty (``_low``); the interval holds 1,
    so that a difference can't be told from noise (``_high``).
    """
    without = "the same vLLM without step logger and middleware, in the same run"
    over = f"no difference; ends of the ratio's {CONFIDENCE:.0%} interval over {len(pairs)} pairs"
    means, single = [], []
    for name, unit, judged in MEASURES:
        plain = [pair.plain.found[name] for pair in pairs]
        probed = [pair.probed.found[name] for pair in pairs]
        reference = _mean(plain)
        goal = RATIO_GOAL * reference if judged else None
        means.append(_figure(f"serving_{name}", _mean(probed), unit, without, reference, goal))
        ends = interval([math.log(ours / theirs) for ours, theirs in zip(probed, plain, strict=True)])
        if ends is not None:
            low, high = ends
            means.append(_figure(f"serving_{name}_low", low, "", over, 1.0, RATIO_GOAL if judged else None))
            means.append(_figure(f"serving_{name}_high", high, "", over, 1.0, 1.0 if judged else None))
            if judged:
                means[-1]["met"] = low <= 1.0 <= high
        for number, (ours, theirs) in enumerate(zip(probed, plain, strict=True), 1):
            single.append(_figure(f"serving_{name}_pair_{number}", ours, unit, without, theirs, None))
    rates = [math.log(pair.plain.found["request_throughput"]) for pair in pairs]
    if len(rates) > 1:
        spread = math.expm1(stdev(rates))
        single.append(_figure("serving_noise", spread, "", "their mean; spread of the plain servers", 1.0, None))
    asked = sum(pair.probed.found["completed"] + WARMUPS for pair in pairs)
    tokens = sum(pair.probed.received.tokens for pair in pairs)
    rows = sum(pair.probed.received.requests for pair in pairs)
    due = asked * OUTPUT_TOKENS
    single.append(_figure("serving_tokens_of_step_rows", tokens, "tokens", "asked for", due, due))
    single.append(_figure("serving_edge_rows", rows, "rows", "requests that were sent", asked, asked))
    return [*means, *single]


def _mean(values: Sequence[float]) -> float:
    """The geometric one: the ratio of two is the mean of the pairs' ratios."""
    return math.exp(fmean(map(math.log, values)))


def _figure(
    name: str, value: float, unit: str, reference: str, reference_value: float, goal: float | None
) -> dict[str, Any]:
    """One figure; where it has a goal, more is better."""
    return {
        "name": name, "value": round(value, 6), "unit": unit, "reference": reference,
        "reference_value": round(reference_value, 6), "ratio": round(value / reference_value, 4),
        "goal": None if goal is None else round(goal, 6), "met": None if goal is None else value >= goal,
    }  # fmt: skip


def program(vllm: str) -> Path:
    """The ``vllm`` program: the one named, or that of the virtual environment named, else the demo's.

    Raises:
        ServescopeError: There is none.
    """
    path = Path(vllm or VLLM).expanduser().absolute()
    path = path / "bin" / "vllm" if path.is_dir() else path
    if not path.is_file():
        raise ServescopeError(
            f"There is no vllm program at {path}", "Run make test-vllm, which installs one, or give --vllm"
        )
    return path


def aside() -> set[int]:
    """Cores for client and agent: the last one is the worker's, or on few cores the whole server's."""
    every = os.sched_getaffinity(0)
    return every - {max(every)} or every


class Bench:
    """What all runs share: programs, model, port, and the agent's end.

    Args:
        vllm: The ``vllm`` program.
        folder: For all that is written.
        requests: In each run.
        details: Whether probed servers have vLLM tell what each step's batch is made of, which it logs as well.
    """

    def __init__(self, vllm: Path, folder: Path, requests: int, *, details: bool) -> None:
        self._vllm = vllm
        self._folder = folder
        self._requests = requests
        self._more = ["--middleware", "servescope_probe.Edge", *(["--enable-logging-iteration-details"] * details)]
        folder.mkdir(parents=True, exist_ok=True)
        self._port = free_block()
        self._site = folder / "site"
        install = [str(Path(sys.executable).parent / "uv"), "pip", "install", "-q", "--no-deps", "--target"]
        subprocess.run([*install, str(self._site), str(_ROOT / "probe")], check=True)
        self._witness = Witness(folder / "agent", self._port, aside())

    def close(self) -> None:
        """End the agent's end."""
        self._witness.close()

    def run(self, seed: int, *, probed: bool) -> Run:
        """Start a server, drive it, stop it.

        Args:
            seed: Of the requests.
            probed: Whether step logger and middleware are in it.

        Raises:
            UnprovenError: Something is missing.
        """
        self._witness.ask()
        with self._serving(probed=probed):
            found = self._drive(seed)
            received = self._witness.ask()
            deadline = time.monotonic() + _ROWS_SECONDS
            while probed and received.requests < self._requests + WARMUPS and time.monotonic() < deadline:
                time.sleep(_PAUSE_SECONDS)
                received.add(self._witness.ask())
        received.add(self._witness.ask())  # what it told at its end
        run = Run(found, received)
        prove(run, probed=probed, requests=self._requests)
        return run

    @contextlib.contextmanager
    def _serving(self, *, probed: bool) -> Iterator[None]:
        variables = _environment()
        if probed:
            variables |= {
                "PYTHONPATH": str(self._site),
                "SERVESCOPE_PROBE_SOCKET": str(self._witness.socket),
                "SERVESCOPE_PROBE_INSTANCE": INSTANCE,
            }
        command = [sys.executable, "-m", "demo.vllm_server", "--port", str(self._port), "--folder", str(self._folder)]
        command += ["--vllm", str(self._vllm), "--", *(self._more if probed else ())]
        with (self._folder / "vllm.log").open("ab") as out:
            process = subprocess.Popen(
                command, cwd=_ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl call; a killed benchmark must not leave vLLM
            )  # fmt: skip
        try:
            self._until_up(process)
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _until_up(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=5).close()
                return
            time.sleep(_PAUSE_SECONDS)
        said = (self._folder / "vllm.log").read_text(errors="replace").strip()[-_TOLD:]
        raise UnprovenError(f"vLLM does not serve: {said}", "Start python -m demo.vllm_server to see why")

    def _drive(self, seed: int) -> dict[str, float]:
        written = self._folder / "bench.json"
        written.unlink(missing_ok=True)
        words = {
            "--host": "127.0.0.1", "--port": self._port, "--model": _MODEL,
            "--tokenizer": self._folder / _MODEL,
            "--dataset-name": "random", "--random-input-len": INPUT_TOKENS, "--random-output-len": OUTPUT_TOKENS,
            "--num-prompts": self._requests, "--num-warmups": WARMUPS, "--max-concurrency": CONCURRENCY,
            "--seed": seed, "--temperature": 0, "--result-dir": self._folder, "--result-filename": written.name,
        }  # fmt: skip
        command = [str(self._vllm), "bench", "serve", "--save-result", "--disable-tqdm"]
        command += [str(word) for pair in words.items() for word in pair]
        try:
            done = subprocess.run(
                command, env=_environment() | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_RUN_SECONDS, check=False,
                preexec_fn=_stand_aside,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            fix = "Ask for fewer with --requests"
            raise UnprovenError(f"vllm bench serve was not done after {_RUN_SECONDS:g} s", fix) from None
        if done.returncode or not written.exists():
            raise UnprovenError(f"vllm bench serve failed: {done.stderr.strip()[-_TOLD:]}")
        told = json.loads(written.read_text())
        return {name: float(told[name]) for name in (*(name for name, _, _ in MEASURES), "completed", "failed")}


def _stand_aside() -> None:
    die_with_parent()
    os.sched_setaffinity(0, aside())


def _environment() -> dict[str, str]:
    """This process's own, without what would bring the probe, or the way to another agent, into a server."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH" and "_PROBE_" not in name}


def measure(bench: Bench, pairs: int) -> list[Pair]:
    """Run all pairs, with progress on stderr.

    Raises:
        UnprovenError: A run says nothing.
    """
    made = []
    for number in range(1, pairs + 1):
        runs: dict[bool, Run] = {}
        for probed in (False, True) if number % 2 else (True, False):
            load = os.getloadavg()[0]
            runs[probed] = run = bench.run(number, probed=probed)
            told = ", ".join(f"{run.found[name]:.2f} {unit}" for name, unit, _ in MEASURES)
            rows = f"{run.received.steps} steps and {run.received.requests} requests told" if probed else "plain"
            print(f"pair {number}: {told}; {rows} (load {load:.1f} before)", file=sys.stderr, flush=True)
        made.append(Pair(runs[False], runs[True]))
        ratio = runs[True].found["request_throughput"] / runs[False].found["request_throughput"]
        print(f"pair {number}: {ratio:.4f} of the requests/s", file=sys.stderr, flush=True)
    return made


def main() -> None:
    """Print one JSON object a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", default="", help="a vllm program or its virtual environment, instead of ours")
    parser.add_argument("--pairs", type=int, help="instead of 5 (quick: 2)")
    parser.add_argument("--requests", type=int, help="of a run, instead of 300 (quick: 100)")
    parser.add_argument("--details", action="store_true", help="probed servers tell their batches too, and log them")
    parser.add_argument("--keep", type=Path, help="folder for logs and results, instead of a temporary one")
    parser.add_argument("--quick", action="store_true", help="fewer pairs of fewer requests")
    parser.add_argument("--json", action="store_true", help="the only form there is")
    options = parser.parse_args()
    pairs, requests = options.pairs or (2 if options.quick else 5), options.requests or (100 if options.quick else 300)
    try:
        with contextlib.ExitStack() as stack:
            made = options.keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="servescope-serving-"))
            bench = Bench(program(options.vllm), Path(made).absolute(), requests, details=options.details)
            stack.callback(bench.close)
            found = measure(bench, pairs)
    except ServescopeError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    for line in figures(found):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
