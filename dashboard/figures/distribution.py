"""How a latency is distributed: over a window, and over time."""

from __future__ import annotations

import math
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from dashboard import escape, words
from dashboard.figures.base import HEIGHT, Style, at_utc, blank, clock, decorate, distance, local, log_ticks, y_axis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import plotly.graph_objects as go

_GAP: Final = 1.005
_FULL: Final = 10
"""Requests that a cell of the strongest tone holds at least: of few, none looks like many."""


def histogram(
    edges: Sequence[float],
    counts: Sequence[int],
    style: Style,
    *,
    title: str,
    colour: str,
    cuts: Mapping[str, float | None] | None = None,
    height: int = HEIGHT,
) -> go.Figure:
    """Bars over buckets on a logarithmic axis of seconds; ``cuts`` are percentiles drawn as thin lines."""
    figure = blank(style, title, "requests", height)
    bounds = drawable(edges)
    labels = [
        f"{words.seconds(low) if low else '0'} to {words.seconds(high) if math.isfinite(high) else 'more'}"
        f"<br>{words.plural(number, 'request')}"
        for (low, high), number in zip(pairwise(edges), counts, strict=True)
    ]
    # Plotly takes a bar's middle and width as amounts, also on a logarithmic axis: the hair of a gap is a factor
    sides = [(low * _GAP, high / _GAP) for low, high in pairwise(bounds)]
    figure.add_bar(
        x=[(low + high) / 2 for low, high in sides], y=list(counts), width=[high - low for low, high in sides],
        marker={"color": colour, "line": {"width": 0}}, customdata=labels,
        meta={"name": "", "compared": "line"}, hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    for name, cut in (cuts or {}).items():
        if cut is not None and cut > 0:
            figure.add_vline(
                x=math.log10(cut), line={"color": style.colours.quiet, "width": 1},
                annotation={
                    "text": f"{escape.figure(name)} {words.seconds(cut)}",
                    "font": {"size": 11, "color": style.colours.quiet},
                },
                annotation_position="top right",
            )  # fmt: skip
    used = [index for index, number in enumerate(counts) if number]
    low, high = (bounds[used[0]], bounds[used[-1] + 1]) if used else (1e-3, 1.0)
    figure.update_xaxes(
        type="log", range=[math.log10(low) - 0.05, math.log10(high) + 0.05], showgrid=False, showspikes=False,
        **log_ticks(low, high),
    )  # fmt: skip
    figure.update_layout(hovermode="closest", bargap=0.02, margin_r=24)
    y_axis(figure, "count", max(counts, default=0))
    return figure


def heatmap(
    times: Sequence[datetime],
    edges: Sequence[float],
    counts: Sequence[Sequence[int]],
    style: Style,
    *,
    title: str,
    step: float | None = None,
    height: int = 280,
) -> go.Figure:
    """Time × latency; colour grows with the logarithm of the count, and an empty cell alone is the page itself.

    A cell is drawn from the start of its step (``step`` seconds, else the distance of the times) to its end, and from
    its lower edge to its upper one.
    """
    figure = blank(style, title, "seconds", height)
    bounds = drawable(edges)
    wide = timedelta(seconds=step) if step else distance(times, style)
    ramp = style.colours.ramp
    most = max(_FULL, *(number for row in counts for number in row))
    shown = _tones(counts, 1 / (len(ramp) - 1), most)
    clocks = [f"{at_utc(at, style)}<br>{clock(at, style)} to {clock(at + wide, style)}" for at in times]
    hover = [
        [
            f"{words.seconds(low)} to {words.seconds(high) if math.isfinite(high) else 'more'}"
            f"<br>{words.plural(number, 'request')}{told}"
            for number, told in zip(row, clocks, strict=True)
        ]
        for (low, high), row in zip(pairwise(edges), counts, strict=True)
    ]
    figure.add_heatmap(
        x=[local(at, style) for at in [*times, *([times[-1] + wide] if times else [])]], y=bounds, z=shown,
        customdata=hover, showscale=False, zmin=0, zmax=1, hoverongaps=False, xgap=0.5, ygap=0.5,
        colorscale=[(index / (len(ramp) - 1), colour) for index, colour in enumerate(ramp)],
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    decorate(figure, style)
    used = [index for index, row in enumerate(counts) if any(row)]
    low, high = (bounds[used[0]], bounds[used[-1] + 1]) if used else (1e-3, 1.0)
    figure.update_yaxes(
        type="log", range=[math.log10(low) - 0.08, math.log10(high) + 0.08], **log_ticks(low, high), showgrid=False
    )
    figure.update_layout(hovermode="closest", dragmode="select", meta={"most": most})
    return figure


def alike(one: go.Figure, other: go.Figure) -> None:
    """Give two heatmaps the same shades for the same counts."""
    most = max(figure.layout.meta["most"] for figure in (one, other))
    for figure in (one, other):
        shrunk = math.log(figure.layout.meta["most"]) / math.log(most)
        for trace in figure.data:
            if trace.type == "heatmap":
                faintest = 1 / (len(trace.colorscale) - 1)
                trace.z = [[None if z is None else faintest + (z - faintest) * shrunk for z in row] for row in trace.z]


def drawable(edges: Sequence[float]) -> list[float]:
    """Edges that a logarithmic axis can show: half the smallest stands for 0, twice the largest for infinity."""
    smallest = next((edge for edge in edges if 0 < edge < math.inf), 1e-3)
    largest = max((edge for edge in edges if edge < math.inf), default=smallest) or smallest
    return [smallest / 2 if edge <= 0 else largest * 2 if math.isinf(edge) else edge for edge in edges]


def _tones(counts: Sequence[Sequence[int]], faintest: float, most: int) -> list[list[float | None]]:
    """From ``faintest``, for a single request, to 1; Plotly keeps to a scale only where both of its ends are named."""
    return [
        [faintest + (1 - faintest) * math.log(number) / math.log(most) if number else None for number in row]
        for row in counts
    ]
