"""A day of data shaped like the demo's, made inside the store: requests in halves, samples, histograms, incidents.

About 18 requests a second of four models and five tenants; every three minutes one tenant floods the image model for
twenty seconds. The two halves of a request are inserted apart, an hour at a time, and the last ten minutes in slices
of ten seconds, so that the newest data lie in many small parts, as they do while data keep coming.
"""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from base.named_sql import statements

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from collector.store.client import Store

RATE: Final = 18
"""Requests a second."""
DAY_SECONDS: Final = 86_400
_FRESH_SECONDS: Final = 600
_SLICE_SECONDS: Final = 10
_HOUR_SECONDS: Final = 3_600
_QUIET_SECONDS: Final = 180
SQL: Final = Path(__file__).parent / "sql" / "day.sql"


def fill(store: Store, end: datetime, seconds: int = DAY_SECONDS, rate: int = RATE) -> int:
    """Write ``seconds`` of data up to ``end`` and wait until the store has merged what it will; the requests.

    Args:
        store: Opened as owner on a migrated database.
        end: Aware time, after the last row.
        seconds: Length.
        rate: Requests a second.
    """
    named = statements(SQL)
    start = end - timedelta(seconds=seconds)
    for first, last in slices(seconds):
        bound = {
            "start_ms": int((start + timedelta(seconds=first)).timestamp() * 1000),
            "seconds": last - first,
            "rate": rate,
        }
        for name in ("requests_edge", "requests_engine", "samples", "histograms"):
            store.command(named[name], bound)
    whole = {"start_ms": int(start.timestamp() * 1000), "seconds": seconds}
    for name in ("events", "incidents", "transitions", "last_incident"):
        store.command(named[name], whole)
    deadline = time.monotonic() + _QUIET_SECONDS
    while store.rows("SELECT 1 FROM system.merges LIMIT 1") and time.monotonic() < deadline:
        time.sleep(0.5)
    return seconds * rate


def slices(seconds: int) -> Iterator[tuple[int, int]]:
    """Spans ``(first, last)`` in seconds from the start: hours, then the fresh end in small ones, without a gap."""
    fresh = max(0, seconds - _FRESH_SECONDS)
    for first in range(0, fresh, _HOUR_SECONDS):
        yield first, min(first + _HOUR_SECONDS, fresh)
    for first in range(fresh, seconds, _SLICE_SECONDS):
        yield first, min(first + _SLICE_SECONDS, seconds)
