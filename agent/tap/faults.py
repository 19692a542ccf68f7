"""What can go wrong with a request on its way: how it ends, what its client is told, what is counted."""

from __future__ import annotations

import errno
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, NamedTuple

from base.formats import spell
from base.vocabulary import Outcome

if TYPE_CHECKING:
    from agent.tap.limits import Limits

_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})


class Fault(NamedTuple):
    """An end that is not the server's answer: status and message for the client, outcome and word for the record.

    Messages never say where the server is: clients of a proxy are not to know.
    """

    status: int
    outcome: Outcome
    error_type: str
    message: str


TUNNELS_FULL: Final = Fault(
    503, Outcome.REJECTED, "tunnels_full", "every place for a tunnel is taken, try again in a moment"
)
NO_DESCRIPTORS: Final = Fault(503, Outcome.REJECTED, "tap_full", "this tap has no more descriptors, try again later")
SHUTDOWN: Final = Fault(503, Outcome.SERVER_ERROR, "tap_shutdown", "this tap is shutting down")
_STALLED: Final = Fault(504, Outcome.TIMEOUT, "stall_timeout", "the model server stopped in mid-answer")
_BODY_LATE: Final = Fault(408, Outcome.CLIENT_ERROR, "body_timeout", "the request's body did not come in time")


def connect_fault(error: Exception) -> Fault:
    """Why the server can't be reached."""
    if isinstance(error, OSError) and error.errno in _NO_DESCRIPTORS:
        return NO_DESCRIPTORS
    word, why = "connect_failed", "connect failed"
    if isinstance(error, TimeoutError):
        word, why = "connect_timeout", "no connection in time"
    elif isinstance(error, ConnectionRefusedError):
        word, why = "connect_refused", "connect refused"
    return Fault(502, Outcome.UNREACHABLE, word, f"the model server can't be reached: {why}")


def lost_fault(*, cut: bool, reset: bool) -> Fault:
    """The server's connection ended before the answer did; ``cut``: in the middle of it."""
    word = "answer_cut" if cut else "upstream_reset" if reset else "upstream_closed"
    message = "the model server closed the connection without a whole answer"
    return Fault(502, Outcome.UPSTREAM_RESET, word, message)


class Waits(Enum):
    """Whose move it is in an exchange."""

    FOR_BODY = auto()
    FOR_ANSWER = auto()
    FOR_REST = auto()


def overdue(waits: Waits, waited: float, limits: Limits) -> Fault | None:
    """What to end an exchange with that waits for too long.

    Args:
        waits: For what.
        waited: Seconds since anything moved.
        limits: 0 is none.
    """
    if waits is Waits.FOR_BODY:
        return _BODY_LATE if 0 < limits.client_stall_seconds < waited else None
    if waits is Waits.FOR_REST:
        return _STALLED if 0 < limits.stall_seconds < waited else None
    if 0 < limits.first_byte_seconds < waited:
        message = f"the model server did not answer within {spell(limits.first_byte_seconds)}"
        return Fault(504, Outcome.TIMEOUT, "first_byte_timeout", message)
    return None
