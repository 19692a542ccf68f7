"""The whole line as its user starts it: a real tritonserver, ``servescope up`` over it, clients through the tap."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from base.prompt_server import PromptServer
from collector.store.address import locate
from collector.store.client import Store
from demo.triton_server import TritonServer
from tests.kits.needs import lack

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
BLOCK = 40


def free_block(*, skip: int = 0) -> int:
    """First of forty free ports in a row, below the range that the kernel hands out; ``skip`` so many such rows."""
    for base in range(20000, 32000, BLOCK):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(base, base + BLOCK):
                    probe = stack.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            if skip:
                skip -= 1
                continue
            return base
    pytest.fail("no forty free ports in a row")


@dataclass
class Line:
    """A running ``servescope up``."""

    data: Path
    base: int
    target: str
    process: subprocess.Popen[bytes]
    log: Path
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def tap(self) -> str:
        return str(next(iter(self.facts["urls"]["taps"].values())))

    @property
    def otlp(self) -> str:
        return str(self.facts["urls"]["otlp"])

    def pid(self, part: str) -> int:
        return int(json.loads((self.data / "run.json").read_text())["pids"][part])

    def store(self) -> Store:
        return Store(locate(self.data, None, role="reader"))

    def rows(self, sql: str, parameters: dict[str, object] | None = None) -> list[dict[str, Any]]:
        store = self.store()
        try:
            return store.rows(sql, parameters)
        finally:
            store.close()

    def pages(self) -> list[dict[str, Any]]:
        path = self.data / "alerts" / "pages.json"
        return list(json.loads(path.read_text())) if path.exists() else []

    def kill(self, part: str) -> int:
        """SIGKILL a part and wait until the supervisor has started another one."""
        old = self.pid(part)
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: self.pid(part) != old, 60, f"{part} to be started again")
        return old

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(90)


def start_line(
    data: Path, base: int, target: str = "", *arguments: str, program: Sequence[str] = ("-m", "servescope")
) -> Line:
    """Start ``servescope up`` on fixed ports, without a target where none is named; wait until everything answers."""
    log = data.parent / f"{data.name}-up.log"
    command = [sys.executable, *program, "up", "--data", str(data), "--port-base", str(base)]
    with log.open("ab") as out:
        named = ["--target", target] if target else []
        process = subprocess.Popen([*command, *named, *arguments], cwd=ROOT, stdout=out, stderr=out)
    line = Line(data, base, target, process, log)

    def ready() -> bool:
        if process.poll() is not None:
            pytest.fail(f"servescope up ended with {process.returncode}:\n{log.read_text()[-3000:]}")
        return (data / "run.json").exists()

    try:
        wait_for(ready, 240, "servescope up")
    except BaseException:
        process.terminate()
        process.wait(60)
        raise
    line.facts = json.loads((data / "run.json").read_text())
    return line


def wait_for(condition: Any, seconds: float, what: str, every: float = 0.25) -> float:
    """Wait until a condition holds; returns how long that took."""
    begun = time.monotonic()
    last = ""
    while time.monotonic() - begun < seconds:
        try:
            if condition():
                return time.monotonic() - begun
        except Exception as error:  # noqa: BLE001 - a store that is being restarted refuses in many ways
            last = repr(error)
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it holds the connection
        time.sleep(every)
    pytest.fail(f"waited {seconds} s for {what}" + (f"; last: {last}" if last else ""))


class Triton:
    """A tritonserver that lives in a thread's event loop and is restarted when it aborts."""

    def __init__(self, folder: Path, port: int, otlp: str) -> None:
        self.required()
        self.server = TritonServer(
            venv=ROOT / ".venv-triton", folder=folder, http_port=port, otlp_endpoint=otlp, service_name="triton"
        )

    @staticmethod
    def required() -> None:
        """Skip the test where no tritonserver is installed, or fail it where nothing may be skipped."""
        if not (ROOT / ".venv-triton" / "bin" / "python").exists():
            lack("no tritonserver: run make install")

    def __enter__(self) -> Self:
        asyncio.run(self.server.start())
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    def page(self) -> str:
        with urllib.request.urlopen(self.server.metrics_url, timeout=10) as answer:
            return str(answer.read().decode())

    def counter(self, name: str, model: str) -> float:
        """Value of one series of the engine's own page."""
        return total(self.page(), name, f'model="{model}"')


class Pages:
    """Stands between an agent and a server's metrics page, passes each page on as it is and keeps it.

    What a page said under load can't be read a second time: the next one says something else.

    Args:
        source: URL of the server's own page.
        port: Port to listen on.
    """

    def __init__(self, source: str, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/metrics"
        self.shown: list[tuple[float, str]] = []
        kept = self.shown

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    with urllib.request.urlopen(source, timeout=10) as answer:
                        status, text = answer.status, answer.read()
                except urllib.error.HTTPError as error:
                    status, text = error.code, error.read()
                except OSError:
                    status, text = 502, b""
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
                if status == 200:
                    kept.append((time.time(), text.decode()))

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = PromptServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def at(self, moment: float) -> str:
        """The page shown nearest to a Unix time, which some must be within half a second of."""
        shown, text = min(self.shown, key=lambda page: abs(page[0] - moment))
        assert abs(shown - moment) < 0.5, f"no page within half a second of {moment}"
        return text


def total(page: str, name: str, label: str = "") -> float:
    """Sum of one family's series on a page whose labels contain ``label``; read by no code of ours."""
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in page.splitlines()
        if (line.startswith((f"{name}{{", f"{name} "))) and label in line
    )


def infer(model: str, name: str, shape: list[int], values: list[float]) -> tuple[str, bytes]:
    """Path and body of one KServe-v2 inference."""
    body = {"inputs": [{"name": name, "shape": shape, "datatype": "FP32", "data": values}]}
    return f"/v2/models/{model}/infer", json.dumps(body).encode()


@dataclass
class Client:
    """A plain HTTP client that counts what it saw; its counts are the truth of a test."""

    base: str
    tenant: str = "acme"
    seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    whole: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def send(self, model: str, path: str, body: bytes, request_id: str) -> int:
        """Send and read the whole answer; notes (model, outcome) and, when whole, the request's id."""
        request = urllib.request.Request(
            f"{self.base}{path}", data=body,
            headers={"Content-Type": "application/json", "X-Tenant-Id": self.tenant, "X-Request-Id": request_id},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                answer.read()
                status = int(answer.status)
        except urllib.error.HTTPError as error:
            error.read()
            status = error.code
        with self._lock:
            self.seen[model, outcome_of(status)] += 1
            self.whole.append(request_id)
        return status

    def abort(self, model: str, path: str, body: bytes, request_id: str) -> None:
        """Send a request and hang up before its answer."""
        host, port = self.base.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            head = (
                f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
                f"X-Tenant-Id: {self.tenant}\r\nX-Request-Id: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body)
            time.sleep(0.02)
        with self._lock:
            self.seen[model, "client_abort"] += 1


def outcome_of(status: int) -> str:
    """Our word for a status, as far as these tests meet it."""
    if status < 400:
        return "ok"
    if status in {429, 503}:
        return "rejected"
    return "client_error" if status < 500 else "server_error"
