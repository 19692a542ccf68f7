"""What a pager is told, and what a notifier must be able to do. Notifiers live in ``notify/``, one file each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from alerts.incidents.incident import Wish
    from alerts.rules.rule import Severity

LONGEST_RETRY_AFTER_SECONDS: Final = 900.0
"""What another side may ask for at most: a page that waits for longer is no page."""
COME_AGAIN: Final = frozenset({429, 503})
"""HTTP statuses whose ``Retry-After`` is honoured."""

_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Notice:
    """One message about one incident.

    Attributes:
        action: trigger, acknowledge or resolve.
        incident_id: The incident.
        dedup_key: The same for all messages about one incident.
        at: Unix seconds.
        severity: Of the incident.
        title: One sentence with the reason.
        source: What is affected.
        group: Deployment, may be empty.
        kind: Rule that opened the incident.
        details: Evidence: names and values, nested at will, JSON-ready.
        links: (text, URL) pairs; only http and https ones are sent as links.
    """

    action: Wish
    incident_id: str
    dedup_key: str
    at: float
    severity: Severity
    title: str
    source: str
    group: str = ""
    kind: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    links: tuple[tuple[str, str], ...] = ()


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
        said: Seconds or an HTTP date (RFC 9110, section 10.2.3).
        now: Unix seconds.
    """
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(said).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS) if math.isfinite(seconds) else None


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

    def render(self, notice: Notice) -> dict[str, Any]:
        """The payload, within the other side's limits and without credentials; kept through all retries."""
        ...

    def send(self, payload: dict[str, Any]) -> Delivery:
        """One attempt, a few seconds at most; never raises for what the other side does."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
