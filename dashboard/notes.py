"""The lines under a page's title that say once what holds for all of its charts."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from analytics.selection import Filter, Selection
from analytics.window import Window
from base.errors import ServescopeError
from dashboard import escape, words
from dashboard.data import ask
from dashboard.viewer import clock, zone

if TYPE_CHECKING:
    from dashboard.page_context import PageContext

_LEAST: Final = timedelta(minutes=1)
"""The shortest window: what began a second ago is shown beside the emptiness before."""
_GRID_SECONDS: Final = 5
_WORTH: Final = 0.1
"""Share of a window that must be empty before it is left out."""
_SINCE: Final = "so do charts, and rates are since then"
_SHOWN: Final = 3
_TITLE: Final = 80
"""Letters of an incident's title; its page has it whole."""


def begun(selection: Selection) -> tuple[Selection, datetime | None]:
    """The selection with its window from about where data begin, and when they do; else as it is, and None.

    Of a first start the hour before it is no gap: an axis that shows it hides the minutes that there are, and a rate
    over it is of a time in which nobody was there to be asked. Younger data than `_LEAST` have a window of that.
    """
    window = selection.window
    try:
        first = ask("beginning", Selection(window, Filter(recording=selection.filter.recording))).result.at
    except ServescopeError:
        return selection, None  # the panels themselves say that the store does not answer
    if first is None or (first - window.start).total_seconds() < _WORTH * window.seconds:
        return selection, None
    whole = datetime.fromtimestamp(first.timestamp() // _GRID_SECONDS * _GRID_SECONDS, window.start.tzinfo)
    start = max(min(whole, window.end - _LEAST), window.start)
    return (selection, None) if start == window.start else (selection.but(window=Window(start, window.end)), first)


def beginning(context: PageContext) -> str:
    """That all begins later than the range says; nothing where it does not."""
    first, window = context.begins, context.window
    if first is None:
        return ""
    ago = f"{words.ago(first, window.end)}, " if context.live else ""
    of = "charts and rates are of one minute" if window.seconds <= _LEAST.total_seconds() else _SINCE
    return f":material/start: Data begin {ago}at {clock(first)}: {of}."


def recorded(context: PageContext) -> str:
    """Which recordings are on the page."""
    names = context.choices.recordings if context.choices else []
    if names and context.filter.recording == "include" and any(context.filter.chosen()):
        try:
            names = list(ask("instances", context.selection).recordings)
        except ServescopeError:
            names = []  # the panels meet the same trouble and tell it; what they can draw names its recordings too
    if not names or context.filter.recording == "exclude":
        return ""
    return (
        f":material/history: Recorded data is on this page: {escape.markdown(', '.join(names))}. "
        "It is a real server's past, played again; it pages nobody unless a rule counts it."
    )


def left_out(context: PageContext) -> str:
    """That recordings are left out, where nothing live is of the window or by a name that is chosen; else nothing."""
    known = context.choices
    if known is None or not known.recordings or context.filter.recording != "exclude":
        return ""
    if not (known.models or known.instances):
        return "**Only recordings here.** :gray[Nothing live is known of this window.]"
    live = {"model": known.models, "tenant": known.tenants, "instance": known.instances}
    for name, values in context.filter.chosen():
        if name in live and set(values).isdisjoint(live[name]):
            return f"**Nothing live** of this {name}. :gray[Recordings are left out.]"
    return ""


def edge(context: PageContext) -> str:
    """What the broken line means."""
    at = context.settled
    if at is None:
        return ""
    if at <= context.window.start:
        told = "A request that arrived before this window is still open: figures by arrival are of those that are over."
    else:
        told = (
            f"What arrived after {clock(at)} may still be open: beyond the broken line are only those that are over, "
            "and what a tile tells of arrivals ends there."
        )
    return f":material/hourglass_top: {told}"


def shaded(context: PageContext) -> str:
    """What the bands behind the data are, the newest first, each with the way to it."""
    bands = [band for band in reversed(context.incidents) if band.id not in context.told]
    if not bands:
        return ""
    named = [
        f"[{escape.markdown(words.short(band.title, _TITLE))}](incidents?incident={quote(band.id, safe='')}) "
        f"{words.span(band.start, band.end, zone()) if band.end else f'since {clock(band.start)}'}"
        for band in bands[:_SHOWN]
    ]
    more = f", and [{len(bands) - _SHOWN} more](incidents)" if len(bands) > _SHOWN else ""
    return f":material/notifications: Shaded: {', '.join(named)}{more}."
