"""What a viewer looks at: the selection, what it is compared with, and how charts are drawn for him."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, cast

from analytics.window import Window
from base.errors import ServescopeError
from dashboard import words
from dashboard.data import ask
from dashboard.figures import Style
from dashboard.viewer import colours, earlier, zone

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from analytics.questions.choices import Choices
    from analytics.questions.events import Band, Timeline
    from analytics.selection import Filter, Selection
    from dashboard import theme

Recordings = Literal["include", "exclude", "only"]
"""What `Filter.recording` says."""
VERSION: Final = "version "
"""Begins the key of a comparison with a version, which follows."""
COMPARED: Final = {
    "": "Compare",
    "before": "Against period before",
    "day": "Against day before",
    "week": "Against week before",
}
_SHIFT: Final = {"day": timedelta(days=1), "week": timedelta(days=7)}
_TELLING: Final = {"deploy", "instance_restarted", "version_changed", "instance_down", "config_changed"}
_MOST: Final = 12
_LETTERS: Final = 24


@dataclass
class PageContext:
    """What the viewer looks at.

    Attributes:
        selection: What all questions of the page are about.
        live: Whether the window ends now and moves on.
        choices: Values of the filters that occur; None while they are not known.
        compare: Key of `COMPARED`, or `VERSION` and a version.
        compares: Questions that are asked of what is compared with, too.
        marks: Whether charts carry deploys and incidents.
        troubles: What went wrong on this page so far; each trouble is told once, in full, at the top.
        told: Ids of incidents that the page tells of in a place of its own.
        asked: The window that was asked for, where that is not the window itself because data begin later.
        begins: The first moment of data, where the window was cut because of it.
    """

    selection: Selection
    live: bool
    choices: Choices | None
    compare: str = ""
    marks: bool = True
    troubles: list[ServescopeError] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    asked: Window | None = None
    begins: datetime | None = None
    compares: Collection[str] = ()

    @property
    def window(self) -> Window:
        """The window of all charts."""
        return self.selection.window

    @property
    def filter(self) -> Filter:
        """The filter of all questions."""
        return self.selection.filter

    @cached_property
    def timeline(self) -> Timeline | None:
        """What happened in the window; asked for by figures, so that tiles need not wait for it."""
        if not self.marks:
            return None
        try:
            found: Timeline = ask("events", self.selection).result
        except ServescopeError:
            return None  # the panels themselves say that the store does not answer
        return found

    @property
    def incidents(self) -> list[Band]:
        """Those whose bands the charts carry, in order of their start."""
        return self.timeline.bands[-_MOST:] if self.timeline else []

    @cached_property
    def style(self) -> Style:
        """For figures."""
        marks = [mark for mark in self.timeline.marks if mark.event in _TELLING][-_MOST:] if self.timeline else []
        shown = [(mark.time, _named(mark.event, mark.instance)) for mark in marks]
        bands = [(band.start, band.end or self.window.end, band.title) for band in self.incidents]
        return Style(colours(), zone(), (self.window.start, self.window.end), shown, bands)

    @cached_property
    def settled(self) -> datetime | None:
        """Up to when what arrived is known; None where that is all of the window, or nobody can say."""
        try:
            found = ask("arrivals", self.selection).result
        except ServescopeError:
            return None  # the panels themselves say that the store does not answer
        return None if found.whole else cast("datetime", found.settled_until)

    @cached_property
    def arrivals(self) -> Style:
        """For figures by arrival: what lies beyond the settled edge is drawn as such."""
        return replace(self.style, settled=self.settled)

    @property
    def colours(self) -> theme.Palette:
        """Palette of the viewer's mode."""
        return colours()

    @property
    def reference(self) -> Selection | None:
        """What to compare with, None when nothing is compared: the same of an earlier time, or of a version alone."""
        if not self.compare:
            return None
        if self.compare.startswith(VERSION):
            version = self.compare.removeprefix(VERSION)
            return self.selection.but(filter=self.filter.narrowed(version=(version,)))
        if self.compare == "before":
            return self.selection.but(window=self.window.previous())
        start = earlier(self.window.start, _SHIFT[self.compare], zone())
        return self.selection.but(window=Window(start, start + (self.window.end - self.window.start)))

    @property
    def lately(self) -> str:
        """What the newest step of the window is called: of a window of the past nothing is now."""
        return "now" if self.live else "at the end"

    @property
    def against(self) -> str:
        """What is compared with, in words."""
        told = {"before": "the period before", "day": "the day before", "week": "the week before"}
        return told.get(self.compare) or words.short(self.compare, _LETTERS)


def _named(event: str, instance: str) -> str:
    told = event.replace("instance_", "").replace("_", " ")
    return f"{instance} {told}" if instance else told
