"""CPU of scraping 20 vLLM pages a second: our whole path (page → samples → encoded bytes) against Prometheus.

Twenty loopback servers in one process hand out recorded vLLM pages whose values move; ours and Debian's Prometheus
scrape the same ones at the same time, and the CPU of each is read from /proc over the same window.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

TARGETS: Final = 20
RSS_BOUND: Final = 60e6
"""Bytes that the whole path may hold, whatever Prometheus does; no gRPC is loaded in it."""
PAGES: Final = Path(__file__).parent.parent / "tests/fixtures/vllm"
VARIANTS: Final = 60
"""Pages prepared beforehand, so that the servers' own work does not stand in the measured window."""
_MOVING = re.compile(
    r"^((?:vllm:(?!cache_config)|process_|http_|python_gc)[^ ]*(?<!_created)(?:\{[^}]*\})?) ([0-9.e+]+)$", re.MULTILINE
)


def moving_pages(page: str, variants: int) -> list[bytes]:
    """The page with every counter, bucket and gauge that is not 0 a little higher in each variant.

    Buckets of a histogram stay cumulative because all of them grow by the same factor.
    """

    def variant(number: int) -> bytes:
        def grown(hit: re.Match[str]) -> str:
            value = float(hit[2])
            if "_start_time_" in hit[1]:
                return hit[0]
            moved = value * (1 + number / variants)
            return f"{hit[1]} {float(int(moved)) if value.is_integer() else moved}"

        return _MOVING.sub(grown, page).encode()

    return [variant(number) for number in range(variants)]


class _Server(asyncio.Protocol):
    """Answers every request with the page of this second."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = answers
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a TCP server is given
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            _, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            self._transport.write(self._answers[int(time.time()) % len(self._answers)])


async def _serve(pipe: Connection, page: str) -> None:
    loop = asyncio.get_running_loop()
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\ncontent-length: {}\r\n\r\n"
    answers = [head.format(len(body)).encode() + body for body in moving_pages(page, VARIANTS)]
    servers = [await loop.create_server(lambda: _Server(answers), "127.0.0.1", 0) for _ in range(TARGETS)]
    pipe.send([server.sockets[0].getsockname()[1] for server in servers])
    await loop.run_in_executor(None, pipe.recv)


def _servers(pipe: Connection, page: str) -> None:
    asyncio.run(_serve(pipe, page))


def _ours(pipe: Connection, ports: list[int]) -> None:
    # Only the measured process loads the agent: what its program loads first, and then its way of a page.
    import uvloop  # noqa: PLC0415

    import base.slim  # noqa: F401, PLC0415
    from agent.sources.metrics_page import MetricsPages  # noqa: PLC0415
    from agent.target import Target  # noqa: PLC0415

    emitted = [0, 0]

    def emit(signal: str, body: bytes) -> None:
        emitted[0] += signal == "metrics"
        emitted[1] += len(body)

    async def run() -> None:
        targets = [
            Target(f"vllm-{port}", "llm", "vllm", metrics_url=f"http://127.0.0.1:{port}/metrics") for port in ports
        ]
        source = asyncio.create_task(MetricsPages(targets).run(emit))
        asked = asyncio.get_running_loop()
        while (await asked.run_in_executor(None, pipe.recv)) == "count":
            pipe.send(tuple(emitted))
        source.cancel()
        await asyncio.gather(source, return_exceptions=True)

    import structlog  # noqa: PLC0415

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    uvloop.run(run())


@dataclass(frozen=True)
class Measured:
    """CPU seconds and scrapes of one side in the window, and its memory at the end."""

    cpu_seconds: float
    scrapes: int
    rss_bytes: int

    @property
    def milliseconds(self) -> float:
        """CPU per page."""
        return self.cpu_seconds / self.scrapes * 1e3


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _prometheus(folder: Path, ports: list[int], port: int) -> subprocess.Popen[bytes]:
    program = shutil.which("prometheus") or "/usr/bin/prometheus"
    targets = ", ".join(f"'127.0.0.1:{one}'" for one in ports)
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs: [{{job_name: vllm, static_configs: [{{targets: [{targets}]}}]}}]\n"
    )
    return subprocess.Popen(
        [program, f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _prometheus_scrapes(port: int) -> int:
    """Scrapes since start, from Prometheus's own page."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    hit = re.search(r"^prometheus_target_interval_length_seconds_count\{[^}]*\} ([0-9.e+]+)$", text, re.MULTILINE)
    return int(float(hit[1])) if hit else 0


def _wait(ready: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if ready():
                return
        except OSError:
            pass  # not listening yet
        time.sleep(0.2)
    sys.exit("prometheus did not start within 30 s")


def measure(seconds: float, page: str) -> tuple[Measured, Measured]:
    """Scrape with both for ``seconds``; (ours, Prometheus)."""
    spawn = multiprocessing.get_context("spawn")
    to_servers, servers_end = spawn.Pipe()
    to_ours, ours_end = spawn.Pipe()
    servers = spawn.Process(target=_servers, args=(servers_end, page), daemon=True)
    servers.start()
    ports: list[int] = to_servers.recv()
    ours = spawn.Process(target=_ours, args=(ours_end, ports), daemon=True)
    ours.start()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        prometheus = _prometheus(Path(folder), ports, port)
        try:
            _wait(lambda: _prometheus_scrapes(port) > TARGETS, 30)
            pid = ours.pid or 0

            def counted() -> tuple[int, int]:
                to_ours.send("count")
                return to_ours.recv()[0], _prometheus_scrapes(port)

            # Both have seen every page once by now: neither's first look is in the window.
            time.sleep(3)
            first = counted()
            cpu = _cpu_seconds(pid), _cpu_seconds(prometheus.pid)
            time.sleep(seconds)
            spent = _cpu_seconds(pid) - cpu[0], _cpu_seconds(prometheus.pid) - cpu[1]
            last = counted()
            result = (
                Measured(spent[0], last[0] - first[0], _rss_bytes(pid)),
                Measured(spent[1], last[1] - first[1], _rss_bytes(prometheus.pid)),
            )
            to_ours.send("stop")
            ours.join(10)
            return result
        finally:
            prometheus.terminate()
            prometheus.wait(20)
            ours.terminate()
            servers.terminate()


def main() -> None:
    """Print one JSON object per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 s instead of 60 s")
    parser.add_argument("--json", action="store_true", help="accepted for symmetry: the output is always JSON")
    arguments = parser.parse_args()
    page = gzip.decompress((PAGES / "metrics_busy_04.txt.gz").read_bytes()).decode()
    ours, theirs = measure(10.0 if arguments.quick else 60.0, page)
    reference = "Prometheus on the same pages in the same run"
    cpu = ours.milliseconds / theirs.milliseconds
    rss = ours.rss_bytes / theirs.rss_bytes
    figures = [
        ("scrape_cpu_per_page", ours.milliseconds, "ms", theirs.milliseconds, cpu, 1.0),
        ("scrape_rss", ours.rss_bytes / 1e6, "MB", theirs.rss_bytes / 1e6, rss, 1.0),
        ("scrape_rss_bound", ours.rss_bytes / 1e6, "MB", RSS_BOUND / 1e6, ours.rss_bytes / RSS_BOUND, 1.0),
        ("scrape_pages", float(ours.scrapes), "pages", float(theirs.scrapes), ours.scrapes / theirs.scrapes, None),
    ]
    for name, value, unit, reference_value, ratio, goal in figures:
        figure = {"name": name, "value": round(value, 3), "unit": unit, "reference": reference}
        figure |= {"reference_value": round(reference_value, 3), "ratio": round(ratio, 3)}
        figure |= {"goal": goal, "met": None if goal is None else ratio <= goal}
        print(json.dumps(figure))


if __name__ == "__main__":
    main()
