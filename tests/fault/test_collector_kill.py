"""Collector and store are killed under traffic: what was acknowledged is in the tables, each record once.

The sender is OpenTelemetry's own exporter, repeated until it reports success, which is what every SDK does within its
patience. It gives no batch ids.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
import time
from typing import TYPE_CHECKING

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.kits.collector_process import START_SECONDS, CollectorProcess, spans
from tests.kits.store_process import StoreServer, start_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

BATCH = 40


def make_batch(worker: int, number: int) -> Sequence[ReadableSpan]:
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("kill-test")
    for index in range(BATCH):
        with tracer.start_as_current_span(f"w{worker}-b{number}-{index}"):
            pass
    return kept.get_finished_spans()


class Traffic:
    """Threads that each send one batch after the other, repeating one until it is acknowledged."""

    def __init__(self, url: str, workers: int = 2) -> None:
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(w,), daemon=True) for w in range(workers)]
        self.acknowledged = [0] * workers
        for thread in self._threads:
            thread.start()

    def _send(self, worker: int) -> None:
        exporter = OTLPSpanExporter(endpoint=f"{self._url}/v1/traces", timeout=3)
        while not self._stop.is_set():
            batch = make_batch(worker, self.acknowledged[worker])
            while exporter.export(batch) is not SpanExportResult.SUCCESS:
                time.sleep(0.05)
            self.acknowledged[worker] += 1
        exporter.shutdown()

    def wait_progress(self, batches: int) -> None:
        goal = sum(self.acknowledged) + batches
        deadline = time.monotonic() + 120
        while sum(self.acknowledged) < goal:
            assert time.monotonic() < deadline, "the traffic stands still"
            time.sleep(0.01)

    def finish(self) -> set[str]:
        """Names of every acknowledged span."""
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()
        return {
            f"w{worker}-b{number}-{index}"
            for worker, batches in enumerate(self.acknowledged)
            for number in range(batches)
            for index in range(BATCH)
        }


@pytest.fixture
def store(tmp_path: Path) -> Iterator[list[StoreServer]]:
    """The running store in a list, to be replaced by the one that follows it."""
    running = [start_store(tmp_path)]
    yield running
    running[0].stop()


@pytest.fixture
def collector(tmp_path: Path, store: list[StoreServer]) -> Iterator[CollectorProcess]:
    with CollectorProcess(tmp_path, store[0].url, {"seal_seconds": 0.1}).start() as made:
        # The tables come first: kills during the first migration would only ever hit the log.
        assert made.post("traces", spans(0, 1))[0] == 200
        made.wait_drained()
        yield made


def expect_exactly(store: StoreServer, names: set[str]) -> None:
    rows = store.ask("SELECT SpanName FROM servescope.otel_traces WHERE ScopeName = 'kill-test' FORMAT TSV").split()
    assert len(rows) == len(set(rows)), "doubled"
    assert set(rows) == names


def kill_collector(collector: CollectorProcess, _: list[StoreServer]) -> None:
    collector.kill()
    collector.start()


def kill_store(_: CollectorProcess, store: list[StoreServer]) -> None:
    old = store[0]
    old.process.kill()
    old.process.wait(30)
    store[0] = start_store(old.data.parent, port=old.port)


def kill_both(collector: CollectorProcess, store: list[StoreServer]) -> None:
    collector.kill()
    kill_store(collector, store)
    collector.start()


def run_kills(
    kill: Callable[[CollectorProcess, list[StoreServer]], None],
    times: int,
    collector: CollectorProcess,
    store: list[StoreServer],
) -> None:
    chance = random.Random()
    traffic = Traffic(collector.url)
    try:
        for _ in range(times):
            traffic.wait_progress(1)
            time.sleep(chance.uniform(0, 0.8))  # the point of the kill is random on purpose
            kill(collector, store)
        traffic.wait_progress(2)
    finally:
        names = traffic.finish()
    health = collector.wait_drained()
    assert all(books["balance"] == 0 for books in health["ledger"].values())
    expect_exactly(store[0], names)


def test_nothing_acknowledged_is_lost_or_doubled(collector: CollectorProcess, store: list[StoreServer]):
    run_kills(kill_both, 2, collector, store)


@pytest.mark.heavy
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kill", [kill_collector, kill_store, kill_both])
def test_nothing_is_lost_or_doubled_in_many_kills(
    kill: Callable[[CollectorProcess, list[StoreServer]], None], collector: CollectorProcess, store: list[StoreServer]
):
    run_kills(kill, 25, collector, store)


@pytest.fixture
def holding(tmp_path: Path, store: list[StoreServer]) -> Iterator[CollectorProcess]:
    """A collector that keeps what it acknowledged to itself until somebody reads."""
    settings = {"seal_seconds": 0.2, "unasked_seal_seconds": 600}
    with CollectorProcess(tmp_path, store[0].url, settings).start() as made:
        assert made.post("traces", spans(0, 1))[0] == 200
        deadline = time.monotonic() + START_SECONDS
        # it holds back once the store has answered its first call, be that before or after the tables are there
        while not made.health()["store"]["unhurried"] or made.health()["ledger"]["traces"]["pending"]:
            assert time.monotonic() < deadline, made.log()
            _read(store[0])
            time.sleep(0.1)
        yield made


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("kill", [kill_collector, kill_both])
def test_what_is_held_back_is_there_once_after_a_kill(
    kill: Callable[[CollectorProcess, list[StoreServer]], None],
    asked: bool,
    holding: CollectorProcess,
    store: list[StoreServer],
):
    for number in range(3):
        assert holding.post("traces", spans(1 + BATCH * number, BATCH, scope="kill-test"))[0] == 200
    time.sleep(1)  # five times what it would take if they were not held back
    assert holding.health()["ledger"]["traces"]["pending"] == 3 * BATCH
    reader = threading.Thread(target=_read, args=(store[0],), daemon=True)
    if asked:  # the kill comes while they are brought in
        reader.start()
        time.sleep(random.Random().uniform(0, 0.3))
    kill(holding, store)
    if asked:
        reader.join(120)
    health = holding.wait_drained()
    assert health["ledger"]["traces"]["recovered"] == health["ledger"]["traces"]["stored"]
    assert asked or health["ledger"]["traces"]["recovered"] >= 3 * BATCH  # and a file that the store has had
    expect_exactly(store[0], {f"n{number}" for number in range(1, 1 + 3 * BATCH)})


def _read(store: StoreServer) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):  # it may be killed in the middle of it
        store.ask("SELECT count() FROM servescope.otel_traces, system.one")  # of all signals
