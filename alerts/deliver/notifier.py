"""What a notifier must be able to do, how it is set up, and what its attempts come to.

Notifiers live in ``notify/``, one file each, and are found there. A file has the class ``Settings``, a
`NotifierSettings`: the section of the configuration that bears the file's name, and how the notifier is made of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from alerts.deliver.message import Message

LONGEST_RETRY_AFTER_SECONDS: Final = 900.0
"""What another side may ask for at most: a page that waits for longer is no page."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Delivery:
    """How one attempt went.

    Attributes:
        verdict: ``sent``; ``retry`` (the other side is away, busy or failing); ``refused`` (it will never take this).
        error: Why not, without any secret.
        retry_after: Seconds that the other side asked for, None when it said nothing.
    """

    verdict: Literal["sent", "retry", "refused"]
    error: str = ""
    retry_after: float | None = None


def reached(notifier: str, destination: str) -> str:
    """Who a message goes to, for people: what stays on this machine is never said to have reached PagerDuty.

    Args:
        notifier: Its name.
        destination: URL that it sends to.
    """
    if notifier == "pagerduty" and urlsplit(destination).hostname in _LOOPBACK:
        return "the built-in receiver"
    return notifier


def retry_after(said: str, now: float) -> float | None:
    """Seconds that a ``Retry-After`` field asks for, bounded; None when it says nothing that can be read.

    Args:
        said: Seconds or an HTTP date (RFC 9110, section 10.2.3), which is UTC also where it names no zone.
        now: Unix seconds.
    """
    try:
        seconds = float(said)
    except ValueError:
        try:
            date = parsedate_to_datetime(said)
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS) if math.isfinite(seconds) else None


class Server(Protocol):
    """What runs beside a notifier for as long as the process does."""

    def start(self) -> object:
        """Serve in a thread."""
        ...

    def stop(self) -> None:
        """Stop serving and let go of the port."""
        ...


@dataclass(frozen=True, slots=True)
class Around:
    """Where a notifier is made.

    Attributes:
        folder: The pager's own; a notifier may make a folder of its name there.
        clock: Unix seconds.
        receiver_port: Asked for the built-in receiver; 0 takes a free one.
        servers: What must run beside the notifiers; one that needs such a thing adds it.
    """

    folder: Path
    clock: Callable[[], float]
    receiver_port: int = 0
    servers: list[Server] = field(default_factory=list)


class NotifierSettings(BaseModel):
    """The section of a notifier.

    Attributes:
        always: Whether there is such a notifier also where the configuration has no section for it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    always: ClassVar[bool] = False

    def check(self) -> None:
        """See whether the keys and secrets that it names are there.

        Raises:
            ConfigError: One can't be read, or is none.
        """

    def notifier(self, around: Around) -> Notifier:
        """The notifier, ready to send.

        Raises:
            ConfigError: A key or secret can't be read.
            PortInUseError: A port that it needs is taken.
        """
        raise NotImplementedError


class Notifier(Protocol):
    """A way to reach people."""

    @property
    def name(self) -> str:
        """Short and unique, for routes and tables."""
        ...

    @property
    def destination(self) -> str:
        """Where it sends, without any secret."""
        ...

    def render(self, message: Message) -> dict[str, Any]:
        """The payload, within the other side's limits and without credentials; kept through all retries."""
        ...

    def send(self, payload: dict[str, Any]) -> Delivery:
        """One attempt, a few seconds at most; never raises for what the other side does."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
