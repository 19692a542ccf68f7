"""Unmodified senders → collector process → embedded store."""

from __future__ import annotations

import gzip
import json
import logging
import re
import shutil
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from base import signing
from base.keys import ensure_keys
from tests.kits.collector_process import CollectorProcess, spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kits.store_process import StoreServer

FIXTURES = Path(__file__).parent.parent / "fixtures" / "triton" / "otlp_json"


@pytest.fixture(scope="module")
def collector(store_server: StoreServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    data = tmp_path_factory.mktemp("collector")
    shutil.copytree(store_server.data.parent / "keys", data / "keys")
    url = f"{store_server.url}/?database=c_{uuid.uuid4().hex[:12]}"
    with CollectorProcess(data, url, {"settle_seconds": 0.2, "seal_seconds": 2.0}).start() as made:
        yield made
        assert made.process is not None
        loaded = Path(f"/proc/{made.process.pid}/maps").read_text()
        # It makes no frames, and what could make them is a hundred megabytes in each process.
        assert not re.search(r"libarrow|pandas|numpy", loaded)
        assert made.stop() == 0


@pytest.fixture
def ask(collector: CollectorProcess, store_server: StoreServer) -> Callable[[str], list[str]]:
    """Rows of a query as lines, ``{db}`` being the collector's database."""

    def run(sql: str) -> list[str]:
        collector.wait_drained()
        answer = store_server.ask(sql.replace("{db}", collector.clickhouse.partition("database=")[2]))
        return [line for line in answer.split("\n") if line]

    return run


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_an_sdks_spans(collector: CollectorProcess, ask: Callable[[str], list[str]], compression: Compression):
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{collector.url}/v1/traces", compression=compression)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer(f"sdk-{compression.value}")
    with tracer.start_as_current_span("parent", attributes={"n": 7, "gen_ai.prompt": "secret"}):
        for _ in range(100):
            with tracer.start_as_current_span("child"):
                pass
    provider.shutdown()
    where = f"FROM {{db}}.otel_traces WHERE ScopeName = 'sdk-{compression.value}'"
    assert ask(f"SELECT SpanName, count() {where} GROUP BY 1 ORDER BY 1") == ["child\t100", "parent\t1"]
    assert ask(f"SELECT SpanAttributes {where} AND SpanName = 'parent'") == ["{'n':'7'}"]


def test_an_sdks_metrics(collector: CollectorProcess, ask: Callable[[str], list[str]]):
    exporter = OTLPMetricExporter(endpoint=f"{collector.url}/v1/metrics")
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, 3_600_000)], shutdown_on_exit=False)
    meter = provider.get_meter("sdk-metrics")
    meter.create_counter("sdk_requests").add(5, {"k": "v"})
    meter.create_histogram("sdk_seconds").record(0.2)
    provider.shutdown()
    assert ask("SELECT Value, Attributes FROM {db}.otel_metrics_sum WHERE MetricName = 'sdk_requests'") == [
        "5\t{'k':'v'}"
    ]
    assert ask("SELECT Count, Sum FROM {db}.otel_metrics_histogram WHERE MetricName = 'sdk_seconds'") == ["1\t0.2"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK's own bridge from logging
def test_an_sdks_logs(collector: CollectorProcess, ask: Callable[[str], list[str]]):
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{collector.url}/v1/logs")))
    handler = LoggingHandler(logger_provider=provider)
    logger = logging.getLogger("collector-sdk-test")
    logger.addHandler(handler)
    logger.warning("something is odd")
    logger.removeHandler(handler)
    provider.shutdown()
    rows = ask("SELECT Body, SeverityText FROM {db}.otel_logs WHERE ScopeName = 'collector-sdk-test'")
    assert [row.split("\t")[0] for row in rows] == ["something is odd"]


def test_a_signed_batch_and_its_retry(collector: CollectorProcess, ask: Callable[[str], list[str]]):
    key = ensure_keys(collector.data / "keys").agent_hmac
    body = spans(0, 5, scope="signed")
    for _ in range(3):
        now = int(time.time() * 1000)
        headers = signing.signed_headers(key, "POST", "/v1/traces", body, now_ms=now, batch="signed-1")
        assert collector.post("traces", body, **headers)[0] == 200
    assert ask("SELECT count() FROM {db}.otel_traces WHERE ScopeName = 'signed'") == ["5"]


def test_tritons_json_becomes_requests(collector: CollectorProcess, ask: Callable[[str], list[str]]):
    body = gzip.decompress((FIXTURES / "0001.json.gz").read_bytes())
    assert collector.post("traces", body, Content_Type="application/json")[0] == 200
    document = json.loads(body)
    sent = [s for r in document["resourceSpans"] for g in r["scopeSpans"] for s in g["spans"]]
    # 64-bit texts and hex ids arrive as they were sent; the fixture's times may be outside the table's retention
    rows = ask("SELECT count(), uniqExact(SpanId) FROM {db}.otel_traces WHERE ScopeName = 'triton-server'")
    assert rows == [f"{len(sent)}\t{len(sent)}"]
    deadline = time.monotonic() + 60
    infer = [s for s in sent if s["name"] == "InferRequest"]
    query = "SELECT count() FROM {db}.requests WHERE engine = 'triton' AND queue_seconds > 0"
    while int(ask(query)[0]) < len(infer) // 2:
        assert time.monotonic() < deadline, ask("SELECT count(), any(engine) FROM {db}.requests")
        time.sleep(0.2)


def test_what_arrives_is_soon_to_be_seen(collector: CollectorProcess, store_server: StoreServer):
    database = collector.clickhouse.partition("database=")[2]
    started = time.monotonic()
    assert collector.post("traces", spans(7000, 1, scope="fresh"))[0] == 200
    query = f"SELECT count() FROM {database}.otel_traces WHERE ScopeName = 'fresh'"

    def seen() -> bool:
        try:
            return store_server.ask(query).strip() == "1"
        except urllib.error.HTTPError as error:
            with error:  # it holds the connection
                if error.code != 404:  # the collector is still making the tables
                    raise
            return False

    while not seen():
        assert time.monotonic() - started < 90
        time.sleep(0.05)


def test_metrics_page_and_books(collector: CollectorProcess, ask: Callable[[str], list[str]]):
    assert collector.post("traces", spans(9000, 3, scope="books"))[0] == 200
    assert ask("SELECT count() FROM {db}.otel_traces WHERE ScopeName = 'books'") == ["3"]
    health = collector.health()
    assert all(books["balance"] == 0 for books in health["ledger"].values())
    with urllib.request.urlopen(f"{collector.url}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    stored = health["ledger"]["traces"]["stored"]
    assert f'servescope_collector_stored_records_total{{signal="traces"}} {float(stored)}' in page
    assert "servescope_collector_store_up 1.0" in page
