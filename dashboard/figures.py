"""Data to Plotly figures; pure, and the only place that draws.

Every figure: title and unit in one quiet line top left, horizontal grid only, gaps drawn as gaps, lines named at
their ends, incidents as bands and deploys as thin lines behind the data, the same x range in all charts of a page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go

from dashboard import words
from dashboard.theme import Palette, colour_of, faded, tints

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, tzinfo

HEIGHT: Final = 230
CONFIG: Final[dict[str, Any]] = {"displayModeBar": False, "responsive": True}
"""Plotly's own settings for every chart."""

_NAMED_AT_END = 4
_MANY_POINTS = 60
_TICKS_SECONDS = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True, slots=True)
class Style:
    """What a figure takes from its page.

    Attributes:
        colours: Palette of the page's mode.
        zone: The viewer's time zone, in which axes are labelled.
        span: Start and end of the x axis, the same for all charts of a page.
        marks: Times and labels of deploys and restarts.
        bands: Start, end and label of incidents.
    """

    colours: Palette
    zone: tzinfo
    span: tuple[datetime, datetime]
    marks: Sequence[tuple[datetime, str]] = ()
    bands: Sequence[tuple[datetime, datetime, str]] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """One line.

    Attributes:
        name: At its end, or in the legend when there are many.
        values: One per time, None for a gap.
        colour: Hex.
        width: Pixels.
        dash: Plotly's word for a broken line, "" for a solid one.
        text: What a hover adds per point, such as the sample size.
    """

    name: str
    values: Sequence[float | None]
    colour: str
    width: float = 1.8
    dash: str = ""
    text: Sequence[str] = field(default=())


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
    figure = _figure(style, title, unit, height)
    x = [_local(moment, style) for moment in times]
    for trace in traces:
        present = sum(value is not None for value in trace.values)
        figure.add_scatter(
            x=x, y=list(trace.values), name=trace.name or title, mode="lines" if present > 1 else "lines+markers",
            line={"color": trace.colour, "width": trace.width, "dash": trace.dash or "solid"},
            connectgaps=False, hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
            customdata=_hover(trace, unit), showlegend=False,
        )  # fmt: skip
    _name_lines(figure, x, traces, style)
    if limit is not None:
        figure.add_hline(
            y=limit[0], line={"color": style.colours.at_risk, "width": 1, "dash": "dot"},
            annotation={"text": limit[1], "font": {"size": 11, "color": style.colours.at_risk}},
            annotation_position="top left",
        )  # fmt: skip
    _y_axis(figure, unit, _peak(traces), log=log, top=top)
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
    figure = _figure(style, title, unit, height)
    x = [_local(moment, style) for moment in times]
    sums = [sum(trace.values[index] or 0.0 for trace in traces) for index in range(len(times))] if traces else []
    for trace in traces:
        figure.add_scatter(
            x=x, y=[value if value is None else max(value, 0.0) for value in trace.values], name=trace.name,
            mode="lines", stackgroup="all", line={"color": trace.colour, "width": 0.6},
            fillcolor=faded(trace.colour, 0.75), hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
            customdata=_hover(trace, unit), stackgaps="infer zero",
        )  # fmt: skip
    _legend(figure, style)
    _y_axis(figure, unit, max(sums, default=0.0))
    return figure


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
    figure = _figure(style, title, "requests", height)
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
                annotation={"text": f"{name} {words.seconds(cut)}", "font": {"size": 11, "color": style.colours.quiet}},
                annotation_position="top right",
            )  # fmt: skip
    used = [index for index, number in enumerate(counts) if number]
    low, high = (lows[used[0]], finite[used[-1] + 1]) if used else (1e-3, 1.0)
    figure.update_xaxes(
        type="log", range=[math.log10(low) - 0.05, math.log10(high) + 0.05], showgrid=False, showspikes=False,
        **_log_ticks(low, high),
    )  # fmt: skip
    figure.update_layout(hovermode="closest", bargap=0.02)
    _y_axis(figure, "count", max(counts, default=0))
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
    figure = _figure(style, title, "seconds", height)
    finite = [edge if math.isfinite(edge) else edges[index - 1] * 2 for index, edge in enumerate(edges)]
    smallest = next((edge for edge in finite if edge > 0), 1e-3)
    y = [math.sqrt((low or smallest / 2) * high) for low, high in pairwise(finite)]
    shown = [[math.log1p(number) if number else None for number in row] for row in counts]
    hover = [
        [
            f"{words.seconds(low)} to {words.seconds(high) if math.isfinite(high) else 'more'}"
            f"<br>{words.plural(number, 'request')}"
            for number in row
        ]
        for (low, high), row in zip(pairwise(edges), counts, strict=True)
    ]
    ramp = style.colours.ramp
    figure.add_heatmap(
        x=[_local(moment, style) for moment in times], y=y, z=shown, customdata=hover, showscale=False, zmin=0,
        colorscale=[(index / (len(ramp) - 1), colour) for index, colour in enumerate(ramp)], hoverongaps=False,
        xgap=0.5, ygap=0.5, hovertemplate="%{customdata}<br>%{x|%H:%M:%S}<extra></extra>",
    )  # fmt: skip
    used = [index for index, row in enumerate(counts) if any(row)]
    low = (finite[used[0]] or smallest / 2) if used else 1e-3
    high = finite[used[-1] + 1] if used else 1.0
    figure.update_yaxes(
        type="log", range=[math.log10(low) - 0.08, math.log10(high) + 0.08], **_log_ticks(low, high), showgrid=False
    )
    figure.update_layout(hovermode="closest", dragmode="select")
    return figure


def spans(
    rows: Sequence[tuple[str, float, float, str, str]],
    style: Style,
    *,
    title: str,
    total: float,
    height: int = 0,
) -> go.Figure:
    """Intervals of one request: ``(name, start, seconds, colour, hover)``, starts and axis in seconds since arrival."""
    figure = _figure(style, title, "seconds since arrival", height or 70 + 26 * max(len(rows), 1))
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
    figure = _figure(style, title, unit, height)
    for trace in traces:
        figure.add_scatter(
            x=list(offsets), y=list(trace.values), name=trace.name, mode="lines",
            line={"color": trace.colour, "width": trace.width, "shape": "hv"}, connectgaps=False,
            customdata=_hover(trace, unit), hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
            showlegend=False,
        )  # fmt: skip
    _name_lines(figure, list(offsets), traces, style)
    figure.add_vrect(
        x0=request[0], x1=request[1], fillcolor=faded(style.colours.accent, 0.10), line_width=0, layer="below"
    )
    figure.update_xaxes(type="linear", range=list(span), tickformat="~s", ticksuffix="s")
    _y_axis(figure, unit, _peak(traces), top=top)
    return figure


def _figure(style: Style, title: str, unit: str, height: int) -> go.Figure:
    colours = style.colours
    figure = go.Figure()
    label = {"seconds": "s", "per_second": "per second", "ratio": "share", "tokens_per_second": "tokens per second"}
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 34, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": colours.text, "size": 12},
        hovermode="x unified",
        hoverlabel={"bgcolor": colours.panel, "bordercolor": colours.grid, "font": {"color": colours.text, "size": 12}},
        title={
            "text": f"{title} <span style='color:{colours.quiet}'>· {label.get(unit, unit)}</span>",
            "x": 0, "xanchor": "left", "xref": "container", "y": 0.985, "yanchor": "top", "pad": {"l": 8, "t": 4},
            "font": {"size": 13, "weight": 500},
        },
        showlegend=False,
        uirevision="keep",
    )  # fmt: skip
    start, end = style.span
    figure.update_xaxes(
        range=[_local(start, style), _local(end, style)], showgrid=False, zeroline=False, automargin=True,
        tickfont={"size": 11, "color": colours.quiet}, linecolor=colours.grid, showline=True,
        showspikes=True, spikemode="across", spikethickness=1, spikecolor=colours.quiet, spikedash="solid",
        tickformatstops=[
            {"dtickrange": [None, 60_000], "value": "%H:%M:%S"},
            {"dtickrange": [60_000, 86_400_000], "value": "%H:%M" if start.date() == end.date() else "%H:%M\n%d %b"},
            {"dtickrange": [86_400_000, None], "value": "%d %b"},
        ], nticks=8,
    )  # fmt: skip
    figure.update_yaxes(
        gridcolor=colours.grid, zeroline=False, automargin=True, tickfont={"size": 11, "color": colours.quiet}, nticks=5
    )
    for begun, ended, text in style.bands:
        figure.add_vrect(
            x0=_local(max(begun, start), style), x1=_local(min(ended, end), style), line_width=0, layer="below",
            fillcolor=faded(colours.broken, 0.09), annotation_position="top left",
            annotation={"text": text, "font": {"size": 10, "color": colours.quiet}},
        )  # fmt: skip
    for moment, text in style.marks:
        figure.add_vline(
            x=_local(moment, style), line={"color": colours.quiet, "width": 1, "dash": "dot"},
            annotation={"text": text, "font": {"size": 10, "color": colours.quiet}, "textangle": -90},
            annotation_position="top left",
        )  # fmt: skip
    return figure


def _name_lines(figure: go.Figure, x: Sequence[object], traces: Sequence[Trace], style: Style) -> None:
    named = [trace for trace in traces if trace.name]
    if len(named) > _NAMED_AT_END:
        figure.update_traces(showlegend=True, selector={"type": "scatter"})
        _legend(figure, style)
        return
    if len(traces) < 2 and not (traces and traces[0].name):  # noqa: PLR2004 - one nameless line needs no label
        return
    ends = [
        (trace, index, trace.values[index])
        for trace in named
        if (index := _last(trace.values)) is not None and trace.values[index] is not None
    ]
    peak = _peak(traces) or 1.0
    shift_of: dict[int, float] = {}
    taken: list[float] = []
    for position, (_, _, value) in sorted(enumerate(ends), key=lambda item: item[1][2] or 0.0):
        place = (value or 0.0) / peak * 160
        if taken and place - taken[-1] < 13:  # noqa: PLR2004 - the height of a label
            shift_of[position] = taken[-1] + 13 - place
            place = taken[-1] + 13
        taken.append(place)
    for position, (trace, index, value) in enumerate(ends):
        figure.add_annotation(
            x=x[index], y=value, text=trace.name, showarrow=False, xanchor="left", xshift=4,
            yshift=shift_of.get(position, 0.0), font={"size": 11, "color": trace.colour},
        )  # fmt: skip
    if ends:
        longest = max(len(trace.name) for trace, _, _ in ends)
        figure.update_layout(margin_r=min(12 + 6.4 * longest, 160))


def _legend(figure: go.Figure, style: Style) -> None:
    figure.update_layout(
        showlegend=True,
        legend={
            "orientation": "h", "x": 0, "xanchor": "left", "y": -0.16, "yanchor": "top", "traceorder": "normal",
            "font": {"size": 11, "color": style.colours.quiet}, "itemsizing": "constant", "bgcolor": "rgba(0,0,0,0)",
        },
    )  # fmt: skip


def _y_axis(figure: go.Figure, unit: str, peak: float, *, log: bool = False, top: float | None = None) -> None:
    if log:
        low = min(
            (value for trace in figure.data for value in (trace.y or ()) if value is not None and value > 0),
            default=1e-3,
        )
        high = max(peak, low * 10)
        figure.update_yaxes(type="log", range=[math.log10(low) - 0.1, math.log10(high) + 0.1], **_log_ticks(low, high))
        return
    figure.update_yaxes(range=[0, top if top is not None else (peak * 1.12 or 1.0)])
    if unit in {"seconds", "s"}:
        figure.update_yaxes(tickformat="~s", ticksuffix="s")
    elif unit == "ratio":
        figure.update_yaxes(tickformat=".0%" if (top or peak) >= 0.05 else ".2~%")  # noqa: PLR2004 - small shares
    else:
        figure.update_yaxes(tickformat="~s" if peak >= 1000 else "~g")  # noqa: PLR2004 - below, SI prefixes mislead


def _log_ticks(low: float, high: float) -> dict[str, Any]:
    chosen = [tick for tick in _TICKS_SECONDS if low * 0.7 <= tick <= high * 1.4]
    if len(chosen) > 7:  # noqa: PLR2004 - labels would touch; then powers of ten alone
        chosen = [tick for tick in chosen if f"{tick:e}".startswith("1.0")]
    return {"tickvals": chosen, "ticktext": [words.seconds(tick) for tick in chosen]}


def _hover(trace: Trace, unit: str) -> list[str]:
    shown = [words.figure(value, unit) for value in trace.values]
    if len(trace.text) == len(shown):
        return [f"{value} · {extra}" for value, extra in zip(shown, trace.text, strict=True)]
    return shown


def _peak(traces: Sequence[Trace]) -> float:
    return max((value for trace in traces for value in trace.values if value is not None), default=0.0)


def _last(values: Sequence[float | None]) -> int | None:
    return next((index for index in range(len(values) - 1, -1, -1) if values[index] is not None), None)


def _local(moment: datetime, style: Style) -> datetime:
    return moment.astimezone(style.zone).replace(tzinfo=None)
