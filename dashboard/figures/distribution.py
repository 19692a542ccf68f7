"""How a latency is distributed: over a window, and over time."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from dashboard import escape, words
from dashboard.figures.base import HEIGHT, Style, at_utc, blank, decorate, local, log_ticks, y_axis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import plotly.graph_objects as go


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
    finite = [edge if math.isfinite(edge) else edges[index - 1] * 2 for index, edge in enumerate(edges)]
    smallest = next((edge for edge in finite if edge > 0), 1e-3)
    lows = [low if low > 0 else smallest / 2 for low in finite[:-1]]
    centres = [math.sqrt(low * high) for low, high in zip(lows, finite[1:], strict=True)]
    labels = [
        f"{words.seconds(low) if low else '0'} to {words.seconds(high) if math.isfinite(high) else 'more'}"
        f"<br>{words.plural(number, 'request')}"
        for (low, high), number in zip(pairwise(edges), counts, strict=True)
    ]
    figure.add_bar(
        x=centres, y=list(counts), width=[(high - low) * 0.94 for low, high in zip(lows, finite[1:], strict=True)],
        marker={"color": colour, "line": {"width": 0}}, customdata=labels,
        hovertemplate="%{customdata}<extra></extra>",
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
    low, high = (lows[used[0]], finite[used[-1] + 1]) if used else (1e-3, 1.0)
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
    height: int = 280,
) -> go.Figure:
    """Time × latency; colour grows with the logarithm of the count, and an empty cell is the page itself."""
    figure = blank(style, title, "seconds", height)
    finite = [edge if math.isfinite(edge) else edges[index - 1] * 2 for index, edge in enumerate(edges)]
    smallest = next((edge for edge in finite if edge > 0), 1e-3)
    y = [math.sqrt((low or smallest / 2) * high) for low, high in pairwise(finite)]
    shown = [[math.log1p(number) if number else None for number in row] for row in counts]
    clocks = [at_utc(moment, style) for moment in times]
    hover = [
        [
            f"{words.seconds(low)} to {words.seconds(high) if math.isfinite(high) else 'more'}"
            f"<br>{words.plural(number, 'request')}{clock}"
            for number, clock in zip(row, clocks, strict=True)
        ]
        for (low, high), row in zip(pairwise(edges), counts, strict=True)
    ]
    ramp = style.colours.ramp
    figure.add_heatmap(
        x=[local(moment, style) for moment in times], y=y, z=shown, customdata=hover, showscale=False, zmin=0,
        colorscale=[(index / (len(ramp) - 1), colour) for index, colour in enumerate(ramp)], hoverongaps=False,
        xgap=0.5, ygap=0.5, hovertemplate="%{customdata}<br>%{x|%H:%M:%S}<extra></extra>",
    )  # fmt: skip
    decorate(figure, style)
    used = [index for index, row in enumerate(counts) if any(row)]
    low = (finite[used[0]] or smallest / 2) if used else 1e-3
    high = finite[used[-1] + 1] if used else 1.0
    figure.update_yaxes(
        type="log", range=[math.log10(low) - 0.08, math.log10(high) + 0.08], **log_ticks(low, high), showgrid=False
    )
    figure.update_layout(hovermode="closest", dragmode="select")
    return figure
