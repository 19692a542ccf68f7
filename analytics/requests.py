"""Find requests: the slowest, the newest, the failed, one by its id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from analytics.window import Answer, Filter, Window

if TYPE_CHECKING:
    from analytics.ground import Reader
    from analytics.request_row import RequestRow
    from analytics.signals import LatencySignal

LIMIT: Final = 1000
"""Most rows of one page."""


@dataclass(frozen=True, slots=True)
class Found:
    """One page of requests.

    Attributes:
        order: ``slowest`` (by ``signal``) or ``newest``.
        signal: Latency that orders and bounds.
        requests: At most the asked number.
        matching: Requests that match, over all pages.
        next: Pass as ``after`` for the next page; None on the last one. Stays right while new requests arrive.
    """

    order: Literal["slowest", "newest"]
    signal: str
    requests: list[RequestRow]
    matching: int
    next: str | None


def find(
    store: Reader,
    window: Window,
    filter: Filter = Filter(),  # noqa: A002, B008
    *,
    order: Literal["slowest", "newest"] = "slowest",
    signal: LatencySignal = "e2e_seconds",
    outcome: tuple[str, ...] = (),
    at_least: float | None = None,
    below: float | None = None,
    trace_id: str = "",
    request_id: str = "",
    limit: int = 100,
    after: str | None = None,
) -> Answer[Found]:
    """Requests that arrived in the window.

    Args:
        store: Where to ask.
        window: When they arrived.
        filter: What of it.
        order: ``slowest`` first by ``signal`` (requests without that latency are left out) or ``newest`` first.
        signal: Latency that orders, and that ``at_least`` and ``below`` bound.
        outcome: Accepted outcomes, all when empty.
        at_least: Lowest accepted latency in seconds.
        below: Latency in seconds that is too much; a heatmap's box gives both.
        trace_id: 32 hex digits.
        request_id: The client's or the server's id of the request.
        limit: 1 to `LIMIT` rows.
        after: ``next`` of the page before.

    Raises:
        WindowError: ``limit`` or ``after`` is not usable.
    """
    raise NotImplementedError
