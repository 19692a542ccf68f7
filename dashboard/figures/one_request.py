"""One request: its phases and charges, and beneath, on the same axis, what its server was doing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from plotly.subplots import make_subplots

from dashboard import escape, words
from dashboard.figures.base import RIGHT, Style, Trace, blank, hover, last, peak
from dashboard.theme import faded, ink

if TYPE_CHECKING:
    from collections.abc import Sequence

    import plotly.graph_objects as go

_BAR = 26
_LANE = 92
_HEAD = 30
_FOOT = 40
_LEFT = 112


@dataclass(frozen=True, slots=True)
class Interval:
    """A phase, or a charge: start and length in seconds since the request's arrival; ``hatched`` when not measured."""

    name: str
    start: float
    seconds: float
    colour: str
    meaning: str
    hatched: bool = False


@dataclass(frozen=True, slots=True)
class Lane:
    """One picture of the engine under the phases: its title with unit, its lines, the top of its axis or None.

    Its lines stand over ``offsets`` of its own, in seconds since the arrival, where it has them; a value then is of the
    time that ends there, or, as an engine's sample, ``holds`` from then on.
    """

    title: str
    unit: str
    traces: Sequence[Trace]
    top: float | None = None
    offsets: Sequence[float] = ()
    holds: bool = False


def story(
    intervals: Sequence[Interval],
    offsets: Sequence[float],
    lanes: Sequence[Lane],
    style: Style,
    *,
    total: float,
    span: tuple[float, float],
    charges: Sequence[Interval] = (),
) -> go.Figure:
    """Phases as a waterfall and the engine's state beneath, all over seconds since the request's arrival.

    Args:
        intervals: Phases, in order.
        offsets: Seconds since arrival of the engine's samples.
        lanes: Lines over ``offsets``.
        style: Colours.
        total: Seconds that the request took; tinted in every lane.
        span: What the axis shows.
        charges: What of the phases is charged to causes, a row each beneath them.
    """
    heights = [_BAR * max(len(intervals) + len(charges), 1) + 14, *(_LANE for _ in lanes)]
    gap = _HEAD / max(sum(heights) + _HEAD * len(heights), 1)
    figure = make_subplots(
        rows=len(heights), cols=1, shared_xaxes=True, row_heights=heights, vertical_spacing=min(gap, 0.9 / len(heights))
    )
    manners = blank(style, "", "", sum(heights) + _HEAD * len(heights) + _FOOT)
    figure.update_layout(manners.layout)
    figure.update_layout(title=None, margin={"l": _LEFT, "r": RIGHT, "t": _HEAD, "b": _FOOT}, bargap=0.35)
    figure.update_layout(hovermode="x unified", hoversubplots="axis")
    _bars(figure, [*intervals, *charges], style, span, named=len(intervals))
    for index, lane in enumerate(lanes, start=2):
        _lane(figure, index, offsets, lane, style)
    first = "Phases, and what is charged of them · s" if charges else "Phases · s"
    for index, title in enumerate([first, *(f"{lane.title} · {lane.unit}" for lane in lanes)], start=1):
        axis = "" if index == 1 else str(index)
        figure.add_annotation(
            text=escape.figure(title), xref="paper", x=0, xanchor="left", xshift=-_LEFT + 4, yref=f"y{axis} domain",
            y=1, yanchor="bottom", yshift=3, showarrow=False, font={"size": 13, "color": style.colours.quiet},
        )  # fmt: skip
        figure.add_vrect(
            x0=0, x1=total, fillcolor=faded(style.colours.accent, 0.10), line_width=0, layer="below", row=index, col=1
        )
    figure.update_xaxes(
        type="linear", range=list(span), tickformat="~s", ticksuffix="s", showgrid=False, showspikes=True,
        spikemode="across", spikethickness=1, spikecolor=style.colours.quiet, spikedash="solid", zeroline=False,
        tickfont={"size": 12, "color": style.colours.quiet}, linecolor=style.colours.grid, showline=True,
        tickformatstops=[], hoverformat="~s", nticks=10,
    )  # fmt: skip
    figure.update_xaxes(title={"text": "seconds since arrival", "font": {"size": 12}}, row=len(heights), col=1)
    return figure


def _bars(
    figure: go.Figure, intervals: Sequence[Interval], style: Style, span: tuple[float, float], *, named: int
) -> None:
    """Bars, of which the first ``named`` are phases with their names beside the axis; a charge's name is at its bar."""
    names = [escape.figure(item.name) for item in intervals]
    figure.add_bar(
        y=names, base=[item.start for item in intervals], x=[item.seconds for item in intervals], orientation="h",
        marker={
            "color": [item.colour for item in intervals], "line": {"width": 0},
            "pattern": {
                "shape": ["/" if item.hatched else "" for item in intervals], "size": 5, "solidity": 0.3,
                "fgcolor": style.colours.quiet, "fillmode": "overlay",
            },
        },
        customdata=[escape.figure(item.meaning, escape.SENTENCE) for item in intervals],
        hovertemplate="%{y}: %{customdata}<extra></extra>", showlegend=False, row=1, col=1,
    )  # fmt: skip
    wide = span[1] - span[0]
    for number, item in enumerate(intervals):
        end = item.start + item.seconds
        left = end > span[0] + 0.9 * wide
        figure.add_annotation(
            x=item.start if left else end, y=escape.figure(item.name), xref="x", yref="y",
            text=words.seconds(item.seconds) if number < named else escape.figure(item.name),
            xanchor="right" if left else "left",
            xshift=-4 if left else 4, showarrow=False, font={"size": 12, "color": style.colours.text},
        )  # fmt: skip
    figure.update_yaxes(
        autorange="reversed", showgrid=False, type="category", tickvals=names,
        ticktext=[*names[:named], *("charged" for _ in names[named:])],
        tickfont={"size": 12, "color": style.colours.text}, row=1, col=1,
    )  # fmt: skip


def _lane(figure: go.Figure, row: int, offsets: Sequence[float], lane: Lane, style: Style) -> None:
    unit = {"share": "ratio", "s": "seconds"}.get(lane.unit, lane.unit)
    # a sample holds from its time on, what is of the time that ends there up to it
    shape = "vh" if lane.offsets and not lane.holds else "hv"
    for trace in lane.traces:
        figure.add_scatter(
            x=list(lane.offsets or offsets), y=list(trace.values), mode="lines",
            name=escape.figure(trace.name or lane.title),
            line={"color": trace.colour, "width": 1.8, "shape": shape}, connectgaps=False,
            customdata=hover(trace, unit), hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
            showlegend=False, row=row, col=1,
        )  # fmt: skip
    named = [trace for trace in lane.traces if trace.name]
    for place, trace in enumerate(named):
        if last(trace.values) is not None:
            figure.add_annotation(
                xref="paper", x=1, xanchor="left", xshift=6, yref=f"y{row} domain", y=0.8 - 0.3 * place,
                text=escape.figure(trace.name), showarrow=False,
                font={"size": 12, "color": ink(style.colours, trace.colour)},
            )  # fmt: skip
    highest = lane.top if lane.top is not None else (peak(lane.traces) * 1.12 or 1.0)
    figure.update_yaxes(
        range=[0, highest], nticks=4, gridcolor=style.colours.grid, zeroline=False,
        tickfont={"size": 12, "color": style.colours.quiet},
        ticksuffix="s" if unit == "seconds" else "",
        tickformat=".0%" if unit == "ratio" else "~s" if unit == "seconds" else "~s" if highest >= 1000 else "~g",  # noqa: PLR2004 - SI prefixes above
        row=row, col=1,
    )  # fmt: skip
