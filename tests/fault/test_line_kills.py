"""kill -9 of each part of a running line during traffic: no answered request without its row, none twice."""

from __future__ import annotations

import os
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.kits.line import Client, Line, Triton, free_block, infer, start_line, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.heavy, pytest.mark.triton, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("kills")
    base = free_block()
    with Triton(folder / "triton", base + 30, f"127.0.0.1:{base + 2}"):
        started = start_line(folder / "data", base, f"triton=http://127.0.0.1:{base + 30}")
        try:
            yield started
        finally:
            assert started.stop() == 0, started.log.read_text()[-3000:]


@pytest.mark.parametrize("part", ["collector", "store", "agent"])
def test_a_killed_part_loses_no_answered_request(line: Line, part: str) -> None:
    client = Client(line.tap, tenant=f"kill-{part}")
    stop = threading.Event()

    def steady(worker: int) -> None:
        number = 0
        while not stop.is_set():
            path, body = infer("ranker", "features", [1, 64], [(number % 40) / 40] * 64)
            client.send("ranker", path, body, f"{part}-{worker}-{number}")
            number += 1
            stop.wait(0.03)

    with ThreadPoolExecutor(4) as pool:
        for worker in range(4):
            pool.submit(steady, worker)
        try:
            for _ in range(3):
                have = len(client.whole)
                wait_for(lambda have=have: len(client.whole) > have + 60, 60, "traffic")
                line.kill(part)
        finally:
            stop.set()

    def rows() -> list[str]:
        found = line.rows(
            "SELECT request_id FROM requests WHERE tenant = {tenant:String} AND has_edge = 1",
            {"tenant": f"kill-{part}"},
        )
        return sorted(str(row["request_id"]) for row in found)

    wait_for(lambda: len(rows()) >= len(client.whole), 90, f"all {len(client.whole)} rows")
    assert rows() == sorted(client.whole)
    spans = line.rows(
        "SELECT count() AS n, uniqExact(SpanId) AS distinct FROM otel_traces"
        " WHERE ScopeName = 'servescope.edge' AND SpanAttributes['servescope.tenant'] = {tenant:String}",
        {"tenant": f"kill-{part}"},
    )[0]
    assert spans["n"] == spans["distinct"] == len(client.whole)
    minutes = "SELECT sum(count) AS n FROM requests_1m WHERE tenant = {tenant:String}"
    assert line.rows(minutes, {"tenant": f"kill-{part}"})[0]["n"] == len(client.whole)


def test_a_killed_agent_loses_no_span_that_it_acknowledged(line: Line) -> None:
    """A sender that sends each span once: what was acknowledged is there once, what was not is there once or never."""
    acknowledged: list[str] = []
    unanswered: list[str] = []
    stop = threading.Event()

    def steady() -> None:
        while not stop.is_set():
            span_id = os.urandom(8)
            request = urllib.request.Request(
                f"{line.facts['urls']['agent_otlp']}/v1/traces", engine_span(span_id),
                {"Content-Type": "application/x-protobuf"},
            )  # fmt: skip
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    answer.read()
                acknowledged.append(span_id.hex())
            except OSError:
                unanswered.append(span_id.hex())
            stop.wait(0.005)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(steady)
        try:
            for _ in range(4):
                have = len(acknowledged)
                wait_for(lambda have=have: len(acknowledged) > have + 150, 60, "spans to be taken")
                line.kill("agent")
        finally:
            stop.set()

    def stored() -> Counter[str]:
        found = line.rows("SELECT SpanId FROM otel_traces WHERE ScopeName = 'vllm.llm_engine'")
        return Counter(str(row["SpanId"]) for row in found)

    wait_for(lambda: stored().keys() >= set(acknowledged), 90, f"all {len(acknowledged)} spans")
    assert stored().keys() <= {*acknowledged, *unanswered}
    assert set(stored().values()) == {1}
    halves = "SELECT count() AS n FROM requests WHERE startsWith(response_id, 'cmpl-') AND has_engine = 1"
    wait_for(lambda: line.rows(halves)[0]["n"] == len(stored()), 60, "a row for each of them")


def engine_span(span_id: bytes) -> bytes:
    """A request as vLLM's own span tells of it, from a server that no target names."""
    now = time.time_ns()
    span = Span(
        trace_id=os.urandom(16), span_id=span_id, name="llm_request", kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=now - 20_000_000, end_time_unix_nano=now,
    )  # fmt: skip
    values = {
        "gen_ai.request.id": f"cmpl-{span_id.hex()}",
        "gen_ai.latency.e2e": 0.02,
        "gen_ai.latency.time_in_queue": 0.001,
        "gen_ai.latency.time_in_model_prefill": 0.004,
        "gen_ai.latency.time_in_model_decode": 0.015,
    }
    for key, value in values.items():
        attribute = span.attributes.add(key=key)
        if isinstance(value, str):
            attribute.value.string_value = value
        else:
            attribute.value.double_value = value
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for key in ("service.name", "service.instance.id"):
        group.resource.attributes.add(key=key).value.string_value = "kill-vllm"
    scope = group.scope_spans.add()
    scope.scope.name = "vllm.llm_engine"
    scope.spans.append(span)
    return bytes(request.SerializeToString())
