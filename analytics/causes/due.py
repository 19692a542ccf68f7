"""Which period of causes is to be kept next; for who asks it often, it needs nothing that accounts need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from base.named_sql import beside

if TYPE_CHECKING:
    from analytics.inquiry import Reader

PERIOD_SECONDS: Final = 300
"""Length of a period; they begin at multiples of it."""
LATE_SECONDS: Final = 120.0
"""Seconds after a period's end in which its requests may end: what runs longer counts in no period."""
CATCH_UP_SECONDS: Final = 3600.0
"""Age of the oldest period that is made up for."""
_SQL: Final = beside(__file__)


def newest(now: float) -> float:
    """End of the newest period that may be kept at a time, both Unix seconds."""
    return (now - LATE_SECONDS) // PERIOD_SECONDS * PERIOD_SECONDS


def due(store: Reader, now: float, after: float = 0.0) -> float | None:
    """End of the oldest period that is to be kept (Unix seconds); None where nothing is.

    Args:
        store: Where to ask.
        now: Unix seconds.
        after: Periods that end by then are left out, Unix seconds.
    """
    last = newest(now)
    first = max((now - CATCH_UP_SECONDS) // PERIOD_SECONDS * PERIOD_SECONDS, after)
    bound = {"first_ms": int(first * 1000), "last_ms": int(last * 1000), "period_ms": PERIOD_SECONDS * 1000}
    waiting = store.rows(_SQL["due"], bound)
    return float(waiting[0]["begin_ms"]) / 1000 + PERIOD_SECONDS if waiting else None
