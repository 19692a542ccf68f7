"""Latency: how long requests take, how that is distributed, and where the time goes."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import streamlit as st

from analytics.signals import SIGNALS
from dashboard import words
from dashboard.drawings import phase_stack
from dashboard.figures import Trace, heatmap, histogram, lines, percentiles
from dashboard.panel import panel
from dashboard.shell import Look, page, zone
from dashboard.theme import colour_of, has_colour

if TYPE_CHECKING:
    from analytics.latency import Heatmap, Histogram, Percentiles

SHOWN: Final = ("ttft_seconds", "e2e_seconds", "itl_mean_seconds", "tpot_seconds", "queue_seconds", "prefill_seconds",
                "decode_seconds", "compute_infer_seconds")  # fmt: skip
_BY: Final = {"all": "All together", "model": "By model", "instance": "By instance", "tenant": "By tenant"}
_COLOUR: Final = {"ttft": "prefill", "e2e": "decode", "itl_mean": "decode", "tpot": "decode"}
MISSING: Final = (
    "Request rows come from the tap: send your clients through the tap's port, or send OpenTelemetry spans to the "
    "collector. Histograms come from an agent that scrapes vLLM."
)


def draw() -> None:
    """The latency page."""
    page("How long do requests take?", _body)


def _body(look: Look) -> None:
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        signal = st.selectbox(
            "Latency", list(SHOWN), key="signal", bind="query-params", width=330, index=1,
            format_func=lambda name: SIGNALS[name].title, label_visibility="collapsed",
        ) or "e2e_seconds"  # fmt: skip
        by = st.segmented_control(
            "Split", list(_BY), key="by", default="all", required=True, format_func=_BY.__getitem__,
            label_visibility="collapsed", bind="query-params",
        ) or "all"  # fmt: skip
    title = SIGNALS[signal].title
    panel(
        "percentiles", "latency.percentiles", look.window, look.filter,
        lambda result: _percentiles(result, look, title), missing=MISSING,
        has_data=lambda result: bool(result.lines), signal=signal, by=by,
        about="Percentiles over the requests that arrived in each step; exact where every request has a row.",
    )  # fmt: skip
    chosen = panel(
        "heatmap", "latency.heatmap", look.window, look.filter, lambda result: _heatmap(result, look, title),
        missing=MISSING, has_data=lambda result: any(any(row) for row in result.counts), select=True, signal=signal,
        about="How many requests took how long, over time. Two bands are two populations that a percentile hides.",
    )  # fmt: skip
    _selected(chosen, signal)
    with st.container(horizontal=True, gap="small"):
        with st.container(key="half-histogram"):
            panel(
                "histogram", "latency.histogram", look.window, look.filter,
                lambda result: _histogram(result, look, title, signal), missing=MISSING,
                has_data=lambda result: bool(sum(result.counts)), signal=signal,
                about="Distribution over the whole window; buckets are a fifth of an octave where rows exist.",
            )  # fmt: skip
        with st.container(key="half-phases"):
            panel(
                "phases", "latency.phases", look.window, look.filter, lambda result: phase_stack(result, look),
                missing=MISSING, has_data=lambda result: bool(result.phases),
                about="Mean seconds per phase; the phases add up to the end-to-end time.",
            )  # fmt: skip


def colour(signal: str, look: Look) -> str:
    """Colour of a latency: its phase's own."""
    name = signal.removesuffix("_seconds")
    return colour_of(_COLOUR.get(name, name if has_colour(name) else "decode"), look.style.colours)


def _percentiles(result: Percentiles, look: Look, title: str) -> object:
    name = result.signal.removesuffix("_seconds")
    own = _COLOUR.get(name, name if has_colour(name) else "decode")
    first = result.lines[0]
    if result.by == "all" and first.exactness != "means":
        values = {"p50": first.p50, "p90": first.p90, "p95": first.p95, "p99": first.p99}
        return percentiles(
            result.times, values, look.style, title=title, signal=own, counts=first.count, log=True, height=260
        )
    palette = look.style.colours.series
    traces = [
        Trace(
            f"{line.name or 'all'} {'mean' if line.exactness == 'means' else 'p99'}",
            line.mean if line.exactness == "means" else line.p99,
            palette[index % len(palette)],
            dash="dot" if line.exactness == "means" else "",
            text=[words.plural(number, "request") for number in line.count],
        )
        for index, line in enumerate(result.lines)
    ]
    return lines(result.times, traces, look.style, title=f"{title}, p99", unit="seconds", log=True, height=260)


def _heatmap(result: Heatmap, look: Look, title: str) -> object:
    return heatmap(result.times, result.edges, result.counts, look.style, title=title)


def _histogram(result: Histogram, look: Look, title: str, signal: str) -> object:
    return histogram(
        result.edges, result.counts, look.style, title=f"{title}, distribution", colour=colour(signal, look)
    )


def _selected(state: Any, signal: str) -> None:
    boxes = state.selection.get("box", []) if state else []
    if not boxes:
        st.caption("Draw a box on the heatmap to list the requests in it.")
        return
    x, y = boxes[0]["x"], boxes[0]["y"]
    start, end = sorted(_local(str(edge)) for edge in x)
    low, high = sorted(float(edge) for edge in y)
    query = {
        "from": f"{start.timestamp():.3f}", "to": f"{end.timestamp():.3f}", "order_by": signal,
        "at_least": f"{low:.6g}", "below": f"{high:.6g}",
    }  # fmt: skip
    st.markdown(
        f"[Requests from {words.seconds(low)} to {words.seconds(high)}, {start:%H:%M:%S} to {end:%H:%M:%S}]"
        f"(requests_list?{urlencode(query)})"
    )


def _local(text: str) -> datetime:

    return datetime.fromisoformat(text[:26].replace(" ", "T")).replace(tzinfo=zone())
