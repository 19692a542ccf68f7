"""What the tap asks of the kernel about its connections: whether a silent peer still lives, how long bytes waited."""

from __future__ import annotations

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
_LAST_DATA: Final = struct.Struct("=52xI")
"""``tcpi_last_data_recv`` of Linux' ``struct tcp_info``: milliseconds since the last segment with data came."""


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


class ClientSocket:
    """A client's socket beside its transport, which keeps owning it: uvloop's own view takes 30 µs a question.

    Args:
        transport: The connection's.
    """

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._socket = _beside(transport)

    def waited_seconds(self) -> float:
        """How long the newest bytes have been in the kernel, in its ticks (1 to 10 ms); 0 where it does not tell."""
        if self._socket is None:
            return 0.0
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA.size)
        except OSError:
            return 0.0
        return float(_LAST_DATA.unpack(info)[0]) / 1000 if len(info) == _LAST_DATA.size else 0.0

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
