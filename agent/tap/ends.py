"""The two ends of a request's way through, as what stands between them sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from agent.tap.faults import Fault


class AnswerEnd(Protocol):
    """Who takes what a connection to the server has to tell (`agent.tap.exchange.Exchange`)."""

    def answer_bytes(self, data: bytes) -> None:
        """Bytes from the server."""

    def upstream_full(self) -> None:
        """The server does not take bytes for now."""

    def upstream_has_room(self) -> None:
        """The server takes bytes again."""

    def upstream_lost(self, exc: Exception | None) -> None:
        """The server's connection is gone."""


class Sender(AnswerEnd, Protocol):
    """Whose request it is (`agent.tap.exchange.Exchange`)."""

    def fail(self, fault: Fault) -> None:
        """There is no way to the server."""


class ClientEnd(Protocol):
    """A client's connection, as the request in flight sees it (`agent.tap.client.ClientConnection`).

    Attributes:
        full: The client does not take our bytes for now.
        arrived: When the current request's first byte came, monotonic seconds.
    """

    full: bool
    arrived: float

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""

    def is_behind(self) -> bool:
        """Whether the client has not taken what was sent so far, by its own doing."""

    def has_unsent(self) -> bool:
        """Whether something of what was sent has not left for the client."""

    def hold_reading(self, why: str, hold: bool) -> None:
        """Stop reading while at least one reason holds."""

    def flush_into_tunnel(self) -> None:
        """The server switched protocols: what the client sent ahead belongs to it."""

    def exchange_over(self, *, keep: bool, drain: bool) -> None:
        """The answer is handed over.

        Args:
            keep: Another request may follow.
            drain: The client may still be sending.
        """

    def cut_off(self, *, hard: bool) -> None:
        """Close in mid-answer; ``hard`` sends a reset."""
