"""The settled edge: up to when rows are complete by arrival.

A row comes when its request is over, so that of the newest arrivals only those that were quick are known: survivors. A
tap tells how old its oldest open request is; nothing that arrived before that one can still come. Where no tap tells,
the longest request of the last quarter of an hour is what may still be open.

Figures by *end* (finishes, rules, budgets of the pager) and samples are complete a few seconds after they happened,
which is the way into the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analytics.selection import Filter
    from analytics.window import Window

SQL: Final = beside(__file__)
INGEST_SECONDS: Final = 3.0
"""What a row takes into the store once its request is over."""
LIVE_SECONDS: Final = 90.0
"""A tap that has told nothing for so long is gone, and with it what was open there."""
QUIET_SECONDS: Final = 15.0
"""A tap that had nothing open tells it rarely, and within this time when something begins."""
LOOK_BACK: Final = timedelta(minutes=15)
"""How far back the longest request is looked for, and the age at which all is taken to be settled."""
LONGEST_SECONDS: Final = 600.0
"""The most that a single long request holds back the edge where no tap tells what is open."""
TAPS: Final = 1000

Source = Literal["taps", "longest"]


@dataclass(frozen=True, slots=True)
class Tap:
    """What a tap said of itself last: when, open requests, seconds since the arrival of the oldest of them."""

    instance: str
    at: datetime
    open: float
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class Settled:
    """The edge.

    Attributes:
        until: Arrivals before it are complete; never after the window's end, and before its start where nothing of
            the window is settled.
        source: ``taps`` told it, or the ``longest`` request bounds it.
    """

    until: datetime
    source: Source


def told_by_taps(taps: Sequence[Tap], now: datetime) -> datetime | None:
    """The earliest edge of all taps that are there; None where none is."""
    edges = []
    for tap in taps:
        if now - tap.at > timedelta(seconds=LIVE_SECONDS):
            continue
        edge = tap.at - timedelta(seconds=max(tap.oldest_seconds, 0.0) if tap.open else 0.0)
        edges.append(edge if tap.open else max(edge, now - timedelta(seconds=QUIET_SECONDS)))
    return min(edges, default=None)


def bounded(longest_seconds: float, now: datetime) -> datetime:
    """The edge where nobody tells what is open: a request may take as long as the longest one did."""
    return now - timedelta(seconds=min(max(longest_seconds, 0.0), LONGEST_SECONDS))


def edge_of(taps: Sequence[Tap], longest_seconds: float, window: Window, now: datetime) -> Settled:
    """The settled edge of a window at a time."""
    told = told_by_taps(taps, now)
    source: Source = "taps" if told is not None else "longest"
    found = told if told is not None else bounded(longest_seconds, now)
    return Settled(min(found, now - timedelta(seconds=INGEST_SECONDS), window.end), source)


def asks(window: Window, now: datetime) -> bool:
    """Whether the window reaches to where rows may be missing, so that the store has to be asked."""
    return window.end > now - LOOK_BACK


def taps_of(rows: Sequence[dict[str, Any]], filter: Filter) -> list[Tap]:  # noqa: A002 - the questions' own word
    """Taps out of `settled.taps`; of the instances looked at, where these have taps."""
    found = [
        Tap(
            str(row["instance"]),
            datetime.fromtimestamp(int(row["at_ms"]) / 1000, UTC),
            float(row["open"]),
            float(row["oldest"]),
        )
        for row in rows
    ]
    own = [tap for tap in found if tap.instance in filter.instance]
    return own or found
