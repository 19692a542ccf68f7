"""One request and its answer on their way through: bytes go on as they come, the account is kept beside them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from agent.tap.faults import NO_DESCRIPTORS, TUNNELS_FULL, Fault, Waits, connect_fault, lost_fault, overdue
from agent.tap.framing import BodyReader, ChunkedBody, LengthBody, UntilClose
from agent.tap.head import HttpFault, RequestHead, ResponseHead, read_heads
from agent.tap.rewrite import answer_head, error_answer, plan_answer, request_head
from base.vocabulary import Outcome

if TYPE_CHECKING:
    from agent.tap.account import Account
    from agent.tap.core import Core
    from agent.tap.ends import ClientEnd
    from agent.tap.upstream import UpstreamConnection

_HOLD_BYTES: Final = 65_536
"""Bytes of a request that wait for the connection to its server before its client is slowed down."""


class Exchange:
    """Carries one request to the server and its answer back.

    Attributes:
        request_done: The request is wholly here.
        tunnel: Both sides switched to another protocol; bytes pass unread.
    """

    def __init__(self, core: Core, client: ClientEnd, head: RequestHead | None, account: Account) -> None:
        self._core = core
        self._client = client
        self._head = head
        self._account = account
        self._reader: BodyReader = LengthBody(0)
        if head is not None:
            self._reader = ChunkedBody() if head.length is None else LengthBody(head.length)
        self.request_done = self._reader.done
        self.tunnel = False
        self._over = False
        self._upstream: UpstreamConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._unsent = bytearray()
        self._forwarded = False
        self._retried = False
        self._head_buffer = b""
        self._answer: ResponseHead | None = None
        self._answer_reader: BodyReader | None = None
        self._dechunk = False
        self._keep_upstream = False
        self._keep_client = False
        self._held: list[bytes] | None = None
        self._upstream_gone = False
        self._stalled_since = 0.0
        self._last_move = time.monotonic()
        self._tunnel_place = False

    @property
    def is_last(self) -> bool:
        """Whether the client said that nothing follows this request on its connection."""
        return self._head is not None and not self._head.keeps_alive() and not self._head.wants_websocket()

    def start(self, body: bytes = b"") -> int:
        """Send the head and what of the body came with it, in one write, on a connection of the pool if one is idle.

        Returns:
            How many bytes belong to this request.

        Raises:
            HttpFault: The body's framing is malformed; nothing was sent.
        """
        consumed = 0
        if body and not self.request_done:
            consumed, payload = self._reader.feed(body)
            self._account.request_payload(payload)
            self._keep_unsent(body if consumed == len(body) else body[:consumed])
            self.request_done = self._reader.done
        if self._head is not None and self._head.wants_websocket():
            self._tunnel_place = self._core.take_tunnel()
            if not self._tunnel_place:
                self.fail(TUNNELS_FULL)
                return consumed
        upstream = self._core.pool.take()
        if upstream is not None:
            self._attach(upstream)
        else:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        if self.request_done:
            self._account.request_ended()
        return consumed

    def _keep_unsent(self, raw: bytes) -> None:
        self._unsent += raw
        if len(self._unsent) > _HOLD_BYTES:
            self._client.hold_reading("connecting", True)

    async def _connect(self) -> None:
        try:
            upstream = await self._core.pool.connect()
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must be answered
            self._connecting = None
            fault = connect_fault(error)
            if fault is NO_DESCRIPTORS:
                self._core.door.turned_away("descriptors")
            self.fail(fault)
            return
        self._connecting = None
        if self._over:
            upstream.abort()
        else:
            self._attach(upstream)

    def _attach(self, upstream: UpstreamConnection) -> None:
        self._upstream = upstream
        upstream.exchange = self
        pool = self._core.pool
        head = b"" if self._head is None else request_head(self._head, self._account.onward, pool.authority, pool.base)
        upstream.write(head + self._unsent)
        self._unsent.clear()
        self._client.hold_reading("connecting", False)
        if self.request_done and not upstream.full:
            self._request_forwarded()

    def request_bytes(self, data: bytes) -> int:
        """Bytes from the client; returns how many belong to this request.

        Raises:
            HttpFault: The body's framing is malformed.
        """
        self._last_move = time.monotonic()
        consumed, payload = self._reader.feed(data)
        self._account.request_payload(payload)
        raw = data if consumed == len(data) else data[:consumed]
        self.request_done = self._reader.done
        if self._upstream is not None:
            self._upstream.write(raw)
            if self.request_done and not self._upstream.full:
                self._request_forwarded()
        elif not self._over:
            self._keep_unsent(raw)
        if self.request_done:
            self._account.request_ended()
        return consumed

    def _request_forwarded(self) -> None:
        if not self._forwarded:
            self._forwarded = True
            self._last_move = now = time.monotonic()
            if self._answer is None:
                self._account.edge_seconds += now - self._client.arrived

    def upstream_full(self) -> None:
        """The server does not take bytes for now: slow the client down."""
        self._client.hold_reading("upstream", True)

    def upstream_has_room(self) -> None:
        """The server takes bytes again."""
        self._client.hold_reading("upstream", False)
        self._last_move = time.monotonic()
        if self.request_done:
            self._request_forwarded()

    def answer_bytes(self, data: bytes) -> None:
        """Bytes from the server."""
        now = self._last_move = time.monotonic()
        if self._over:
            return
        if self.tunnel:
            self._account.answer_payload([data], now)
            self._write(data, now)
            return
        prefix = b""
        try:
            if self._answer_reader is None:
                self._head_buffer += data
                prefix, data = self._read_heads()
                if self._answer is None:
                    return
                if self.tunnel:
                    self._account.answer_payload([data] if data else [], now)
                    self._write(prefix + data, now)
                    self._client.flush_into_tunnel()
                    return
            self._pass_on(prefix, data, now)
        except HttpFault as fault:
            self.fail(Fault(502, Outcome.SERVER_ERROR, "upstream_malformed", str(fault)))

    def _read_heads(self) -> tuple[bytes, bytes]:
        """Read the answer's head (and 1xx ones before it); returns what the client gets of it and what follows."""
        interim, head, self._head_buffer = read_heads(self._head_buffer)
        if interim and self._head is not None and self._head.minor == 1:
            self._client.write(interim)
            if self._client.full and self._upstream is not None:
                self._upstream.read_on(False)
        if head is None:
            return b"", b""
        rest, self._head_buffer = self._head_buffer, b""
        return self._begin_answer(head), rest

    def _begin_answer(self, head: ResponseHead) -> bytes:
        request = self._head
        if request is None:
            return b""
        plan = plan_answer(request, head)
        self._answer = head
        if not self._forwarded:  # answered before all was sent: the edge's part ends here
            self._account.edge_seconds += time.monotonic() - self._client.arrived
        self._answer_reader = plan.reader
        self._dechunk = plan.dechunk
        self.tunnel = plan.tunnel
        self._keep_upstream = head.keeps_alive() and not plan.until_close
        keeps = request.keeps_alive() and plan.keeps_client and self.request_done
        self._keep_client = keeps and not self._core.draining
        self._account.answer_began(head)
        return answer_head(request, head, plan, self._account.request_id, keep=self._keep_client)

    def _pass_on(self, prefix: bytes, data: bytes, now: float) -> None:
        reader = self._answer_reader
        if reader is None:
            return
        try:
            consumed, payload = reader.feed(data)
        except HttpFault:
            self._write(prefix, now)
            raise
        if consumed < len(data):
            self._keep_upstream = False  # the server says more than it announced
            data = data[:consumed]
        account = self._account
        complete = account.answer_payload(payload, now)
        out = b"".join(payload) if self._dechunk else data
        if prefix:
            out = prefix + out
        if self._held is not None:
            self._held.append(out)
        elif (complete or reader.done) and not account.closed:
            account.edge_seconds += time.monotonic() - now
            self._hold(out, None)
        else:
            self._write(out, now)
            if reader.done:
                self._finish()

    def _write(self, data: bytes, came: float) -> None:
        client = self._client
        if data:
            client.write(data)
        if client.full:
            self._stalled_since = came
            if self._upstream is not None:
                self._upstream.read_on(False)
            return
        now = time.monotonic()
        self._account.edge_seconds += now - came
        self._account.handed_over(now)

    def client_has_room(self) -> None:
        """The client has taken all that was written."""
        now = self._last_move = time.monotonic()
        if self._stalled_since:
            self._account.edge_seconds += now - self._stalled_since
            self._stalled_since = 0.0
        self._account.handed_over(now)
        if self._upstream is not None and self._held is None:
            self._upstream.read_on(True)

    def _hold(self, out: bytes, outcome: Outcome | None, error_type: str = "") -> None:
        """Make the record, and let ``out`` go when it is in the spool."""
        record = self._account.close(outcome, error_type)
        self._held = [out]
        if record is None:
            self._release()
            return
        if self._upstream is not None and not (self._answer_reader is not None and self._answer_reader.done):
            self._upstream.read_on(False)
        self._core.records.submit(record, self._release)

    def _release(self) -> None:
        held, self._held = self._held or [], None
        if self._over and not self._client.carries(self):
            return
        self._client.write(b"".join(held))
        if self._over or (self._answer_reader is not None and self._answer_reader.done):
            self._finish()
        elif self._upstream_gone:
            self._cut_off()
        elif self._upstream is not None and not self._client.full:
            self._upstream.read_on(True)

    def _end(self) -> None:
        self._over = True
        if self._tunnel_place:
            self._tunnel_place = False
            self._core.tunnels -= 1

    def _finish(self) -> None:
        """The answer is handed over: let both connections go."""
        self._end()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            if self._keep_upstream and self.request_done and not self._upstream_gone:
                self._core.pool.give_back(upstream, time.monotonic())
            else:
                upstream.abort()
        self._client.exchange_over(keep=self._keep_client and self.request_done, drain=not self.request_done)

    def _cut_off(self) -> None:
        """The answer can't be completed: close so that the client can tell."""
        self._end()
        self._drop_upstream()
        self._client.cut_off(hard=isinstance(self._answer_reader, UntilClose) and not self.tunnel)

    def _drop_upstream(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()

    def upstream_lost(self, exc: Exception | None, outcome: Outcome | None = None) -> None:
        """The server's connection is gone; ``outcome`` says how that ends a tunnel, ``None`` to tell from its bytes."""
        upstream, self._upstream = self._upstream, None
        self._upstream_gone = True
        reader = self._answer_reader
        if self._over or self._held is not None:
            return
        if self.tunnel or (isinstance(reader, UntilClose) and exc is None):
            if reader is not None:
                reader.done = True
            self._keep_client = False
            self._hold(b"", outcome)
        elif self._answer is None and self._may_retry(upstream):
            self._retried = True
            self._upstream_gone = False
            self._head_buffer = b""
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        else:
            cut = self._answer is not None or bool(self._head_buffer)
            self.fail(lost_fault(cut=cut, reset=exc is not None))

    def _may_retry(self, upstream: UpstreamConnection | None) -> bool:
        """A server may close an idle connection just as a request goes out on it: safe to repeat without a body."""
        repeatable = self._head is not None and self._head.repeatable
        return repeatable and upstream is not None and upstream.reused and not self._retried and not self._head_buffer

    def client_gone(self, error_type: str = "") -> None:
        """The client left (or half-closed, which can't be told apart): close the server's side, so that it stops."""
        if self._over:
            return
        self._end()
        self._drop_upstream()
        if not self._forwarded and self._answer is None:
            self._account.edge_seconds += time.monotonic() - self._client.arrived
        record = self._account.close(Outcome.CLIENT_ABORT, error_type)
        if record is not None:
            self._core.records.submit(record, _nothing)

    def fail(self, fault: Fault) -> None:
        """End with an answer of our own, or – when the server's has begun – by cutting it off."""
        if self._over or self._held is not None:
            return
        self._drop_upstream()
        self._upstream_gone = True
        if self._answer is not None:
            if self._account.closed:
                self._cut_off()
            else:
                self._hold(b"", fault.outcome, fault.error_type)
            return
        if not self._forwarded:
            self._account.edge_seconds += time.monotonic() - self._client.arrived
        request = self._head
        keeps = request is not None and request.keeps_alive() and self.request_done
        self._keep_client = keeps and not self._core.draining
        head, body = error_answer(request, fault, self._account.request_id, keep=self._keep_client)
        self._account.status = fault.status
        self._account.response_bytes = len(body)
        self._end()
        self._hold(head + body, fault.outcome, fault.error_type)

    def refuse(self, fault: HttpFault) -> None:
        """End a request that must not be passed on."""
        self.request_done = False  # whatever follows on this connection can't be trusted
        self.fail(Fault(fault.status, Outcome.CLIENT_ERROR, fault.reason, str(fault)))

    def check(self, now: float) -> None:
        """End what takes too long (``now`` on the monotonic clock)."""
        if self._over or self._held is not None or self._connecting is not None or self._stalled_since:
            return
        waited = now - self._last_move
        if self.tunnel:
            if 0 < self._core.limits.tunnel_idle_seconds < waited:
                self._drop_upstream()
                self.upstream_lost(None, Outcome.OK)  # nobody had anything to say: nobody's failure
            return
        waits = Waits.FOR_REST if self._answer is not None else Waits.FOR_ANSWER
        if self._answer is None and not (self.request_done or (self._upstream is not None and self._upstream.full)):
            waits = Waits.FOR_BODY
        if (fault := overdue(waits, waited, self._core.limits)) is not None:
            self.request_done = self.request_done and waits is not Waits.FOR_BODY
            self.fail(fault)

    def client_tunnel(self, data: bytes) -> None:
        """Bytes from the client after the switch to another protocol."""
        self._last_move = time.monotonic()
        self._account.request_payload([data])
        if self._upstream is not None:
            self._upstream.write(data)


def _nothing() -> None:
    """Nobody waits for this record."""
