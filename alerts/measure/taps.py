"""The pager's own rule about taps: what they served and did not record, or could not serve, is in no other figure."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from alerts.rules.evaluate import Reading
from alerts.state import Observation
from alerts.text import number, plain
from base.durations import spell
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


def readings(store: Rows, now: float) -> list[Reading]:
    """What each tap lost in the last minutes.

    Raises:
        ServescopeError: The store is away or refuses.
    """
    since = now - WINDOW_SECONDS
    asked = {"from": int(since * 1000), "before": int((since - BEFORE_SECONDS) * 1000), "metrics": list(LOSSES)}
    lost: dict[str, float] = defaultdict(float)
    parts: dict[str, list[str]] = defaultdict(list)
    found = store.rows(statements(_SQL)["losses"], asked, settings=_SETTINGS)
    for row in sorted(found, key=lambda row: -float(row["lost"])):
        instance = str(row["instance"])
        lost[instance] += float(row["lost"])
        if row["lost"]:
            why = f" ({plain(str(row['reason']))})" if row["reason"] else ""
            parts[instance].append(f"{number(float(row['lost']))} {LOSSES[row['metric']]}{why}")
    return [
        Reading(
            {"instance": instance},
            Observation(count > 0, now, count),
            f"requests at the tap of {plain(instance)} in {spell(WINDOW_SECONDS)}: {', '.join(parts[instance])}",
            0.0,
            WINDOW_SECONDS,
        )
        for instance, count in sorted(lost.items())
    ]
