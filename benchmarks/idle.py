"""What ``servescope up`` costs beside one idle engine: CPU and memory of all its processes.

The engine is a real llama.cpp server that nobody asks anything. Reference of both figures: that engine itself, idle.
Run as ``python -m benchmarks.idle [--quick] [--json]``.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import click
import psutil

CPU_GOAL: Final = 0.06
MEMORY_GOAL: Final = 900.0
_SETTLE_SECONDS: Final = 30.0
_START_SECONDS: Final = 120.0
_ROOT: Final = Path(__file__).parent.parent


def measure(seconds: float) -> list[dict[str, object]]:
    """Start both, wait until they are at rest, and measure for ``seconds``."""
    with tempfile.TemporaryDirectory(prefix="servescope-idle-") as name:
        folder = Path(name)
        base = free_block()
        engine = start("demo.llamacpp_server", "--port", str(base + 30), "--folder", str(folder / "llama"))
        up = start(
            "servescope", "up", "--data", str(folder / "data"), "--port-base", str(base),
            "--target", f"llama=http://127.0.0.1:{base + 30}",
        )  # fmt: skip
        try:
            until_running(up, folder / "data")
            time.sleep(_SETTLE_SECONDS)
            before, engine_before = cpu_by_part(up.pid), cpu_by_part(engine.pid)
            begun = time.monotonic()
            time.sleep(seconds)
            lasted = time.monotonic() - begun
            cpu = {part: (after - before.get(part, 0.0)) / lasted for part, after in cpu_by_part(up.pid).items()}
            engine_cpu = (sum(cpu_by_part(engine.pid).values()) - sum(engine_before.values())) / lasted
            memory = _memory(up.pid)
            engine_memory = sum(_memory(engine.pid).values())
        finally:
            for process in (up, engine):
                process.send_signal(signal.SIGINT)
            for process in (up, engine):
                process.wait(60)
    return [
        _figure("idle_cpu", sum(cpu.values()), "cores", engine_cpu, CPU_GOAL, cpu),
        _figure("idle_memory", sum(memory.values()), "MB", engine_memory, MEMORY_GOAL, memory),
    ]


def _figure(
    name: str, value: float, unit: str, reference: float, goal: float, parts: dict[str, float]
) -> dict[str, object]:
    told = ", ".join(f"{part} {share:.4g}" for part, share in sorted(parts.items(), key=lambda item: -item[1]))
    click.echo(f"{name} in {unit}: {told}", err=True)
    return {
        "name": name, "value": round(value, 4), "unit": unit, "reference": "the idle llama.cpp server itself",
        "reference_value": round(reference, 4), "ratio": round(value / reference, 2) if reference else None,
        "goal": goal, "met": value <= goal,
    }  # fmt: skip


def start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a module of ours as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments], cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip


def until_running(up: subprocess.Popen[bytes], data: Path) -> None:
    """Wait until ``servescope up`` says what it runs.

    Raises:
        ClickException: It did not start.
    """
    deadline = time.monotonic() + _START_SECONDS
    while not (data / "run.json").exists():
        if up.poll() is not None or time.monotonic() > deadline:
            raise click.ClickException("servescope up did not start; run it by hand to see why")
        time.sleep(0.2)


def _processes(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def _name(process: psutil.Process) -> str:
    words = process.cmdline()
    return words[words.index("-m") + 1] if "-m" in words else process.name()


def cpu_by_part(pid: int) -> dict[str, float]:
    """CPU seconds that a process and those below it have used, by the module that each runs."""
    found: dict[str, float] = {}
    for process in _processes(pid):
        with contextlib.suppress(psutil.NoSuchProcess):  # a child of a part that has just ended
            name, times = _name(process), process.cpu_times()
            found[name] = found.get(name, 0.0) + times.user + times.system
    return found


def _memory(pid: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for process in _processes(pid):
        found[_name(process)] = found.get(_name(process), 0.0) + process.memory_info().rss / 1e6
    return found


def free_block() -> int:
    """First of forty ports in a row that are free, below those that the kernel gives to whoever calls out."""
    for base in range(22000, 32700, 40):
        sockets = []
        try:
            for port in range(base, base + 40):
                probe = socket.socket()
                sockets.append(probe)
                probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        else:
            return base
        finally:
            for probe in sockets:
                probe.close()
    raise click.ClickException("no forty free ports in a row")


@click.command()
@click.option("--quick", is_flag=True, help="Twenty seconds instead of two minutes.")
@click.option("--json", "_as_json", is_flag=True, help="JSON lines, as always.")
def main(quick: bool, _as_json: bool) -> None:
    """Print one JSON object a figure."""
    for figure in measure(20.0 if quick else 120.0):
        click.echo(json.dumps(figure))


if __name__ == "__main__":
    main()
