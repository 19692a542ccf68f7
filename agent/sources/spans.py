"""OTLP from the engines themselves: spans (and metrics, logs) over HTTP and gRPC on loopback.

HTTP takes protobuf and JSON (Triton sends nothing else), gRPC is vLLM's default. A body is acknowledged when it lies in
the spool, and a full spool is said (503, ``UNAVAILABLE``) instead of hidden.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast, get_args

import structlog
from aiohttp import web
from google.protobuf.message import DecodeError
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from agent.host.engines import Engines
from agent.otlp.emit import SignalKind
from agent.otlp.intake import Intake, NoSpansError, SpanStats, TooLargeError
from agent.otlp.silence import Silence
from agent.source import METRICS, Source
from agent.spool.framing import FOOTER_BYTES, MAX_RECORD_BYTES
from agent.target import Place
from base.errors import PortInUseError
from base.framed import LONGEST_VARINT
from base.otlp_json import MalformedJsonError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

    from agent.otlp.emit import Emit
    from agent.source import Scene
    from agent.target import Known, Target

MAX_BODY_BYTES: Final = 8_000_000
_SERVICES: Final = {
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
}
_LOOK_SECONDS: Final = 10.0
_RETRY_AFTER_SECONDS: Final = "5"

log = structlog.get_logger()


class Spans(Source):
    """Receives OTLP for the targets of this agent.

    Args:
        targets: The servers that may send.
        place: Where this agent runs.
        host: Address to listen on.
        http_port: Port of OTLP/HTTP; 0 takes a free one, None leaves it out.
        grpc_port: Port of OTLP/gRPC; 0 takes a free one, None leaves it out (and the library unloaded).
        keep_prompts: Leave prompt text in; the operator's explicit choice.
        known: What an instance told of itself. Its engine serves where the target names none; its version and model
            are given to its spans, for vLLM's name neither.
        engines: The processes of those targets that run here: what they were started to send is told where it fails
            to come.
        largest: Bytes that a record of the spool may ever take.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        place: Place | None = None,
        *,
        host: str = "127.0.0.1",
        http_port: int | None = 14318,
        grpc_port: int | None = 14317,
        keep_prompts: bool = False,
        known: Callable[[str], Known | None] = lambda _instance: None,
        engines: Engines | None = None,
        largest: int = MAX_RECORD_BYTES,
    ) -> None:
        self.intake = Intake(targets, place, keep_prompts=keep_prompts, known=known, largest=largest)
        self._engines = engines or Engines()
        self._silence = Silence(self._engines, self.intake.stats, known, place or Place())
        self.http_port = http_port
        self.grpc_port = grpc_port
        self._host = host
        self._runner: web.AppRunner | None = None
        self._grpc: Any = None

    async def open(self) -> None:
        """Take the ports; until ``run`` a sender is asked to try again.

        Raises:
            PortInUseError: A port is taken.
        """
        if self.http_port is not None and self._runner is None:
            app = web.Application(client_max_size=MAX_BODY_BYTES)
            app.router.add_post("/v1/{signal:traces|metrics|logs}", self._receive_http)
            self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
            await self._runner.setup()
            try:
                await web.TCPSite(self._runner, self._host, self.http_port).start()
            except OSError as error:
                await self.close()
                raise _taken(self.http_port, "HTTP") from error
            self.http_port = self._runner.addresses[0][1]
        if self.grpc_port is not None and self._grpc is None:
            await self._bind_grpc(self.grpc_port)

    async def run(self, emit: Emit) -> None:
        """Receive until cancelled."""
        self.intake.emit = emit
        try:
            await self.open()
            clock = asyncio.get_running_loop().time
            while True:
                await self._engines.look(clock())
                self._silence.look(self.ports(), clock(), emit)
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            await self.close()

    def watch(self, targets: Sequence[Target]) -> None:
        """Take these too for servers that may send."""
        self.intake.watch(targets)
        self._engines.watch(targets)

    def forget(self, targets: Sequence[Target]) -> None:
        """What these still send is nobody's."""
        self.intake.forget(targets)
        self._engines.forget(targets)
        self._silence.forget(targets)

    def ports(self) -> Collection[int]:
        """The two doors, where they are open."""
        return {port for port in (self.http_port, self.grpc_port) if port}

    def seen(self) -> Mapping[str, Mapping[str, float]]:
        """When each target last sent spans."""
        return {"spans": self.intake.stats.last_seen}

    def problems(self, now: float, since: float) -> Iterable[str]:  # noqa: ARG002 - it goes by its own clock
        """Engines that were started to send spans here and send none."""
        for instance in self._silence.silent():
            yield f"{instance} was started to send its spans here and sends none while requests finish"

    def metrics(self) -> Iterable[Metric]:
        """Counts of what came in."""
        return families(self.intake.stats)

    async def close(self) -> None:
        """Let go of the ports; what is under way is answered first."""
        if self._grpc is not None:
            await self._grpc.stop(2.0)
            self._grpc = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _receive_http(self, request: web.Request) -> web.Response:
        signal = cast("SignalKind", request.match_info["signal"])
        as_json = request.content_type == "application/json"
        if not as_json and request.content_type not in {"application/x-protobuf", "application/octet-stream"}:
            return web.Response(status=415, text=f"{request.content_type}: send application/x-protobuf or json\n")
        try:
            taken = self.intake.take(signal, await request.read(), as_json=as_json)
        except (MalformedJsonError, DecodeError, NoSpansError, web.RequestPayloadError) as error:
            self._refuse(error)
            return web.Response(status=400, text=f"{error}\n")
        except (TooLargeError, web.HTTPRequestEntityTooLarge) as refusal:
            self.intake.stats.too_large += 1
            limit = f"a body may take {MAX_BODY_BYTES} bytes; send smaller batches"
            return web.Response(status=413, text=f"{refusal if isinstance(refusal, TooLargeError) else limit}\n")
        if not taken:
            return web.Response(status=503, text="the spool is full\n", headers={"Retry-After": _RETRY_AFTER_SECONDS})
        if as_json:
            told = {"errorMessage": taken.text()} | ({"rejectedSpans": str(taken.rejected)} if taken.rejected else {})
            return web.json_response({"partialSuccess": told} if taken.text() else {})
        return web.Response(body=taken.answer(), content_type="application/x-protobuf")

    async def _bind_grpc(self, port: int) -> None:
        import grpc  # noqa: PLC0415 - 20 MB that only those pay who use it

        server = grpc.aio.server(
            options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_BODY_BYTES)),
        )

        def handler(signal: SignalKind) -> Any:
            async def export(body: bytes, context: Any) -> bytes:
                try:
                    taken = self.intake.take(signal, body)
                except (DecodeError, NoSpansError) as error:
                    self._refuse(error)
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
                except TooLargeError as error:
                    self.intake.stats.too_large += 1
                    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))  # without a delay: not again
                if not taken:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the spool is full")
                return taken.answer()

            method = grpc.unary_unary_rpc_method_handler(export)  # without a serializer: bytes as they came
            return grpc.method_handlers_generic_handler(_SERVICES[signal], {"Export": method})

        server.add_generic_rpc_handlers(tuple(handler(signal) for signal in get_args(SignalKind)))
        try:
            self.grpc_port = server.add_insecure_port(f"{self._host}:{port}")
        except RuntimeError as error:
            await self.close()
            raise _taken(port, "gRPC") from error
        await server.start()
        self._grpc = server

    def _refuse(self, error: Exception) -> None:
        self.intake.stats.malformed += 1
        if self.intake.stats.malformed == 1:  # the counter tells of the others
            log.warning("otlp_malformed", error=str(error)[:200])


def source(scene: Scene) -> Spans:
    """The doors that the configuration names; with neither, what was found of the servers is kept all the same."""
    config = scene.config
    return Spans(
        scene.targets,
        scene.place,
        host=config.otlp_host,
        http_port=config.otlp_http_port,
        grpc_port=config.otlp_grpc_port,
        keep_prompts=config.store_prompts,
        known=scene.known,
        engines=scene.engines,
        largest=config.spool_max_bytes * 9 // 10 - FOOTER_BYTES - LONGEST_VARINT,  # beyond, its reader gives it up
    )


def families(stats: SpanStats) -> Iterable[Metric]:
    """What came in, as the agent's own metrics tell it."""
    seen = GaugeMetricFamily(
        f"{METRICS}_last_spans_timestamp_seconds", "When a target last sent spans.", labels=["instance"]
    )
    for instance, when in stats.last_seen.items():
        seen.add_metric([instance], when)
    yield seen
    received = CounterMetricFamily(
        f"{METRICS}_otlp_requests", "OTLP requests received, by what became of them.", labels=["result"]
    )
    for result, count in (
        ("taken", stats.requests),
        ("malformed", stats.malformed),
        ("refused", stats.refused),
        ("too_large", stats.too_large),
    ):
        received.add_metric([result], count)
    yield received
    yield CounterMetricFamily(f"{METRICS}_spans_rejected", "Spans without ids.", value=stats.rejected)
    yield CounterMetricFamily(
        f"{METRICS}_cut_values", "Lists and maps left out since they lay too deep.", value=stats.cut
    )
    yield CounterMetricFamily(
        f"{METRICS}_prompt_values_removed", "Prompt-bearing values removed.", value=stats.scrubbed
    )
    yield CounterMetricFamily(f"{METRICS}_unmatched_groups", "Span groups of no known target.", value=stats.unmatched)


def _taken(port: int, protocol: str) -> PortInUseError:
    return PortInUseError(
        f"the agent can't listen for OTLP/{protocol} on port {port}: it is taken",
        f"Stop what listens there, or set agent.otlp_{protocol.lower()}_port.",
    )
