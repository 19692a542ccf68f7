"""Latency: how long requests take, how that is distributed, and where the time goes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import streamlit as st

from analytics.signals import SIGNALS
from analytics.window import Window
from dashboard import words
from dashboard.data import ask
from dashboard.drawings import phase_stack
from dashboard.figures import Trace, heatmap, histogram, lines, percentiles
from dashboard.look import link, zone
from dashboard.panel import panel, tiles
from dashboard.shell import page
from dashboard.theme import colour_of, has_colour
from dashboard.tiles import Tile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analytics.latency import Heatmap, Histogram, Percentiles
    from dashboard.data import Question
    from dashboard.look import Look

SHOWN: Final = ("ttft_seconds", "e2e_seconds", "itl_mean_seconds", "tpot_seconds", "queue_seconds", "prefill_seconds",
                "decode_seconds", "compute_infer_seconds")  # fmt: skip
_BY: Final = {"all": "All together", "model": "By model", "instance": "By instance", "tenant": "By tenant"}
_COLOUR: Final = {"ttft": "prefill", "e2e": "decode", "itl_mean": "decode", "tpot": "decode"}
MISSING: Final = (
    "Request rows come from the tap: send your clients through the tap's port, or send OpenTelemetry spans to the "
    "collector. Histograms come from an agent that scrapes vLLM."
)

QUESTION: Final = "How long do requests take?"
"""Title of the page."""


def draw() -> None:
    """The latency page."""
    page(_body, needs=_needs)


def _needs() -> list[Question]:
    signal, by = st.session_state.get("signal") or "e2e_seconds", st.session_state.get("by") or "all"
    return [
        ("latency.percentiles", {"signal": signal, "by": "all"}),
        *([("latency.percentiles", {"signal": signal, "by": by})] if by != "all" else []),
        ("latency.heatmap", {"signal": signal}),
        ("latency.histogram", {"signal": signal}),
        ("latency.phases", {}),
    ]


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
    tiles(look, "tiles", lambda: _tiles(look, signal))
    panel(
        "percentiles", "latency.percentiles", look,
        lambda result: _percentiles(result, look, title), missing=MISSING,
        has_data=lambda result: bool(result.lines), signal=signal, by=by,
        about="Percentiles over the requests that arrived in each step; exact where every request has a row.",
    )  # fmt: skip
    chosen = panel(
        "heatmap", "latency.heatmap", look, lambda result: _heatmap(result, look, title),
        missing=MISSING, has_data=lambda result: any(any(row) for row in result.counts), select=True, signal=signal,
        about="How many requests took how long, over time. Two bands are two populations that a percentile hides.",
    )  # fmt: skip
    _selected(chosen, signal, look)
    panel(
        "histogram", "latency.histogram", look, lambda result: _histogram(result, look, title, signal),
        missing=MISSING, has_data=lambda result: bool(sum(result.counts)), signal=signal,
        about="Distribution over the whole window; buckets are a quarter of an octave where rows exist.",
    )  # fmt: skip
    panel(
        "phases", "latency.phases", look, lambda result: phase_stack(result, look),
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
    return heatmap(result.times, result.edges, result.counts, look.style, title=f"{title}, every request")


def _histogram(result: Histogram, look: Look, title: str, signal: str) -> object:
    return histogram(
        result.edges, result.counts, look.style, title=f"{title}, distribution", colour=colour(signal, look)
    )


def _tiles(look: Look, signal: str) -> list[Tile]:
    found: Percentiles = ask("latency.percentiles", look.window, look.filter, signal=signal, by="all").result
    if not found.lines:
        return []
    line = found.lines[0]
    shown = [
        Tile(name, words.seconds(line.total.get(name)), line=getattr(line, name))
        for name in ("p50", "p90", "p95", "p99")
    ]
    return [
        *(shown if line.exactness != "means" else []),
        Tile("Mean", words.seconds(line.total.get("mean")), line=line.mean),
        Tile("Longest", words.seconds(line.total.get("max")), help="The slowest request of the window"),
        Tile("Requests", words.count(line.total.get("count")), line=line.count),
    ]


def _selected(state: Any, signal: str, look: Look) -> None:
    boxes = state.selection.get("box", []) if state else []
    if bool(boxes) != bool(st.session_state.get("selecting")):  # a chosen box holds the live page still
        st.session_state["selecting"] = bool(boxes)
        st.rerun(scope="app")
    if not boxes:
        st.caption("Draw a box on the heatmap to list the requests in it.")
        return
    window, low, high = box_of(boxes[0], look.window)
    address = link(
        "requests", window, look.filter, order_by=SIGNALS[signal].title, at_least=f"{low:.6g}", below=f"{high:.6g}"
    )  # fmt: skip
    st.markdown(
        f"[List the requests from {words.seconds(low)} to {words.seconds(high)}, "
        f"{words.span(window.start, window.end, zone())}]({address}) :gray[· a double click on the heatmap lets go]"
    )


def box_of(box: Mapping[str, Any], whole: Window) -> tuple[Window, float, float]:
    """Window and bounds in seconds of a box drawn on the heatmap, whose corners come in any order.

    Args:
        box: ``{"x": [time, time], "y": [seconds, seconds]}`` with times in the viewer's zone.
        whole: The page's window, which the box never leaves.
    """
    start, end = sorted(_local(str(edge)) for edge in box["x"])
    low, high = sorted(float(edge) for edge in box["y"])
    start, end = max(start, whole.start), min(end, whole.end)
    return Window(start, max(end, start + timedelta(milliseconds=1))), low, high


def _local(text: str) -> datetime:
    return datetime.fromisoformat(text[:26].replace(" ", "T")).replace(tzinfo=zone())
