"""Amounts over time: lines, percentiles as tints, stacked columns."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dashboard import escape, words
from dashboard.figures.base import (
    HEIGHT,
    Style,
    Trace,
    blank,
    decorate,
    distance,
    hover,
    legend,
    local,
    name_lines,
    peak,
    tell_utc,
    y_axis,
)
from dashboard.theme import colour_of, tints

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import plotly.graph_objects as go


def lines(
    times: Sequence[datetime],
    traces: Sequence[Trace],
    style: Style,
    *,
    title: str,
    unit: str,
    limit: tuple[float, str] | None = None,
    log: bool = False,
    top: float | None = None,
    height: int = HEIGHT,
) -> go.Figure:
    """Lines over time; ``limit`` draws an objective or a configured maximum as a broken line with its label."""
    figure = blank(style, title, unit, height)
    x = [local(moment, style) for moment in times]
    for trace in traces:
        present = sum(value is not None for value in trace.values)
        figure.add_scatter(
            x=x, y=list(trace.values), name=escape.figure(trace.name or title),
            mode="lines" if present > 1 else "lines+markers",
            line={"color": trace.colour, "width": trace.width, "dash": trace.dash or "solid"},
            connectgaps=False, hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
            customdata=hover(trace, unit), showlegend=False, meta=trace.meta,
        )  # fmt: skip
    name_lines(figure, x, traces, style, log=log)
    decorate(figure, style)
    tell_utc(figure, times, style)
    if limit is not None:
        figure.add_shape(
            type="line", x0=0, x1=1, xref="paper", y0=limit[0], y1=limit[0],
            line={"color": style.colours.at_risk, "width": 1, "dash": "dot"},
        )  # fmt: skip
        figure.add_annotation(
            x=1, xref="paper", xanchor="left", y=math.log10(limit[0]) if log else limit[0], yanchor="middle", xshift=4,
            text=escape.figure(limit[1]), showarrow=False, font={"size": 11, "color": style.colours.at_risk},
        )  # fmt: skip
    y_axis(figure, unit, peak(traces), log=log, top=top)
    return figure


def percentiles(
    times: Sequence[datetime],
    values: Mapping[str, Sequence[float | None]],
    style: Style,
    *,
    title: str,
    signal: str,
    counts: Sequence[float] = (),
    limit: tuple[float, str] | None = None,
    log: bool = False,
    height: int = HEIGHT,
) -> go.Figure:
    """Percentiles as tints of the signal's colour, the highest strongest."""
    shades = tints(style.colours, colour_of(signal, style.colours), len(values))
    text = [words.plural(number, "request") for number in counts]
    ends = {0, len(values) - 1}  # the lowest and the highest say how far apart they are
    traces = [
        Trace(
            name,
            line,
            shade,
            width=2.0 if index == len(values) - 1 else 1.6,
            text=text,
            compared="line" if index in ends else "hover",
        )
        for index, ((name, line), shade) in enumerate(zip(values.items(), shades, strict=True))
    ]
    return lines(times, traces, style, title=title, unit="seconds", limit=limit, log=log, height=height)


def stack(
    times: Sequence[datetime],
    traces: Sequence[Trace],
    style: Style,
    *,
    title: str,
    unit: str,
    height: int = HEIGHT,
    wide: bool = False,
) -> go.Figure:
    """Amounts that add up, as a column a step, from its start to its end; a step without data is a gap.

    Args:
        times: Starts of the steps.
        traces: What adds up, from the bottom to the top.
        style: As of all figures.
        title: Title.
        unit: Unit of the amounts.
        height: Pixels.
        wide: Whether the chart stands over the whole width of a page.
    """
    figure = blank(style, title, unit, height)
    x = [local(moment, style) for moment in times]
    step = (distance(times, style)).total_seconds() * 1000
    sums = [sum(trace.values[index] or 0.0 for trace in traces) for index in range(len(times))] if traces else []
    for trace in traces:
        pattern = {"shape": "/", "size": 5, "solidity": 0.3, "fgcolor": style.colours.quiet, "fillmode": "overlay"}
        figure.add_bar(
            x=x, y=[value if value is None else max(value, 0.0) for value in trace.values],
            width=step, offset=0, name=escape.figure(trace.name),
            marker={
                "color": trace.colour, "line": {"width": 0}, **({"pattern": pattern} if trace.hatched else {}),
            },
            hovertemplate="%{customdata}<extra>%{fullData.name}</extra>", customdata=hover(trace, unit),
            meta=trace.meta,
        )  # fmt: skip
    figure.update_layout(barmode="stack", bargap=0)
    legend(figure, style, wide=wide)
    decorate(figure, style)
    tell_utc(figure, times, style)
    y_axis(figure, unit, max(sums, default=0.0))
    return figure
