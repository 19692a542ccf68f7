"""How many requests a tap can carry at once, and what becomes of connections beyond that."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

import structlog

from agent.tap.faults import Fault
from agent.tap.rewrite import error_answer
from agent.tap.tracing import new_request_id
from base.vocabulary import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.tap.counters import Counters

RESERVED_DESCRIPTORS: Final = 128
"""Kept for the spool, the table of open requests, name lookups and connections that are turned away."""
_DESCRIPTORS_EACH: Final = 2  # the client's connection and the server's
_TURNED_AWAY: Final = 32
"""As many are told at once that there is no place; the others wait to be let in."""
_TURNED_AWAY_AT_MOST: Final = 64
_SECONDS: Final = 1.0
_MOST_BYTES: Final = 1 << 24
_LOG_SECONDS: Final = 10.0
_FULL: Final = Fault(503, Outcome.REJECTED, "tap_full", "every place of this tap is taken, try again in a moment")

log = structlog.get_logger()


def raise_descriptor_limit() -> int:
    """Raise the soft limit on open files to the hard one.

    Returns:
        The limit that holds.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # a fence around the process may forbid it: the old one holds
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def places(asked: int, descriptors: int) -> int:
    """Client connections that fit into a limit on open files, each with one to the server."""
    return max(1, min(asked, (descriptors - RESERVED_DESCRIPTORS) // _DESCRIPTORS_EACH))


@dataclass(slots=True)
class Door:
    """Turns connections away when every place is taken.

    Attributes:
        counters: The tap's.
        waiting: Connections that are being told so.
        crowded: They are so many that no more should be let in before they are few again.
        changed: Called when that changes.
    """

    counters: Counters
    waiting: set[TurnedAway] = field(default_factory=set)
    crowded: bool = False
    changed: Callable[[], object] = bool
    _logged_at: float = float("-inf")
    _unlogged: int = 0

    def enter(self, one: TurnedAway) -> None:
        """One more is being told."""
        self.waiting.add(one)
        if len(self.waiting) >= _TURNED_AWAY and not self.crowded:
            self.crowded = True
            self.changed()

    def leave(self, one: TurnedAway) -> None:
        """It has been told."""
        self.waiting.discard(one)
        if len(self.waiting) <= _TURNED_AWAY // 2 and self.crowded:
            self.crowded = False
            self.changed()

    def turned_away(self, why: str) -> None:
        """Count one, and say so in the log at most every ten seconds."""
        self.counters.refused.labels(why).inc()
        self._unlogged += 1
        now = time.monotonic()
        if now - self._logged_at >= _LOG_SECONDS:
            log.warning("tap_places_taken", kind=why, turned_away=self._unlogged)
            self._logged_at, self._unlogged = now, 0


class TurnedAway(asyncio.Protocol):
    """A connection beyond the places: its request is answered 503 and read to its end for a moment.

    An answer before the request has come, or a close with bytes unread, would reach many clients as a reset.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answered = False
        self._read = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)
        self._door.turned_away("connections")
        self._timer = asyncio.get_running_loop().call_later(_SECONDS, self._answer)
        if len(self._door.waiting) >= _TURNED_AWAY_AT_MOST:  # they were let in at one go
            self._answer()
            self._transport.close()
        self._door.enter(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._read += len(data)
        if not self._answered:
            self._answer()
        elif self._read > _MOST_BYTES and self._transport is not None:
            self._transport.abort()

    def eof_received(self) -> bool:
        """See asyncio."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """See asyncio."""
        self._door.leave(self)
        if self._timer is not None:
            self._timer.cancel()

    def _answer(self) -> None:
        self._answered = True
        if self._transport is None or self._transport.is_closing():
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_SECONDS, self._transport.abort)
        self._transport.write(b"".join(error_answer(None, _FULL, new_request_id(), keep=False)))
        if self._transport.can_write_eof():
            self._transport.write_eof()
