"""Real servers, and an agent with a tap before each: what a run is recorded from."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

import psutil
import yaml

from base.keys import ensure_keys
from benchmarks.faults.clients import until_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

ROOT: Final = Path(__file__).parents[2]
_UV: Final = Path(sys.executable).parent / "uv"
MODELS: Final = Path(__file__).parent / "models"
TRITON_PORTS: Final = 3
"""HTTP, gRPC and metrics of each."""
_UP_SECONDS: Final = 240.0
_NOWHERE: Final = "http://127.0.0.1:9"
"""The discard port: what the agent sees stays in its spool, from which it is recorded."""


@dataclass
class Server:
    """Servers of one model, each started by a program of the demo."""

    folder: Path
    port: int
    otlp: int
    programs: list[subprocess.Popen[bytes]] = field(default_factory=list, init=False)

    def _run(self, module: str, *arguments: object, log: str, **environment: object) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", module, *(str(one) for one in arguments)]
        variables = os.environ | {name: str(value) for name, value in environment.items()}
        with (self.folder / f"{log}.log").open("ab") as out:
            self.programs.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=variables)
            )

    def stop(self) -> None:
        """End them."""
        for program in self.programs:
            program.terminate()
        for program in self.programs:
            program.wait()
        self.programs.clear()

    def processes(self, number: int = 0) -> list[psutil.Process]:
        """All processes of one of them."""
        return psutil.Process(self.programs[number].pid).children(recursive=True)


@dataclass
class Vllm(Server):
    """A vLLM on the CPU with the probe in it, its worker on the machine's last core.

    Args:
        flags: Of ``vllm serve``.
        program: The ``vllm`` program or its virtual environment; "" for ours.
    """

    flags: Sequence[str] = ()
    program: str = ""
    engine = "vllm"
    ready = "/health"

    @property
    def probe_socket(self) -> Path:
        """Where it tells of its steps."""
        return self.folder / "probe.sock"

    @property
    def urls(self) -> list[str]:
        """Base URL."""
        return [f"http://127.0.0.1:{self.port}"]

    @property
    def pages(self) -> list[str]:
        """URL of the metrics page."""
        return [f"{self.urls[0]}/metrics"]

    async def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            TimeoutError: It was not in four minutes.
        CalledProcessError: The probe can't be installed.
        """
        site = self._probe()
        self._run(
            "demo.vllm_server", "--port", self.port, "--folder", self.folder, "--otlp", f"http://127.0.0.1:{self.otlp}",
            "--vllm", self.program, "--", "--enable-logging-iteration-details", *self.flags, log="vllm",
            PYTHONPATH=site, SERVESCOPE_PROBE_SOCKET=self.probe_socket,
        )  # fmt: skip
        await until_up(f"{self.urls[0]}{self.ready}", _UP_SECONDS)
        # Engine and worker wait by yielding their core again and again: on one of them they starve each other.
        every = os.sched_getaffinity(0)
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.cpu_affinity([max(every)] if process.name().startswith("VLLM::Worker") else sorted(every))

    def _probe(self) -> Path:
        site = self.folder / "site"
        install = [str(_UV), "pip", "install", "-q", "--no-deps", "--target", str(site), str(ROOT / "probe")]
        subprocess.run(install, check=True)
        return site

    def cores(self) -> list[psutil.Process]:
        """The engine's core and its worker, behind the process that takes requests."""
        return [one for one in self.processes() if one.name().startswith("VLLM::")]


@dataclass
class Triton(Server):
    """One or several tritonservers.

    Args:
        names: What their spans call them.
        venv: Environment with ``nvidia-pytriton``.
    """

    names: Sequence[str] = ()
    venv: Path = Path(".venv-triton")
    engine = "triton"
    ready = "/v2/health/ready"

    @property
    def urls(self) -> list[str]:
        """Base URLs."""
        return [f"http://127.0.0.1:{self.port + TRITON_PORTS * number}" for number in range(len(self.names))]

    @property
    def pages(self) -> list[str]:
        """URLs of the metrics pages."""
        return [
            f"http://127.0.0.1:{self.port + TRITON_PORTS * number + 2}/metrics" for number in range(len(self.names))
        ]

    async def start(self) -> None:
        """Start them and wait until they are ready.

        Raises:
            TimeoutError: One was not in four minutes.
        """
        for number, name in enumerate(self.names):
            folder = self.folder / name
            shutil.copytree(MODELS, folder / "models")
            self._run(
                "demo.triton_server", "--venv", self.venv, "--folder", folder, "--port",
                self.port + TRITON_PORTS * number, "--otlp", f"127.0.0.1:{self.otlp}", "--service", name, "--models",
                folder / "models", log=name,
            )  # fmt: skip
            await until_up(f"{self.urls[number]}{self.ready}", _UP_SECONDS)

    def slow(self, number: int, factor: float | None) -> None:
        """Have one compute so many times as long; None for as ever."""
        path = self.folder / self.names[number] / "models" / "vision" / "slow"
        if factor is None:
            path.unlink(missing_ok=True)
            return
        fresh = path.with_suffix(".new")
        fresh.write_text(str(factor))
        fresh.replace(path)

    def cores(self) -> list[psutil.Process]:
        """All of the first one: a server that stands takes no requests either."""
        return self.processes()

    async def crash(self) -> None:
        """Kill the first one; whoever started it starts it again."""
        told(self.processes(), signal.SIGKILL)
        await until_up(f"{self.urls[0]}{self.ready}", _UP_SECONDS)


@contextlib.asynccontextmanager
async def watched(server: Vllm | Triton, names: Sequence[str], deployment: str, data: Path) -> AsyncIterator[list[str]]:
    """An agent and taps before a server while the block runs; yields the taps' URLs.

    Args:
        server: Runs already.
        names: What its instances are called in this run.
        deployment: What they are called together.
        data: Data folder, which is there; its spool is what is recorded.
    """
    ensure_keys(data / "keys")
    taps = [server.port + 20 + number for number in range(len(names))]
    targets: list[dict[str, Any]] = [
        {
            "instance": name, "deployment": deployment, "engine": server.engine, "url": url, "metrics_url": page,
            "tap_port": tap,
        }
        for name, url, page, tap in zip(names, server.urls, server.pages, taps, strict=True)
    ]  # fmt: skip
    config = data / "run.yaml"
    health = server.port + 19
    settings = {
        "collector": _NOWHERE, "targets": targets, "otlp_http_port": server.otlp, "otlp_grpc_port": None,
        "health_port": health, **({"probe_socket": str(server.probe_socket)} if isinstance(server, Vllm) else {}),
    }  # fmt: skip
    config.write_text(yaml.safe_dump({"agent": settings}))
    commands = [
        ["agent", "--data", str(data), "--config", str(config)],
        *([
            "agent.tap", "--instance", target["instance"], "--deployment", deployment, "--engine", server.engine,
            "--upstream", target["url"], "--port", str(target["tap_port"]), "--spool", str(data / "spool"),
            "--keys", str(data / "keys"), "--config", str(config),
        ] for target in targets),
    ]  # fmt: skip
    with (data / "parts.log").open("ab") as log, contextlib.ExitStack() as running:
        for command in commands:
            running.enter_context(_program([sys.executable, "-m", *command], log))
        await until_up(f"http://127.0.0.1:{health}/healthz", 60)
        for tap in taps:
            await until_up(f"http://127.0.0.1:{tap}{server.ready}", 60)
        yield [f"http://127.0.0.1:{tap}" for tap in taps]


@contextlib.contextmanager
def _program(command: Sequence[str], log: IO[bytes]) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def told(processes: Sequence[psutil.Process], number: int) -> None:
    """Send a signal to each that is still there."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@contextlib.contextmanager
def competitors(count: int) -> Iterator[None]:
    """So many processes that want a CPU all of the time."""
    made = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in made:
            process.kill()
            process.wait()


class Throttled:
    """A CPU quota over processes, by a control group of version 1 of their own; mounting its controller needs root."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._mount = Path(tempfile.mkdtemp(prefix="servescope-cpu-"))
        self._group = self._mount / "servescope-fault"

    def __enter__(self) -> Self:
        subprocess.run(["mount", "-t", "cgroup", "-o", "cpu", "none", str(self._mount)], check=True)
        self._group.mkdir(exist_ok=True)
        (self._group / "cpu.cfs_period_us").write_text("100000")
        (self._group / "cpu.cfs_quota_us").write_text(str(int(100_000 * self.share)))
        return self

    def take(self, processes: Sequence[psutil.Process]) -> None:
        """Put processes into the group."""
        for process in processes:
            (self._group / "cgroup.procs").write_text(str(process.pid))

    def __exit__(self, *_: object) -> None:
        (self._group / "cpu.cfs_quota_us").write_text("-1")
        for pid in (self._group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (self._mount / "cgroup.procs").write_text(pid)
        for _turn in range(50):
            with contextlib.suppress(OSError):
                self._group.rmdir()
                break
            time.sleep(0.1)
        subprocess.run(["umount", str(self._mount)], check=True)
        self._mount.rmdir()
