"""An answer's way back: what of the server's bytes the client gets, and where they end.

Knows no connection: bytes go in, bytes come out, and the account sees them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent.tap.framing import BodyReader, LengthBody
from agent.tap.head import read_heads
from agent.tap.rewrite import answer_head, plan_answer

if TYPE_CHECKING:
    from agent.tap.account import Account
    from agent.tap.head import RequestHead, ResponseHead

_NO_BODY: Final = LengthBody(0)


class Answer:
    """Reads the answer to one request.

    Args:
        account: The request's.

    Attributes:
        begun: Its head is here.
        done: It has ended.
        whole: The client has all that it waits for: its end, or an event that says that nothing more will come.
        tunnel: Both sides switched to another protocol; bytes pass unread.
        until_close: It ends with the server's connection.
        keeps_upstream: The server's connection can carry another request after it.
        keeps_client: The client's can.
    """

    __slots__ = (
        "_account", "_before", "_dechunk", "_reader", "begun", "done", "keeps_client", "keeps_upstream", "tunnel",
        "until_close", "whole",
    )  # fmt: skip

    def __init__(self, account: Account) -> None:
        self._account = account
        self._before = b""
        self._dechunk = False
        self._reader: BodyReader = _NO_BODY
        self.begun = False
        self.done = False
        self.whole = False
        self.tunnel = False
        self.until_close = False
        self.keeps_upstream = False
        self.keeps_client = False

    @property
    def torn(self) -> bool:
        """Whether a part of it has come."""
        return self.begun or bool(self._before)

    def read_heads(self, data: bytes) -> tuple[bytes, ResponseHead | None, bytes]:
        """Take bytes that come before its body.

        Returns:
            Interim (1xx) heads as they came, its own once that is here, what follows it.

        Raises:
            HttpFault: 502, a head is malformed.
        """
        interim, head, rest = read_heads(self._before + data)
        self._before = rest if head is None else b""
        return interim, head, rest

    def begin(self, request: RequestHead, head: ResponseHead, *, keep: bool) -> bytes:
        """Its head is here: what the client gets of that.

        Args:
            request: Head of the request.
            head: The answer's, as the server sent it.
            keep: Whether the client's connection may carry another request.

        Raises:
            HttpFault: 502, the server answers what it was not asked.
        """
        self._reader, plan = plan_answer(request, head)
        self._dechunk = plan.dechunk
        self.begun = True
        self.tunnel = plan.tunnel
        self.until_close = plan.until_close
        self.keeps_upstream = head.keeps_alive() and not plan.until_close
        self.keeps_client = keep and plan.keeps_client
        self._account.answer_began(head)
        return answer_head(request, head, plan, self._account.request_id, keep=self.keeps_client)

    def feed(self, data: bytes, now: float) -> bytes:
        """Take bytes of its body; returns what the client gets of them.

        Args:
            data: As they came.
            now: When, monotonic seconds.

        Raises:
            HttpFault: The body's framing is malformed.
        """
        reader = self._reader
        consumed, payload = reader.feed(data)
        if consumed < len(data):
            self.keeps_upstream = False  # the server says more than it announced
            data = data[:consumed]
        if self._account.answer_payload(payload, now):
            self.whole = True
        if reader.done:
            self.done = self.whole = True
        return b"".join(payload) if self._dechunk else data

    def end(self) -> None:
        """The server's connection is gone, and with it all that there will be."""
        self.done = True
        self.keeps_client = False
