"""Find requests: the slowest, the newest, the failed, one by its id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from analytics.conditions import one_of
from analytics.inquiry import Inquiry
from analytics.request_row import COLUMNS, RequestRow
from analytics.selection import Filter
from analytics.signals import LatencySignal, signal_of
from analytics.values import number, trace_hex
from analytics.window import WindowError
from base.named_sql import beside

if TYPE_CHECKING:
    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.signals import Signal
    from analytics.window import Window

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
    window: Window,
    filter: Filter = Filter(),  # noqa: A002, B008
    *,
    order: Literal["slowest", "newest"] = "slowest",
    signal: LatencySignal = "e2e_seconds",
    outcome: tuple[str, ...] = (),
    at_least: float | None = None,
    below: float | None = None,
    trace_id: str = "",
    request_id: str = "",
    limit: int = 100,
    after: str | None = None,
) -> Answer[Found]:
    """Requests of models that arrived in the window; by an id also others, such as of the list of models.

    Args:
        store: Where to ask.
        window: When they arrived.
        filter: What of it.
        order: ``slowest`` first by ``signal`` (requests without that latency are left out) or ``newest`` first.
        signal: Latency that orders, and that ``at_least`` and ``below`` bound.
        outcome: Accepted outcomes, all when empty.
        at_least: Lowest accepted latency in seconds.
        below: Latency in seconds that is too much; a heatmap's box gives both.
        trace_id: 32 hex digits.
        request_id: The client's or the server's id of the request.
        limit: 1 to `LIMIT` rows.
        after: ``next`` of the page before.

    Raises:
        WindowError: ``limit`` or ``after`` is not usable.
    """
    if not 1 <= limit <= LIMIT:
        raise WindowError(f"The limit is {limit}", f"Give 1 to {LIMIT}")
    about = signal_of(signal)
    inquiry = Inquiry(store, window, filter, sql=_SQL)
    cover = inquiry.coverage()
    narrow, bound = _narrowed(about, outcome, at_least, below, trace_id, request_id)
    named = bool(trace_id or request_id)
    bounded = order == "slowest" or at_least is not None or below is not None
    fragments = {
        "value": about.value,
        "present": about.present if bounded else "1",
        "narrow": narrow,
        "columns": COLUMNS,
        "order": "ordering DESC, time DESC, key DESC" if order == "slowest" else "time DESC, key DESC",
        "after": "",
        # who looks for one by its id finds it, also where it asked nothing of a model
        "whose": "/*filter:any_requests*/" if named else "/*filter:requests*/",
    }
    if after is not None:
        fragments["after"] = _AFTER[order]
        bound |= _cursor(after)
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


_OF_TRACE: Final = "AND (time, key) IN (SELECT time, key FROM request_keys WHERE trace_id = unhex({trace_id:String}))"
"""A small table by trace id: the bloom filter of the wide one does not prune under FINAL."""


def _cursor(after: str) -> dict[str, Any]:
    try:
        value, milliseconds, key = after.split("~")
        return {"after_value": float(value), "after_ms": int(milliseconds), "after_key": int(key)}
    except ValueError:
        raise WindowError(f"The page mark {after!r} is not one of ours", "Pass on `next` as it was given") from None


def _narrowed(
    about: Signal, outcome: tuple[str, ...], at_least: float | None, below: float | None, trace_id: str, request_id: str
) -> tuple[str, dict[str, Any]]:
    parts: list[str] = []
    bound: dict[str, Any] = {}
    if outcome:
        parts.append("AND if(outcome = '', 'ok', outcome) IN {outcome:Array(String)}")
        bound["outcome"] = list(outcome)
    if at_least is not None:
        parts.append(f"AND {about.value} >= {{at_least:Float64}}")
        bound["at_least"] = float(at_least)
    if below is not None:
        parts.append(f"AND {about.value} < {{below:Float64}}")
        bound["below"] = float(below)
    if trace_id:
        parts.append(
            "AND (time, key) IN (SELECT time, key FROM request_keys WHERE trace_id = unhex({trace_id:String}))"
        )
        bound["trace_id"] = trace_hex(trace_id)
    if request_id:
        (asked, bound["request_id"]), (answered, _) = (
            one_of(column, "request_id", [request_id]) for column in ("request_id", "response_id")
        )
        parts.append(f"AND ({asked} OR {answered})")
    return " ".join(parts), bound
