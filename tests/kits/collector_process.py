"""A collector as a process, for tests that start, stop and kill one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

if TYPE_CHECKING:
    import ssl

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class CollectorProcess:
    """A collector on ``data``, restarted on the same port after a kill."""

    data: Path
    clickhouse: str
    settings: dict[str, Any] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    host: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def start(self, *, wait: bool = True) -> CollectorProcess:
        config = self.data / "collector.yaml"
        # most tests wait for the store to have what they sent, and read nothing till then
        soon = {"seal_seconds": 0.2, "quiet_seal_seconds": 0.2, "unasked_seal_seconds": 0}
        config.write_text(json.dumps({"collector": soon | self.settings}))
        command = [*self.prefix, sys.executable, "-m", "collector", "--data", str(self.data), "--port", str(self.port)]
        if self.host != "127.0.0.1":
            command += ["--host", self.host]
        command += ["--clickhouse", self.clickhouse, "--config", str(config)]
        with (self.data / "collector.log").open("ab") as stderr:
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=stderr, env=os.environ | {"NO_COLOR": "1"})
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                pytest.fail(f"the collector ended: {self.log()}")
            try:
                self.health()
            except OSError as error:
                if isinstance(error, urllib.error.HTTPError):
                    error.close()  # it holds the connection
                time.sleep(0.02)
            else:
                return
        pytest.fail(f"the collector does not answer: {self.log()}")

    def health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/healthz", timeout=10, context=self.tls) as answer:
            result: dict[str, Any] = json.load(answer)
            return result

    def post(self, signal_name: str, body: bytes, **headers: str) -> tuple[int, bytes]:
        """Status and body of one request; header names with ``_`` for ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            f"{self.url}/v1/{signal_name}", data=body, headers={"Content-Type": "application/x-protobuf"} | named
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def wait_drained(self, seconds: float = 120) -> dict[str, Any]:
        """Wait until the store has everything, and return the last health page."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            health = self.health()
            if all(books["pending"] == 0 for books in health["ledger"].values()):
                return health
            time.sleep(0.05)
        pytest.fail(f"records are still pending: {self.health()}\n{self.log()}")

    def log(self) -> str:
        return (self.data / "collector.log").read_text()[-4000:]

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> int:
        """Drain it and return its exit status; one that does not end is killed."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


def spans(first: int, count: int, *, scope: str = "test", **attributes: str) -> bytes:
    """A request of ``count`` spans whose span ids and names are the numbers from ``first`` on."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value="tests")))
    scoped = resource.scope_spans.add()
    scoped.scope.name = scope
    now = time.time_ns()
    for number in range(first, first + count):
        span = scoped.spans.add(name=f"n{number}", kind=2, start_time_unix_nano=now - 1_000_000, end_time_unix_nano=now)
        span.trace_id = (number + 1).to_bytes(16, "big")
        span.span_id = (number + 1).to_bytes(8, "big")
        for key, text in attributes.items():
            span.attributes.append(KeyValue(key=key, value=AnyValue(string_value=text)))
    return request.SerializeToString()
