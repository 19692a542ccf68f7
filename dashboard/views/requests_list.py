"""Requests: the very ones, slowest first, and the story of one of them."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import pandas as pd
import streamlit as st

from analytics.signals import SIGNALS
from dashboard import words
from dashboard.data import ask
from dashboard.panel import empty, foot, guarded
from dashboard.shell import Look, page
from dashboard.tables import milliseconds, numbers
from dashboard.views.one_request import PHASES, tell

if TYPE_CHECKING:
    from analytics.request_row import RequestRow

MISSING: Final = (
    "Request rows come from the tap: send your clients through the tap's port (`servescope up` prints it), or point "
    "any OpenTelemetry SDK at the collector."
)
_ORDER: Final = {"slowest": "Slowest first", "newest": "Newest first"}
_LIMIT: Final = 200


def draw() -> None:
    """The list, or one request when the URL names it."""
    if st.query_params.get("request"):
        tell()
    else:
        page("Which requests?", _body)


def _body(look: Look) -> None:
    guarded("requests", lambda: _list(look))


def _list(look: Look) -> None:
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        order = st.segmented_control(
            "Order", list(_ORDER), key="order", default="slowest", required=True, format_func=_ORDER.__getitem__,
            label_visibility="collapsed", bind="query-params",
        ) or "slowest"  # fmt: skip
        signals = [name for name in SIGNALS if not name.startswith("compute_in")]
        signal = st.selectbox(
            "By", signals, key="order_by", index=signals.index("e2e_seconds"), width=300, bind="query-params",
            format_func=lambda name: SIGNALS[name].title, label_visibility="collapsed",
        ) or "e2e_seconds"  # fmt: skip
        known = look.choices.outcomes if look.choices else []
        outcome = st.multiselect(
            "Outcome", sorted({*known, *st.query_params.get_all("outcome")}), key="outcome", bind="query-params",
            placeholder="Any outcome", width=220, label_visibility="collapsed",
        )  # fmt: skip
        wanted = st.text_input(
            "Find", key="find", placeholder="Trace id or request id", width=260, label_visibility="collapsed",
            bind="query-params",
        )  # fmt: skip
    low, high = _bound("at_least"), _bound("below")
    if low is not None or high is not None:
        st.caption(f"Only from {words.seconds(low or 0)} to {words.seconds(high)}, as drawn on the heatmap")
    answer = ask(
        "requests.find", look.window, look.filter, order=order, signal=signal, outcome=tuple(outcome), at_least=low,
        below=high, limit=_LIMIT, **_ids((wanted or "").strip()),
    )  # fmt: skip
    rows: list[RequestRow] = answer.result.requests
    if not rows:
        empty("no_data" if answer.state == "no_data" else "no_traffic", MISSING)
        foot("requests", answer)
        return
    shown = f"{words.plural(answer.result.matching, 'request')} match"
    st.caption(shown if answer.result.matching <= len(rows) else f"{shown}; the first {len(rows)} are listed")
    frame = _frame(rows)
    state = st.dataframe(
        frame, hide_index=True, placeholder=words.NOTHING, key="requests", on_select="rerun",
        selection_mode="single-row", height=620,
        column_config=numbers(frame, Phases=st.column_config.BarChartColumn(
                "Phases, share", help=", ".join(name for name, _ in PHASES), y_min=0, y_max=1, width="small"
            )),
    )  # fmt: skip
    foot("requests", answer, "One row a request: what its client felt and what the engine says of it.")
    chosen = cast("Any", state).selection.rows
    if chosen:
        row = rows[chosen[0]]
        st.query_params["request"] = row.key
        st.query_params["at"] = f"{row.time.timestamp():.3f}"
        st.rerun(scope="app")


def _frame(rows: list[RequestRow]) -> pd.DataFrame:
    return pd.DataFrame([
        {
            "Time": row.time.astimezone(UTC).strftime("%H:%M:%S.%f")[:-3],
            "Model": row.model,
            "Tenant": row.tenant or words.NOTHING,
            "Outcome": row.outcome or words.NOTHING,
            "E2E ms": milliseconds(row.e2e_seconds),
            "TTFT ms": milliseconds(row.ttft_seconds),
            "Queue ms": milliseconds(row.queue_seconds),
            "Phases": _shares(row),
            "Prompt": row.prompt_tokens or None,
            "Output": row.completion_tokens or None,
            "Gap max ms": milliseconds(row.itl_max_seconds),
            "Instance": row.instance,
            "Status": row.status or None,
            "Request": words.short(row.request_id, 16),
            "Source": f"recording {row.recording}" if row.recording else "live",
        }
        for row in rows
    ])  # fmt: skip


def _shares(row: RequestRow) -> list[float]:
    parts = [max(getattr(row, f"{name}_seconds") or 0.0, 0.0) for name, _ in PHASES]
    whole = sum(parts)
    return [part / whole for part in parts] if whole else []


def _ids(wanted: str) -> dict[str, str]:
    if len(wanted) == 32 and all(letter in "0123456789abcdef" for letter in wanted.lower()):  # noqa: PLR2004 - a trace id
        return {"trace_id": wanted.lower()}
    return {"request_id": wanted} if wanted else {}


def _bound(name: Literal["at_least", "below"]) -> float | None:
    text = st.query_params.get(name)
    try:
        return float(text) if text else None
    except ValueError:
        return None
