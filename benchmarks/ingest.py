"""Spans per CPU-second from the wire into every table, against the bare engine inserting the same bytes.

Ours: signed, zstd-packed OTLP over HTTP → collector → log on disk → embedded store → all tables of the schema, the
CPU of collector and store counted until the last row is there and merges are done. The reference: the chDB engine
alone in a process, the same schema, the same requests as files of 8 MB, ``INSERT … FROM INFILE``. Half of the spans
are edge records, half the engine's own. The sender's CPU is not counted on either side.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import psutil
import zstandard
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from base import signing
from base.keys import ensure_keys
from base.vocabulary import SCOPE_EDGE, SPAN_ID_RANDOM_BITS, Edge, Resource
from collector import framing
from collector.log.segment import SIGNALS
from collector.store import migrate
from collector.store.address import locate
from collector.store.client import Store
from collector.store.statements import segment_statement

if TYPE_CHECKING:
    from collections.abc import Collection

REQUESTS_A_BODY: Final = 256
SEGMENT_BYTES: Final = 8 << 20
CONNECTIONS: Final = 8
GOAL: Final = 0.6
_ROOT: Final = Path(__file__).parent.parent
_QUIET_SECONDS: Final = 120


@dataclass
class Figure:
    """Spans and the CPU they cost."""

    spans: int = 0
    cpu_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Spans per CPU-second."""
        return self.spans / self.cpu_seconds


class Bodies:
    """Makes export requests like those of a busy deployment: every id and time new, everything else a template."""

    def __init__(self) -> None:
        self._request = ExportTraceServiceRequest()
        self._edges = self._scope(SCOPE_EDGE, "POST /v1/chat/completions", _edge_attributes())
        self._engines = self._scope("vllm.llm_engine", "llm_request", _engine_attributes())

    def make(self) -> bytes:
        """One request of ``2 * REQUESTS_A_BODY`` spans."""
        now_ms = time.time_ns() // 1_000_000
        for edge, engine in zip(self._edges, self._engines, strict=True):
            edge.trace_id = engine.trace_id = secrets.token_bytes(16)
            edge.span_id = (now_ms << SPAN_ID_RANDOM_BITS | secrets.randbits(SPAN_ID_RANDOM_BITS)).to_bytes(8, "big")
            engine.span_id, engine.parent_span_id = secrets.token_bytes(8), edge.span_id
            for span in (edge, engine):
                span.start_time_unix_nano = now_ms * 1_000_000
                span.end_time_unix_nano = span.start_time_unix_nano + 900_000_000 + secrets.randbits(28)
        return self._request.SerializeToString()

    def _scope(self, scope: str, name: str, attributes: dict[str, object]) -> list[Any]:
        resource = self._request.resource_spans.add()
        _fill(
            resource.resource.attributes,
            {
                Resource.DEPLOYMENT: "chat",
                Resource.INSTANCE: "vllm-a",
                Resource.ENGINE: "vllm",
                Resource.REGION: "eu-1",
            },
        )
        scoped = resource.scope_spans.add()
        scoped.scope.name = scope
        for number in range(REQUESTS_A_BODY):
            span = scoped.spans.add(name=name, kind=2)
            _fill(span.attributes, attributes | {Edge.REQUEST_ID: f"request-{number}"})
        return list(scoped.spans)


def measure(*, quick: bool) -> list[dict[str, object]]:
    """The figures of this benchmark; see DESIGN §8 for their keys.

    Raises:
        RuntimeError: A process did not start, or rows are missing at the end.
    """
    bodies_a_round, rounds = (60, 1) if quick else (300, 2)
    ours, bare = Figure(), Figure()
    with tempfile.TemporaryDirectory(prefix="servescope-ingest-") as folder:
        for number in range(rounds):
            bodies = [Bodies().make() for _ in range(bodies_a_round)]
            for figure, run in ((bare, run_bare), (ours, _run_ours)):
                place = Path(folder) / f"{run.__name__}-{number}"
                place.mkdir()
                figure.cpu_seconds += run(place, bodies)
                figure.spans += len(bodies) * 2 * REQUESTS_A_BODY
    ratio = ours.rate / bare.rate
    return [
        {
            "name": "ingest_spans_per_cpu_second",
            "value": round(ours.rate),
            "unit": "spans/CPU-s",
            "reference": "bare chDB engine, INSERT FROM INFILE of the same requests into the same tables",
            "reference_value": round(bare.rate),
            "ratio": round(ratio, 3),
            "goal": GOAL,
            "met": ratio >= GOAL,
        }
    ]


def _run_ours(folder: Path, bodies: list[bytes]) -> float:
    keys = ensure_keys(folder / "keys")
    store_port, port = _free_port(), _free_port()
    store_url, url = f"http://127.0.0.1:{store_port}", f"http://127.0.0.1:{port}"
    base = [sys.executable, "-m"]
    store_command = [*base, "collector.embedded", "--data", str(folder / "store"), "--port", str(store_port)]
    store_command += ["--owner-hash-file", str(keys.store_owner_hash_file)]
    command = [*base, "collector", "--data", str(folder), "--port", str(port), "--clickhouse", store_url]
    processes = []
    with (folder / "log.txt").open("wb") as log:
        try:
            processes.append(subprocess.Popen(store_command, cwd=_ROOT, stderr=log))
            _wait(f"{store_url}/ping")
            processes.append(subprocess.Popen(command, cwd=_ROOT, stderr=log))
            _wait(f"{url}/healthz")
            with Store(locate(folder, store_url, role="owner")) as store:
                until(lambda: not _missing_tables(store), "the schema")
                asyncio.run(send(url, keys.agent_hmac, bodies[:1]))  # first use of everything
                _bring_in(store, url, "the first insert")
                before = _cpu(processes)
                asyncio.run(send(url, keys.agent_hmac, bodies[1:]))
                _bring_in(store, url, "the log to drain")
                until(lambda: not store.rows("SELECT 1 FROM system.merges LIMIT 1"), "merges")
                used = _cpu(processes) - before
                _check(store.rows("SELECT count() AS n FROM otel_traces")[0]["n"], bodies)
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait(60)
    return used * len(bodies) / (len(bodies) - 1)


def run_bare(folder: Path, bodies: list[bytes]) -> float:
    """CPU seconds that the engine alone takes for requests of ``Bodies``."""
    segment, size, number = None, 0, 0
    for index, body in enumerate(bodies):
        # The first request is a segment of its own: first use of everything, not counted.
        if segment is None or index == 1 or size + len(body) > SEGMENT_BYTES:
            if segment is not None:
                segment.close()
            segment, size, number = (folder / f"{number:04}.seg").open("wb"), 0, number + 1
        frame = framing.encode(body, records=2 * REQUESTS_A_BODY, digest=bytes(16), received_ns=time.time_ns())
        segment.write(frame)
        size += len(frame)
    if segment is not None:
        segment.close()
    command = [sys.executable, "-m", "benchmarks.ingest", "--bare", str(folder)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    _check(result["rows"], bodies)
    return float(result["cpu_seconds"]) * len(bodies) / (len(bodies) - 1)


def _bare(folder: Path) -> dict[str, float]:
    import chdb  # noqa: PLC0415 - the engine lives in this one process of the reference

    engine = chdb.connect(str(folder / "engine"))
    layout = migrate.Layout(database="bare")
    engine.query("CREATE DATABASE bare")
    engine.query("USE bare")
    for statement in migrate.of_new(layout):
        engine.query(statement)
    used = 0.0
    for number, path in enumerate(sorted(folder.glob("*.seg"))):
        head, _, settings = segment_statement("bare", "land_traces", path.stem, None).partition(" SETTINGS ")
        started = time.process_time()
        engine.query(f"{head} FROM INFILE '{path}' SETTINGS {settings}")
        used += time.process_time() - started if number else 0.0
    started = time.process_time()
    deadline = time.monotonic() + _QUIET_SECONDS
    while str(engine.query("SELECT count() FROM system.merges", "TSV")).strip() != "0" and time.monotonic() < deadline:
        time.sleep(0.2)
    used += time.process_time() - started
    rows = int(str(engine.query("SELECT count() FROM bare.otel_traces", "TSV")).strip())
    return {"cpu_seconds": used, "rows": rows}


async def send(url: str, key: bytes, bodies: list[bytes]) -> None:
    """Send as an agent does, as fast as the collector takes it."""
    waiting = iter(bodies)
    packer = zstandard.ZstdCompressor(level=1)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:

        async def work() -> None:
            for body in waiting:
                packed = packer.compress(body)
                while await _post(session, url, key, packed):  # noqa: ASYNC110 - told to come again
                    await asyncio.sleep(0.2)

        await asyncio.gather(*(work() for _ in range(CONNECTIONS)))


async def _post(session: aiohttp.ClientSession, url: str, key: bytes, packed: bytes) -> bool:
    """True when it must be sent again."""
    headers = signing.signed_headers(key, "POST", "/v1/traces", packed, now_ms=time.time_ns() // 1_000_000)
    headers |= {"Content-Type": "application/x-protobuf", "Content-Encoding": "zstd"}
    async with session.post(f"{url}/v1/traces", data=packed, headers=headers) as answer:
        if answer.status not in {200, 429, 503}:
            raise RuntimeError(f"the collector answered {answer.status}: {await answer.text()}")
        return answer.status != 200  # noqa: PLR2004


def _edge_attributes() -> dict[str, object]:
    return {
        Edge.OPERATION: "chat", Edge.REQUEST_MODEL: "tiny", Edge.METHOD: "POST", Edge.ROUTE: "/v1/chat/completions",
        Edge.STATUS: 200, Edge.INPUT_TOKENS: 812, Edge.OUTPUT_TOKENS: 128, Edge.TENANT: "a7", Edge.OUTCOME: "ok",
        Edge.STREAM: True, Edge.EDGE_SECONDS: 0.0004, Edge.TTFT_SECONDS: 0.21, Edge.E2E_SECONDS: 1.9,
        Edge.ITL_MEAN_SECONDS: 0.013, Edge.ITL_P99_SECONDS: 0.04, Edge.GAPS: 127,
    }  # fmt: skip


def _engine_attributes() -> dict[str, object]:
    return {
        "gen_ai.request.id": "cmpl-x", "gen_ai.request.n": 1, "gen_ai.request.max_tokens": 128,
        "gen_ai.request.top_p": 1.0, "gen_ai.request.temperature": 0.7, "gen_ai.usage.prompt_tokens": 812,
        "gen_ai.usage.completion_tokens": 128, "gen_ai.latency.time_in_queue": 0.01,
        "gen_ai.latency.time_to_first_token": 0.2, "gen_ai.latency.e2e": 1.88,
        "gen_ai.latency.time_in_model_prefill": 0.18, "gen_ai.latency.time_in_model_decode": 1.6,
        "gen_ai.latency.time_in_model_inference": 1.8,
    }  # fmt: skip


def _fill(attributes: Any, values: dict[str, object]) -> None:
    for key, value in values.items():
        kind = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value"}[type(value)]
        attribute = KeyValue(key=key)
        setattr(attribute.value, kind, value)
        attributes.append(attribute)


def _missing_tables(store: Store) -> bool:
    try:
        return bool(migrate.pending(store))
    except Exception:  # noqa: BLE001 - not there yet, whatever the reason
        return True


def drained(url: str, signals: Collection[str] = SIGNALS) -> bool:
    """Whether a collector has brought all it took of these signals into its store."""
    with urllib.request.urlopen(f"{url}/healthz", timeout=30) as answer:  # noqa: S310 - our own loopback URL
        books = json.load(answer)["ledger"]
    return all(of["pending"] == 0 for signal, of in books.items() if signal in signals)


def _bring_in(store: Store, url: str, what: str) -> None:
    # unread rows may wait for most of a minute, and the collector's own figures always wait
    store.rows("SELECT count() AS n FROM otel_traces")
    until(lambda: drained(url, ("traces",)), what)


def _cpu(processes: list[subprocess.Popen[bytes]]) -> float:
    times = [psutil.Process(process.pid).cpu_times() for process in processes]
    return float(sum(t.user + t.system for t in times))


def _check(rows: int, bodies: list[bytes]) -> None:
    if rows != len(bodies) * 2 * REQUESTS_A_BODY:
        raise RuntimeError(f"{rows} rows in otel_traces, {len(bodies) * 2 * REQUESTS_A_BODY} were sent")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str) -> None:
    def answers() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=10):  # noqa: S310 - our own loopback URL
                return True
        except OSError:
            return False

    until(answers, url)


def until(true: Any, what: str) -> None:
    """Wait for something.

    Raises:
        RuntimeError: It did not come.
    """
    deadline = time.monotonic() + _QUIET_SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {_QUIET_SECONDS} s for {what}")
        time.sleep(0.1)


def main() -> None:
    """Print one JSON object a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer spans")
    parser.add_argument("--json", action="store_true", help="the only form there is")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        print(json.dumps(_bare(options.bare)), flush=True)
        os._exit(0)  # the engine's shutdown is no part of the figure
    for line in measure(quick=options.quick):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
