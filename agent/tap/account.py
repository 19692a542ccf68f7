"""The account of one request: collects what is seen, makes the record. Never lets an error of its own out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog

from agent.entropy import draw
from agent.otlp.request import RequestRecord, time_coded_span_id
from agent.tap.asked import may_name_model, path_asks_for_stream, read_request
from agent.tap.bodies import BodySample
from agent.tap.counters import describe_fault
from agent.tap.facts import Facts
from agent.tap.gaps import Gaps
from agent.tap.observe import AnswerWatch
from agent.tap.open_requests import OpenRequest
from agent.tap.routes import REALTIME, Route, find_route
from agent.tap.tenants import Who
from agent.tap.tracing import (
    Onward,
    TraceContext,
    new_trace_context,
    read_request_id,
    read_trace_context,
    read_trace_state,
)
from agent.tap.websocket import Session
from base.vocabulary import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.tap.books import Books
    from agent.tap.head import RequestHead, ResponseHead
    from agent.tap.websocket import FrameWatch

log = structlog.get_logger()

_NS: Final = 1_000_000_000
_DRAWN: Final = 36
"""Random bytes of a request: 16 of its trace, 16 of its id, 4 of its span's id."""
_TOO_MANY: Final = 429
_UNAVAILABLE: Final = 503
_SERVER_ERROR: Final = 500
_CLIENT_ERROR: Final = 400
_SWITCHING: Final = 101
_REFUSALS: Final = frozenset({401, 403})
_NOBODY: Final = Who()
_NO_FACTS: Final = Facts()
_NO_GAPS: Final = Gaps().told()
_NO_ROUTE: Final = Route("_OTHER", "/*")
_UNKNOWN_MODEL: Final = frozenset({*_REFUSALS, 404})


_tuple: Final = tuple.__new__
"""Makes a tuple with names from what stands in its order: the class's own way there takes twice as long."""


class Account:
    """Collects one request.

    Args:
        core: Shared state.
        head: The request's head; ``None`` for one that could not be read.
        arrived: Arrival on the clock, seconds.
        arrived_ns: Arrival, Unix nanoseconds.
        clock: Tells the time in seconds.
        span_id: The edge's span where somebody else has drawn it, else it is drawn here.
        trace: Likewise its trace, else it is read off the head.

    Attributes:
        trace: Trace context to hand on.
        span_id: The tap's span, parent of the server's.
        request_id: The client's, or one made here.
        onward: What the server is told of it.
        edge_seconds: Sum so far.
        request_bytes: Payload from the client.
        response_bytes: Payload to the client.
        status: Status sent to the client.
        closed: The record is made.
    """

    def __init__(
        self,
        core: Books,
        head: RequestHead | None,
        arrived: float,
        arrived_ns: int,
        clock: Callable[[], float] = time.monotonic,
        span_id: bytes = b"",
        trace: TraceContext | None = None,
    ) -> None:
        self._core = core
        self._clock = clock
        self._arrived = arrived
        self._arrived_ns = arrived_ns
        drawn = draw(_DRAWN)  # for all that need chance, in one step
        self.span_id = span_id or time_coded_span_id(arrived_ns, int.from_bytes(drawn[32:]))
        named = self._trace_state = ""
        if head is not None and not head.plain and head.has(b"traceparent", b"tracestate", b"x-request-id"):
            trace = trace or read_trace_context(head.all(b"traceparent"), sample=core.sample)
            self._trace_state = read_trace_state(head.all(b"tracestate")) if trace.continued else ""
            named = read_request_id(head.all(b"x-request-id"))
        self.trace: TraceContext = trace or new_trace_context(drawn[:16])
        self.request_id = named or drawn[16:32].hex()
        self.onward = Onward(self.trace, self.span_id, self.request_id, bool(named))
        self.route: Route = _NO_ROUTE if head is None else _route(head)
        self.edge_seconds = 0.0
        self.request_bytes = 0
        self.response_bytes = 0
        self.status: int | None = None
        self.closed = False
        self._ttft: float | None = None
        self._who = _NOBODY
        self._sample: BodySample | None = None
        self._kind = b""
        self._model = self.route.model
        self._wants_stream = False
        self._watch: AnswerWatch | None = None
        self._session: Session | None = None
        self._asked_at: float | None = None
        self._broken = False
        core.counters.in_flight += 1
        if head is not None:
            self._begin(head)

    def _begin(self, head: RequestHead) -> None:
        try:
            route = self.route
            self._who = self._core.tenants.look(head, query=bool(route.operation))
            if not route.probe or self._core.record_probes:
                self._open(route, self._who, self.trace)
            self._wants_stream = path_asks_for_stream(route.template, head.target)
            self._kind = head.get(b"content-type") or b""
            if route.reads_body and may_name_model(self._kind) and head.get(b"content-encoding") is None:
                self._sample = BodySample()
        except Exception:  # noqa: BLE001 - recording must never break serving
            self._fault("begin")

    def _open(self, route: Route, who: Who, trace: TraceContext) -> None:
        self._core.open.begin(
            _tuple(
                OpenRequest,
                (
                    self.span_id, trace.trace_id, trace.parent_span_id, trace.flags, self._arrived_ns,
                    route.method, route.template, route.operation, who.declared, who.key, self.request_id, self._model,
                ),
            )
        )  # fmt: skip

    def request_payload(self, pieces: list[bytes]) -> None:
        """Payload of the request went by."""
        sample = self._sample
        for piece in pieces:
            self.request_bytes += len(piece)
            if sample is not None:
                sample.feed(piece)
        if self._session is not None:
            self._follow(self._session, self._session.client, pieces)

    def request_left_out(self, size: int) -> None:
        """So many bytes of the request went by that nobody kept."""
        self.request_bytes += size
        if self._sample is not None:
            self._sample.left_out(size)

    def request_ended(self) -> None:
        """The request is wholly here (and was handed on before this)."""
        self._asked_at = self._clock()
        self._read_request()

    def _read_request(self) -> None:
        sample, self._sample = self._sample, None
        if sample is None:
            return
        try:
            model, stream = read_request(sample, self._kind, self.route.template)
            self._wants_stream = self._wants_stream or stream
            self._model = model or self._model
            self._core.open.name_model(self.span_id, self._model)
        except Exception:  # noqa: BLE001 - recording must never break serving
            self._fault("request")

    def answer_began(self, head: ResponseHead) -> None:
        """The response's head is here."""
        self.status = head.status
        try:
            if head.status == _SWITCHING:
                self._session = Session()
            else:
                self._watch = AnswerWatch(head)
        except Exception:  # noqa: BLE001 - recording must never break serving
            self._fault("answer")

    def answer_payload(self, pieces: list[bytes], now: float) -> bool:
        """Payload of the answer came at ``now`` (monotonic seconds).

        Returns:
            Whether an event has said that nothing more will come: the client has its whole answer with it.
        """
        for piece in pieces:
            self.response_bytes += len(piece)
        if self._session is not None:
            self._follow(self._session, self._session.server, pieces)
        if (watch := self._watch) is None:
            return False
        if not self.closed:
            try:
                watch.feed(pieces, now)
            except Exception:  # noqa: BLE001 - recording must never break serving
                self._fault("answer")
                return False
            if watch.taken_back:
                watch.taken_back = False
                self._ttft = None
        return watch.facts.complete

    def answer_left_out(self, size: int) -> None:
        """So many bytes of an answer that is no stream went by that nobody kept."""
        self.response_bytes += size
        if self._watch is not None:
            self._watch.left_out(size)

    def answer_lost(self, size: int, first: float | None) -> None:
        """Pieces of the answer are missing: of it only times and sizes are known.

        Args:
            size: Its bytes.
            first: Seconds from the arrival to the first of them.
        """
        streams = self._watch is not None and self._watch.stream
        self._watch = None
        self.response_bytes = size
        self._wants_stream = streams
        if streams and self._ttft is None:
            self._ttft = first

    def _follow(self, session: Session, side: FrameWatch, pieces: list[bytes]) -> None:
        try:
            for piece in pieces:
                session.feed(side, piece)
        except Exception:  # noqa: BLE001 - recording must never break serving
            self._fault("session")

    def handed_over(self, now: float) -> None:
        """All that came so far is in the client's socket."""
        if (
            self._ttft is None
            and (watch := self._watch) is not None
            and watch.stream
            and watch.readable
            and watch.has_content
        ):
            self._ttft = now - self._arrived

    def close(self, outcome: Outcome | None, error_type: str = "") -> RequestRecord | None:
        """Make the record, once.

        Args:
            outcome: How it ended; ``None`` to tell from the answer itself, which then is whole.
            error_type: Why, when the answer doesn't say.

        Returns:
            The record; ``None`` when there is none to write (already made, a probe, or this code failed).
        """
        if self.closed:
            return None
        self.closed = True
        self._core.counters.in_flight -= 1
        self.handed_over(self._clock())
        try:
            record = self._make(outcome, error_type)
        except Exception:  # noqa: BLE001 - recording must never break serving
            self._fault("record")
            self._core.counters.lost.labels("fault").inc()
            self._core.open.done(self.span_id)
            return None
        self._core.counters.request_ended(record.outcome, self.edge_seconds)
        if self.route.probe and not self._core.record_probes:
            self._core.counters.probes.inc()
            return None
        return record

    def _make(self, outcome: Outcome | None, error_type: str) -> RequestRecord:
        if self._sample is not None:
            self._read_request()  # of one that never ended, what came of it
        facts, stream, ended_at = _NO_FACTS, self._wants_stream, None
        if (watch := self._watch) is not None:
            watch.finish()
            facts, stream, ended_at = watch.facts, watch.stream, watch.ended_at
        outcome, error_type = self._outcome(outcome, error_type)
        seconds = self._clock() - self._arrived
        usage, counted, gaps = facts.usage, 0, _NO_GAPS
        reported = usage.completion
        if watch is not None and stream:
            if facts.content_chunks > (reported or 0):
                counted = facts.content_chunks  # else a report of less than was seen is a placeholder
            gaps = watch.gaps.told()
        stream = stream or (self._wants_stream and (self.status or 0) >= _CLIENT_ERROR)  # it failed as what it asked
        models, served = self._core.models, self.status not in _UNKNOWN_MODEL
        asked, answered = self._model, facts.model
        request_model = models(asked, trusted=served)
        trace, route = self.trace, self.route
        made = (  # by places: by name, of so many, it takes four times as long
            trace.trace_id,
            self.span_id,
            self._arrived_ns,
            self._arrived_ns + int(seconds * _NS),
            outcome,
            route.method,
            route.template,
            trace.parent_span_id,
            self._trace_state,
            trace.flags,
            route.operation,
            request_model,
            request_model if answered == asked else models(answered, trusted=served),  # response_model
            self._core.tenants.name(self._who, refused=self.status in _REFUSALS),
            error_type,
            self.status,
            stream,
            counted > 0,  # tokens_counted
            trace.caller_sampled,
            not trace.sampled,  # unsampled
            _in_order(facts.finish),
            facts.response_id,
            self.request_id,
            usage.prompt,
            counted or reported,  # completion_tokens
            usage.cached,
            self.request_bytes,
            self.response_bytes if ended_at is None else ended_at,
            gaps[0],
            self.edge_seconds,
            self._ttft,
            0.0 if route.operation == REALTIME else seconds,  # e2e_seconds
            *gaps[1:],
        )
        return _tuple(RequestRecord, made)

    def _outcome(self, outcome: Outcome | None, error_type: str) -> tuple[Outcome, str]:
        """How the request ended, by what was seen where the caller can't tell."""
        left = outcome is Outcome.CLIENT_ABORT
        if self._session is not None and (left or outcome is None):
            return self._session.outcome(client_left=left)
        if left and not error_type and self._waited_in_vain():
            return Outcome.TIMEOUT, "client_timeout"
        return (outcome, error_type) if outcome is not None else self._outcome_of_answer()

    def _waited_in_vain(self) -> bool:
        """Whether the client asked all it had to and waited as long as anybody would, for nothing."""
        patience = self._core.limits.patience_seconds
        if patience <= 0 or self._asked_at is None or (self._watch is not None and self._watch.has_content):
            return False
        return self._clock() - self._asked_at >= patience

    def _outcome_of_answer(self) -> tuple[Outcome, str]:
        status = self.status or 0
        watch = self._watch
        facts = _NO_FACTS if watch is None else watch.facts
        if status >= _CLIENT_ERROR:
            outcome = Outcome.SERVER_ERROR if status >= _SERVER_ERROR else Outcome.CLIENT_ERROR
            if status == _TOO_MANY or (status == _UNAVAILABLE and facts.queue_full):
                outcome = Outcome.REJECTED
            return outcome, facts.error_type or str(status)
        if facts.error or facts.given_up:
            outcome = Outcome.REJECTED if facts.queue_full else Outcome.SERVER_ERROR
            return outcome, facts.error_type or facts.given_up or "error_in_answer"
        if watch is not None and not watch.bounded and (watch.cut or (watch.silent and self.route.generates)):
            return Outcome.UPSTREAM_RESET, "answer_without_end"
        return Outcome.OK, ""

    def _fault(self, where: str) -> None:
        self._watch = None
        self._sample = None
        self._core.counters.faults.labels(where).inc()
        if not self._broken:
            self._broken = True
            log.error("tap_recording_failed", where=where, error=describe_fault())


def _in_order(finish: dict[int, str]) -> tuple[str, ...]:
    if len(finish) > 1:
        return tuple(finish[choice] for choice in sorted(finish))
    return tuple(finish.values())


def _route(head: RequestHead) -> Route:
    return find_route(head.method, head.path, websocket=head.method == b"GET" and head.wants_websocket())
