"""What the tap asks of the kernel about its connections: does a silent peer live, how long bytes waited, who reads."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

_RESET: Final = struct.pack("ii", 1, 0)
_KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)
"""A peer whose machine is gone is noticed after two minutes, however long an answer may take."""
_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6})
_TCP_INFO: Final = struct.Struct("=52xI88xI28xQ")
"""Of Linux' ``struct tcp_info`` (``linux/tcp.h``): ``tcpi_last_data_recv``, milliseconds since the last segment with
data came; ``tcpi_notsent_bytes``; ``tcpi_rwnd_limited``, microseconds in which bytes waited for the peer's window."""
_BEHIND_MICROSECONDS: Final = 100_000
"""Time for which a peer's window must have held an answer back before its last bytes wait for it too."""

_MOST_UNREAD: Final = 1 << 20
"""Bytes: an answer in place of one that could not be asked for in full is short."""


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Have the kernel end the connection when its peer's machine is gone."""
    if (beside := _beside(transport)) is not None:
        beside.detach()


def _beside(transport: asyncio.BaseTransport) -> socket.socket | None:
    """A TCP connection's socket beside its transport, with keep-alive; whoever has it detaches it."""
    known = transport.get_extra_info("socket")
    if known is None or known.family not in _FAMILIES:
        return None
    beside = socket.socket(known.family, known.type, known.proto, fileno=known.fileno())
    try:
        for level, option, value in _KEEP_ALIVE:
            beside.setsockopt(level, option, value)
    except OSError:
        beside.detach()
        raise
    return beside


def left_unread(transport: asyncio.BaseTransport) -> bytes:
    """What the peer of a connection that broke had sent and nobody has read; b"" over TLS, where it says nothing.

    A loop that can't write gives its connection up without a last look, though what came before the peer's reset still
    lies in the kernel. To be asked in ``connection_lost``, after which the loop closes the socket.
    """
    known = transport.get_extra_info("socket")
    if known is None or transport.get_extra_info("ssl_object") is not None:
        return b""
    found = bytearray()
    with contextlib.suppress(OSError):  # nothing lies there, or no more
        while len(found) < _MOST_UNREAD and (data := os.read(known.fileno(), _MOST_UNREAD - len(found))):
            found += data
    return bytes(found)


class ClientSocket:
    """A client's socket beside its transport, which keeps owning it: uvloop's own view takes 30 µs a question.

    Args:
        transport: The connection's.
    """

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._socket = _beside(transport)
        self._held_back = 0

    def waited_seconds(self) -> float:
        """How long the newest bytes have been in the kernel, in its ticks (1 to 10 ms); 0 where it does not tell.

        Asked as a request comes, it also begins a new account of what its client does not take (`is_behind`).
        """
        last_data, _, self._held_back = self._told()
        return last_data / 1000

    def is_behind(self) -> bool:
        """Whether bytes are left here for want of room in the client's buffer, as they were for a tenth of a second.

        A network that is slow is none of it. What has its place in the client's buffer is read for all that can be
        known here, and so is everything where the kernel does not tell.
        """
        _, unsent, held_back = self._told()
        return unsent > 0 and held_back - self._held_back >= _BEHIND_MICROSECONDS

    def has_unsent(self) -> bool:
        """Whether bytes that were written are still here, never sent."""
        return self._told()[1] > 0

    def _told(self) -> tuple[int, int, int]:
        if self._socket is None:
            return 0, 0, 0
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        except OSError:
            return 0, 0, 0
        return _TCP_INFO.unpack(info) if len(info) == _TCP_INFO.size else (0, 0, 0)

    def has_bytes(self) -> bool:
        """Whether something waits to be read."""
        try:
            return self._socket is not None and self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except OSError:
            return False

    def reset_on_close(self) -> None:
        """Have the close be a reset, which drops what the peer has not taken."""
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def forget(self) -> None:
        """Leave the descriptor to the transport; must be called before that closes it."""
        if self._socket is not None:
            self._socket.detach()
            self._socket = None
