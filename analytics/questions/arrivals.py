"""Up to when what arrived is known: the settled edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analytics.inquiry import Inquiry
from analytics.selection import Filter

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.window import Window


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The settled edge of a window.

    Attributes:
        settled_until: Rows of what arrived before are complete (`analytics.settled`); None without rows.
        whole: Whether that is all of the window.
    """

    settled_until: datetime | None
    whole: bool


def ask(store: Reader, window: Window, filter: Filter = Filter()) -> Answer[Arrivals]:  # noqa: A002, B008
    """The settled edge of a window."""
    inquiry = Inquiry(store, window, filter)
    cover = inquiry.coverage()
    until = cover.settled
    return inquiry.answer(
        Arrivals(until, until is None or until >= window.end), cover, level="rows", exactness="exact", rows=cover.rows
    )
