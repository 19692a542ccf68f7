"""An agent and a collector on two networks, TLS both ways, and the cable pulled: nothing is lost, nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from agent.spool.writer import SpoolWriter, producer_folder
from tests.kits.authority import Authority
from tests.kits.collector_process import ROOT, CollectorProcess, free_port, spans
from tests.kits.namespaces import Namespace, joined
from tests.kits.store_process import start_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kits.authority import Leaf
    from tests.kits.store_process import StoreServer

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(400)]


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    yield from joined()


@pytest.fixture
def store(tmp_path: Path, ends: tuple[Namespace, Namespace]) -> Iterator[StoreServer]:
    server = ends[1].do(start_store, tmp_path)
    yield server
    server.stop(signal.SIGKILL)


class Agent:
    """An agent that ships a data folder, and the records that a test puts into it."""

    def __init__(self, where: Namespace, data: Path, settings: dict[str, Any]) -> None:
        self._where, self._port = where, free_port()
        config = data / "agent.json"
        config.write_text(
            json.dumps(
                {"agent": settings | {"health_port": self._port, "otlp_http_port": None, "otlp_grpc_port": None,
                                      "host": False, "gpu": False, "probe": False, "flush_seconds": 0.05}}
            )
        )  # fmt: skip
        self._writer = SpoolWriter(producer_folder(data / "spool", "tap-test"))
        self.written = 0
        self.process = where.do(
            subprocess.Popen,
            [sys.executable, "-m", "agent", "--data", str(data), "--config", str(config)],
            cwd=ROOT, env=os.environ | {"NO_COLOR": "1"},
        )  # fmt: skip

    def write(self, count: int = 1) -> None:
        for _ in range(count):
            assert self._writer.append("traces", spans(self.written, 1))
            self.written += 1

    def health(self) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/healthz", timeout=10) as answer:
                told: dict[str, Any] = json.load(answer)
                return told

        return self._where.do(ask)

    def complaint(self) -> str:
        try:
            return next((one for one in self.health()["problems"] if "do not get through" in one), "")
        except OSError:
            return ""  # it does not listen yet

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)


def until(told: Callable[[], str], ready: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, told()
        time.sleep(0.2)


@contextmanager
def writing(agent: Agent) -> Iterator[None]:
    """Records come all the time, ten a second."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.1):
            agent.write()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_nothing_is_lost_over_certificates_that_change_and_a_cable_that_is_pulled(
    tmp_path: Path, ends: tuple[Namespace, Namespace], store: StoreServer
) -> None:
    near, far = ends
    folder = tmp_path / "certificates"
    folder.mkdir()
    ours, clients, other, later = (Authority(folder, name) for name in ("ours", "clients", "other", "later"))
    leaf = ours.issue(far.address, file="collector")
    trusted = folder / "trusted.pem"
    trusted.write_bytes(other.file.read_bytes())
    stranger: Leaf = other.issue("agent@agents.example", file="agent")
    collector = CollectorProcess(
        tmp_path,
        store.url,
        {"certificate_file": str(leaf.certificate), "certificate_key_file": str(leaf.key),
         "client_ca_file": str(clients.file), "seal_seconds": 0.2},
        host=far.address,
        tls=ours.client(clients.issue("test@agents.example", file="test")),
    )  # fmt: skip
    data = tmp_path / "agent"
    data.mkdir()

    def stored() -> list[int]:
        sql = "SELECT SpanName, count() FROM servescope.otel_traces GROUP BY SpanName FORMAT TSV"
        rows = [line.split("\t") for line in far.do(store.ask, sql).splitlines()]
        assert {number for _, number in rows} <= {"1"}, rows
        return sorted(int(name.removeprefix("n")) for name, _ in rows)

    with collector:
        far.do(collector.start)
        agent = Agent(
            near,
            data,
            {"collector": collector.url, "collector_ca_file": str(trusted),
             "key_file": str(tmp_path / "keys" / "agent_hmac"),
             "client_certificate_file": str(stranger.certificate), "client_key_file": str(stranger.key)},
        )  # fmt: skip

        def brought(what: str) -> None:
            until(
                lambda: (
                    f"{what}: {len(stored())} of {agent.written} are stored; {agent.complaint()}; {collector.log()}"
                ),
                lambda: stored() == list(range(agent.written)),
            )

        try:
            agent.write(20)
            until(agent.complaint, lambda: "tls: the collector's certificate is not trusted" in agent.complaint())
            assert "agent.collector_ca_file" in agent.complaint()

            trusted.write_bytes(ours.file.read_bytes())
            agent.reload()
            until(agent.complaint, lambda: "agent.client_certificate_file" in agent.complaint())
            assert stored() == []

            clients.issue("agent@agents.example", file="agent")
            agent.reload()
            brought("with a certificate that the collector trusts")

            later.issue(far.address, file="collector")
            assert collector.process is not None
            collector.process.send_signal(signal.SIGHUP)
            with writing(agent):
                far.plug("down")
                down = time.monotonic()
                until(agent.complaint, lambda: bool(agent.complaint()) and time.monotonic() > down + 10)
                far.plug("up")
                # The connection that stood is dead by then, or goes on with what it began with.
                collector.kill()
                collector.tls = later.client(clients.issue("test@agents.example", file="test"))
                far.do(collector.start)
                until(agent.complaint, lambda: "tls: the collector's certificate" in agent.complaint())
                trusted.write_bytes(later.file.read_bytes())
                agent.reload()
                until(agent.complaint, lambda: not agent.complaint())
            brought("after certificate, cable and collector were away")
            assert agent.written > 100
            assert agent.health()["spool"]["dropped"] == {}
        finally:
            agent.process.terminate()
            agent.process.wait(60)
