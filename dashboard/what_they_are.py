"""What selected requests are: how they end, by which routes they come and with which status, and how long they are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pandas as pd
import streamlit as st

from dashboard import words
from dashboard.data import ask
from dashboard.figures import Share, Trace, shares, stack
from dashboard.panel import empty, foot, guarded, panel
from dashboard.tables import milliseconds, table

if TYPE_CHECKING:
    from analytics.questions.workload import Length, LengthBin, Way, Workload
    from analytics.selection import Selection
    from dashboard.page_context import PageContext

WHAT: Final = "What they are"
MISSING: Final = (
    "Endings, routes and lengths come from the tap: send your clients through its port (`servescope up` prints it)."
)
_WHOSE: Final = {
    "rows": "By arrival: the outcome of what failed, else why generation stopped.",
    "metrics": "As engines count why generation stopped, when it did; what they never saw is not in it.",
}


def what_they_are(context: PageContext, selection: Selection) -> None:
    """Charts and a table of the selected requests."""
    guarded(context, "workload", lambda: _draw(replace(context, selection=selection)))


def _draw(context: PageContext) -> None:
    answer = ask("workload", context.selection)
    told: Workload = answer.result
    with st.container(horizontal=True, gap="small"):
        with st.container(key="half-endings"):
            panel(
                "endings", "workload", context, lambda result: _endings(result, context), missing=MISSING,
                title="How requests end",
                has_data=lambda result: bool(result.endings),
                about=f"{_WHOSE[answer.level]} Answers that end by `length` are cut off.",
            )  # fmt: skip
        with st.container(key="half-lengths"):
            panel(
                "lengths", "workload", context, lambda result: _lengths(result, context), missing=MISSING,
                title="Prompts and answers by length",
                has_data=lambda result: bool(result.lengths),
                about="Share of prompts and of answers by their tokens, of those that have any. A bar begins at its "
                "number and ends before the next.",
            )  # fmt: skip
    if told.lengths:
        st.markdown("## Lengths in tokens")
        table(pd.DataFrame([_length(one) for one in told.lengths]), "lengths")
    st.markdown("## Routes by status, most requests first")
    if not told.ways:
        empty("value" if told.lengths or told.endings else answer.state, MISSING, answer.coverage)
        return
    table(pd.DataFrame([_way(one, sum(told.ended.values())) for one in told.ways]), "ways")
    foot("ways", answer, rows=told.ways)


def _endings(result: Workload, context: PageContext) -> object:
    palette = context.style.colours.series
    traces = [
        Trace(line.name.replace("_", " "), line.values, palette[index % len(palette)], hatched=index >= len(palette))
        for index, line in enumerate(result.endings)
    ]
    return stack(result.times, traces, context.arrivals, title="How requests end", unit="per_second")


def _lengths(result: Workload, context: PageContext) -> object:
    palette = context.style.colours.series
    drawn = [
        Share(
            one.name,
            {label(held): held.requests / one.requests for held in one.bins},
            [words.plural(held.requests, "request") for held in one.bins],
            palette[place],
        )
        for place, one in enumerate(result.lengths)
    ]
    order = sorted({(held.tokens_from, label(held)) for one in result.lengths for held in one.bins})
    return shares(
        drawn, [named for _, named in order], context.style, title="Prompts and answers by length", what="tokens"
    )


def label(held: LengthBin) -> str:
    """``64+``: bars are many, and their names must not touch."""
    return f"{held.tokens_from:,}+"


def _length(one: Length) -> dict[str, object]:
    return {
        "Of": f"{one.name}s", "Requests": one.requests, "p50": one.p50, "p95": one.p95, "p99": one.p99,
        "Largest": one.largest,
    }  # fmt: skip


def _way(one: Way, requests: int) -> dict[str, object]:
    return {
        "Route": one.route or "not seen at an edge",
        "Status": str(one.status) if one.status else words.NOTHING,
        "Requests": one.requests,
        "Share %": one.requests / requests * 100,
        "E2E mean ms": milliseconds(one.e2e_mean_seconds),
    }
