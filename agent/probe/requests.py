"""Requests as the probe's middleware tells them, made into the record that a tap would have made of them.

The middleware sends what went by and when; a tap's own account reads it here, so that both give the same row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from agent.probe import datagram
from agent.tap.account import Account
from agent.tap.counters import Counters
from agent.tap.head import RequestHead, ResponseHead
from agent.tap.limits import Limits
from agent.tap.open_requests import OpenRequests
from agent.tap.tenants import BoundedNames, Tenants
from agent.tap.tracing import TraceContext
from base.vocabulary import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from agent.otlp.request import RequestRecord
    from agent.tap.config import TenantConfig

MAX_OPEN: Final = 20_000
_IDLE_SECONDS: Final = 3_600.0
_FAILED_STATUS: Final = 500


@dataclass(slots=True)
class Books:
    """What the accounts of the probe's requests share (``agent.tap.books.Books``)."""

    tenants: Tenants
    models: BoundedNames
    limits: Limits = field(default_factory=Limits)
    counters: Counters = field(default_factory=Counters)
    open: OpenRequests = field(default_factory=OpenRequests)
    record_probes: bool = False
    sample: bool = True


def books(salt: bytes, tenant: TenantConfig, limits: Limits) -> Books:
    """Books after the configuration of taps: the same tenants, the same patience.

    Args:
        salt: The data folder's, with which keys are hashed.
        tenant: How it is told who asks.
        limits: Bounds of a connection.
    """
    counters = Counters()
    return Books(
        tenants=Tenants(
            salt,
            header=tenant.header,
            key_header=tenant.key_header,
            names=tenant.names,
            header_wins=tenant.header_wins,
            claim=tenant.claim,
            bound=BoundedNames(tenant.limit, counters.names_overflowed.labels("tenant").inc),
        ),
        models=BoundedNames(tenant.limit, counters.names_overflowed.labels("model").inc),
        limits=limits,
        counters=counters,
    )


class Ended(NamedTuple):
    """A record, and who told of it."""

    process: datagram.Process
    record: RequestRecord


class _Clock:
    """Stands where the last thing that was told happened: seconds from the request's arrival."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class _Open:
    """A request that has not ended."""

    __slots__ = ("account", "answered", "asked", "clock", "heard", "places", "whole")

    def __init__(self, account: Account, clock: _Clock, heard: float) -> None:
        self.account = account
        self.clock = clock
        self.heard = heard
        self.answered = False
        self.asked: float | None = None
        self.places = 0
        self.whole = True


class Requests:
    """The open requests of all processes that tell of theirs.

    Args:
        shared: What their accounts share.
        ended: Takes each record.

    Attributes:
        told: Requests that ended, by what became of them: ``recorded``, ``unrecorded`` (health probes), ``incomplete``
            (recorded, but pieces of the answer were lost on the way), ``unknown`` (its beginning was lost), ``left``
            (its process ended or said nothing for an hour, or another has its name), ``full`` (too many were open).
    """

    def __init__(self, shared: Books, ended: Callable[[Ended], object]) -> None:
        self.told: Counter[str] = Counter()
        self._shared = shared
        self._ended = ended
        self._open: dict[tuple[datagram.Process, int], _Open] = {}

    def __len__(self) -> int:
        return len(self._open)

    def processes(self) -> set[datagram.Process]:
        """Processes with open requests."""
        return {process for process, _ in self._open}

    def waiting(self) -> Iterator[tuple[datagram.Process, float, bool]]:
        """Of each request for a model: its process, when it was wholly asked, whether its answer has begun."""
        for (process, _), one in self._open.items():
            if one.asked is not None:
                yield process, one.asked, one.answered

    def take(self, process: datagram.Process, record: datagram.Record, now: float) -> None:
        """Take a record of the middleware.

        Args:
            process: Whose it is.
            record: The record.
            now: Any steady clock, seconds.

        Raises:
            MalformedError: It can't be read.
        """
        kind, body = record.kind, record.body
        if kind == datagram.EDGE_BEGIN:
            self._begin(process, datagram.read_begin(body), now)
        elif kind == datagram.EDGE_BODY:
            self._body(process, datagram.read_body(body), now)
        elif kind == datagram.EDGE_HEAD:
            self._answer(process, datagram.read_answer(body), now)
        elif kind == datagram.EDGE_PIECES:
            self._pieces(process, datagram.read_pieces(body), now)
        elif kind == datagram.EDGE_END:
            self._end(process, datagram.read_end(body))
        else:
            raise datagram.MalformedError("kind")

    def sweep(self, now: float, gone: Iterable[datagram.Process]) -> None:
        """End what can't go on: requests of processes that are ``gone``, or of which nothing was heard for an hour."""
        lost = set(gone)
        for (process, number), one in list(self._open.items()):
            if process in lost or now - one.heard > _IDLE_SECONDS:
                self._leave(process, number, now)

    def _leave(self, process: datagram.Process, number: int, now: float) -> None:
        if (one := self._open.pop((process, number), None)) is None:
            return
        self.told["left"] += 1
        one.clock.seconds += max(0.0, now - one.heard)
        self._close(process, one, Outcome.UPSTREAM_RESET, "answer_cut" if one.answered else "upstream_closed")

    def _find(self, process: datagram.Process, number: int, now: float) -> _Open | None:
        one = self._open.get((process, number))
        if one is not None:
            one.heard = now
        return one

    def _begin(self, process: datagram.Process, begin: datagram.Begin, now: float) -> None:
        self._leave(process, begin.number, now)  # another process's, under the same name
        if len(self._open) >= MAX_OPEN:
            self.told["full"] += 1
            return
        clock = _Clock()
        trace = TraceContext(begin.trace_id, begin.parent, begin.flags, begin.sampled)
        head = _request_head(begin.head)
        account = Account(self._shared, head, 0.0, begin.arrived_ns, clock, begin.span_id, trace)
        self._open[process, begin.number] = _Open(account, clock, now)

    def _body(self, process: datagram.Process, body: datagram.Body, now: float) -> None:
        if (one := self._find(process, body.number, now)) is None:
            return
        one.clock.seconds = body.seconds
        one.account.request_payload([body.first])
        if left_out := body.size - len(body.first) - len(body.last):
            one.account.request_left_out(left_out)
        if body.last:
            one.account.request_payload([body.last])
        one.account.request_ended()
        if one.account.route.operation:
            one.asked = now

    def _answer(self, process: datagram.Process, answer: datagram.Answer, now: float) -> None:
        if (one := self._find(process, answer.number, now)) is None:
            return
        one.clock.seconds = answer.seconds
        one.answered = True
        head = _response_head(answer)
        if head.length is not None:
            one.asked = None  # an answer that says how long it is was made before it began: its client may be slow
        one.account.answer_began(head)

    def _pieces(self, process: datagram.Process, pieces: datagram.Pieces, now: float) -> None:
        if (one := self._find(process, pieces.number, now)) is None:
            return
        one.whole = one.whole and pieces.place == one.places and one.answered
        one.places = pieces.place + 1
        if not one.whole:
            return
        for seconds, piece, left_out in pieces.pieces:
            if left_out:
                one.account.answer_left_out(left_out)
            else:
                one.clock.seconds = seconds
                one.account.answer_payload([piece], seconds)
                one.account.handed_over(seconds)

    def _end(self, process: datagram.Process, end: datagram.End) -> None:
        one = self._open.pop((process, end.number), None)
        if one is None:
            self.told["unknown"] += 1
            return
        one.clock.seconds = end.seconds
        account = one.account
        account.edge_seconds = end.waited
        if not one.whole or one.places != end.records:
            self.told["incomplete"] += 1
            account.answer_lost(end.answer_bytes, end.first)
        if end.how == datagram.LEFT:
            self._close(process, one, Outcome.CLIENT_ABORT, "")
        elif end.how == datagram.FAILED and not one.answered:
            account.status = _FAILED_STATUS  # what the server answers in the application's place
            self._close(process, one, Outcome.SERVER_ERROR, str(_FAILED_STATUS))
        elif end.how == datagram.DONE:
            self._close(process, one, None, "")
        else:
            word = "answer_cut" if one.answered else "upstream_closed"
            self._close(process, one, Outcome.UPSTREAM_RESET, word)

    def _close(self, process: datagram.Process, one: _Open, outcome: Outcome | None, error_type: str) -> None:
        record = one.account.close(outcome, error_type)
        self._shared.open.done(one.account.span_id)
        if record is None:
            self.told["unrecorded"] += 1
            return
        self.told["recorded"] += 1
        self._ended(Ended(process, record))


def _fields(lines: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    split = (line.partition(b":") for line in lines)
    return [(name, value.strip(b" \t")) for name, colon, value in split if colon]


def _request_head(raw: bytes) -> RequestHead:
    """The head as the application saw it: the server has parsed it, so that nothing of it need be refused."""
    first, *lines = raw.split(b"\r\n")
    method, _, rest = first.partition(b" ")
    return RequestHead(1, _fields(lines), method, rest.removesuffix(b" HTTP/1.1"), 0)


def _response_head(answer: datagram.Answer) -> ResponseHead:
    """The head as the client saw it: without a length the server sends it in chunks."""
    fields = _fields(answer.fields.split(b"\r\n"))
    lengths = [value for name, value in fields if name.lower() == b"content-length" and value.isdigit()]
    length = int(lengths[0]) if lengths else None
    return ResponseHead(1, fields, answer.status, b"", chunked=length is None, length=length)
