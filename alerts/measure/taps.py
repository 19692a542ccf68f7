"""What taps say of themselves: what they served and did not record, or could not serve, is in no other figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from alerts.measure.measured import Open
from analytics.settled import LIVE_SECONDS
from base.named_sql import statements
from base.vocabulary import TAP_LOST, TAP_REFUSED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alerts.measure.rows import Rows

WINDOW_SECONDS: Final = 300.0
BEFORE_SECONDS: Final = 900.0
"""How far before the window the last value is looked for that an increase is taken from."""
EVERY_SECONDS: Final = 25.0
"""With what an agent gathers while nobody reads, a loss is known half a minute after it was told at the latest."""
LOSSES: Final[Mapping[str, str]] = {
    TAP_LOST: "were served and not recorded",
    TAP_REFUSED: "were answered 503 for want of a place",
}
"""Sums of the tap that must not grow, and what each counts."""
_MOST: Final = 1000
_SETTINGS: Final = {"max_execution_time": 2}
_SQL: Final = Path(__file__).with_name("taps.sql")


class Loss(NamedTuple):
    """What one tap lost in one way; `requests` of 0 say that it lost nothing."""

    instance: str
    metric: str
    reason: str
    requests: float


def open_requests(store: Rows, now: float) -> dict[str, Open]:
    """Requests that the taps before each instance have open, of those taps that tell of themselves.

    Raises:
        ServescopeError: The store is away or refuses.
    """
    asked = {"since": int((now - WINDOW_SECONDS) * 1000), "until": int(now * 1000) + 1000, "limit": _MOST}
    found: dict[str, Open] = {}
    for row in store.rows(statements(_SQL)["open"], asked, settings=_SETTINGS):
        if now - int(row["at_ms"]) / 1000 > LIVE_SECONDS:
            continue  # it is gone: others may stand there
        since = max(int(row["busy_ms"]), int(row["first_ms"])) / 1000
        owed = float(row["owed"])
        owed_since = int(row["at_ms"]) / 1000 - owed if owed and row["open"] else 0.0
        told = Open(float(row["open"]), 0.0 if row["open"] else max(now - since, 0.0), owed_since)
        other = found.get(str(row["instance"]))
        found[str(row["instance"])] = told if other is None else _together(other, told)
    return found


def _together(one: Open, other: Open) -> Open:
    """What two taps before one instance have open."""
    since = min((each.owed_since for each in (one, other) if each.owed_since), default=0.0)
    return Open(one.requests + other.requests, min(one.none_for, other.none_for), since)


def losses(store: Rows, now: float) -> list[Loss]:
    """What each tap lost in the last minutes.

    Raises:
        ServescopeError: The store is away or refuses.
    """
    since = now - WINDOW_SECONDS
    asked = {"from": int(since * 1000), "before": int((since - BEFORE_SECONDS) * 1000), "metrics": list(LOSSES)}
    rows = store.rows(statements(_SQL)["losses"], asked, settings=_SETTINGS)
    return [Loss(str(r["instance"]), str(r["metric"]), str(r["reason"] or ""), float(r["lost"])) for r in rows]
