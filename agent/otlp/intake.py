"""What becomes of a body of OTLP: it is checked, prompts are taken out, each group gets its target's attributes.

A body is parsed once; spans without ids are taken out, what has no time gets one.

Which target a group comes from is told by ``service.name`` (an instance's or a deployment's name), else by the
engine's scope name when only one target can be meant. A matched group takes instance and deployment from the target,
so that both halves of a request name the same server; what the engine called itself stays under
``servescope.reported.*``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from agent.engine_table import tables
from agent.otlp.check import WHAT_IS_WRONG, check, has_spans
from agent.otlp.claim import add_missing, claim, common, groups
from agent.otlp.encode import attributes
from agent.spool.framing import MAX_RECORD_BYTES
from agent.target import Known, Place
from base import otlp_depth
from base.otlp_depth import Cuts
from base.otlp_json import parse
from base.scrub import may_hold_prompts, scrub_request
from base.vocabulary import Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.proto.resource.v1.resource_pb2 import Resource as OtlpResource

    from agent.otlp.emit import Emit, SignalKind
    from agent.target import Target
    from base.scrub import OtlpRequest

_REQUESTS: Final[Mapping[str, type[OtlpRequest]]] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}


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
        cut: Lists and maps left out of bodies because they lay too deep.
        scrubbed: Prompt-bearing values removed.
        unmatched: Groups that no target could be named for; they pass without a target's attributes.
    """

    last_seen: dict[str, float] = field(default_factory=dict)
    requests: int = 0
    malformed: int = 0
    refused: int = 0
    too_large: int = 0
    rejected: int = 0
    cut: int = 0
    scrubbed: int = 0
    unmatched: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a body: true where it is in the spool; ``rejected`` spans and ``cuts`` were left out of it."""

    kept: bool
    rejected: int = 0
    cuts: Cuts = field(default_factory=Cuts)

    def __bool__(self) -> bool:
        return self.kept

    def answer(self) -> bytes:
        """The response's body: empty for a full success."""
        answer = ExportTraceServiceResponse()  # those of the other signals have the same shape
        if text := self.text():
            answer.partial_success.rejected_spans = self.rejected
            answer.partial_success.error_message = text
        return answer.SerializeToString()

    def text(self) -> str:
        """What was left out, for the sender; empty where nothing was."""
        return "; ".join(filter(None, (WHAT_IS_WRONG if self.rejected else "", self.cuts.text())))


class NoSpansError(Exception):
    """A body of traces has spans, and not one that has its ids."""

    def __init__(self) -> None:
        super().__init__(WHAT_IS_WRONG)


class TooLargeError(Exception):
    """A body that no try makes small enough; the text says how large it may be."""

    def __init__(self, largest: int) -> None:
        super().__init__(
            f"a body may take {largest} bytes with the attributes that are added to each of its resources; "
            "send smaller batches"
        )


class Intake:
    """Takes bodies of OTLP for the targets of this agent.

    Args:
        targets: The servers that may send.
        place: Where this agent runs.
        keep_prompts: Leave prompt text in; the operator's explicit choice.
        known: What an instance told of itself. Its engine serves where the target names none; its version and model
            are given to its spans, for vLLM's name neither.
        largest: Bytes that a record may ever take: what would not go into an empty spool must not be told to come
            again.

    Attributes:
        stats: What came in.
        emit: Where it goes; until it is set, senders are asked to try again.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        place: Place | None = None,
        *,
        keep_prompts: bool = False,
        known: Callable[[str], Known | None] = lambda _instance: None,
        largest: int = MAX_RECORD_BYTES,
    ) -> None:
        self._largest = min(largest, MAX_RECORD_BYTES)
        self.stats = SpanStats()
        self.emit: Emit = lambda _signal, _body: False
        self._targets = tuple(targets)
        self._place = place or Place()
        self._keep_prompts = keep_prompts
        self._known = known

    def watch(self, targets: Sequence[Target]) -> None:
        """Take these too for servers that may send."""
        self._targets = (*self._targets, *targets)

    def forget(self, targets: Sequence[Target]) -> None:
        """These are no servers that may send any more."""
        gone = {target.instance for target in targets}
        self._targets = tuple(target for target in self._targets if target.instance not in gone)
        for instance in gone:
            self.stats.last_seen.pop(instance, None)

    def take(self, signal: SignalKind, body: bytes, *, as_json: bool = False) -> Taken:
        """Check, scrub, complete and hand on one body.

        Returns:
            Whether it is in the spool, and how many of its spans were left out.

        Raises:
            MalformedJsonError, DecodeError: It is no export request of this signal.
            NoSpansError: None of its spans has its ids.
            TooLargeError: It does not fit into a record of the spool, now or later.
        """
        request, cuts = _REQUESTS[signal](), Cuts()
        if as_json:
            parse(body, request, cuts)
        else:
            otlp_depth.parse(body, request, cuts)
        rejected = check(request, time.time_ns())
        if rejected and not has_spans(request):
            raise NoSpansError
        self.stats.rejected += rejected
        self.stats.cut += cuts.count
        if not self._keep_prompts and (as_json or may_hold_prompts(body, logs=signal == "logs")):
            self.stats.scrubbed += scrub_request(request)
        seen = []
        room = self._largest - request.ByteSize()
        for resource, scopes in groups(request):
            room += resource.ByteSize()
            seen.append(self._complete(resource, scopes))
            room -= resource.ByteSize()
            if room < 0:  # before a body of a million empty groups has grown to gigabytes
                raise TooLargeError(self._largest)
        whole = request.SerializeToString()
        if len(whole) > self._largest:
            raise TooLargeError(self._largest)
        if self.emit(signal, whole) is False:
            self.stats.refused += 1
            return Taken(kept=False)
        now = time.time()
        self.stats.requests += 1
        for instance in seen:
            if instance:
                self.stats.last_seen[instance] = now
            else:
                self.stats.unmatched += 1
        return Taken(kept=True, rejected=rejected, cuts=cuts)

    def _complete(self, resource: OtlpResource, scopes: Sequence[str]) -> str:
        """Add the target's attributes and return its instance name, empty where no single target is meant."""
        own = {pair.key: pair.value.string_value for pair in resource.attributes}
        matches = self.match(own.get(Resource.DEPLOYMENT, ""), scopes)
        if not matches:
            add_missing(resource, own, attributes(None, self._place))
            return ""
        claim(
            resource,
            common(self._whose(target) for target in matches),
        )
        return matches[0].instance if len(matches) == 1 else ""

    def _whose(self, target: Target) -> dict[str, str]:
        told = self._told(target.instance)
        return attributes(target, self._place, told.version) | ({Resource.MODEL: told.model} if told.model else {})

    def _told(self, instance: str) -> Known:
        return self._known(instance) or Known("")

    def match(self, service: str, scopes: Sequence[str]) -> list[Target]:
        """The targets that a group may come from, by its service's name and its scopes."""
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
