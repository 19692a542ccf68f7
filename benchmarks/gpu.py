"""What it costs to sample 8 GPUs and 8 engine processes each second, in shares of a core.

The GPUs are the stub's, behind the real binding: what is measured is ours and the binding's work, not what a driver
does inside its calls. The engine processes are real ones with 200 threads each, of which a few work. Reference: reading
the schedstat of every thread of those processes with nothing else, which is what the figure of run-queue delay would
cost without sparing. Run as ``python -m benchmarks.gpu [--quick] [--json]``.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import structlog

from agent.host.engines import Engines
from agent.host.reading import read
from agent.sources.gpu import Gpus
from agent.sources.host import Host
from agent.target import Target
from benchmarks.stub import load

if TYPE_CHECKING:
    from collections.abc import Sequence

GPUS: Final = 8
PROCESSES: Final = 8
THREADS: Final = 200
GOAL: Final = 0.01
_ENGINE: Final = """
import sys, threading, time
def sleep():
    threading.Event().wait()
def work():
    while True:
        time.sleep(0.05)
for number in range(int(sys.argv[1])):
    threading.Thread(target=work if number < 4 else sleep, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


def measure(seconds: float) -> list[dict[str, object]]:
    """Start the engines, sample for ``seconds``, and compare."""
    engines = [
        subprocess.Popen([sys.executable, "-c", _ENGINE, str(THREADS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(PROCESSES)
    ]
    try:
        for engine in engines:
            if engine.stdout is not None:
                engine.stdout.readline()
        pids = [engine.pid for engine in engines]
        with tempfile.TemporaryDirectory(prefix="servescope-stub-") as folder:
            library = load(Path(folder))
            library.stub_reset(GPUS, 1)
            for number, pid in enumerate(pids):
                library.stub_process(number, pid, 50 << 30, 90)
            gpu = asyncio.run(_cost(seconds, pids, gpu=True))
            host = asyncio.run(_cost(seconds, pids, gpu=False))
        walked = _walk(seconds, pids)
    finally:
        for engine in engines:
            engine.kill()
            engine.wait()
    click.echo(f"GPUs {gpu:.4f}, host {host:.4f}, all threads alone {walked:.4f} of a core", err=True)
    value = gpu + host
    return [
        {
            "name": "gpu_host_cpu", "value": round(value, 5), "unit": "cores",
            "reference": f"the schedstat of all {PROCESSES} x {THREADS} threads each second, and nothing else",
            "reference_value": round(walked, 5), "ratio": round(value / walked, 3) if walked else None,
            "goal": GOAL, "met": value <= GOAL,
        }
    ]  # fmt: skip


async def _cost(seconds: float, pids: Sequence[int], *, gpu: bool) -> float:
    """CPU seconds of this process a second, with one source at work."""
    targets = [
        Target(f"engine-{pid}", "bench", None, f"http://127.0.0.1:{1 + place}") for place, pid in enumerate(pids)
    ]
    engines = Engines(targets)
    engines.know({target.instance: {pid: "VLLM::EngineCore"} for target, pid in zip(targets, pids, strict=True)})
    bodies: list[int] = []
    source = Gpus(engines=engines) if gpu else Host(engines)
    task = asyncio.create_task(source.run(lambda _signal, body: bodies.append(len(body))))
    await asyncio.sleep(2.5)  # what is done once: the library, the first look at all threads
    begun, before = time.monotonic(), time.process_time()
    await asyncio.sleep(seconds)
    spent, lasted = time.process_time() - before, time.monotonic() - begun
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    if len(bodies) < seconds / 2:
        raise click.ClickException(f"Only {len(bodies)} samples came in {seconds:g} s")
    return spent / lasted


def _walk(seconds: float, pids: Sequence[int]) -> float:
    before, rounds = time.process_time(), max(3, int(seconds / 10))
    for _ in range(rounds):
        for pid in pids:
            folder = f"/proc/{pid}/task"
            for thread in os.listdir(folder):  # noqa: PTH208 - names alone
                read(f"{folder}/{thread}/schedstat")
    return (time.process_time() - before) / rounds


@click.command()
@click.option("--quick", is_flag=True, help="A short run.")
@click.option("--seconds", type=float, help="Of each part, instead of 60 (quick: 15).")
@click.option("--json", is_flag=True, expose_value=False, help="The only form there is.")
def main(*, quick: bool, seconds: float | None) -> None:
    """What sampling GPUs and hosts costs."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for figures alone
    for figure in measure(seconds or (15 if quick else 60)):
        click.echo(json.dumps(figure))


if __name__ == "__main__":
    main()
