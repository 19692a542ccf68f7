"""OTLP from the engines themselves: spans (and metrics, logs) over HTTP and gRPC on loopback.

HTTP takes protobuf and JSON (Triton sends nothing else), gRPC is vLLM's default. A body is parsed once, to check it;
prompts and spans without ids are taken out, what has no time gets one; the resource of each group gets the
attributes of the target it comes from. It is acknowledged when it lies in the spool, and a full spool is said (503,
``UNAVAILABLE``) instead of hidden.

Which target a group comes from is told by ``service.name`` (an instance's or a deployment's name), else by the
engine's scope name when only one target can be meant. A matched group takes instance and deployment from the target,
so that both halves of a request name the same server; what the engine called itself stays under
``servescope.reported.*``.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, cast, get_args

import structlog
from aiohttp import web
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from agent.engine_table import tables
from agent.otlp.check import WHAT_IS_WRONG, check, has_spans
from agent.otlp.encode import attributes
from agent.spool.writer import MAX_RECORD_BYTES
from agent.target import Known, Place, SignalKind
from base.errors import PortInUseError
from base.otlp_json import MalformedJsonError, parse
from base.scrub import may_hold_prompts, scrub_request
from base.vocabulary import Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from opentelemetry.proto.resource.v1.resource_pb2 import Resource as OtlpResource

    from agent.target import Emit, Target
    from base.scrub import OtlpRequest

REPORTED: Final = "servescope.reported."
MAX_BODY_BYTES: Final = 8_000_000
_OWNED: Final = frozenset({Resource.INSTANCE, Resource.DEPLOYMENT})
_REQUESTS: Final[Mapping[str, type[OtlpRequest]]] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
_SERVICES: Final = {
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
}
_RETRY_AFTER_SECONDS: Final = "5"

log = structlog.get_logger()


@dataclass(slots=True)
class SpanStats:
    """What came in; read by the agent's own metrics.

    Attributes:
        last_seen: Unix time of the last group of each target; a target that is not here never sent any.
        requests: Bodies taken.
        malformed: Bodies refused because they do not parse.
        refused: Bodies refused because the spool is full.
        too_large: Bodies refused because they are too large for a record of the spool with their target's attributes.
        rejected: Spans refused out of bodies because they have no ids.
        scrubbed: Prompt-bearing values removed.
        unmatched: Groups that no target could be named for; they pass without a target's attributes.
    """

    last_seen: dict[str, float] = field(default_factory=dict)
    requests: int = 0
    malformed: int = 0
    refused: int = 0
    too_large: int = 0
    rejected: int = 0
    scrubbed: int = 0
    unmatched: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a body: true where it is in the spool; ``rejected`` spans were left out of it."""

    kept: bool
    rejected: int = 0

    def __bool__(self) -> bool:
        return self.kept

    def answer(self, signal: SignalKind) -> bytes:
        """The response's body: empty for a full success."""
        if not self.rejected or signal != "traces":
            return b""
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = self.rejected
        answer.partial_success.error_message = WHAT_IS_WRONG
        return answer.SerializeToString()


class NoSpansError(Exception):
    """A body of traces has spans, and not one that has its ids."""

    def __init__(self) -> None:
        super().__init__(WHAT_IS_WRONG)


class TooLargeError(Exception):
    """A body that no try makes small enough; the text says how large it may be."""

    def __init__(self) -> None:
        super().__init__(
            f"a body may take {MAX_RECORD_BYTES} bytes with the attributes that are added to each of its resources; "
            "send smaller batches"
        )


class Spans:
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
    ) -> None:
        self.stats = SpanStats()
        self.http_port = http_port
        self.grpc_port = grpc_port
        self._targets = tuple(targets)
        self._place = place or Place()
        self._host = host
        self._keep_prompts = keep_prompts
        self._known = known
        self._emit: Emit = lambda _signal, _body: False
        self._runner: web.AppRunner | None = None
        self._grpc: Any = None

    async def bind(self) -> None:
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
        self._emit = emit
        try:
            await self.bind()
            await asyncio.Event().wait()
        finally:
            await self.close()

    def watch(self, targets: Sequence[Target]) -> None:
        """Take these for the servers that may send."""
        self._targets = tuple(targets)

    async def close(self) -> None:
        """Let go of the ports; what is under way is answered first."""
        if self._grpc is not None:
            await self._grpc.stop(2.0)
            self._grpc = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def take(self, signal: SignalKind, body: bytes, *, as_json: bool = False) -> Taken:
        """Check, scrub, complete and hand on one body.

        Returns:
            Whether it is in the spool, and how many of its spans were left out.

        Raises:
            MalformedJsonError, DecodeError: It is no export request of this signal.
            NoSpansError: None of its spans has its ids.
            TooLargeError: It does not fit into a record of the spool, now or later.
        """
        request = _REQUESTS[signal]()
        if as_json:
            parse(body, request)
        else:
            request.ParseFromString(body)
        rejected = check(request, time.time_ns())
        if rejected and not has_spans(request):
            raise NoSpansError
        self.stats.rejected += rejected
        if not self._keep_prompts and (as_json or may_hold_prompts(body, logs=signal == "logs")):
            self.stats.scrubbed += scrub_request(request)
        seen = []
        room = MAX_RECORD_BYTES - request.ByteSize()
        for resource, scopes in _groups(request):
            room += resource.ByteSize()
            seen.append(self._complete(resource, scopes))
            room -= resource.ByteSize()
            if room < 0:  # before a body of a million empty groups has grown to gigabytes
                raise TooLargeError
        whole = request.SerializeToString()
        if len(whole) > MAX_RECORD_BYTES:
            raise TooLargeError
        if self._emit(signal, whole) is False:
            self.stats.refused += 1
            return Taken(kept=False)
        now = time.time()
        self.stats.requests += 1
        for instance in seen:
            if instance:
                self.stats.last_seen[instance] = now
            else:
                self.stats.unmatched += 1
        return Taken(kept=True, rejected=rejected)

    def _complete(self, resource: OtlpResource, scopes: Sequence[str]) -> str:
        """Add the target's attributes and return its instance name, empty where no single target is meant."""
        own = {pair.key: pair.value.string_value for pair in resource.attributes}
        matches = self._match(own.get(Resource.DEPLOYMENT, ""), scopes)
        if not matches:
            _add_missing(resource, own, attributes(None, self._place))
            return ""
        claim(
            resource,
            _common(self._whose(target) for target in matches),
        )
        return matches[0].instance if len(matches) == 1 else ""

    def _whose(self, target: Target) -> dict[str, str]:
        told = self._told(target.instance)
        return attributes(target, self._place, told.version) | ({Resource.MODEL: told.model} if told.model else {})

    def _told(self, instance: str) -> Known:
        return self._known(instance) or Known("")

    def _match(self, service: str, scopes: Sequence[str]) -> list[Target]:
        targets = [
            replace(target, engine=target.engine or self._told(target.instance).engine or None)
            for target in self._targets
        ]
        by_name = [target for target in targets if target.instance == service]
        by_name = by_name or [target for target in targets if target.deployment == service]
        if by_name:
            return by_name
        engine = next((engine for engine in tables() for scope in scopes if scope.startswith(engine)), None)
        same = [target for target in targets if target.engine in {engine, None}]
        return same if engine is not None and len(same) == 1 else []

    async def _receive_http(self, request: web.Request) -> web.Response:
        signal = cast("SignalKind", request.match_info["signal"])
        as_json = request.content_type == "application/json"
        if not as_json and request.content_type not in {"application/x-protobuf", "application/octet-stream"}:
            return web.Response(status=415, text=f"{request.content_type}: send application/x-protobuf or json\n")
        try:
            taken = self.take(signal, await request.read(), as_json=as_json)
        except (MalformedJsonError, DecodeError, NoSpansError, web.RequestPayloadError) as error:
            self._refuse(error)
            return web.Response(status=400, text=f"{error}\n")
        except (TooLargeError, web.HTTPRequestEntityTooLarge):
            self.stats.too_large += 1
            return web.Response(status=413, text=f"{TooLargeError()}\n")
        if not taken:
            return web.Response(status=503, text="the spool is full\n", headers={"Retry-After": _RETRY_AFTER_SECONDS})
        if as_json:
            told = {"rejectedSpans": str(taken.rejected), "errorMessage": WHAT_IS_WRONG}
            return web.json_response({"partialSuccess": told} if taken.rejected else {})
        return web.Response(body=taken.answer(signal), content_type="application/x-protobuf")

    async def _bind_grpc(self, port: int) -> None:
        import grpc  # noqa: PLC0415 - 20 MB that only those pay who use it

        server = grpc.aio.server(
            options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_BODY_BYTES)),
        )

        def handler(signal: SignalKind) -> Any:
            async def export(body: bytes, context: Any) -> bytes:
                try:
                    taken = self.take(signal, body)
                except (DecodeError, NoSpansError) as error:
                    self._refuse(error)
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
                except TooLargeError as error:
                    self.stats.too_large += 1
                    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))  # without a delay: not again
                if not taken:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the spool is full")
                return taken.answer(signal)

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
        self.stats.malformed += 1
        if self.stats.malformed == 1:  # the counter tells of the others
            log.warning("otlp_malformed", error=str(error)[:200])


def _groups(request: OtlpRequest) -> Iterable[tuple[OtlpResource, Sequence[str]]]:
    if isinstance(request, ExportTraceServiceRequest):
        for spans in request.resource_spans:
            yield spans.resource, [scope.scope.name for scope in spans.scope_spans]
    elif isinstance(request, ExportMetricsServiceRequest):
        for metrics in request.resource_metrics:
            yield metrics.resource, [scope.scope.name for scope in metrics.scope_metrics]
    else:
        for logs in request.resource_logs:
            yield logs.resource, [scope.scope.name for scope in logs.scope_logs]


def claim(resource: OtlpResource, whose: Mapping[str, str]) -> None:
    """Give a group the attributes of the target it comes from.

    Instance and deployment become the target's, what the sender called them stays under ``servescope.reported.*``;
    of the others only those are added that are missing.
    """
    for pair in resource.attributes:
        if pair.key in _OWNED and whose.get(pair.key) != pair.value.string_value:
            pair.key = REPORTED + pair.key
    _add_missing(resource, {pair.key for pair in resource.attributes}, whose)


def _common(whose: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What several targets have in common: a deployment without its instance, where one can't be named."""
    first, *others = whose
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def _add_missing(resource: OtlpResource, own: Collection[str], whose: Mapping[str, str]) -> None:
    for key, value in whose.items():
        if key not in own:
            pair = resource.attributes.add()
            pair.key, pair.value.string_value = key, value


def _taken(port: int, protocol: str) -> PortInUseError:
    return PortInUseError(
        f"the agent can't listen for OTLP/{protocol} on port {port}: it is taken",
        f"Stop what listens there, or set agent.otlp_{protocol.lower()}_port.",
    )
