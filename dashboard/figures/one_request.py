"""One request: its phases, and the engine's state around it on the same axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboard import words
from dashboard.figures.base import Style, Trace, blank, hover, name_lines, peak, y_axis
from dashboard.theme import faded

if TYPE_CHECKING:
    from collections.abc import Sequence

    import plotly.graph_objects as go


def spans(
    rows: Sequence[tuple[str, float, float, str, str]],
    style: Style,
    *,
    title: str,
    total: float,
    height: int = 0,
) -> go.Figure:
    """Intervals of one request: ``(name, start, seconds, colour, hover)``, starts and axis in seconds since arrival."""
    figure = blank(style, title, "seconds since arrival", height or 70 + 26 * max(len(rows), 1))
    names = [row[0] for row in rows]
    figure.add_bar(
        y=names, base=[row[1] for row in rows], x=[row[2] for row in rows], orientation="h",
        marker={"color": [row[3] for row in rows], "line": {"width": 0}}, customdata=[row[4] for row in rows],
        text=[words.seconds(row[2]) for row in rows], textposition="outside", cliponaxis=False,
        textfont={"size": 11, "color": style.colours.quiet}, hovertemplate="%{y}: %{customdata}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(
        type="linear", range=[-0.01 * total, total * 1.12 or 1.0], tickformat="~s", ticksuffix="s", showgrid=True,
        gridcolor=style.colours.grid, showspikes=False,
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    figure.update_layout(hovermode="closest", bargap=0.35)
    return figure


def around(
    offsets: Sequence[float],
    traces: Sequence[Trace],
    style: Style,
    *,
    title: str,
    unit: str,
    span: tuple[float, float],
    request: tuple[float, float],
    top: float | None = None,
    height: int = 150,
) -> go.Figure:
    """Engine state around one request: x is seconds since its arrival, the request's own time is a band."""
    figure = blank(style, title, unit, height)
    for trace in traces:
        figure.add_scatter(
            x=list(offsets), y=list(trace.values), name=trace.name, mode="lines",
            line={"color": trace.colour, "width": trace.width, "shape": "hv"}, connectgaps=False,
            customdata=hover(trace, unit), hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
            showlegend=False,
        )  # fmt: skip
    name_lines(figure, list(offsets), traces, style)
    figure.add_vrect(
        x0=request[0], x1=request[1], fillcolor=faded(style.colours.accent, 0.10), line_width=0, layer="below"
    )
    figure.update_xaxes(type="linear", range=list(span), tickformat="~s", ticksuffix="s")
    y_axis(figure, unit, peak(traces), top=top)
    return figure
