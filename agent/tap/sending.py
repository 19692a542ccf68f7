"""A request's way out: its body up to where it ends, and the connection to the server that it goes out on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from agent.tap.faults import NO_DESCRIPTORS, connect_fault
from agent.tap.framing import BodyReader, ChunkedBody, LengthBody
from agent.tap.rewrite import request_head

if TYPE_CHECKING:
    from agent.tap.account import Account
    from agent.tap.core import Core
    from agent.tap.ends import ClientEnd, Sender
    from agent.tap.head import RequestHead
    from agent.tap.upstream import UpstreamConnection

_HOLD_BYTES: Final = 65_536
"""Bytes of a request that wait for the connection to its server before its client is slowed down."""
_NO_BODY: Final = LengthBody(0)


class Sending:
    """Carries one request to the server.

    Args:
        core: Shared state.
        client: Where it comes from.
        head: Its head; ``None`` for one that could not be read, which goes nowhere.
        account: Its account.

    Attributes:
        done: The request is wholly here.
        moved: When bytes last came or went, monotonic seconds.
        upstream: The connection that it goes out on, once there is one.
    """

    __slots__ = (
        "_account", "_client", "_connecting", "_core", "_counted", "_head", "_length", "_reader", "_retried", "_unsent",
        "done", "moved", "upstream",
    )  # fmt: skip

    def __init__(self, core: Core, client: ClientEnd, head: RequestHead | None, account: Account) -> None:
        self._core = core
        self._client = client
        self._head = head
        self._account = account
        length = self._length = 0 if head is None else head.length
        self._reader: BodyReader = ChunkedBody() if length is None else _NO_BODY
        self._connecting: asyncio.Task[None] | None = None
        self._counted = False
        self._retried = False
        self._unsent = b""
        self.done = length == 0
        self.moved = time.monotonic()
        self.upstream: UpstreamConnection | None = None

    @property
    def connecting(self) -> bool:
        """Whether it waits for a connection."""
        return self._connecting is not None

    @property
    def stuck(self) -> bool:
        """Whether the server does not take its bytes for now."""
        return self.upstream is not None and self.upstream.full

    def read(self, data: bytes) -> int:
        """Take what of the body came with the head; returns how many bytes belong to this request.

        Raises:
            HttpFault: The body's framing is malformed.
        """
        if self.done:
            return 0
        if (length := self._length) is not None:
            if len(data) == length:  # all of it in one read, as of most requests
                self.done = True
                self._account.request_payload([data])
                self._unsent = data
                if length > _HOLD_BYTES:
                    self._client.hold_reading("connecting", True)
                return length
            self._reader = LengthBody(length)
        if not data:
            return 0
        raw = self._take(data)
        self._keep(raw)
        return len(raw)

    def start(self, sender: Sender) -> None:
        """Send what is here in one write, on a connection of the pool if one is idle; the sender gets the answer."""
        upstream = self._core.pool.take()
        if upstream is not None:
            self._attach(upstream, sender)
        else:
            self._connecting = asyncio.get_running_loop().create_task(self._connect(sender))
        if self.done:
            self._account.request_ended()

    def feed(self, data: bytes, *, wanted: bool) -> int:
        """Bytes from the client; returns how many belong to this request.

        Args:
            data: As they came.
            wanted: Whether they still go to the server.

        Raises:
            HttpFault: The body's framing is malformed.
        """
        self.moved = time.monotonic()
        raw = self._take(data)
        if self.upstream is not None:
            self.upstream.write(raw)
            self._sent()
        elif wanted:
            self._keep(raw)
        if self.done:
            self._account.request_ended()
        return len(raw)

    def feed_tunnel(self, data: bytes) -> None:
        """Bytes from the client after the switch to another protocol."""
        self.moved = time.monotonic()
        self._account.request_payload([data])
        if self.upstream is not None:
            self.upstream.write(data)

    def has_room(self) -> None:
        """The server takes bytes again."""
        self._client.hold_reading("upstream", False)
        self.moved = time.monotonic()
        self._sent()

    def end_at_edge(self) -> None:
        """From here on the time is the server's or the client's; said more than once, the first counts."""
        if not self._counted:
            self._counted = True
            self._account.edge_seconds += time.monotonic() - self._client.arrived

    def lose(self) -> bool:
        """The server's connection is gone; returns whether the request may go out once more.

        A server may close an idle connection just as a request goes out on it: safe to repeat without a body.
        """
        upstream, self.upstream = self.upstream, None
        repeatable = self._head is not None and self._head.repeatable
        return repeatable and upstream is not None and upstream.reused and not self._retried

    def try_again(self, sender: Sender) -> None:
        """Send it once more, on a connection of its own."""
        self._retried = True
        self._connecting = asyncio.get_running_loop().create_task(self._connect(sender))

    def give_back(self, *, keep: bool) -> None:
        """The exchange is over: leave its connection to others, unless it can't carry another request."""
        upstream, self.upstream = self.upstream, None
        if upstream is None:
            return
        if keep and self.done:
            self._core.pool.give_back(upstream, time.monotonic())
        else:
            upstream.abort()

    def drop(self) -> None:
        """Close the connection, made or in the making: the server sees its client leave."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self.give_back(keep=False)

    def _take(self, data: bytes) -> bytes:
        consumed, payload = self._reader.feed(data)
        self._account.request_payload(payload)
        self.done = self._reader.done
        return data if consumed == len(data) else data[:consumed]

    def _keep(self, raw: bytes) -> None:
        self._unsent += raw
        if len(self._unsent) > _HOLD_BYTES:
            self._client.hold_reading("connecting", True)

    async def _connect(self, sender: Sender) -> None:
        try:
            upstream = await self._core.pool.connect()
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must be answered
            self._connecting = None
            fault = connect_fault(error)
            if fault is NO_DESCRIPTORS:
                self._core.door.turned_away("descriptors")
            sender.fail(fault)
            return
        self._connecting = None
        self._attach(upstream, sender)

    def _attach(self, upstream: UpstreamConnection, sender: Sender) -> None:
        self.upstream = upstream
        upstream.exchange = sender
        pool = self._core.pool
        head = b"" if self._head is None else request_head(self._head, self._account.onward, pool.authority, pool.base)
        unsent, self._unsent = self._unsent, b""
        upstream.write(head + unsent)
        if len(unsent) > _HOLD_BYTES:
            self._client.hold_reading("connecting", False)
        self._sent()

    def _sent(self) -> None:
        """All that is here was written: if that is all there is and the server has taken it, our part ends."""
        if self.done and not self._counted and (self.upstream is None or not self.upstream.full):
            self.moved = now = time.monotonic()
            self._counted = True
            self._account.edge_seconds += now - self._client.arrived
