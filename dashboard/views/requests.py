"""Requests: the very ones, slowest first, and the story of one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, cast

import pandas as pd
import streamlit as st

from analytics.signals import SIGNALS
from dashboard import escape, words
from dashboard.cell_pictures import keys, phase_bar
from dashboard.data import ask
from dashboard.links import narrowed, outcome_in_words, outcome_of
from dashboard.one_request import PHASES, tell
from dashboard.panel import empty, foot, guarded
from dashboard.selected import DIFFERENT, WHY, difference, why
from dashboard.shell import page
from dashboard.tables import milliseconds, numbers
from dashboard.viewer import clock, zone
from dashboard.what_they_are import WHAT, what_they_are

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analytics.request_row import RequestRow
    from analytics.selection import Selection
    from dashboard.page_context import PageContext
    from dashboard.theme import Palette

MISSING: Final = (
    "Request rows come from the tap: send your clients through the tap's port (`servescope up` prints it), or point "
    "any OpenTelemetry SDK at the collector."
)
_ORDER: Final = {"slowest": "Slowest first", "newest": "Newest first"}
_LIST: Final = "List"
_LIMIT: Final = 200
_ONLY, _NOT = "only", "not"
"""In the address: what requests have and what they lack (`analytics.traits`)."""
_TRAIT: Final = 90
"""Letters of one of these on the page."""

TITLE: Final = "Requests"
"""In the navigation."""
PLACE: Final = 40
"""Order in the navigation, the front page first."""
QUESTION: Final = "Which requests?"
"""Over the page."""


def alone() -> bool:
    """Whether the page shows one request, which needs no filters."""
    return bool(st.query_params.get("request"))


def draw() -> None:
    """The list, or one request when the URL names it."""
    if alone():
        tell()
    else:
        page(_body, marks=False)


def _body(context: PageContext) -> None:
    guarded(context, "requests", lambda: _list(context))


def _list(context: PageContext) -> None:
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        order = st.segmented_control(
            "Order", list(_ORDER), key="order", default="slowest", required=True, format_func=_ORDER.__getitem__,
            label_visibility="collapsed", bind="query-params",
        ) or "slowest"  # fmt: skip
        signals = [name for name in SIGNALS if not name.startswith("compute_in")]
        signal = st.selectbox(
            "By", signals, key="order_by", index=signals.index("e2e_seconds"), width=260, bind="query-params",
            format_func=lambda name: SIGNALS[name].title, label_visibility="collapsed",
        ) or "e2e_seconds"  # fmt: skip
        known = context.choices.outcomes if context.choices else []
        outcome = st.multiselect(
            "Outcome", sorted({*known, *map(outcome_of, st.query_params.get_all("outcome"))}), key="outcome",
            bind="query-params", placeholder="Any outcome", width=200, label_visibility="collapsed",
            format_func=outcome_in_words,
        )  # fmt: skip
        wanted = st.text_input(
            "Find", key="find", placeholder="Trace id or request id", width=230, label_visibility="collapsed",
            bind="query-params",
        )  # fmt: skip
    low, high = _bound("at_least"), _bound("below")
    only, lacking = st.query_params.get_all(_ONLY), st.query_params.get_all(_NOT)
    within = f"{SIGNALS[signal].title.lower()} {bounds(low, high)}" if (low, high) != (None, None) else ""
    if within or only or lacking:
        _narrowed(within, only, lacking)
    shown = st.segmented_control(
        "Show", [_LIST, WHAT, DIFFERENT, WHY], key="show", default=_LIST, required=True, label_visibility="collapsed",
        bind="query-params",
    )  # fmt: skip
    selection = narrowed(
        context.selection, signal=signal, outcome=outcome, at_least=low, below=high, find=wanted or "", only=only,
        lacking=lacking,
    )  # fmt: skip
    if shown == WHAT:
        what_they_are(context, selection)
    elif shown == DIFFERENT:
        difference(context, selection)
    elif shown == WHY:
        why(context, selection)
    else:
        _rows(context, selection, order, signal)


def _rows(context: PageContext, selection: Selection, order: str, signal: str) -> None:
    answer = ask("requests", selection, order=order, signal=signal, limit=_LIMIT)
    rows: list[RequestRow] = answer.result.requests
    if not rows:
        if answer.coverage.last_row is not None:
            st.markdown("**No request matches.** :gray[Widen the range or drop a filter above.]")
        else:
            empty(answer.state, MISSING, answer.coverage)
        foot("requests", answer)
        return
    shown = f"{words.plural(answer.result.matching, 'request')} match"
    listed = "" if answer.result.matching <= len(rows) else f"; the first {len(rows)} are listed"
    st.caption(f"{shown}{listed}. A click on a row tells what happened to that request.")
    frame = _frame(rows, context.colours)
    state = st.dataframe(
        escape.frame(frame), hide_index=True, placeholder=words.NOTHING, key="requests", on_select="rerun",
        selection_mode=["single-row", "single-cell"], height=620, row_height=28,
        alt="Requests with their times, phases and sizes",
        column_config=numbers(
            frame,
            Time=st.column_config.TextColumn(help=f"Arrival, in {zone().key}"),
            Phases=st.column_config.ImageColumn(width=168, help="Where its time went; the colours stand beneath"),
        ),
    )  # fmt: skip
    st.html(keys(_met(rows), context.colours))
    foot("requests", answer, "One row a request: what its client felt and what the engine says of it.")
    clicked = cast("Any", state).selection
    chosen = [*clicked.rows, *(cell[0] for cell in clicked.cells)]
    if chosen and chosen[0] < len(rows):
        row = rows[chosen[0]]
        st.query_params["request"] = row.key
        st.query_params["at"] = f"{row.time.timestamp():.3f}"
        st.rerun(scope="app")


def _narrowed(within: str, only: Sequence[str], lacking: Sequence[str]) -> None:
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        st.caption(narrowed_in_words(within, only, lacking), width="content")
        if st.button("Show all", key="unbound", type="tertiary"):
            for name in ("at_least", "below", _ONLY, _NOT):
                st.query_params.pop(name, None)
            st.rerun(scope="app")


def narrowed_in_words(within: str, only: Sequence[str], lacking: Sequence[str]) -> str:
    """Markdown of what the list is narrowed by that no box of the page says.

    Args:
        within: Bounds of a latency in words; "" for none.
        only: Traits that the requests have, as the address has them.
        lacking: Those that they lack.
    """
    drawn = [f"Only {within}, as drawn on the heatmap"] if within else []
    told = [*(f"only {text}" for text in only), *(f"not {text}" for text in lacking)]
    whole = " · ".join([*drawn, *(escape.markdown(text, _TRAIT) for text in told)])
    return whole[:1].upper() + whole[1:]


def bounds(low: float | None, high: float | None) -> str:
    """Bounds of a latency in seconds in words, as the heatmap's link has them: ``from 2.5 s up``."""
    above = [f"from {words.seconds(low)}"] if low is not None else []
    return " ".join([*above, f"to {words.seconds(high)}" if high is not None else "up"])


def _frame(rows: list[RequestRow], colours: Palette) -> pd.DataFrame:
    return pd.DataFrame([
        {
            "Time": clock(row.time, milliseconds=True),
            "Model": row.model or words.NOTHING,
            "Tenant": row.tenant or words.NOTHING,
            "Outcome": row.outcome.replace("_", " ") or words.NOTHING,
            "E2E ms": milliseconds(row.e2e_seconds),
            "TTFT ms": milliseconds(row.ttft_seconds),
            "Queue ms": milliseconds(row.queue_seconds),
            "Phases": phase_bar(_parts(row), colours),
            "Prompt": row.prompt_tokens or None,
            "Output": row.completion_tokens or None,
            "Gap max ms": milliseconds(row.itl_max_seconds),
            "Instance": row.instance or words.NOTHING,
            "Status": row.status or None,
            "Request": words.short(row.request_id, 16),
            "Source": f"recording {row.recording}" if row.recording else "live",
        }
        for row in rows
    ])  # fmt: skip


def _parts(row: RequestRow) -> list[tuple[str, float]]:
    parts = [(name, max(getattr(row, f"{name}_seconds") or 0.0, 0.0)) for name, _ in PHASES]
    rest = max(row.unaccounted_seconds or 0.0, 0.0)
    return [*parts, ("unaccounted", rest)]


def _met(rows: list[RequestRow]) -> list[str]:
    seen = {name for row in rows for name, seconds in _parts(row) if seconds}
    return [name for name in (*(name for name, _ in PHASES), "unaccounted") if name in seen]


def _bound(name: Literal["at_least", "below"]) -> float | None:
    text = st.query_params.get(name)
    try:
        return float(text) if text else None
    except ValueError:
        return None
