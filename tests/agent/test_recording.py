from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Self

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.otlp.request import RequestRecord, time_coded_span_id
from agent.otlp.request_lines import to_row
from agent.otlp.request_wire import to_otlp
from agent.recording.folder import RecordingError
from agent.recording.record import SpoolTail, record
from agent.recording.replay import replay
from agent.spool.writer import SpoolWriter
from agent.target import Target
from base.vocabulary import SCOPE_EDGE, Outcome, Resource
from tests.kits.agent_fakes import until
from tests.kits.request_span import to_span

PAGE = Path(__file__).parent.parent / "fixtures" / "vllm" / "metrics_busy_02.txt.gz"
WHOSE = {Resource.INSTANCE: "vllm-a", Resource.DEPLOYMENT: "chat"}


def request(number: int) -> RequestRecord:
    start = 1_795_557_385_000_000_000 + number * 1_000_000_000
    return RequestRecord(
        trace_id=bytes([number]) * 16,
        span_id=time_coded_span_id(start, number),
        parent_span_id=b"p" * 8,
        start_ns=start,
        end_ns=start + 250_000_000,
        method="POST",
        route="/v1/completions",
        outcome=Outcome.CLIENT_ABORT if number % 2 else Outcome.OK,
        status=200,
        tenant="acme",
        request_id=f"r-{number}",
        finish_reasons=("stop", "length"),
        stream=True,
        completion_tokens=3,
        ttft_seconds=0.1,
        e2e_seconds=0.25,
        itl_gaps=2,
        itl_mean_seconds=0.05,
    )


def engine_span(number: int) -> bytes:
    body = ExportTraceServiceRequest()
    group = body.resource_spans.add()
    for key, value in WHOSE.items():
        pair = group.resource.attributes.add()
        pair.key, pair.value.string_value = key, value
    scope = group.scope_spans.add()
    scope.scope.name = "vllm.tracing.otel"
    scope.spans.add(
        name="llm_request",
        trace_id=bytes([number]) * 16,
        span_id=b"engine" + bytes([0, number]),
        parent_span_id=request(number).span_id,
        start_time_unix_nano=request(number).start_ns,
        end_time_unix_nano=request(number).end_ns,
    )
    return body.SerializeToString()


class Server:
    """A model server's pages on a free port."""

    def __init__(self) -> None:
        self.page = gzip.decompress(PAGE.read_bytes())
        self.asked = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        async def metrics(_request: web.Request) -> web.Response:
            self.asked += 1
            return web.Response(body=self.page, content_type="text/plain")

        async def health(_request: web.Request) -> web.Response:
            return web.Response()

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        app.router.add_get("/health", health)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._runner.cleanup()

    async def asked_again(self, times: int) -> None:
        """Wait until it has been asked so often more."""
        until = self.asked + times
        async with asyncio.timeout(60):
            while self.asked < until:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_what_is_recorded_is_replayed(tmp_path: Path):
    spool, out = tmp_path / "spool", tmp_path / "black-box"
    writer = SpoolWriter(spool / "tap-vllm-a")
    writer.append("traces", to_otlp(request(9), WHOSE))  # before the recording: not in it
    async with Server() as server:
        target, over = Target("vllm-a", "chat", url=server.url), asyncio.Event()
        task = asyncio.create_task(
            record(out, [target], seconds=60, spool=spool, otlp_http_port=None, interval_seconds=0.2, until=over)
        )
        await server.asked_again(1)
        for number in range(4):
            writer.append("traces", to_otlp(request(number), WHOSE))
        writer.append("traces", to_otlp(request(7), {**WHOSE, Resource.INSTANCE: "somebody-else"}))
        writer.append("traces", engine_span(2))
        await server.asked_again(4)
        over.set()
        (made,) = await task
    assert (made.folder, made.instance, made.counts["requests"]) == (out, "vllm-a", 4)
    about = json.loads((out / "recording.json").read_text())
    assert (about["engine"], about["deployment"], about["counts"]["requests"]) == ("vllm", "chat", 4)

    sent: list[tuple[str, bytes]] = []

    async def send(signal: str, body: bytes, _batch: str) -> bool:
        sent.append((signal, body))
        return True

    report = await replay(out, send)
    assert (report["requests"], report["spans"]) == (4, 1)
    assert report["samples"] >= 2  # type: ignore[operator]
    groups = [
        (scope.scope.name, span)
        for signal, body in sent
        for group in (ExportTraceServiceRequest.FromString(body).resource_spans if signal == "traces" else ())
        for scope in group.scope_spans
        for span in scope.spans
    ]
    edge = {span.span_id: span for name, span in groups if name == SCOPE_EDGE}
    for number in range(4):
        assert edge[request(number).span_id] == to_span(request(number)), (
            "recorded and replayed without a shift: the same"
        )
    (engine,) = (span for name, span in groups if name != SCOPE_EDGE)
    assert engine.parent_span_id == request(2).span_id


async def test_a_server_that_is_down_is_recorded_as_such(tmp_path: Path):
    async with Server() as server:
        url = server.url
    await record(tmp_path / "out", [Target("a", "a", url=url)], seconds=2.5, otlp_http_port=None, interval_seconds=0.2)
    with gzip.open(tmp_path / "out" / "pages.jsonl.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    assert lines
    assert all(line["status"] == 0 and line["error"] and line["health"] == 0 for line in lines)


async def test_it_ends_when_whoever_asked_has_seen_enough(tmp_path: Path):
    over = asyncio.Event()
    over.set()
    async with asyncio.timeout(60):
        (made,) = await record(
            tmp_path / "out",
            [Target("a", "d", url="http://127.0.0.1:9")],
            seconds=3600,
            otlp_http_port=None,
            until=over,
        )
    assert made.instance == "a"
    assert json.loads((made.folder / "recording.json").read_text())["instance"] == "a"


async def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path):
    (tmp_path / "precious").write_text("x")
    with pytest.raises(RecordingError, match="not empty"):
        await record(tmp_path, [Target("a", "a", url="http://127.0.0.1:9")], seconds=1, otlp_http_port=None)


async def test_settings_are_targets_too_and_each_has_its_folder(tmp_path: Path):
    settings = [
        {"instance": name, "deployment": "d", "engine": "auto", "url": "http://127.0.0.1:9", "tap": False}
        for name in ("a", "b")
    ]
    made = await record(tmp_path / "out", settings, seconds=0.2, otlp_http_port=None)
    assert [(one.instance, one.folder) for one in made] == [(name, tmp_path / "out" / name) for name in ("a", "b")]
    assert all(one.counts["pages"] == one.counts["requests"] == 0 for one in made)


async def test_a_watched_server_is_called_what_its_agent_calls_it(tmp_path: Path):
    spool = tmp_path / "spool"
    watched = {"instance": "vllm-a", "deployment": "chat", "url": "http://127.0.0.1:9", "tap_port": 9080}
    (tmp_path / "run.yaml").write_text(json.dumps({"agent": {"targets": [watched]}}))
    writer = SpoolWriter(spool / "tap-vllm-a")
    found = Target("vllm-9", "vllm", url="http://127.0.0.1:9")
    task = asyncio.create_task(record(tmp_path / "out", [found], seconds=1.5, spool=spool, otlp_http_port=None))
    await until((tmp_path / "out" / "requests.jsonl.gz").exists)
    writer.append("traces", to_otlp(request(1), WHOSE))
    await task
    about = json.loads((tmp_path / "out" / "recording.json").read_text())
    assert (about["instance"], about["deployment"], about["counts"]["requests"]) == ("vllm-a", "chat", 1)


def test_the_tail_reads_what_is_new_and_leaves_no_mark(tmp_path: Path):
    writer = SpoolWriter(tmp_path / "tap", segment_bytes=10)
    writer.append("traces", b"old")
    tail = SpoolTail(tmp_path)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    assert tail.read("traces") == b""
    writer.append("traces", b"new1")
    writer.append("traces", b"new2-in-a-second-segment")
    writer.append("metrics", b"not a trace")
    assert tail.read("traces") == b"new1new2-in-a-second-segment"
    assert tail.read("traces") == b""
    assert set(before) <= {path.name for path in tmp_path.rglob("*")}
    assert not list(tmp_path.rglob("state.json"))


def test_a_line_holds_all_that_the_span_says():
    row = to_row(to_span(request(3)))
    assert row["trace_id"] == (bytes([3]) * 16).hex()
    assert row["finish_reasons"] == ["stop", "length"]
    assert (row["outcome"], row["tenant"], row["itl_gaps"], row["stream"]) == ("client_abort", "acme", 2, True)
    assert json.loads(json.dumps(row)) == row
