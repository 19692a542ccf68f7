"""Amounts over time: lines, percentiles as tints, stacks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from dashboard import escape, words
from dashboard.figures.base import (
    HEIGHT,
    Style,
    Trace,
    blank,
    decorate,
    hover,
    legend,
    local,
    name_lines,
    peak,
    tell_utc,
    y_axis,
)
from dashboard.theme import colour_of, faded, tints

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
            customdata=hover(trace, unit), showlegend=False,
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
    traces = [
        Trace(name, line, shade, width=2.0 if index == len(values) - 1 else 1.6, text=text)
        for index, ((name, line), shade) in enumerate(zip(values.items(), shades, strict=True))
    ]
    return lines(times, traces, style, title=title, unit="seconds", limit=limit, log=log, height=height)


def _trimmed(times: Sequence[datetime], traces: Sequence[Trace]) -> tuple[Sequence[datetime], list[Trace]]:
    """Without the steps before the first and after the last value, which a stack would draw as zeros."""
    known = [index for index in range(len(times)) if any(trace.values[index] is not None for trace in traces)]
    if not known:
        return times, list(traces)
    kept = slice(known[0], known[-1] + 1)
    return times[kept], [replace(trace, values=trace.values[kept]) for trace in traces]


def stack(
    times: Sequence[datetime],
    traces: Sequence[Trace],
    style: Style,
    *,
    title: str,
    unit: str,
    height: int = HEIGHT,
) -> go.Figure:
    """Amounts that add up, as stacked areas; steps without data stay empty."""
    figure = blank(style, title, unit, height)
    times, traces = _trimmed(times, traces)
    x = [local(moment, style) for moment in times]
    sums = [sum(trace.values[index] or 0.0 for trace in traces) for index in range(len(times))] if traces else []
    for trace in traces:
        figure.add_scatter(
            x=x, y=[value if value is None else max(value, 0.0) for value in trace.values],
            name=escape.figure(trace.name),
            mode="lines", stackgroup="all", line={"color": trace.colour, "width": 0.6},
            fillcolor=faded(trace.colour, 0.75), hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
            customdata=hover(trace, unit), stackgaps="infer zero",
        )  # fmt: skip
    legend(figure, style)
    decorate(figure, style)
    tell_utc(figure, times, style)
    y_axis(figure, unit, max(sums, default=0.0))
    return figure
