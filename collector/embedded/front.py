"""The store's connections: how large a request's head may be, how long it may take, and how many may be idle."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import web

from collector.embedded.errors import BAD_ARGUMENTS, refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.web_protocol import RequestHandler

URL_BYTES: Final = 1 << 20
"""Bytes of a request's first line, as a ClickHouse server has it (``http_max_uri_size``)."""

URL_PARAMETERS: Final = 1000
"""Parameters in a URL."""

HEAD_SECONDS: Final = 30.0
"""Seconds in which a new connection's first request must begin, its head being whole."""

IDLE_CONNECTIONS: Final = 1024
"""Connections without a request; beyond them the oldest goes, those that never asked before all others."""

_FIELD_BYTES: Final = 1 << 16
_KEEP_SECONDS: Final = 75


class Front(web.Server):
    """A server whose connections are bounded in number and in patience.

    Args:
        handle: Answers a request.
        head_seconds: See ``HEAD_SECONDS``.
        idle: See ``IDLE_CONNECTIONS``.
    """

    def __init__(
        self,
        handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        head_seconds: float = HEAD_SECONDS,
        idle: int = IDLE_CONNECTIONS,
    ) -> None:
        super().__init__(
            self._serve,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=_KEEP_SECONDS,
            max_line_size=URL_BYTES,
            max_field_size=_FIELD_BYTES,
        )
        self._handle = handle
        self._head_seconds = head_seconds
        self._most_idle = idle
        # In the order of their coming, as dicts keep it.
        self._fresh: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}
        self._resting: dict[asyncio.BaseTransport, None] = {}
        self._wires: dict[RequestHandler, asyncio.BaseTransport] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Take in a connection, and send an idle one away where there are too many."""
        super().connection_made(handler, transport)
        self._wires[handler] = transport
        while len(self._fresh) + len(self._resting) >= self._most_idle:
            self._drop(next(iter(self._fresh or self._resting)))
        self._fresh[transport] = asyncio.get_running_loop().call_later(self._head_seconds, self._drop, transport)

    def _drop(self, transport: asyncio.BaseTransport) -> None:
        self._forget(transport)
        if isinstance(transport, asyncio.Transport):
            transport.abort()

    def _forget(self, transport: asyncio.BaseTransport) -> None:
        self._resting.pop(transport, None)
        timer = self._fresh.pop(transport, None)
        if timer is not None:
            timer.cancel()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        # The handler has let go of its transport by then.
        if (transport := self._wires.pop(handler, None)) is not None:
            self._forget(transport)
        super().connection_lost(handler, exc)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        if transport is not None:
            self._forget(transport)
        try:
            return await self._handle(request)
        finally:
            if transport is not None and not transport.is_closing():
                self._resting[transport] = None


def check_head(request: web.BaseRequest, names: frozenset[str]) -> None:
    """Refuse a head that can't be read, before anything in it is.

    Args:
        request: The request.
        names: Headers that are read, in small letters.

    Raises:
        QueryError: Too many parameters, or a header that is not UTF-8.
    """
    count = request.rel_url.raw_query_string.count("&")
    if count >= URL_PARAMETERS:
        raise refused(BAD_ARGUMENTS, "BAD_ARGUMENTS", f"The URL has more than {URL_PARAMETERS} parameters", "Use fewer")
    for name, value in request.headers.items():
        if name.lower() in names and not _utf8(value):
            raise refused(BAD_ARGUMENTS, "BAD_ARGUMENTS", f"The header {name} is not UTF-8", "Encode it as UTF-8")


def _utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
