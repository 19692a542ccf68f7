"""Start a real tritonserver from the ``nvidia-pytriton`` wheel, without Docker and without a GPU.

The wheel carries the server, the python backend and its stubs; plain ``tritonserver`` finds them with a backend
folder of links, the wheel's own libraries on ``LD_LIBRARY_PATH`` and the virtual environment's python on ``PATH``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import aiohttp
import click
import structlog

from base.errors import ServescopeError

log = structlog.get_logger()

MODELS = Path(__file__).parent / "models"
_READY_SECONDS = 60.0
_ATTEMPTS = 6
_PROBE = (
    "import sys, sysconfig; "
    "print(sysconfig.get_path('purelib'), sysconfig.get_config_var('LIBDIR'), '%d.%d' % sys.version_info[:2])"
)
_SHARED = Path("/dev/shm")  # noqa: S108 - where the server's model processes put their memory


class TritonUnavailableError(ServescopeError):
    """tritonserver is not installed, or did not come up."""


@dataclass
class TritonServer:
    """One tritonserver process on loopback.

    tritonserver aborts when the machine starves it of CPU for a second, at the start too: ``start`` tries again, and
    ``keep_running`` restarts it later.

    Args:
        venv: Virtual environment with ``nvidia-pytriton``.
        folder: Scratch folder for backend links and the server's log.
        http_port: KServe-v2 HTTP; gRPC and metrics take the next two ports.
        otlp_endpoint: ``host:port`` of an OTLP/HTTP receiver for its traces, or "" for none.
        service_name: ``service.name`` of its spans.
        models: Model repository.
    """

    venv: Path
    folder: Path
    http_port: int
    otlp_endpoint: str = ""
    service_name: str = "triton"
    models: Path = MODELS
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    restarts: int = field(default=0, init=False)
    _log: IO[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """Base URL of the inference API."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def metrics_url(self) -> str:
        """URL of the metrics page."""
        return f"http://127.0.0.1:{self.http_port + 2}/metrics"

    async def start(self) -> None:
        """Start and wait until ready, with fresh attempts when it aborts.

        Raises:
            TritonUnavailableError: Not installed, or not ready after six attempts; names the log file.
        """
        command, environment = self._command()
        self.folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, _ATTEMPTS + 1):
            self._launch(command, environment)
            if await self._ready():
                log.info("tritonserver_ready", url=self.url, attempt=attempt)
                return
            self.stop()
            log.warning("tritonserver_start_failed", attempt=attempt, log=str(self.folder / "tritonserver.log"))
        raise TritonUnavailableError(
            f"tritonserver did not become ready on port {self.http_port} in {_ATTEMPTS} attempts",
            f"See {self.folder / 'tritonserver.log'}; a busy machine starves it: close other work and try again",
        )

    async def keep_running(self) -> None:
        """Restart the server whenever it dies, until cancelled."""
        while True:
            await asyncio.sleep(1.0)
            if self.process is not None and self.process.poll() is not None:
                self.restarts += 1
                log.warning("tritonserver_died", code=self.process.returncode, restarts=self.restarts)
                await self.start()

    def stop(self) -> None:
        """Stop the server and the model processes that a crash can leave behind."""
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=8)
            except subprocess.TimeoutExpired:
                log.warning("tritonserver_killed", pid=process.pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _launch(self, command: list[str], environment: dict[str, str]) -> None:
        self._log = (self.folder / "tritonserver.log").open("ab")
        self.process = subprocess.Popen(
            command, env=environment, stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL,
            start_new_session=True, cwd=self.folder,
        )  # fmt: skip

    async def _ready(self) -> bool:
        deadline = asyncio.get_running_loop().time() + _READY_SECONDS
        timeout = aiohttp.ClientTimeout(total=2)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while asyncio.get_running_loop().time() < deadline:
                if self.process is None or self.process.poll() is not None:
                    return False
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"{self.url}/v2/health/ready") as response:
                        if response.status == 200:  # noqa: PLR2004 - HTTP's own number
                            return True
                await asyncio.sleep(0.25)
        return False

    def _command(self) -> tuple[list[str], dict[str, str]]:
        python = self.venv.absolute() / "bin" / "python"  # absolute: the server runs in its own folder
        if not python.exists():
            raise TritonUnavailableError(f"no tritonserver: {self.venv} does not exist", "Run `make install`")
        probe = subprocess.run([str(python), "-c", _PROBE], capture_output=True, text=True, check=True)
        purelib, libdir, version = probe.stdout.split()
        root = Path(purelib) / "pytriton" / "tritonserver"
        server = root / "bin" / "tritonserver"
        stub = root / "python_backend_stubs" / version / "triton_python_backend_stub"
        if not server.exists() or not stub.exists():
            raise TritonUnavailableError(
                f"{self.venv} holds no tritonserver for Python {version}",
                "Run `make install` again with a Python between 3.11 and 3.13",
            )
        backends = self._backends(root, stub)
        command = [
            str(server),
            f"--model-repository={self.models.absolute()}",
            f"--backend-directory={backends}",
            f"--cache-directory={root / 'caches'}",
            "--model-load-thread-count=1",
            "--http-address=127.0.0.1", f"--http-port={self.http_port}",
            "--grpc-address=127.0.0.1", f"--grpc-port={self.http_port + 1}",
            "--metrics-address=127.0.0.1", f"--metrics-port={self.http_port + 2}",
            "--metrics-config=summary_latencies=true",
            "--metrics-interval-ms=500",
            "--cache-config=local,size=16777216",
        ]  # fmt: skip
        if self.otlp_endpoint:
            command += [
                "--trace-config=mode=opentelemetry", "--trace-config=rate=1", "--trace-config=level=TIMESTAMPS",
                f"--trace-config=opentelemetry,url={self.otlp_endpoint}/v1/traces",
                f"--trace-config=opentelemetry,resource=service.name={self.service_name}",
            ]  # fmt: skip
        environment = {
            **os.environ,
            "PATH": f"{python.parent}:{os.environ.get('PATH', '')}",
            "LD_LIBRARY_PATH": f"{purelib}/nvidia_pytriton.libs:{libdir}",
            "OPENBLAS_NUM_THREADS": "1",
        }
        return command, environment

    def _backends(self, root: Path, stub: Path) -> Path:
        folder = self.folder.absolute() / "backends"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "python").mkdir(parents=True)
        for item in (root / "backends" / "python").iterdir():
            (folder / "python" / item.name).symlink_to(item)
        shutil.copy2(stub, folder / "python" / stub.name)
        return folder


def shared_memory_left_behind() -> list[Path]:
    """Shared memory files of crashed servers that no living process maps any more."""
    regions = list(_SHARED.glob("triton_python_backend_shm_region_*"))
    if not regions or sys.platform != "linux":
        return []
    mapped: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            mapped.update(re.findall(r"/(triton_python_backend_shm_region_\S+)", maps.read_text()))
    return [region for region in regions if region.name not in mapped]


@click.command()
@click.option("--venv", type=click.Path(path_type=Path), required=True, help="Environment with nvidia-pytriton.")
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Scratch folder.")
@click.option("--port", type=int, required=True, help="HTTP port; gRPC and metrics take the next two.")
@click.option("--otlp", default="", help="host:port of an OTLP/HTTP receiver for traces.")
@click.option("--service", default="triton", show_default=True, help="service.name of its spans.")
@click.option(
    "--models", type=click.Path(path_type=Path), default=MODELS, show_default="the demo's", help="Model repository."
)
def main(venv: Path, folder: Path, port: int, otlp: str, service: str, models: Path) -> None:
    """Run a tritonserver, restarted when it aborts, until SIGTERM or SIGINT."""
    server = TritonServer(
        venv=venv, folder=folder, http_port=port, otlp_endpoint=otlp, service_name=service, models=models
    )

    async def run() -> None:
        task = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel if task else sys.exit)
        try:
            await server.start()
            await server.keep_running()
        except asyncio.CancelledError:
            log.info("stopping")
        finally:
            server.stop()
            for region in shared_memory_left_behind():
                region.unlink(missing_ok=True)

    try:
        asyncio.run(run())
    except ServescopeError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
