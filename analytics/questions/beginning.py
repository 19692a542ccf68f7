"""Where data begin: of a first start, the part of a window before it is no gap but a time before there was anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from analytics.conditions import conditions
from analytics.inquiry import Inquiry
from analytics.selection import Filter
from analytics.values import moment
from base.named_sql import beside

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.answer import Answer, Level
    from analytics.inquiry import Reader
    from analytics.selection import Selection

_SQL: Final = beside(__file__)


@dataclass(frozen=True, slots=True)
class Beginning:
    """The first of a window's data.

    Attributes:
        at: Time of the oldest request or engine sample of the window where the same length of time before the window
            holds none; None where that holds some, and where there are no data at all.
    """

    at: datetime | None


def ask(store: Reader, selection: Selection) -> Answer[Beginning]:
    """Where data begin, of all models, tenants and instances; of the filter only ``recording`` counts.

    Who begins late among others shows in his own line: that is no beginning of all data.
    """
    inquiry = Inquiry(store, selection, _SQL)
    recorded = {"recorded": conditions(Filter(recording=selection.filter.recording), "requests")[0]}
    first: datetime | None = None
    if not inquiry.ask("before", recorded, since_ms=selection.window.previous().from_ms):
        found = [int(row["first_ms"]) for row in inquiry.ask("first", recorded) if row["n"]]
        first = moment(min(found)) if found else None
    cover = inquiry.coverage()
    level: Level = "rows" if cover.rows else "metrics"
    return inquiry.answer(
        Beginning(first), cover, level=level, exactness="exact", rows=cover.rows or cover.samples, goes_by=()
    )
