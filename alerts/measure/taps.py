"""What taps say of themselves: what they served and did not record, or could not serve, is in no other figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from base.named_sql import statements

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alerts.measure.store import Rows

WINDOW_SECONDS: Final = 300.0
BEFORE_SECONDS: Final = 900.0
"""How far before the window the last value is looked for that an increase is taken from."""
EVERY_SECONDS: Final = 15.0
LOSSES: Final[Mapping[str, str]] = {
    "servescope.tap.records_lost": "were served and not recorded",
    "servescope.tap.connections_refused": "were answered 503 for want of a place",
}
"""Sums of the tap that must not grow, and what each counts."""
_SETTINGS: Final = {"max_execution_time": 2}
_SQL: Final = Path(__file__).with_name("taps.sql")


class Loss(NamedTuple):
    """What one tap lost in one way; `requests` of 0 say that it lost nothing."""

    instance: str
    metric: str
    reason: str
    requests: float


def losses(store: Rows, now: float) -> list[Loss]:
    """What each tap lost in the last minutes.

    Raises:
        ServescopeError: The store is away or refuses.
    """
    since = now - WINDOW_SECONDS
    asked = {"from": int(since * 1000), "before": int((since - BEFORE_SECONDS) * 1000), "metrics": list(LOSSES)}
    rows = store.rows(statements(_SQL)["losses"], asked, settings=_SETTINGS)
    return [Loss(str(r["instance"]), str(r["metric"]), str(r["reason"] or ""), float(r["lost"])) for r in rows]
