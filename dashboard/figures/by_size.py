"""How long something takes by how much is in it, and how often that is so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dashboard import escape, words
from dashboard.figures.base import HEIGHT, Style, blank, legend, y_axis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import plotly.graph_objects as go


@dataclass(frozen=True, slots=True)
class Sized:
    """Durations of one kind by size.

    Attributes:
        name: In the legend.
        bounds: Of each bin, ``[from, to)``, above 0.
        seconds: Of each bin, None where nothing is known.
        counts: How many each rests on.
        colour: Hex.
        dash: Plotly's word for a broken line, "" for a solid one.
    """

    name: str
    bounds: Sequence[tuple[int, int]]
    seconds: Sequence[float | None]
    counts: Sequence[int]
    colour: str
    dash: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """How often what sizes occur.

    Attributes:
        name: In the legend.
        values: Share by size, as a person reads the size.
        text: What a hover adds to each.
        colour: Hex.
    """

    name: str
    values: Mapping[str, float]
    text: Sequence[str]
    colour: str


def shares(
    traces: Sequence[Share], order: Sequence[str], style: Style, *, title: str, what: str, height: int = HEIGHT
) -> go.Figure:
    """Columns of each size side by side.

    Args:
        traces: What is drawn.
        order: Sizes from left to right; those without a share have no column.
        style: As of all figures; its span is not used, for the axis is no time.
        title: Title.
        what: What the size counts, in the plural.
        height: Pixels.
    """
    figure = blank(style, title, "ratio", height)
    for trace in traces:
        figure.add_bar(
            x=list(trace.values), y=list(trace.values.values()), name=escape.figure(trace.name),
            marker={"color": trace.colour, "line": {"width": 0}},
            customdata=[
                f"{size} {what}: {words.ratio(value)}, {text}"
                for (size, value), text in zip(trace.values.items(), trace.text, strict=True)
            ],
            hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    legend(figure, style)
    figure.update_xaxes(
        type="category", categoryorder="array", categoryarray=list(order), range=[-0.5, max(len(order), 1) - 0.5],
        tickformatstops=[], showspikes=False,
    )  # fmt: skip
    figure.update_layout(hovermode="closest", bargap=0.15)
    y_axis(figure, "ratio", max((value for trace in traces for value in trace.values.values()), default=1.0))
    return figure


def by_size(
    traces: Sequence[Sized],
    style: Style,
    *,
    title: str,
    what: str,
    each: str = "step",
    height: int = HEIGHT,
) -> go.Figure:
    """Lines over bins of a logarithmic size, each point in the middle of its bin.

    Args:
        traces: What is drawn.
        style: As of all figures; its span is not used, for the axis is no time.
        title: Title.
        what: What the size counts, in the plural; named under the axis.
        each: What takes that long, in the singular.
        height: Pixels.
    """
    figure = blank(style, title, "seconds", height)
    for trace in traces:
        figure.add_scatter(
            x=[math.sqrt(low * max(high - 1, low)) for low, high in trace.bounds], y=list(trace.seconds),
            name=escape.figure(trace.name), mode="lines+markers", marker={"size": 5},
            line={"color": trace.colour, "width": 1.8, "dash": trace.dash or "solid"}, connectgaps=False,
            customdata=[
                f"{words.seconds(value)} · {_range(low, high - 1)} {what}, {words.plural(count, each)}"
                for (low, high), value, count in zip(trace.bounds, trace.seconds, trace.counts, strict=True)
            ],
            hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    legend(figure, style)
    low = min((low for trace in traces for low, _ in trace.bounds), default=1)
    high = max((high for trace in traces for _, high in trace.bounds), default=2)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [10**power * part for power in powers for part in (1, 2, 5) if low <= 10**power * part <= high]
    ticks = ticks if len(ticks) <= 8 else [tick for tick in ticks if str(tick)[0] == "1"]  # noqa: PLR2004 - would touch
    figure.update_xaxes(
        type="log", range=[math.log10(low) - 0.05, math.log10(high) + 0.05], tickvals=ticks,
        ticktext=[f"{tick:,}" for tick in ticks], tickformatstops=[], showspikes=False,
    )  # fmt: skip
    _name(figure, what, style)
    figure.update_layout(hovermode="closest")
    known = [value for trace in traces for value in trace.seconds if value]
    y_axis(figure, "seconds", max(known, default=1.0), log=True)
    return figure


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _name(figure: go.Figure, what: str, style: Style) -> None:
    figure.add_annotation(
        text=escape.figure(what), xref="paper", yref="paper", x=1, y=0, xanchor="right", yanchor="bottom",
        showarrow=False, font={"size": 11, "color": style.colours.quiet},
    )  # fmt: skip
