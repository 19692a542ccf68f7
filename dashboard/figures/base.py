"""What all figures share: style, titles, axes, labels at line ends, incidents and deploys behind the data."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final, Literal

import plotly.graph_objects as go

from base.foreign_text import legible
from dashboard import escape, words
from dashboard.figures import daytime
from dashboard.theme import Palette, faded, ink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta, tzinfo

HEIGHT: Final = 230
FONT: Final = "Source Sans, Source Sans Pro, sans-serif"
CONFIG: Final[dict[str, Any]] = {
    "displayModeBar": "hover",
    "displaylogo": False,
    "modeBarButtons": [["toImage"]],
    "responsive": True,
    "typesetMath": False,
    "toImageButtonOptions": {"format": "png", "scale": 2, "filename": "servescope"},
}
"""Plotly's own settings for every chart: its one button saves a PNG and shows while the pointer is on the chart."""

LEFT: Final = 58
RIGHT: Final = 84
"""Margins of all charts over time, in pixels: fixed, so that times stand under one another down the page."""

UNSETTLED: Final = "unsettled"
"""Name of the shapes from the settled edge on."""
_UNSETTLED_TINT = 0.6
_NAMED_AT_END = 4
_LEGEND_ITEM, _LEGEND_LETTER, _LEGEND_LINE = 52, 7, 19
_LEGEND_WIDTH, _LEGEND_WIDE = 250, 690
"""Pixels of an entry's mark, of a letter, of a line; of the narrowest chart, half a page of 900, and of a whole one."""
_LEGEND_MOST, _LEGEND_MARGIN = 9, 12
"""Rows of a legend, of which the rest is scrolled to; pixels around them, and two more than Plotly has."""
_LABELS_WITH_SECONDS = 480
"""Seconds of a span under which labels of times have seconds, and so stand wider apart."""
_LEGEND_BOTTOM, _AXIS_LABELS = 54, 26
"""Pixels beneath a chart with a legend of one row; and what of them the axis takes."""
_LONGEST_AT_END = 13
_LABEL_LETTERS = 26
_POINTED_LETTERS = 90
_LABEL_LETTER = 5.4
_NARROWEST = 250
"""Pixels of a label's letter above the plot, and of the narrowest plot, in half a page of 900."""
_LABEL_PIXELS = 13.0
_PLOT_PIXELS = 160.0
_TICKS_SECONDS = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True, slots=True)
class Style:
    """What a figure takes from its page.

    Attributes:
        colours: Palette of the page's mode.
        zone: The viewer's time zone, in which axes are labelled.
        span: Start and end of the x axis, the same for all charts of a page.
        marks: Times and labels of deploys and restarts.
        bands: Start, end and title of incidents; the page says once what they are, and the pointer again.
        settled: For figures by arrival, the time after which arrivals are incomplete; None where all are settled.
    """

    colours: Palette
    zone: tzinfo
    span: tuple[datetime, datetime]
    marks: Sequence[tuple[datetime, str]] = ()
    bands: Sequence[tuple[datetime, datetime, str]] = ()
    settled: datetime | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """One line.

    Attributes:
        name: At its end, or in the legend when there are many.
        values: One per time, None for a gap.
        colour: Hex.
        width: Pixels.
        dash: Plotly's word for a broken line, "" for a solid one.
        hatched: Of areas: time that nobody measured.
        text: What a hover adds per point, such as the sample size.
        compared: Whether another period's is drawn behind, where there is room, or told by the pointer alone, or is of
            something else and not told at all.
    """

    name: str
    values: Sequence[float | None]
    colour: str
    width: float = 1.8
    dash: str = ""
    hatched: bool = False
    text: Sequence[str] = field(default=())
    compared: Literal["line", "hover", "no"] = "line"

    @property
    def meta(self) -> dict[str, str]:
        """What a figure's own trace keeps of it."""
        return {"name": escape.figure(self.name), "compared": self.compared}


def blank(style: Style, title: str, unit: str, height: int) -> go.Figure:
    """An empty figure with the title, the axes and the manners that all charts share."""
    colours = style.colours
    figure = go.Figure()
    label = {
        "seconds": "s", "per_second": "per second", "ratio": "share", "tokens_per_second": "tokens per second",
        "bytes_per_second": "bytes per second", "flop_per_second": "FLOP per second",
    }  # fmt: skip
    figure.update_layout(
        height=height,
        margin={"l": LEFT, "r": RIGHT, "t": 36, "b": 30, "autoexpand": False},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": colours.text, "size": 12, "family": FONT},
        hovermode="x unified",
        hoverlabel={"bgcolor": colours.panel, "bordercolor": colours.grid, "font": {"color": colours.text, "size": 12}},
        title={
            "text": f"{escape.figure(title, escape.SENTENCE)} "
            f"<span style='color:{colours.quiet}'>· {escape.figure(label.get(unit, unit))}</span>",
            "x": 0, "xanchor": "left", "xref": "container", "y": 1, "yref": "container", "yanchor": "top",
            "pad": {"l": 4, "t": 4}, "font": {"size": 14, "weight": 500},
        },
        showlegend=False,
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": colours.quiet, "activecolor": colours.accent},
        uirevision="keep",
    )  # fmt: skip
    start, end = style.span
    one_day = start.astimezone(style.zone).date() == end.astimezone(style.zone).date()
    figure.update_xaxes(
        type="date", range=[local(start, style), local(end, style)], showgrid=False, zeroline=False,
        tickfont={"size": 12, "color": colours.quiet}, linecolor=colours.grid, showline=True,
        showspikes=True, spikemode="across", spikethickness=1, spikecolor=colours.quiet, spikedash="solid",
        ticklabeloverflow="hide past div",
        tickformatstops=[
            {"dtickrange": [None, 59_999], "value": "%H:%M:%S"},
            {"dtickrange": [60_000, 86_400_000], "value": "%H:%M" if one_day else "%H:%M\n%d %b"},
            {"dtickrange": [86_400_000, None], "value": "%d %b"},
        ], nticks=8 if (end - start).total_seconds() >= _LABELS_WITH_SECONDS else 5,
    )  # fmt: skip
    if daytime.changes(style.span, style.zone):
        places, labels = daytime.ticks(style.span, style.zone)
        offset = daytime.name_of(start, style.zone)
        figure.update_xaxes(tickvals=places, ticktext=labels, hoverformat=f"%d %b %H:%M:%S {offset}")
    figure.update_yaxes(gridcolor=colours.grid, zeroline=False, tickfont={"size": 12, "color": colours.quiet}, nticks=5)
    return figure


def decorate(figure: go.Figure, style: Style) -> None:
    """Incidents as bands and deploys as thin lines behind the data; their full words come with the pointer.

    Labels of deploys share one line above the plot: one that would cover its neighbour, or repeat it, is left to the
    pointer. What a band says is said once a page (`dashboard.notes`), not over each of its charts.
    """
    start, end = style.span
    length = (end - start).total_seconds() or 1.0
    told: list[tuple[datetime, str]] = []
    _unsettled(figure, style)
    for begun, ended, text in style.bands:
        left = max(begun, start)
        figure.add_shape(
            type="rect", x0=local(left, style), x1=local(min(ended, end), style), y0=0, y1=1, yref="paper",
            line_width=0, layer="below", fillcolor=faded(style.colours.broken, 0.09),
        )  # fmt: skip
        told.append((left, text))
    marks = sorted(style.marks, key=lambda item: item[0])
    for moment, text in marks:
        x = local(moment, style)
        figure.add_shape(
            type="line", x0=x, x1=x, y0=0, y1=1, yref="paper", layer="below",
            line={"color": style.colours.quiet, "width": 1, "dash": "dot"},
        )  # fmt: skip
        told.append((moment, text))
    told.sort(key=lambda item: item[0])
    free_from, before = -1.0, ""
    for moment, text in marks:
        place = (moment - start).total_seconds() / length
        shown = words.short(legible(text), _LABEL_LETTERS)
        share = len(shown) * _LABEL_LETTER / _NARROWEST
        rightward = place < 1 - share
        begins = place if rightward else place - share
        if begins < free_from or shown == before:
            continue
        figure.add_annotation(
            x=local(moment, style), y=1, yref="paper", yanchor="bottom", text=escape.figure(shown), showarrow=False,
            xanchor="left" if rightward else "right",
            font={"size": 11, "color": style.colours.quiet},
        )  # fmt: skip
        free_from, before = begins + share, shown
    _pointed_at(figure, told, style)


def _unsettled(figure: go.Figure, style: Style) -> None:
    """A broken line and a tint from the settled edge to the end: what arrived there may still be open."""
    start, end = style.span
    if style.settled is None or style.settled >= end:
        return
    edge = local(max(style.settled, start), style)
    figure.add_shape(
        type="rect", x0=edge, x1=local(end, style), y0=0, y1=1, yref="paper", line_width=0, layer="above",
        fillcolor=faded(style.colours.panel, _UNSETTLED_TINT), name=UNSETTLED,
    )  # fmt: skip
    figure.add_shape(
        type="line", x0=edge, x1=edge, y0=0, y1=1, yref="paper", layer="above", name=UNSETTLED,
        line={"color": style.colours.quiet, "width": 1, "dash": "dash"},
    )  # fmt: skip


def _pointed_at(figure: go.Figure, told: Sequence[tuple[datetime, str]], style: Style) -> None:
    """Unseen points that tell the pointer of deploys and incidents."""
    if told:
        figure.add_scatter(
            x=[local(moment, style) for moment, _ in told], y=[0] * len(told), yaxis="y2", mode="markers",
            marker={"opacity": 0, "size": 1}, showlegend=False, name="",
            customdata=[escape.figure(text, _POINTED_LETTERS) for _, text in told],
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
        figure.update_layout(
            yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True, "showspikes": False}
        )


def name_lines(
    figure: go.Figure, x: Sequence[object], traces: Sequence[Trace], style: Style, *, log: bool = False
) -> None:
    """Name lines at their ends; many lines, long names or a line that ended early make it a legend."""
    named = [trace for trace in traces if trace.name]
    ends_early = any((index := last(trace.values)) is not None and index < len(x) * 0.9 - 1 for trace in named)
    long = any(len(trace.name) > _LONGEST_AT_END for trace in named)
    if len(named) > _NAMED_AT_END or (named and (long or ends_early)):
        figure.update_traces(showlegend=True, selector={"type": "scatter"})
        legend(figure, style)
        return
    if len(traces) < 2 and not (traces and traces[0].name):  # noqa: PLR2004 - one nameless line needs no label
        return
    ends = [
        (trace, index, trace.values[index])
        for trace in named
        if (index := last(trace.values)) is not None and trace.values[index] is not None
    ]
    drawn = [value for trace in traces for value in trace.values if value is not None and (value > 0 or not log)]
    shifts = _spread([value or 0.0 for _, _, value in ends], drawn, log=log)
    for (trace, index, value), shift in zip(ends, shifts, strict=True):
        figure.add_annotation(
            x=x[index], y=math.log10(value) if log and value else value, text=escape.figure(trace.name),
            showarrow=False, xanchor="left", xshift=4, yshift=shift,
            font={"size": 12, "color": ink(style.colours, trace.colour)},
        )  # fmt: skip


def _spread(values: Sequence[float], drawn: Sequence[float], *, log: bool) -> list[float]:
    """Pixels by which each label of an end moves up so that none covers another; ``drawn`` is what the axis holds."""
    highest = max(drawn, default=1.0) or 1.0
    lowest = min((value for value in drawn if value > 0), default=highest)
    decades = max(math.log10(highest / lowest), 0.1)

    def place_of(value: float) -> float:
        share = math.log10(max(value, lowest) / lowest) / decades if log else value / highest
        return share * _PLOT_PIXELS

    shifts = [0.0] * len(values)
    free_from = -math.inf
    for position in sorted(range(len(values)), key=values.__getitem__):
        place = place_of(values[position])
        shifts[position] = max(free_from - place, 0.0)
        free_from = place + shifts[position] + _LABEL_PIXELS
    return shifts


def legend(figure: go.Figure, style: Style, *, wide: bool = False) -> None:
    """A legend beneath the chart, right under its axis; rows that it turns out not to need stay empty below it.

    Args:
        figure: The chart.
        style: Colours.
        wide: Whether the chart stands over the whole width of a page.
    """
    names = [html.unescape(str(trace.name)) for trace in figure.data if trace.showlegend is not False]
    rows = min(legend_rows(names, _LEGEND_WIDE if wide else _LEGEND_WIDTH), _LEGEND_MOST)
    more = _LEGEND_LINE * (rows - 1)
    height, bottom = (figure.layout.height or HEIGHT) + more, _LEGEND_BOTTOM + more
    figure.update_layout(
        height=height,
        margin_b=bottom,
        showlegend=True,
        legend={
            "orientation": "h", "x": 0, "xref": "paper", "xanchor": "left", "y": (bottom - _AXIS_LABELS) / height,
            "yref": "container", "yanchor": "top", "traceorder": "normal", "itemsizing": "constant", "itemwidth": 30,
            "font": {"size": 12, "color": style.colours.quiet}, "bgcolor": "rgba(0,0,0,0)",
            "maxheight": _LEGEND_LINE * rows + _LEGEND_MARGIN,
        },
    )  # fmt: skip


def legend_rows(names: Sequence[str], width: float) -> int:
    """Rows that a legend of these names needs in so many pixels: as Plotly lays it, in columns of its widest entry."""
    entries = [_LEGEND_ITEM + _LEGEND_LETTER * len(name) for name in names]
    if sum(entries) <= width:
        return 1
    return math.ceil(len(entries) / max(int(width // max(entries)), 1))


def y_axis(figure: go.Figure, unit: str, peak: float, *, log: bool = False, top: float | None = None) -> None:
    """The y axis in its unit, from zero, or logarithmic with round ticks."""
    if log:
        low = min(
            (value for trace in figure.data for value in (trace.y or ()) if value is not None and value > 0),
            default=1e-3,
        )
        high = max(peak, low * 10)
        figure.update_yaxes(type="log", range=[math.log10(low) - 0.1, math.log10(high) + 0.1], **log_ticks(low, high))
        return
    figure.update_yaxes(range=[0, top if top is not None else (peak * 1.12 or 1.0)])
    if unit in {"seconds", "s"}:
        figure.update_yaxes(tickformat="~s", ticksuffix="s")
    elif unit == "ratio":
        figure.update_yaxes(tickformat=".0%" if (top or peak) >= 0.05 else ".2~%")  # noqa: PLR2004 - small shares
    else:
        figure.update_yaxes(tickformat="~s" if peak >= 1000 else "~g")  # noqa: PLR2004 - below, SI prefixes mislead


def log_ticks(low: float, high: float) -> dict[str, Any]:
    """Round ticks of a logarithmic axis of seconds."""
    chosen = [tick for tick in _TICKS_SECONDS if low * 0.7 <= tick <= high * 1.4]
    if len(chosen) > 7:  # noqa: PLR2004 - more labels would touch
        chosen = [tick for tick in chosen if f"{tick:e}".startswith("1.0")]
    return {"tickvals": chosen, "ticktext": [words.seconds(tick) for tick in chosen]}


def hover(trace: Trace, unit: str) -> list[str]:
    """What a hover says per point."""
    shown = [words.figure(value, unit) for value in trace.values]
    if len(trace.text) == len(shown):
        return [f"{value} · {escape.figure(extra)}" for value, extra in zip(shown, trace.text, strict=True)]
    return shown


def peak(traces: Sequence[Trace]) -> float:
    """Highest value of all traces, 0 without any."""
    return max((value for trace in traces for value in trace.values if value is not None), default=0.0)


def last(values: Sequence[float | None]) -> int | None:
    """Index of the newest value, None without any."""
    return next((index for index in range(len(values) - 1, -1, -1) if values[index] is not None), None)


def local(moment: datetime, style: Style) -> datetime:
    """A time in the viewer's zone, as Plotly draws it (`daytime`)."""
    return daytime.drawn(moment, style.span, style.zone)


def distance(times: Sequence[datetime], style: Style) -> timedelta:
    """How long a step is; of a single one nobody knows, and it is the whole span."""
    return times[1] - times[0] if len(times) > 1 else style.span[1] - style.span[0]


def clock(moment: datetime, style: Style) -> str:
    """A time of day in the viewer's zone, which it names where clocks change in the figure's span."""
    named = f" {daytime.name_of(moment, style.zone)}" if daytime.changes(style.span, style.zone) else ""
    return f"{moment.astimezone(style.zone):%H:%M:%S}{named}"


def at_utc(moment: datetime, style: Style) -> str:
    """A hover's line that says a time in UTC; empty for a viewer who lives there."""
    return f"<br>{moment.astimezone(UTC):%H:%M:%S} UTC" if moment.astimezone(style.zone).utcoffset() else ""


def tell_utc(figure: go.Figure, times: Sequence[datetime], style: Style) -> None:
    """Add UTC to what the pointer says, for a viewer in another zone; and his own time where clocks change."""
    changes = daytime.changes(style.span, style.zone)
    if not times or not (changes or times[0].astimezone(style.zone).utcoffset()):
        return
    own = [f"{clock(moment, style)}, " if changes else "" for moment in times]
    figure.add_scatter(
        x=[local(moment, style) for moment in times], y=[0] * len(times), yaxis="y2", mode="markers",
        marker={"opacity": 0, "size": 1}, showlegend=False, name="",
        customdata=[f"{told}{moment.astimezone(UTC):%H:%M:%S} UTC" for told, moment in zip(own, times, strict=True)],
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "showspikes": False})
