"""How a WebSocket session ends: by a closing handshake, and whose, or by a connection that breaks (RFC 6455)."""

from __future__ import annotations

from typing import Final

from base.vocabulary import Outcome

_CLOSE: Final = 8
_SHORT: Final = 126
_LONG: Final = 127
_CALM: Final = frozenset({0, 1000, 1005})
_GOING_AWAY: Final = 1001
_PRIVATE: Final = 3000
_BY_SERVER: Final = {
    1001: Outcome.UPSTREAM_RESET,
    1012: Outcome.UPSTREAM_RESET,
    1011: Outcome.SERVER_ERROR,
    1014: Outcome.SERVER_ERROR,
    1013: Outcome.REJECTED,
}


class FrameWatch:
    """Follows the frames of one direction, keeps none.

    Attributes:
        code: Code of the closing frame, 0 for one without; ``None`` before it.
    """

    __slots__ = ("_buffer", "_skip", "code")

    def __init__(self) -> None:
        self.code: int | None = None
        self._buffer = b""
        self._skip = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        while data and self.code is None:
            if self._skip:
                step = min(self._skip, len(data))
                self._skip -= step
                data = data[step:]
                continue
            self._buffer += data
            data = self._read_head()

    def _read_head(self) -> bytes:
        """Read a frame's head; returns what follows it, nothing while it is not all there."""
        buffer = self._buffer
        if len(buffer) < 2:  # noqa: PLR2004 - the least head
            return b""
        size = buffer[1] & 0x7F
        extended = {_SHORT: 2, _LONG: 8}.get(size, 0)
        masked = buffer[1] & 0x80
        start = 2 + extended + (4 if masked else 0)
        if len(buffer) < start:
            return b""
        if extended:
            size = int.from_bytes(buffer[2 : 2 + extended], "big")
        if buffer[0] & 0x0F == _CLOSE:
            if len(buffer) < start + min(size, 2):
                return b""
            self.code = 0
            if size >= 2:  # noqa: PLR2004 - a code is two bytes
                code = buffer[start : start + 2]
                mask = buffer[start - 4 : start] if masked else b"\0\0\0\0"
                self.code = (code[0] ^ mask[0]) << 8 | (code[1] ^ mask[1])
            self._buffer = b""
            return b""
        self._buffer = b""
        self._skip = size
        return buffer[start:]


class Session:
    """A WebSocket session.

    Attributes:
        client: Frames from the client.
        server: Frames from the server.
    """

    __slots__ = ("_first", "client", "server")

    def __init__(self) -> None:
        self.client = FrameWatch()
        self.server = FrameWatch()
        self._first: FrameWatch | None = None

    def feed(self, side: FrameWatch, data: bytes) -> None:
        """Take bytes of one side."""
        side.feed(data)
        if self._first is None and side.code is not None:
            self._first = side

    def outcome(self, *, client_left: bool) -> tuple[Outcome, str]:
        """How it ended, and a word for why; whoever closes first says why, the other only repeats it.

        Args:
            client_left: Whose connection was gone first.
        """
        if self._first is None:
            return Outcome.CLIENT_ABORT if client_left else Outcome.UPSTREAM_RESET, "websocket_cut"
        code = self._first.code or 0
        if code in _CALM or code >= _PRIVATE or (self._first is self.client and code == _GOING_AWAY):
            return Outcome.OK, ""
        word = f"websocket_{code}"
        if self._first is self.client:
            return Outcome.CLIENT_ABORT, word
        return _BY_SERVER.get(code, Outcome.CLIENT_ERROR), word
