"""The tap beside Envoy, in one run: CPU of a small answer, time added to it, chunks of streams per CPU-second.

Envoy writes an access log of each request as JSON, one worker, as a sidecar would be set up; the tap writes its record.
Both stand before the same scripted server and are asked in turns.

    python -m benchmarks.envoy [--quick] [--json]

Envoy is taken from ``$SERVESCOPE_ENVOY``, ``.venv-envoy`` (``make bench`` installs it there) or ``PATH``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import uvloop

from base.errors import ServescopeError
from benchmarks import tap as bench

if TYPE_CHECKING:
    from collections.abc import Iterator

CONCURRENCY: Final = 8
RATE: Final = 150
STREAMS: Final = 60
CPU_GOAL: Final = 2.5
P50_GOAL: Final = 2.0
CHUNK_GOAL: Final = 0.6
_REFERENCE: Final = "Envoy with an access log, one worker"
_CONFIG: Final = """
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: PORT}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          generate_request_id: true
          stream_idle_timeout: 0s
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: LOG
              log_format:
                json_format:
                  start: "%START_TIME%"
                  method: "%REQ(:METHOD)%"
                  path: "%REQ(:PATH)%"
                  status: "%RESPONSE_CODE%"
                  flags: "%RESPONSE_FLAGS%"
                  received: "%BYTES_RECEIVED%"
                  sent: "%BYTES_SENT%"
                  duration: "%DURATION%"
                  first_byte: "%RESPONSE_DURATION%"
                  request_id: "%REQ(X-REQUEST-ID)%"
                  upstream: "%UPSTREAM_HOST%"
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: server, timeout: 0s}}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: server
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: server
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: SERVER}}}}]}]
"""


def find_envoy() -> str:
    """Path of the program.

    Raises:
        ServescopeError: There is none.
    """
    beside = Path(__file__).resolve().parent.parent / ".venv-envoy" / "bin" / "envoy"
    for candidate in (os.environ.get("SERVESCOPE_ENVOY"), str(beside), shutil.which("envoy")):
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise ServescopeError("no envoy is installed", "Type make bench, or name one in SERVESCOPE_ENVOY.")


@contextlib.contextmanager
def envoy(program: str, server_port: int, port: int, folder: str) -> Iterator[psutil.Process]:
    """Envoy as a sidecar."""
    path = Path(folder) / "envoy.yaml"
    text = _CONFIG.replace("PORT", str(port), 1).replace("SERVER", str(server_port))
    path.write_text(text.replace("LOG", f"{folder}/access.log"))
    command = [program, "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield _worker(process.pid)
        finally:
            process.kill()


def _worker(pid: int) -> psutil.Process:
    # What the package installs may be a launcher that keeps the program as its child.
    for _ in range(100):
        process = psutil.Process(pid)
        children = process.children(recursive=True)
        if children or process.name() == "envoy":
            return children[-1] if children else process
        time.sleep(0.05)
    return psutil.Process(pid)


async def closed_loop(port: int, seconds: float) -> int:
    """Small answers, one after the other on each of several connections; how many came."""
    request = bench.request_bytes(stream=False)
    end = time.monotonic() + seconds

    async def one() -> int:
        count = 0
        _, client = await asyncio.get_running_loop().create_connection(bench._Client, "127.0.0.1", port)  # noqa: SLF001
        seen = bench.Seen()
        while time.monotonic() < end:
            await client.send(seen, stream=False, request=request)
            count += 1
        client.transport.close()
        if seen.failed:
            raise RuntimeError(f"{seen.failed} requests failed")
        return count

    return sum(await asyncio.gather(*(one() for _ in range(CONCURRENCY))))


async def streams(port: int) -> int:
    """Streams side by side, to their ends; how many chunks came."""
    request = bench.request_bytes(stream=True)
    seen = bench.Seen()

    async def one() -> None:
        _, client = await asyncio.get_running_loop().create_connection(bench._Client, "127.0.0.1", port)  # noqa: SLF001
        for _ in range(3):
            await client.send(seen, stream=True, request=request)
        client.transport.close()

    await asyncio.gather(*(one() for _ in range(STREAMS)))
    if seen.failed:
        raise RuntimeError(f"{seen.failed} streams failed")
    return len(seen.transit)


async def measure(*, quick: bool) -> list[dict[str, Any]]:
    """Run all blocks and make the figures."""
    program = find_envoy()
    rounds = 2 if quick else 6
    server_port, tap_port, envoy_port = bench.free_port(), bench.free_port(), bench.free_port()
    with (
        tempfile.TemporaryDirectory() as folder,
        bench.child(bench.serve, server_port),
        bench.tap(server_port, tap_port, folder) as tap_process,
        envoy(program, server_port, envoy_port, folder) as envoy_process,
    ):
        ways = {"tap": (tap_port, tap_process), "envoy": (envoy_port, envoy_process)}
        for port in (server_port, tap_port, envoy_port):
            await bench.wait_for_port(port)
        loads = {"direct": bench.Load(server_port), "tap": bench.Load(tap_port), "envoy": bench.Load(envoy_port)}
        for load in loads.values():
            await load.block(0.5)
            load.seen = bench.Seen()
        spent = {way: [0.0, 0, 0.0, 0] for way in ways}
        for number in range(rounds):
            for way in list(ways) if number % 2 else list(reversed(ways)):
                port, process = ways[way]
                begun = bench.cpu(process)
                spent[way][1] += await closed_loop(port, 2.0)
                spent[way][0] += (middle := bench.cpu(process)) - begun
                spent[way][3] += await streams(port)
                spent[way][2] += bench.cpu(process) - middle
            for load in loads.values():
                await load.block(2.0, RATE)
        for load in loads.values():
            load.close()
    each = {way: cpu / count for way, (cpu, count, _, _) in spent.items()}
    chunks = {way: count / cpu for way, (_, _, cpu, count) in spent.items()}
    direct = bench.quantile(loads["direct"].seen.whole, 0.5)
    added = {way: bench.quantile(loads[way].seen.whole, 0.5) - direct for way in ways}
    return [
        _figure("tap_cpu_of_a_small_answer", "s", each, CPU_GOAL),
        _figure("tap_added_p50_of_a_small_answer", "s", added, P50_GOAL),
        _figure("tap_chunks_per_cpu_second", "1/s", chunks, CHUNK_GOAL, more=True),
    ]


def _figure(name: str, unit: str, of: dict[str, float], goal: float, *, more: bool = False) -> dict[str, Any]:
    ratio = of["tap"] / of["envoy"]
    return {
        "name": name,
        "value": round(of["tap"], 9),
        "unit": unit,
        "reference": _REFERENCE,
        "reference_value": round(of["envoy"], 9),
        "ratio": round(ratio, 4),
        "goal": goal,
        "met": ratio >= goal if more else ratio <= goal,
    }


def main() -> None:
    """Print one JSON object a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="the only form there is")
    options = parser.parse_args()
    for line in uvloop.run(measure(quick=options.quick)):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
