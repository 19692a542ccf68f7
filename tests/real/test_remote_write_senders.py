"""Real senders of remote write – Prometheus, vmagent – scrape a vLLM page: nothing of it is lost, nothing twice."""

from __future__ import annotations

import gzip
import http.server
import json
import signal
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kits.collector_process import CollectorProcess, free_port
from tests.kits.needs import need
from tests.kits.store_process import start_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kits.store_process import StoreServer

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
PAGE = gzip.decompress((Path(__file__).parent.parent / "fixtures" / "vllm" / "metrics_busy_02.txt.gz").read_bytes())
SCRAPE = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: chat
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


@pytest.fixture
def page() -> Iterator[int]:
    """Port of a server that shows a recorded page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreServer]:
    server = start_store(tmp_path)
    yield server
    server.stop(signal.SIGKILL)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Runs a program until the test is over."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        with (tmp_path / f"{Path(command[0]).name}.log").open("wb") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path))

    yield start
    for process in running:
        process.kill()
        process.wait(30)


def until(told: str, ready: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, told
        time.sleep(0.2)


def count(store: StoreServer, sql: str) -> int:
    try:
        return int(store.ask(sql, query="?database=servescope").strip() or 0)
    except urllib.error.HTTPError as refused:
        refused.close()  # it holds the connection
        return 0  # the collector has not made the tables yet


def samples(store: StoreServer) -> int:
    return count(store, "SELECT count() FROM engine_samples WHERE engine = 'vllm' AND running > 0")


def scraped(port: int, name: str, at: float) -> int:
    """How many values of a series Prometheus itself has."""
    form = urllib.parse.urlencode({"query": f"sum(count_over_time({name}{{job='chat'}}[10m]))", "time": at})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{form}", timeout=30) as answer:
        return int(json.load(answer)["data"]["result"][0]["value"][1])


def test_prometheus_sends_all_that_it_scraped_across_a_kill(
    tmp_path: Path, store: StoreServer, page: int, run: Callable[..., None]
) -> None:
    program = need("prometheus")
    with CollectorProcess(tmp_path, store.url) as collector:
        collector.start()
        own = free_port()
        config = tmp_path / "prometheus.yml"
        config.write_text(SCRAPE.format(port=page) + f"remote_write: [{{url: '{collector.url}/api/v1/write'}}]\n")
        run(program, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{own}")  # fmt: skip
        until("no sample came", lambda: samples(store) >= 3)
        collector.kill()
        killed = time.time()
        until("time stands still", lambda: time.time() > killed + 12)
        collector.start()
        before = samples(store)
        end = time.time()
        until("what was scraped meanwhile did not come", lambda: samples(store) >= before + 8)
        counted = {name: scraped(own, name, end) for name in ("vllm:num_requests_running", "up")}
        assert counted["up"] > 12

        def stored(table: str, name: str) -> int:
            return count(
                store,
                f"SELECT count() FROM {table} WHERE MetricName = '{name}' AND ServiceName = 'chat' "
                f"AND TimeUnix <= toDateTime64({end:.3f}, 3)",
            )

        until(
            f"Prometheus has {counted} up to the kill and the store {stored('otel_metrics_gauge', 'up')}",
            lambda: all(stored("otel_metrics_gauge", name) == number for name, number in counted.items()),
        )
        # what was under way when the collector was killed was in its memory alone
        pages = stored("otel_metrics_gauge", "up") - 3
        derived = (
            f"SELECT uniqExact(time) FROM engine_samples WHERE engine = 'vllm' AND time <= toDateTime64({end:.3f}, 3)"
        )
        until(f"of {pages} pages not all became samples", lambda: count(store, derived) >= pages, 300)
        assert count(store, "SELECT count() - uniqExact(time) FROM engine_samples FINAL WHERE engine = 'vllm'") == 0
        assert count(store, "SELECT countIf(prompt_tokens_delta != 0) FROM engine_samples") == 0  # the page never moves
        assert count(store, "SELECT uniqExact(instance, deployment, model) FROM engine_samples") == 1


def test_vmagent_speaks_to_us_too(tmp_path: Path, store: StoreServer, page: int, run: Callable[..., None]) -> None:
    program = need("vmagent", "victoria-metrics")
    with CollectorProcess(tmp_path, store.url) as collector:
        collector.start()
        config = tmp_path / "scrape.yml"
        config.write_text(SCRAPE.format(port=page))
        run(program, f"-promscrape.config={config}", f"-remoteWrite.url={collector.url}/api/v1/write",
            f"-httpListenAddr=127.0.0.1:{free_port()}", f"-remoteWrite.tmpDataPath={tmp_path / 'queue'}")  # fmt: skip
        until("no sample came", lambda: samples(store) >= 3)
        running = sum(
            float(line.rsplit(b" ", 1)[1])
            for line in PAGE.splitlines()
            if line.startswith(b"vllm:num_requests_running{")
        )
        assert store.ask("SELECT DISTINCT running FROM engine_samples", query="?database=servescope").split() == [
            f"{running:g}"
        ]
