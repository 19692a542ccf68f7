"""How a request's body comes in over HTTP, whatever it holds: within its bounds, and from somebody who may send it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collector.auth import AuthError
from collector.decode import TooLargeError, decompress

if TYPE_CHECKING:
    from aiohttp import web

    from collector.auth import Door, Sender
    from collector.intake import BusyError, Intake


class FaultError(Exception):
    """A request that is answered with an error.

    Args:
        status: HTTP status.
        reason: A word for the metric.
        text: What is wrong, safe to show to the sender.
        retry_after: Seconds after which it may come again; 0: it is refused for good.
        records: How many records are refused.
    """

    def __init__(self, status: int, reason: str, text: str, retry_after: int = 0, records: int = 1) -> None:
        self.status = status
        self.reason = reason
        self.text = text
        self.retry_after = retry_after
        self.records = records
        super().__init__(text)


async def read(request: web.Request, intake: Intake, limit: int) -> tuple[bytes, int]:
    """The body as it was sent, and how many bytes of it the intake holds: the caller gives these back.

    Raises:
        FaultError: It has more than ``limit`` bytes.
        BusyError: There is no memory for it.
    """
    if (request.content_length or 0) > limit:
        raise too_large(limit)
    pieces: list[bytes] = []
    held = 0
    try:
        async for piece in request.content.iter_any():
            intake.hold(len(piece))
            held += len(piece)
            if held > limit:
                raise too_large(limit)  # noqa: TRY301 - the handler below gives back what was held
            pieces.append(piece)
    except BaseException:
        intake.hold(-held)
        raise
    return b"".join(pieces), held


def admit(door: Door, request: web.Request, body: bytes, received_ns: int) -> Sender:
    """Who sends.

    Raises:
        FaultError: Somebody who may not.
    """
    try:
        return door.admit(request.path, request.headers, body, request.remote, received_ns // 1_000_000)
    except AuthError as error:
        raise FaultError(401, "unauthorized", str(error)) from None


def plain(body: bytes, encoding: str, limit: int) -> bytes:
    """The body decompressed.

    Raises:
        FaultError: More than ``limit`` bytes come out.
        MalformedError: It is not of that encoding.
    """
    try:
        return decompress(body, encoding, limit)
    except TooLargeError:
        raise too_large(limit) from None


def hold(intake: Intake, size: int) -> int:
    """Have the intake account for ``size`` more bytes; they are returned.

    Raises:
        BusyError: There is no memory for them.
    """
    intake.hold(size)
    return size


def busy(error: BusyError) -> FaultError:
    """What is answered to who can't be taken now."""
    return FaultError(503 if error.reason in {"disk", "store"} else 429, error.reason, str(error), error.retry_after)


def too_large(limit: int) -> FaultError:
    """What is answered to a body over its bound."""
    return FaultError(413, "too_large", f"the body is larger than {limit} bytes, decompressed; send smaller batches")
