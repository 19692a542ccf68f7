"""What servers' pages must tell and do not: absent, renamed, frozen, or of another unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from analytics.contract import BACK_SECONDS, SQL, Standing, standing
from analytics.inquiry import Inquiry
from analytics.question import Command
from analytics.selection import FILTER_COLUMNS

if TYPE_CHECKING:
    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.selection import Selection

COMMAND: Final = Command()
_MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class Contracts:
    """What stood broken at the window's end.

    Attributes:
        broken: Told and not mended, the oldest first; at most a thousand.
    """

    broken: list[Standing]


def ask(store: Reader, selection: Selection) -> Answer[Contracts]:
    """What stands broken at the end of the window, since whenever in the thirty days before it."""
    inquiry = Inquiry(store, selection)
    cover = inquiry.coverage()
    back = selection.window.to_ms - BACK_SECONDS * 1000
    broken = [standing(row) for row in inquiry.ask("breaches", sql=SQL, broken_from_ms=back, most=_MOST)]
    return inquiry.answer(
        Contracts(broken), cover, level="metrics", exactness="exact", rows=len(broken), samples_used=True,
        state="value" if broken or cover.samples else "no_data", by_arrival=False, goes_by=(*FILTER_COLUMNS,),
    )  # fmt: skip
