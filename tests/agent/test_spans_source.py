from __future__ import annotations

import asyncio
import gzip
import io
import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.config import AgentConfig
from agent.sources.spans import MAX_BODY_BYTES, Spans, source
from agent.spool.writer import SpoolWriter
from agent.target import Known, Place, Target
from base.errors import PortInUseError

if TYPE_CHECKING:
    from collections.abc import Sequence

FIXTURES = Path(__file__).parent.parent / "fixtures"
TRITON = Target("triton-a", "vision", engine="triton")
VLLM = Target("vllm-a", "chat", engine="vllm")


def trace(service: str = "", scope: str = "vllm.tracing.otel", **more: str) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    named = {"service.name": service} if service else {}
    for key, value in (named | more).items():
        pair = group.resource.attributes.add()
        pair.key, pair.value.string_value = key, value
    scoped = group.scope_spans.add()
    scoped.scope.name = scope
    ids, times = {"trace_id": b"t" * 16, "span_id": b"s" * 8}, {"start_time_unix_nano": 7, "end_time_unix_nano": 9}
    scoped.spans.add(name="llm_request", **ids, **times)
    return request


def complete(request: ExportTraceServiceRequest, targets: Sequence[Target]) -> dict[str, str]:
    out: list[bytes] = []
    spans = Spans(targets, Place(region="eu-west-1"))
    spans.intake.emit = lambda _signal, body: out.append(body)
    assert spans.intake.take("traces", request.SerializeToString())
    (group,) = ExportTraceServiceRequest.FromString(out[0]).resource_spans
    return {pair.key: pair.value.string_value for pair in group.resource.attributes}


def test_a_service_named_like_an_instance_is_that_instance():
    found = complete(trace("triton-a", "triton-server"), [TRITON, VLLM])
    assert found == {
        "servescope.reported.service.name": "triton-a",
        "service.name": "vision",
        "service.instance.id": "triton-a",
        "servescope.engine": "triton",
        "servescope.role": "both",
        "cloud.region": "eu-west-1",
    }


def test_what_an_engine_calls_itself_gives_way_and_stays_readable():
    reported = {"service.instance.id": "5da8a787-e985"}
    found = complete(trace("unknown_service:python3", **reported), [TRITON, VLLM])
    assert found["service.instance.id"] == "vllm-a"
    assert found["service.name"] == "chat"
    assert found["servescope.reported.service.instance.id"] == "5da8a787-e985"
    assert found["servescope.reported.service.name"] == "unknown_service:python3"


def test_replicas_of_a_deployment_are_not_guessed():
    two = [VLLM, Target("vllm-b", "chat", engine="vllm")]
    found = complete(trace("chat", **{"service.instance.id": "uuid"}), two)
    assert "service.instance.id" not in found
    assert (found["service.name"], found["servescope.engine"]) == ("chat", "vllm")


def test_two_targets_of_one_engine_are_not_guessed():
    two = [VLLM, Target("vllm-b", "other", engine="vllm")]
    found = complete(trace("unknown_service:python3"), two)
    assert found == {"service.name": "unknown_service:python3", "cloud.region": "eu-west-1"}


def test_an_engine_learnt_from_the_page_counts():
    spans = Spans(
        [Target("a", "chat"), Target("b", "vision")],
        known={"a": Known("vllm", "0.23.0"), "b": Known("triton")}.get,
    )
    assert [target.instance for target in spans.intake.match("", ["triton-server"])] == ["b"]
    assert [target.instance for target in spans.intake.match("", ["somebody"])] == []


def test_spans_carry_the_version_that_the_server_told():
    spans = Spans([VLLM], known={"vllm-a": Known("vllm", "0.23.0")}.get)
    out: list[bytes] = []
    spans.intake.emit = lambda _signal, body: out.append(body)
    spans.intake.take("traces", trace("vllm-a").SerializeToString())
    spans.intake.take("traces", trace("vllm-a", **{"service.version": "7"}).SerializeToString())
    versions = [
        {
            pair.key: pair.value.string_value
            for pair in ExportTraceServiceRequest.FromString(body).resource_spans[0].resource.attributes
        }["service.version"]
        for body in out
    ]
    assert versions == ["0.23.0", "7"]


def test_spans_carry_the_one_model_that_their_server_serves():
    known = {"vllm-a": Known("vllm", model="tiny"), "vllm-b": Known("vllm", model="tiny"), "c": Known("vllm")}
    spans = Spans([VLLM, Target("vllm-b", VLLM.deployment, engine="vllm"), Target("c", "c")], known=known.get)
    out: list[bytes] = []
    spans.intake.emit = lambda _signal, body: out.append(body)
    for service in ("vllm-a", VLLM.deployment, "c"):
        spans.intake.take("traces", trace(service).SerializeToString())
    models = [
        {pair.key: pair.value.string_value for pair in group.resource.attributes}.get("servescope.model")
        for body in out
        for group in ExportTraceServiceRequest.FromString(body).resource_spans
    ]
    assert models == ["tiny", "tiny", None]


def test_attributes_that_are_there_are_kept():
    found = complete(trace("vllm-a", **{"cloud.region": "us-east-1"}), [VLLM])
    assert found["cloud.region"] == "us-east-1"


def test_spans_pass_untouched():
    out: list[bytes] = []
    spans = Spans([VLLM])
    spans.intake.emit = lambda _signal, body: out.append(body)
    request = trace("vllm-a")
    spans.intake.take("traces", request.SerializeToString())
    assert (
        ExportTraceServiceRequest.FromString(out[0]).resource_spans[0].scope_spans
        == request.resource_spans[0].scope_spans
    )


def test_prompts_are_taken_out_before_the_spool():
    out: list[bytes] = []
    spans = Spans([VLLM])
    spans.intake.emit = lambda _signal, body: out.append(body)
    request = trace("vllm-a")
    pair = request.resource_spans[0].scope_spans[0].spans[0].attributes.add()
    pair.key, pair.value.string_value = "gen_ai.prompt.0.content", "my secret"
    spans.intake.take("traces", request.SerializeToString())
    assert b"my secret" not in out[0]
    assert spans.intake.stats.scrubbed == 1


class Intake:
    """A running receiver and what it emitted."""

    def __init__(self, *, grpc_port: int | None = None, full: bool = False) -> None:
        self.out: list[tuple[str, bytes]] = []
        self.full = full
        self.spans = Spans([TRITON, VLLM], http_port=0, grpc_port=grpc_port)
        self._task: asyncio.Task[None] | None = None

    def _emit(self, signal: str, body: bytes) -> bool:
        if not self.full:
            self.out.append((signal, body))
        return not self.full

    async def __aenter__(self) -> Self:
        await self.spans.open()
        self._task = asyncio.create_task(self.spans.run(self._emit))
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def post(self, body: bytes, signal: str = "traces", **headers: str) -> tuple[int, str, str]:
        url = f"http://127.0.0.1:{self.spans.http_port}/v1/{signal}"
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=io.BytesIO(body), headers=named) as response,
        ):
            return response.status, response.content_type, await response.text()


async def test_protobuf_plain_and_gzipped():
    body = trace("vllm-a").SerializeToString()
    async with Intake() as intake:
        plain = await intake.post(body, Content_Type="application/x-protobuf")
        zipped = await intake.post(gzip.compress(body), Content_Type="application/x-protobuf", Content_Encoding="gzip")
    assert plain == zipped == (200, "application/x-protobuf", "")
    assert intake.out[0] == intake.out[1]
    assert set(intake.spans.intake.stats.last_seen) == {"vllm-a"}


async def test_real_triton_json_becomes_the_same_spans():
    body = gzip.decompress((FIXTURES / "triton" / "otlp_json_4_spans.json.gz").read_bytes())
    async with Intake() as intake:
        assert await intake.post(body, Content_Type="application/json") == (200, "application/json", "{}")
    (group,) = ExportTraceServiceRequest.FromString(intake.out[0][1]).resource_spans
    sent = json.loads(body)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    got = group.scope_spans[0].spans
    assert [span.span_id.hex() for span in got] == [span["spanId"] for span in sent]
    assert [span.start_time_unix_nano for span in got] == [int(span["startTimeUnixNano"]) for span in sent]
    assert {pair.key: pair.value.string_value for pair in group.resource.attributes}[
        "service.instance.id"
    ] == "triton-a"


async def test_metrics_and_logs_are_taken_too():
    metrics = ExportMetricsServiceRequest()
    metrics.resource_metrics.add().scope_metrics.add().scope.name = "vllm"
    logs = ExportLogsServiceRequest()
    logs.resource_logs.add().scope_logs.add().scope.name = "vllm"
    async with Intake() as intake:
        for signal, request in (("metrics", metrics), ("logs", logs)):
            status, _, _ = await intake.post(request.SerializeToString(), signal, Content_Type="application/x-protobuf")
            assert status == 200
    assert [signal for signal, _ in intake.out] == ["metrics", "logs"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"\xff\xff", "application/x-protobuf", 400),
        (b"{", "application/json", 400),
        (b'{"resourceSpans": 3}', "application/json", 400),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"spanId": "xyz"}]}]}]}', "application/json", 400),
        (b"x", "text/plain", 415),
    ],
)
async def test_what_is_no_otlp_is_refused_and_counted(body: bytes, kind: str, status: int):
    async with Intake() as intake:
        assert (await intake.post(body, Content_Type=kind))[0] == status
    assert intake.out == []
    assert intake.spans.intake.stats.malformed == (status == 400)


async def test_a_body_that_is_not_zipped_as_it_says_is_refused_and_counted():
    async with Intake() as intake:
        status, _, _ = await intake.post(b"\x1f\x8bbad", Content_Type="application/x-protobuf", Content_Encoding="gzip")
        assert status == 400
        assert intake.spans.intake.stats.malformed == 1


async def test_a_full_spool_asks_the_sender_to_come_again():
    async with Intake(full=True) as intake:
        status, _, _ = await intake.post(trace().SerializeToString(), Content_Type="application/x-protobuf")
    assert status == 503
    assert intake.spans.intake.stats.refused == 1
    assert intake.spans.intake.stats.last_seen == {}


async def test_a_body_as_large_as_is_received_goes_into_a_real_spool(tmp_path: Path):
    filler = "x" * (MAX_BODY_BYTES - 200)
    writer = SpoolWriter(tmp_path)
    body = trace("vllm-a", filler=filler).SerializeToString()
    assert MAX_BODY_BYTES - 200 < len(body) < MAX_BODY_BYTES
    async with Intake() as intake:
        intake.spans.intake.emit = writer.append
        assert (await intake.post(body, Content_Type="application/x-protobuf"))[0] == 200
    assert writer.written["traces"] == 1
    writer.close()


async def test_a_body_that_an_empty_spool_never_takes_is_not_told_to_come_again(tmp_path: Path):
    config = AgentConfig(spool_max_bytes=1_000_000, otlp_http_port=0, otlp_grpc_port=None)
    scene: Any = SimpleNamespace(config=config, targets=[VLLM], place=None, known=lambda _: None, engines=None)
    writer = SpoolWriter(tmp_path, config.spool_max_bytes)
    async with Intake() as intake:
        intake.spans.intake = source(scene).intake
        intake.spans.intake.emit = writer.append
        for size, status, said in (
            (999_000, 413, "may take 8999"),
            (900_000, 413, "may take 8999"),
            (899_000, 200, ""),
            (899_000, 503, "the spool is full"),
        ):
            body = trace("vllm-a", filler="x" * size).SerializeToString()
            answer = await intake.post(body, Content_Type="application/x-protobuf")
            assert answer[0] == status
            assert said in answer[2]
        large = await intake.post(b"x" * (MAX_BODY_BYTES + 1), Content_Type="application/x-protobuf")
        assert "may take 8000000 bytes" in large[2]
    writer.close()


GROUP: Final = b"\x0a\x0a\x12\x08\x0a\x06\x0a\x04vllm"
"""A group of spans that only names its scope: a hundred bytes of attributes are added to these twelve."""


@pytest.mark.parametrize("body", [GROUP * 100_000, b"x" * (MAX_BODY_BYTES + 1)], ids=["grows", "large"])
async def test_what_no_try_makes_small_enough_is_not_told_to_come_again(body: bytes):
    async with (
        Intake(grpc_port=0) as intake,
        grpc.aio.insecure_channel(f"127.0.0.1:{intake.spans.grpc_port}") as channel,
    ):
        assert (await intake.post(body, Content_Type="application/x-protobuf"))[0] == 413
        assert intake.spans.intake.stats.too_large == 1
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")(body)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert intake.out == []


async def test_grpc_takes_what_vllm_sends_and_refuses_the_rest():
    async with (
        Intake(grpc_port=0) as intake,
        grpc.aio.insecure_channel(f"127.0.0.1:{intake.spans.grpc_port}") as channel,
    ):
        export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        assert await export(trace("vllm-a").SerializeToString(), compression=grpc.Compression.Gzip) == b""
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await export(b"\xff\xff")
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        intake.full = True
        with pytest.raises(grpc.aio.AioRpcError) as later:
            await export(trace("vllm-a").SerializeToString())
        assert later.value.code() == grpc.StatusCode.UNAVAILABLE
    assert [signal for signal, _ in intake.out] == ["traces"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_a_taken_port_is_named(protocol: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        spans = Spans(
            [], http_port=port if protocol == "http" else None, grpc_port=port if protocol == "grpc" else None
        )
        with pytest.raises(PortInUseError, match=f"otlp_{protocol}_port"):
            await spans.open()
        await spans.close()
