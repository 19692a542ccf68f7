"""Latency: how long requests take, how that is distributed, and where the time goes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlencode

import streamlit as st

from analytics.selection import LatencyRange
from analytics.signals import SIGNALS
from analytics.window import Window
from dashboard import words
from dashboard.data import ask
from dashboard.drawings import PHASES, phase_stack
from dashboard.figures import Trace, daytime, heatmap, histogram, lines, percentiles
from dashboard.figures.distribution import drawable
from dashboard.links import link
from dashboard.panel import panel, tiles
from dashboard.selected import DIFFERENT, WHY
from dashboard.shell import page
from dashboard.theme import colour_of, has_colour
from dashboard.tiles import Tile, change_in_words
from dashboard.viewer import zone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from analytics.questions.heatmap import Heatmap
    from analytics.questions.histogram import Histogram
    from analytics.questions.latency import Percentiles
    from analytics.signals import LatencySignal
    from dashboard.data import Question
    from dashboard.page_context import PageContext

SHOWN: Final = ("ttft_seconds", "e2e_seconds", "itl_mean_seconds", "tpot_seconds", "queue_seconds", "prefill_seconds",
                "decode_seconds", "compute_infer_seconds")  # fmt: skip
_BY: Final = {"all": "All together", "model": "By model", "instance": "By instance", "tenant": "By tenant"}
_COLOUR: Final = {"ttft": "prefill", "e2e": "decode", "itl_mean": "decode", "tpot": "decode"}
MISSING: Final = (
    "Request rows come from the tap: send your clients through the tap's port, or send OpenTelemetry spans to the "
    "collector. Histograms come from an agent that scrapes vLLM."
)

_INSTANT: Final = timedelta(milliseconds=1)
TITLE: Final = "Latency"
"""In the navigation."""
PLACE: Final = 10
"""Order in the navigation, the front page first."""
QUESTION: Final = "How long do requests take?"
"""Over the page."""
COMPARE: Final = True
"""Whether the page compares with an earlier period or another version."""


def draw() -> None:
    """The latency page."""
    page(_body, arriving=True, needs=_needs, compared=_needs)


def _needs() -> list[Question]:
    signal, by = st.session_state.get("signal") or "e2e_seconds", st.session_state.get("by") or "all"
    return [
        ("latency", {"signal": signal, "by": "all"}),
        *([("latency", {"signal": signal, "by": by})] if by != "all" else []),
        ("heatmap", {"signal": signal}),
        ("histogram", {"signal": signal}),
        ("phases", {}),
    ]


def _body(context: PageContext) -> None:
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
    tiles(context, "tiles", lambda: _tiles(context, signal))
    panel(
        "percentiles", "latency", context,
        lambda result: _percentiles(result, context, title), missing=MISSING, title=title,
        has_data=lambda result: bool(result.lines), signal=signal, by=by,
        about="Percentiles over the requests that arrived in each step; exact where every request has a row.",
    )  # fmt: skip
    chosen = panel(
        "heatmap", "heatmap", context, lambda result: _heatmap(result, context, title),
        missing=MISSING, title=f"{title}, every request",
        has_data=lambda result: any(any(row) for row in result.counts), select=True, signal=signal,
        about="How many requests took how long, over time. Two bands are two populations that a percentile hides.",
    )  # fmt: skip
    _selected(chosen, signal, context)
    panel(
        "histogram", "histogram", context, lambda result: _histogram(result, context, title, signal),
        missing=MISSING, title=f"{title}, distribution",
        has_data=lambda result: bool(sum(result.counts)), signal=signal,
        about="Distribution over the whole window; buckets are a quarter of an octave where rows exist.",
    )  # fmt: skip
    panel(
        "phases", "phases", context, lambda result: phase_stack(result, context),
        missing=MISSING, title=PHASES, has_data=lambda result: bool(result.phases),
        about="Mean seconds per phase; the phases add up to the end-to-end time.",
    )  # fmt: skip


def colour(signal: str, context: PageContext) -> str:
    """Colour of a latency: its phase's own."""
    name = signal.removesuffix("_seconds")
    return colour_of(_COLOUR.get(name, name if has_colour(name) else "decode"), context.style.colours)


def _percentiles(result: Percentiles, context: PageContext, title: str) -> object:
    name = result.signal.removesuffix("_seconds")
    own = _COLOUR.get(name, name if has_colour(name) else "decode")
    first = result.lines[0]
    if result.by == "all" and first.exactness != "means":
        values = {"p50": first.p50, "p90": first.p90, "p95": first.p95, "p99": first.p99}
        return percentiles(
            result.times, values, context.arrivals, title=title, signal=own, counts=first.count, log=True, height=260
        )
    palette = context.style.colours.series
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
    return lines(result.times, traces, context.arrivals, title=f"{title}, p99", unit="seconds", log=True, height=260)


def _heatmap(result: Heatmap, context: PageContext, title: str) -> object:
    return heatmap(
        result.times, result.edges, result.counts, context.arrivals, title=f"{title}, every request", step=result.step
    )


def _histogram(result: Histogram, context: PageContext, title: str, signal: str) -> object:
    return histogram(
        result.edges, result.counts, context.style, title=f"{title}, distribution", colour=colour(signal, context)
    )


def _tiles(context: PageContext, signal: str) -> list[Tile]:
    found: Percentiles = ask("latency", context.selection, signal=signal, by="all").result
    if not found.lines:
        return []
    line, before = found.lines[0], _before(context, signal)

    def changed(name: str, unit: str = "seconds") -> str:
        return change_in_words(line.total.get(name), before.get(name), unit, context.against)

    shown = [
        Tile(name, words.seconds(line.total.get(name)), changed(name), line=getattr(line, name))
        for name in ("p50", "p90", "p95", "p99")
    ]
    return [
        *(shown if line.exactness != "means" else []),
        Tile("Mean", words.seconds(line.total.get("mean")), changed("mean"), line=line.mean),
        Tile("Longest", words.seconds(line.total.get("max")), changed("max"), help="The slowest request of the window"),
        Tile("Requests", words.count(line.total.get("count")), changed("count", "count"), line=line.count),
    ]


def _before(context: PageContext, signal: str) -> Mapping[str, float | None]:
    """The same figures of what the page compares with; none where there is nothing."""
    if context.reference is None:
        return {}
    found: Percentiles = ask("latency", context.reference, signal=signal, by="all").result
    return found.lines[0].total if found.lines else {}


def _selected(state: Any, signal: str, context: PageContext) -> None:
    boxes = state.selection.get("box", []) if state else []
    if bool(boxes) != bool(st.session_state.get("selecting")):  # a chosen box holds the live page still
        st.session_state["selecting"] = bool(boxes)
        st.rerun(scope="app")
    if not boxes:
        if state:
            st.caption("Draw a box on the heatmap to list the requests in it.")
        return
    result: Heatmap = ask("heatmap", context.selection, signal=signal).result
    chosen = cells_in(result, context.window, *box_of(boxes[0], context.window))
    if chosen is None:
        st.caption("No request is in that box.")
        return
    among = LatencyRange(cast("LatencySignal", signal), chosen.low, chosen.high if math.isfinite(chosen.high) else None)
    address = link("requests", context.selection.but(window=chosen.window, latency=among))
    above = f"to {words.seconds(chosen.high)}" if math.isfinite(chosen.high) else "up"
    further = " · ".join(f"[{told}]({address}&{urlencode({'show': told})})" for told in (DIFFERENT, WHY))
    st.markdown(
        f"[List the requests from {words.seconds(chosen.low)} {above}, "
        f"{words.span(chosen.window.start, chosen.window.end, zone())}]({address}) "
        f":gray[· {words.plural(chosen.requests, 'request')} ·] {further} "
        ":gray[· a double click on the heatmap lets go]"
    )


@dataclass(frozen=True, slots=True)
class Cells:
    """Whole cells of the heatmap: their time, their latencies in seconds (``high`` excluded), the requests in them."""

    window: Window
    low: float
    high: float
    requests: int


def box_of(box: Mapping[str, Any], whole: Window) -> tuple[Window, float, float]:
    """Window and bounds in seconds of a box drawn on the heatmap, whose corners come in any order.

    Args:
        box: ``{"x": [time, time], "y": [seconds, seconds]}`` with times as the figure draws them.
        whole: The page's window, which the box never leaves.
    """
    start, end = sorted(_meant(str(edge), whole) for edge in box["x"])
    low, high = sorted(float(edge) for edge in box["y"])
    start = min(max(start, whole.start), whole.end - _INSTANT)
    return Window(start, max(min(end, whole.end), start + _INSTANT)), low, high


def cells_in(result: Heatmap, whole: Window, window: Window, low: float, high: float) -> Cells | None:
    """The cells that a box covers by half or more, at least the one it lies in; None where nothing was ever counted.

    A list of requests is asked for by the edges of cells, so that it has just those that the heatmap counts there.
    """
    if not result.counts:
        return None
    step, first = timedelta(seconds=result.step), result.times[0]
    columns = _covered((window.start - first) / step, (window.end - first) / step, len(result.times))
    bounds = drawable(result.edges)
    places = [_place(bounds, value) for value in (low, high)]
    rows = _covered(places[0], places[1], len(result.counts))
    counted = sum(result.counts[row][column] for row in rows for column in columns)
    start, end = first + columns[0] * step, first + (columns[-1] + 1) * step
    span = Window(max(start, whole.start), min(end, whole.end))
    return Cells(span, result.edges[rows[0]], result.edges[rows[-1] + 1], counted)


def _covered(begin: float, end: float, number: int) -> range:
    """Cells whose middle lies between two places, counted in cells; the one in the middle when there is none."""
    first, last = math.ceil(begin - 0.5), math.ceil(end - 0.5)
    if last <= first:
        first = math.floor((begin + end) / 2)
        last = first + 1
    first = min(max(first, 0), number - 1)
    return range(first, min(max(last, first + 1), number))


def _place(bounds: Sequence[float], value: float) -> float:
    """Where a value lies among bounds, on the logarithmic axis, counted in cells."""
    if value <= bounds[0]:
        return 0.0
    for index, (low, high) in enumerate(pairwise(bounds)):
        if value < high:
            return index + math.log(value / low) / math.log(high / low)
    return float(len(bounds) - 1)


def _meant(text: str, whole: Window) -> datetime:
    """A time of the figure's axis; Plotly writes ISO 8601 with up to ten digits of a second's fraction."""
    return daytime.meant(datetime.fromisoformat(text[:26].replace(" ", "T")), (whole.start, whole.end), zone())
