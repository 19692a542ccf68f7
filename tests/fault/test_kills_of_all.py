"""kill -9 of every part, again and again, under load and with pages on their way: nothing is lost, nothing doubled.

``SERVESCOPE_KILLS`` says how often each part is killed.
"""

from __future__ import annotations

import gzip
import http.client
import http.server
import json
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import pytest
import yaml

from alerts.deliver.certificate import ensure_certificate
from alerts.deliver.receiver import Pages, Receiver
from tests.kits.line import Line, free_block, start_line, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(3000)]

KILLS: Final = int(os.environ.get("SERVESCOPE_KILLS", "8"))
FIXTURES: Final = Path(__file__).parent.parent / "fixtures" / "vllm"
PAGE: Final = gzip.decompress((FIXTURES / "metrics_idle.txt.gz").read_bytes()).decode()
RULES: Final = """
version: 1
rules:
  - name: engine-waiting
    when: {kind: signal, signal: waiting, above: 500}
    for: 1s
    keep_firing_for: 1s
    severity: critical
"""
AT_ONCE: Final = (
    "from servescope.launch import supervisor; supervisor._BACKOFF_SECONDS = (0.2,);"
    " from servescope.cli import main; main()"
)
"""The supervisor as it is, but for the pause that grows with every death: here every one is wanted."""


class Engine:
    """A model server: a page of vLLM's whose queue is as long as the test says, and an answer to each request."""

    def __init__(self, port: int) -> None:
        self.waiting = 0
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                found = self.path == "/metrics"
                text = re.sub(r"(?m)^(vllm:num_requests_waiting\{[^}]*\}) .*$", rf"\1 {engine.waiting}", PAGE)
                self.answer(200 if found else 404, "text/plain", text.encode())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(0.02)
                body = {"id": "cmpl-1", "choices": [{"text": "a", "finish_reason": "stop"}]}
                body["usage"] = {"prompt_tokens": 3, "completion_tokens": 1}
                self.answer(200, "application/json", json.dumps(body).encode())

            def answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A killed client's connection ends as it ends."""

        self._server = Server(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Traffic:
    """Clients that ask through the tap all the time and note what they got."""

    def __init__(self, base: str, workers: int = 3) -> None:
        self.whole: list[str] = []
        self.broken: list[str] = []
        self.refused = 0
        self._where = base.removeprefix("http://")
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(workers)
        self._running = [self._pool.submit(self._ask, worker) for worker in range(workers)]

    def _ask(self, worker: int) -> None:
        number = 0
        connection = http.client.HTTPConnection(self._where, timeout=30)
        while not self._stop.wait(0.02):
            name = f"r-{worker}-{number}"
            number += 1
            body = json.dumps({"model": "m", "prompt": "a"})
            try:
                connection.request("POST", "/v1/completions", body, {"X-Request-Id": name, "X-Tenant-Id": "t"})
                answer = connection.getresponse()
                answer.read()
            except ConnectionRefusedError:
                self.refused += 1
                connection.close()
            except (OSError, http.client.HTTPException):
                self.broken.append(name)
                connection.close()
            else:
                assert answer.status == 200
                self.whole.append(name)
        connection.close()

    def end(self) -> None:
        self._stop.set()
        for running in self._running:
            running.result(60)
        self._pool.shutdown()


class Killer:
    """Kills the parts in turns at random moments until each has died so often."""

    def __init__(self, line: Line, parts: list[str]) -> None:
        self.killed: Counter[str] = Counter()
        self._line = line
        self._parts = parts
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        chance = random.Random()
        for _ in range(KILLS):
            for part in chance.sample(self._parts, len(self._parts)):
                time.sleep(chance.uniform(0.1, 1.0))  # the point of a kill is random on purpose
                old = self._line.pid(part)
                os.kill(old, signal.SIGKILL)
                wait_for(lambda part=part, old=old: self._line.pid(part) not in {old, 0}, 60, f"{part} to come again")
                self.killed[part] += 1
            time.sleep(4)  # a fleet of which no part ever lives for long shows nothing that could be judged

    def join(self) -> None:
        self._thread.join()


@pytest.fixture
def engine() -> Iterator[tuple[Engine, int]]:
    base = free_block()
    with Engine(base + 30) as made:
        yield made, base


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[tuple[Pages, Path]]:
    """Pages as the pager's service has them, and a configuration that sends them there."""
    certificate = ensure_certificate(tmp_path / "certificate")
    receiver = Receiver(certificate, Pages()).start()
    (tmp_path / "key").write_text("k" * 32)
    pagerduty = {"base_url": receiver.url, "ca_file": str(certificate.authority), "routing_key_file": f"{tmp_path}/key"}
    config = tmp_path / "servescope.yaml"
    config.write_text(yaml.safe_dump({"alerts": {"pagerduty": pagerduty, "evaluate_every_seconds": 0.5}}))
    yield receiver.pages, config
    receiver.stop()


def test_every_part_is_killed_again_and_again(tmp_path: Path, engine: tuple[Engine, int], pages: tuple[Pages, Path]):
    server, base = engine
    arrived, config = pages
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    line = start_line(
        tmp_path / "data", base, f"vllm-a=http://127.0.0.1:{base + 30}",
        "--slos", str(rules), "--config", str(config), program=["-c", AT_ONCE],
    )  # fmt: skip
    cycles = 0
    try:
        traffic = Traffic(line.tap)
        killer = Killer(line, ["collector", "store", "agent", "alerts", "tap-vllm-a"])
        try:
            while not killer.done or not cycles:
                cycles += 1
                server.waiting = 900
                wait_for(lambda n=cycles: told(arrived, "trigger") == n, 240, f"page {cycles}")
                server.waiting = 0
                wait_for(lambda n=cycles: told(arrived, "resolve") == n, 240, f"the end of incident {cycles}")
        finally:
            killer.join()
            traffic.end()
        assert set(killer.killed.values()) == {KILLS}
        check_rows(line, traffic)
        check_pages(line, arrived, cycles)
        assert traffic.refused == 0
    finally:
        assert line.stop() == 0, line.log.read_text()[-3000:]


def told(arrived: Pages, action: str) -> int:
    """Pages of one kind; a repeat under the same key is folded by PagerDuty and is the same page."""
    return len({page["dedup_key"] for page in arrived.all() if page["action"] == action})


def check_rows(line: Line, traffic: Traffic) -> None:
    def rows() -> Counter[str]:
        found = line.rows("SELECT request_id, outcome FROM requests WHERE has_edge = 1")
        return Counter(str(row["request_id"]) for row in found)

    wait_for(lambda: rows().keys() >= set(traffic.whole), 120, f"all {len(traffic.whole)} rows")
    found = rows()
    assert max(found.values()) == 1
    assert found.keys() <= {*traffic.whole, *traffic.broken}
    (spans,) = line.rows(
        "SELECT count() AS n, uniqExact(SpanId) AS distinct FROM otel_traces WHERE ScopeName = 'servescope.edge'"
    )
    assert spans["n"] == spans["distinct"]
    assert line.rows("SELECT sum(count) AS n FROM requests_1m")[0]["n"] == len(found)


def check_pages(line: Line, arrived: Pages, cycles: int) -> None:
    keys: dict[str, list[str]] = {}
    for page in arrived.all():
        keys.setdefault(page["dedup_key"], []).append(page["action"])
    assert len(keys) == cycles
    for actions in keys.values():
        # a kill between sending and noting repeats a message under its key
        assert list(dict.fromkeys(actions)) == ["trigger", "resolve"], actions
    wait_for(lambda: states(line) == {"resolved": cycles}, 60, f"{cycles} incidents in the history")


def states(line: Line) -> dict[str, Any]:
    rows = line.rows("SELECT state, count() AS n FROM incidents FINAL GROUP BY state")
    return {str(row["state"]): int(row["n"]) for row in rows}
