"""Up to when what arrived is known: the settled edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analytics.inquiry import Inquiry
from analytics.selection import FILTER_COLUMNS

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.selection import Selection


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The settled edge of a window.

    Attributes:
        settled_until: Rows of what arrived before are complete (`analytics.settled`); None without rows.
        whole: Whether that is all of the window.
    """

    settled_until: datetime | None
    whole: bool


def ask(store: Reader, selection: Selection) -> Answer[Arrivals]:
    """The settled edge of a window."""
    inquiry = Inquiry(store, selection)
    cover = inquiry.coverage()
    until = cover.settled
    return inquiry.answer(
        Arrivals(until, until is None or until >= selection.window.end),
        cover,
        level="rows",
        exactness="exact",
        rows=cover.rows,
        goes_by=(*FILTER_COLUMNS,),
    )
