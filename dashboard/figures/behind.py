"""The same figure of another period or version: a quiet broken line behind, what the pointer says, or beneath it."""

from __future__ import annotations

from bisect import bisect_left
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast

from dashboard import escape
from dashboard.figures import distribution
from dashboard.figures.base import log_ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import plotly.graph_objects as go

    from dashboard.figures.base import Style

_MOST: Final = 2
"""Lines behind: in one colour more of them could not be told apart."""
BEHIND: Final = "behind"
"""Name of what is drawn."""


def has_lines(figure: go.Figure) -> bool:
    """Whether another figure can be put behind it; else it is put `beneath`."""
    return any(trace.meta for trace in figure.data)


def behind(figure: go.Figure, then: go.Figure | None, style: Style, against: str) -> None:
    """Put one figure behind another that was drawn by the same hand, where `has_lines`.

    Its lines are broken and of one colour, its columns a line of their sums, and where there are more than two of them
    (`Trace.compared`) the pointer alone tells them; it tells each line's figure beside the one of the same name.

    Args:
        figure: Is drawn on.
        then: Of the other period, its times moved onto those of this one; None where it has nothing.
        style: Of the page.
        against: What it is, such as ``the day before``.
    """
    named = escape.figure(against)
    own = [trace for trace in figure.data if trace.meta]
    if not own:
        return
    theirs = [] if then is None else [trace for trace in then.data if trace.meta]
    if then is None or not any(value is not None for trace in theirs for value in trace.y):
        _entitle(figure, style, f"{named}: nothing")
        return
    by_name = {trace.meta["name"]: trace for trace in theirs if trace.meta["compared"] != "no"}
    for trace in own:
        if (other := by_name.get(trace.meta["name"])) is not None:
            _tell(trace, other, named)
    drawn, before = _lines(theirs), figure.data
    for x, y, shape in drawn:
        if shape != "linear":  # over columns, on which grey alone would be lost
            _draw(figure, x, y, {"color": style.colours.panel, "width": 4, "shape": shape})
        _draw(figure, x, y, {"color": style.colours.quiet, "width": 1.4, "dash": "dash", "shape": shape})
    if drawn:
        figure.data = (*figure.data[len(before) :], *figure.data[: len(before)])
        _widen(figure, then)
    _entitle(figure, style, f"dashed: {named}" if drawn else f"{named}: at the pointer")


def beneath(figure: go.Figure, then: go.Figure | None, style: Style, against: str) -> go.Figure | None:
    """The figure of another period under one that has no lines to put anything behind, with the same axis and shades.

    Args:
        figure: What it stands under; is told where there is nothing, and its axis holds both.
        then: Of the other period, its times moved onto those of this one; None where it has nothing. What happened in
            this period is taken from it.
        style: Of the page.
        against: What it is, such as ``the day before``.
    """
    named = escape.figure(against)
    if then is None:
        _entitle(figure, style, f"{named}: nothing")
        return None
    cells = [trace for trace in then.data if trace.type == "heatmap"]
    if cells:
        then.data = cells
        then.layout.shapes = then.layout.annotations = ()
        distribution.alike(figure, then)
        _entitle(then, style, f"{named}, moved onto these times")
    else:
        _entitle(then, style, named)
    _widen(figure, then)
    then.update_layout(dragmode=False)
    then.update_yaxes(range=figure.layout.yaxis.range, **_ticks(figure))
    return then


def _ticks(figure: go.Figure) -> dict[str, Any]:
    axis = figure.layout.yaxis
    return {"tickvals": axis.tickvals, "ticktext": axis.ticktext} if axis.type == "log" else {}


def _draw(figure: go.Figure, x: Sequence[Any], y: Sequence[float | None], line: dict[str, Any]) -> None:
    figure.add_scatter(
        x=x, y=y, mode="lines", connectgaps=False, hoverinfo="skip", showlegend=False, name=BEHIND, line=line
    )


def _lines(theirs: Sequence[Any]) -> list[tuple[list[Any], list[float | None], str]]:
    """``x``, ``y`` and shape of what is drawn."""
    bars = [trace for trace in theirs if trace.type == "bar"]
    columns = [trace for trace in bars if trace.meta["compared"] != "hover"]
    if bars and not columns:
        return []
    if columns:
        sums: list[float | None] = []
        for values in zip(*(trace.y for trace in columns), strict=True):
            known = [value for value in values if value is not None]
            sums.append(sum(known) if known else None)
        return [(_middles(columns[0]), sums, "hvh")]
    chosen = [trace for trace in theirs if trace.meta["compared"] == "line"]
    return [(list(trace.x), list(trace.y), "linear") for trace in chosen] if len(chosen) <= _MOST else []


def _middles(bar: Any) -> list[Any]:
    """Middles of columns, which over time stand from their start on."""
    if bar.offset is None:
        return list(bar.x)
    half = (bar.x[1] - bar.x[0]) / 2 if len(bar.x) > 1 else None
    return [at + half for at in bar.x] if half is not None else list(bar.x)


def _tell(trace: Any, other: Any, named: str) -> None:
    """Add to each hover of a line what the other period had at the nearest of its steps."""
    places = _nearest(trace.x, other.x)
    trace.customdata = [
        told if place is None else f"{told} ({named}: {_value(other, place)})"
        for told, place in zip(trace.customdata, places, strict=True)
    ]


def _value(trace: Any, place: int) -> str:
    return str(trace.customdata[place]).rpartition("<br>")[2] if trace.y[place] is not None else "nothing"


def _nearest(own: Sequence[Any], other: Sequence[Any]) -> list[int | None]:
    """For each of some places the index of the nearest other one; None where that is more than a step away.

    Steps of two periods begin apart where their distance is no multiple of a step.
    """
    seconds = [_number(at) for at in other]
    found: list[int | None] = []
    for at in map(_number, own):
        right = bisect_left(seconds, at)
        around = [place for place in (right - 1, right) if 0 <= place < len(seconds)]
        best = min(around, key=lambda place: abs(seconds[place] - at), default=None)
        if best is not None and len(seconds) > 1:
            before = best - 1 if best else 1
            if abs(seconds[best] - at) >= abs(seconds[best] - seconds[before]):
                best = None
        found.append(best)
    return found


def _number(at: Any) -> float:
    return at.timestamp() if isinstance(at, datetime) else float(at)


def _widen(figure: go.Figure, then: go.Figure) -> None:
    """The axis holds both."""
    axis, other = figure.layout.yaxis, then.layout.yaxis
    low, high = min(axis.range[0], other.range[0]), max(axis.range[1], other.range[1])
    if axis.type == "log":
        figure.update_yaxes(range=[low, high], **log_ticks(10 ** (low + 0.1), 10 ** (high - 0.1)))
        return
    higher = axis if axis.range[1] >= other.range[1] else other
    figure.update_yaxes(range=[low, high], tickformat=cast("str | None", higher.tickformat))


def _entitle(figure: go.Figure, style: Style, told: str) -> None:
    figure.layout.title.text += f" <span style='color:{style.colours.quiet}'>· {told}</span>"
