"""Find requests: the slowest, the newest, the failed, one by its id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from analytics.inquiry import Inquiry
from analytics.request_row import COLUMNS, RequestRow
from analytics.signals import LatencySignal, signal_of
from analytics.values import number
from analytics.window import WindowError
from base.named_sql import beside

if TYPE_CHECKING:
    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.selection import Selection

_SQL: Final = beside(__file__)

LIMIT: Final = 1000
"""Most rows of one page."""


@dataclass(frozen=True, slots=True)
class Found:
    """One page of requests.

    Attributes:
        order: ``slowest`` (by ``signal``) or ``newest``.
        signal: Latency that orders and bounds.
        requests: At most the asked number.
        matching: Requests that match, over all pages.
        next: Pass as ``after`` for the next page; None on the last one. Stays right while new requests arrive.
    """

    order: Literal["slowest", "newest"]
    signal: str
    requests: list[RequestRow]
    matching: int
    next: str | None


def ask(
    store: Reader,
    selection: Selection,
    *,
    order: Literal["slowest", "newest"] = "slowest",
    signal: LatencySignal = "e2e_seconds",
    limit: int = 100,
    after: str | None = None,
) -> Answer[Found]:
    """Requests of models that arrived in the window; by an id also others, such as of the list of models.

    Args:
        store: Where to ask.
        selection: Which of them.
        order: ``slowest`` first by ``signal`` (requests without that latency are left out) or ``newest`` first.
        signal: Latency that orders.
        limit: 1 to `LIMIT` rows.
        after: ``next`` of the page before.

    Raises:
        WindowError: ``limit`` or ``after`` is not usable.
    """
    if not 1 <= limit <= LIMIT:
        raise WindowError(f"The limit is {limit}", f"Give 1 to {LIMIT}")
    about = signal_of(signal)
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    bound: dict[str, Any] = {}
    named = bool(selection.ids)
    fragments = {
        "value": about.value,
        "present": about.present if order == "slowest" else "1",
        "columns": COLUMNS,
        "order": "ordering DESC, time DESC, key DESC" if order == "slowest" else "time DESC, key DESC",
        "after": "",
        # who looks for one by its id finds it, also where it asked nothing of a model
        "whose": "/*filter:any_requests*/" if named else "/*filter:requests*/",
    }
    if after is not None:
        fragments["after"] = _AFTER[order]
        bound = _cursor(after)
    rows = inquiry.ask("find", fragments, limit=limit + 1, **bound) if cover.rows or named else []
    matching = int(inquiry.ask("matching", fragments, **bound)[0]["n"]) if cover.rows or named else 0
    shown = [RequestRow.of(row) for row in rows[:limit]]
    following = None
    if len(rows) > limit:
        edge = rows[limit - 1]
        following = f"{number(edge['ordering']) or 0.0!r}~{edge['time_ms']}~{edge['key']}"
    return inquiry.answer(
        Found(order, signal, shown, matching, following), cover, level="rows", exactness="exact", rows=matching
    )


_AFTER: Final = {
    "slowest": "AND (toFloat64(ordering), toUnixTimestamp64Milli(time), key)"
    " < ({after_value:Float64}, {after_ms:Int64}, {after_key:UInt64})",
    "newest": "AND time <= fromUnixTimestamp64Milli({after_ms:Int64})"
    " AND (toUnixTimestamp64Milli(time), key) < ({after_ms:Int64}, {after_key:UInt64})",
}


def _cursor(after: str) -> dict[str, Any]:
    try:
        value, milliseconds, key = after.split("~")
        return {"after_value": float(value), "after_ms": int(milliseconds), "after_key": int(key)}
    except ValueError:
        raise WindowError(f"The page mark {after!r} is not one of ours", "Pass on `next` as it was given") from None
