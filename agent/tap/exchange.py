"""One request and its answer on their way through: bytes go on as they come, the record is made before the last."""

from __future__ import annotations

import asyncio
import time
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from agent.tap.answer import Answer
from agent.tap.faults import TUNNELS_FULL, Fault, Waits, lost_fault, overdue
from agent.tap.head import HttpFault, RequestHead
from agent.tap.rewrite import error_answer
from agent.tap.sending import Sending
from base.vocabulary import Outcome

if TYPE_CHECKING:
    from agent.tap.account import Account
    from agent.tap.core import Core
    from agent.tap.ends import ClientEnd


_BEHIND_SECONDS: Final = 60.0
"""Longest that an answer's last bytes, and its record, wait for a client to take those before them."""
_LOOK_SECONDS: Final = (0.01, 0.25)
"""Shortest and longest pause before such a client is looked at again: an eighth of what it has taken by now."""


class Stage(Enum):
    """How far an exchange has come.

    An answer that goes on after an event that said it is over is held once and then answered on.
    """

    ASKING = auto()
    """The head of the answer is not here."""
    ANSWERING = auto()
    HELD = auto()
    """The bytes that complete the answer wait for its record, or for the client to take those before them."""
    OVER = auto()


_ASKING, _ANSWERING, _HELD, _OVER = Stage  # an attribute of a class with a metaclass is looked up anew each time


class Exchange:
    """Carries one request to the server and its answer back.

    Args:
        core: Shared state.
        client: Who asks.
        head: The request's head; ``None`` for one that could not be read, which is to be refused.
        account: Its account.
    """

    __slots__ = (
        "_account", "_answer", "_behind_since", "_client", "_core", "_head", "_held", "_look", "_moved", "_sending",
        "_stage", "_stalled_since", "_tunnel_place",
    )  # fmt: skip

    def __init__(self, core: Core, client: ClientEnd, head: RequestHead | None, account: Account) -> None:
        self._core = core
        self._client = client
        self._head = head
        self._account = account
        self._sending = Sending(core, client, head, account)
        self._answer = Answer(account)
        self._stage = _ASKING
        self._held: list[bytes] = []
        self._stalled_since = 0.0
        self._behind_since = 0.0
        self._look: asyncio.TimerHandle | None = None
        self._moved = 0.0
        self._tunnel_place = False

    @property
    def request_done(self) -> bool:
        """Whether the request is wholly here."""
        return self._sending.done

    @property
    def tunnel(self) -> bool:
        """Whether both sides switched to another protocol; bytes pass unread."""
        return self._answer.tunnel

    @property
    def is_last(self) -> bool:
        """Whether the client said that nothing follows this request on its connection."""
        return self._head is not None and not self._head.keeps_alive() and not self._head.wants_websocket()

    # --- from the client

    def start(self, body: bytes = b"") -> int:
        """Send the head and what of the body came with it.

        Returns:
            How many bytes belong to this request.

        Raises:
            HttpFault: The body's framing is malformed; nothing was sent.
        """
        consumed = self._sending.read(body)
        head = self._head
        if head is not None and head.get(b"upgrade") is not None and head.wants_websocket():
            self._tunnel_place = self._core.take_tunnel()
            if not self._tunnel_place:
                self.fail(TUNNELS_FULL)
                return consumed
        self._sending.start(self)
        return consumed

    def request_bytes(self, data: bytes) -> int:
        """Bytes from the client; returns how many belong to this request.

        Raises:
            HttpFault: The body's framing is malformed.
        """
        return self._sending.feed(data, wanted=self._stage is _ASKING)

    def client_tunnel(self, data: bytes) -> None:
        """Bytes from the client after the switch to another protocol."""
        self._sending.feed_tunnel(data)

    def client_has_room(self) -> None:
        """The client has taken all that was written."""
        now = self._moved = time.monotonic()
        if self._stalled_since:
            self._account.edge_seconds += now - self._stalled_since
            self._stalled_since = 0.0
        self._account.handed_over(now)
        if self._stage is not _HELD:
            self._read_on(True)

    def client_gone(self, error_type: str = "") -> None:
        """The client left (or half-closed, which can't be told apart): close the server's side, so that it stops."""
        if self._stage is _OVER:
            return
        self._wait_no_more()
        self._end()
        self._sending.drop()
        if not self._answer.begun:
            self._sending.end_at_edge()
        record = self._account.close(Outcome.CLIENT_ABORT, error_type)
        if record is not None:
            self._core.records.submit(record, _nothing)

    # --- from the server

    def upstream_full(self) -> None:
        """The server does not take bytes for now: slow the client down."""
        self._client.hold_reading("upstream", True)

    def upstream_has_room(self) -> None:
        """The server takes bytes again."""
        self._sending.has_room()

    def answer_bytes(self, data: bytes) -> None:
        """Bytes from the server."""
        now = self._moved = time.monotonic()
        if self._stage is _OVER or self._head is None:
            return
        answer, account = self._answer, self._account
        head = b""
        try:
            if self._stage is _ASKING:
                head, data = self._read_heads(self._head, data)
                if not head:
                    return
            out = head + answer.feed(data, now)
        except HttpFault as fault:
            if head:
                self._hand_over(head, now)
            self.fail(Fault(502, Outcome.SERVER_ERROR, "upstream_malformed", str(fault)))
            return
        if self._stage is _HELD:
            self._held.append(out)
        elif answer.whole and not account.closed:
            account.edge_seconds += time.monotonic() - now
            # what comes with the head has nothing before it that the client could have left
            self._complete(out, waits=not head and self._client.is_behind())
        else:
            self._hand_over(out, now)
            if answer.done:
                self._finish()
            elif head and answer.tunnel:
                self._client.flush_into_tunnel()

    def _read_heads(self, request: RequestHead, data: bytes) -> tuple[bytes, bytes]:
        """Read the answer's head (and 1xx ones before it); returns what the client gets of it and what follows."""
        interim, head, rest = self._answer.read_heads(data)
        if interim and request.minor == 1:
            self._client.write(interim)
            if self._client.full:
                self._read_on(False)
        if head is None:
            return b"", b""
        self._sending.end_at_edge()
        keep = request.keeps_alive() and self._sending.done and not self._core.draining
        begun = self._answer.begin(request, head, keep=keep)
        self._stage = _ANSWERING
        return begun, rest

    def upstream_lost(self, exc: Exception | None) -> None:
        """The server's connection is gone."""
        repeatable = self._sending.lose()
        if self._stage in {_HELD, _OVER}:
            return
        if self._answer.tunnel or (self._answer.until_close and exc is None):
            self._end_with_connection(None)
        elif repeatable and not self._answer.torn:
            self._sending.try_again(self)
        else:
            self.fail(lost_fault(cut=self._answer.torn, reset=exc is not None))

    def _end_with_connection(self, outcome: Outcome | None) -> None:
        """What ends with its connection is whole; ``outcome`` is how it ended, ``None`` to tell from its bytes."""
        self._sending.drop()
        self._answer.end()
        if outcome is None and not self._answer.tunnel:
            self._complete(b"", waits=self._client.is_behind())
        else:
            self._hold(b"", outcome)

    # --- to the client

    def _hand_over(self, data: bytes, came: float) -> None:
        client = self._client
        if data:
            client.write(data)
        if client.full:
            self._stalled_since = came
            self._read_on(False)
            return
        now = time.monotonic()
        self._account.edge_seconds += now - came
        self._account.handed_over(now)

    def _read_on(self, reading: bool) -> None:
        if (upstream := self._sending.upstream) is not None:
            upstream.read_on(reading)

    def _complete(self, out: bytes, *, waits: bool) -> None:
        """The answer is whole with ``out``; whether that waits until the client has taken what was sent before it."""
        if not waits:
            self._hold(out, None)
            return
        self._stage = _HELD
        self._held.append(out)
        self._behind_since, self._stalled_since = self._stalled_since or time.monotonic(), 0.0
        if self._answer.done:
            self._sending.give_back(keep=self._answer.keeps_upstream)
        else:
            self._read_on(False)
        self._look_later()

    def _look_later(self) -> None:
        least, most = _LOOK_SECONDS
        waited = time.monotonic() - self._behind_since
        pause = min(max(waited / 8, least), most)
        self._look = asyncio.get_running_loop().call_later(pause, self._look_again)

    def _look_again(self) -> None:
        if self._client.has_unsent() and time.monotonic() - self._behind_since < _BEHIND_SECONDS:
            self._look_later()
        else:
            self._wait_no_more()
            self._hold(b"", None)

    def _wait_no_more(self) -> bool:
        """Let the wait for a client that is behind be over; returns whether there was one."""
        if (look := self._look) is None:
            return False
        self._look = None
        look.cancel()
        self._account.edge_seconds += time.monotonic() - self._behind_since
        return True

    def _hold(self, out: bytes, outcome: Outcome | None, error_type: str = "") -> None:
        """Make the record, and let ``out`` go when it is in the spool."""
        self._stage = _HELD
        self._held.append(out)
        record = self._account.close(outcome, error_type)
        if record is None:
            self._release()
            return
        if not self._answer.done:
            self._read_on(False)
        self._core.records.submit(record, self._release)

    def _release(self) -> None:
        if self._stage is _OVER:
            return  # the client left meanwhile
        held, self._held = self._held, []
        self._client.write(b"".join(held))
        if self._answer.done or not self._answer.begun:
            self._finish()
        elif self._sending.upstream is None:
            self._cut_off()
        else:
            self._stage = _ANSWERING
            if not self._client.full:
                self._read_on(True)

    # --- ends

    def _end(self) -> None:
        self._stage = _OVER
        if self._tunnel_place:
            self._tunnel_place = False
            self._core.tunnels -= 1

    def _finish(self) -> None:
        """The answer is handed over: let both connections go."""
        self._end()
        self._sending.give_back(keep=self._answer.keeps_upstream)
        done = self._sending.done
        self._client.exchange_over(keep=self._answer.keeps_client and done, drain=not done)

    def _cut_off(self) -> None:
        """The answer can't be completed: close so that the client can tell."""
        self._end()
        self._sending.drop()
        self._client.cut_off(hard=self._answer.until_close and not self._answer.tunnel)

    def fail(self, fault: Fault) -> None:
        """End with an answer of our own, or – when the server's has begun – by cutting it off."""
        if self._wait_no_more():
            self._hold(b"", None)  # of the answer nothing is missing
        if self._stage in {_HELD, _OVER}:
            return
        self._sending.drop()
        if not self._answer.begun:
            self._answer_ourselves(fault)
        elif self._account.closed:
            self._cut_off()
        else:
            self._hold(b"", fault.outcome, fault.error_type)

    def _answer_ourselves(self, fault: Fault) -> None:
        self._sending.end_at_edge()
        request = self._head
        keep = request is not None and request.keeps_alive() and self.request_done and not self._core.draining
        self._answer.keeps_client = keep
        head, body = error_answer(request, fault, self._account.request_id, keep=keep)
        self._account.status = fault.status
        self._account.response_bytes = len(body)
        self._hold(head + body, fault.outcome, fault.error_type)

    def refuse(self, fault: HttpFault) -> None:
        """End a request that must not be passed on."""
        self._sending.done = False  # whatever follows on this connection can't be trusted
        self.fail(Fault(fault.status, Outcome.CLIENT_ERROR, fault.reason, str(fault)))

    def owed(self, now: float) -> float:
        """For how many seconds the server has sent nothing of a model's answer that it owes; 0 where it owes none.

        Who has not asked wholly, or does not take what was sent, waits for no server.
        """
        waits = self._stage in {_ASKING, _ANSWERING} and self.request_done and not self._answer.tunnel
        if not waits or self._stalled_since or self._sending.connecting or not self._account.route.operation:
            return 0.0
        return max(0.0, now - max(self._moved, self._sending.moved))

    def check(self, now: float) -> None:
        """End what takes too long (``now`` on the monotonic clock)."""
        if self._stage in {_HELD, _OVER} or self._sending.connecting or self._stalled_since:
            return
        waited = now - max(self._moved, self._sending.moved)
        limits = self._core.limits
        if self._answer.tunnel:
            if 0 < limits.tunnel_idle_seconds < waited:
                self._end_with_connection(Outcome.OK)  # nobody had anything to say: nobody's failure
            return
        waits = Waits.FOR_REST if self._answer.begun else Waits.FOR_ANSWER
        if not self._answer.begun and not (self.request_done or self._sending.stuck):
            waits = Waits.FOR_BODY
        if (fault := overdue(waits, waited, limits)) is not None:
            if waits is Waits.FOR_BODY:
                self._sending.done = False
            self.fail(fault)


def _nothing() -> None:
    """Nobody waits for this record."""
