"""Counts by interval as sums that go on: points of delta temporality made cumulative, series by series.

The first point of a series begins its sum; each further one whose interval was not told yet is added. What is counted
twice of the same time is left out: a delivery that was repeated, or a second sender of the same series. A point that
comes after later ones is added where it fits into the newest gap before them, and is in the increase of the page that
is read next.

Two things are otherwise than the outline of the source. A gap begins no new sum: a reader is told beside each sum what
it was before, so that it takes no increase from what it remembers itself (of a process that was started again, of a
series that was cumulative once). And a series that the sender leaves out of a page, as SDKs do with what did not
change, stays on it for a while.

Source: https://opentelemetry.io/docs/specs/otel/metrics/data-model/ ("Resets and Gaps", "Sums: Delta-to-Cumulative")
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from math import nan
from typing import TYPE_CHECKING, Final, NamedTuple

from agent.pages.page import Layout, Page
from collector.scraped.pages import MOST_SERIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.pages.counting import Identity
    from agent.pages.page import Series
    from collector.scraped.pages import Put

STALE_NS: Final = 300 * 10**9
"""Time without a point after which a series is on no page, as ``max_stale`` of OpenTelemetry's own
``deltatocumulative``."""
_LAYOUTS: Final = 16


class Summed(NamedTuple):
    """A page with sums.

    Attributes:
        page: It.
        before: What sums were on the page before, by their places; NaN where nobody knows what a sum began with.
        repeated: Points that were left out, since their time was told before.
        forgotten: Series that were given up for want of room.
    """

    page: Page
    before: Mapping[int, float]
    repeated: int = 0
    forgotten: int = 0


@dataclass(slots=True)
class _Sum:
    """One series: its sum, what the page before showed of it, until when it is told, and the newest gap before that."""

    series: Series
    value: float
    told: float
    until_ns: int
    gap: tuple[int, int] = (0, 0)

    def add(self, since_ns: int, until_ns: int, value: float) -> bool:
        """Add what was counted in an interval; whether that was not told yet."""
        since_ns = since_ns if since_ns <= until_ns else 0
        value = _counted(since_ns, until_ns, value)
        if until_ns > self.until_ns and (not since_ns or since_ns >= self.until_ns):
            if since_ns > self.until_ns:
                self.gap = self.until_ns, since_ns
            self.until_ns = until_ns
        elif 0 < self.gap[0] <= since_ns < until_ns <= self.gap[1]:
            left, right = (self.gap[0], since_ns), (until_ns, self.gap[1])
            self.gap = max(left, right, key=lambda gap: gap[1] - gap[0])
        else:
            return False
        self.value += value
        return True


def _counted(since_ns: int, until_ns: int, value: float) -> float:
    """What a point counted: one without a duration tells that a sequence begins, with a value of unknown age."""
    return value if since_ns != until_ns else 0.0


class Sums:
    """The sums of one target, whose pages are read in the order of their times."""

    def __init__(self) -> None:
        self._kept: dict[Identity, _Sum] = {}
        self._layouts: dict[frozenset[Identity], Layout] = {}
        self._first_ns = 0

    def fork(self) -> Sums:
        """The same, that go on for themselves."""
        twin = copy.copy(self)
        twin._kept = {identity: replace(one) for identity, one in self._kept.items()}  # noqa: SLF001
        return twin

    def page(self, put: Put) -> Summed:
        """The next page."""
        if not put.since and not self._kept:
            self._first_ns = self._first_ns or put.time_ns
            return Summed(put.page, {})
        repeated = self.add(put)
        self._first_ns = self._first_ns or put.time_ns
        forgotten = self._make_room()
        shown: dict[Identity, tuple[Series, float]] = {}
        became: set[Identity] = set()
        for place, one in enumerate(put.page.layout.series):
            if place not in put.since:
                identity = one.name, one.identity
                if self._kept.pop(identity, None) is not None:  # its sender tells sums from now on
                    became.add(identity)
                shown[identity] = one, put.page.values[place]
        for identity, kept in self._kept.items():
            if put.time_ns - kept.until_ns <= STALE_NS:
                shown[identity] = kept.series, kept.value
        layout = self._layout(shown)
        values: list[float] = []
        before: dict[int, float] = {}
        for place, one in enumerate(layout.series):
            identity = one.name, one.identity
            values.append(shown[identity][1])
            if (summed := self._kept.get(identity)) is not None:
                before[place], summed.told = summed.told, summed.value
            elif identity in became:
                before[place] = nan
        return Summed(Page(layout, values), before, repeated, forgotten)

    def add(self, put: Put) -> int:
        """Add what comes for a page that was read already, or will be told without it: the next page has it.

        Returns:
            How many points were left out, since their time was told before.
        """
        repeated = 0
        for place, since_ns in put.since.items():
            one, value = put.page.layout.series[place], put.page.values[place]
            kept = self._kept.get((one.name, one.identity))
            if kept is not None:
                repeated += not kept.add(since_ns, put.time_ns, value)
                continue
            # All that is counted since the first page is an increase; what was before that, nobody saw.
            seen = self._first_ns and (not since_ns or since_ns >= self._first_ns)
            gap = (self._first_ns, since_ns) if seen and since_ns else (0, 0)
            value = _counted(since_ns, put.time_ns, value)
            self._kept[one.name, one.identity] = _Sum(one, value, 0.0 if seen else nan, put.time_ns, gap)
        return repeated

    def _make_room(self) -> int:
        excess = max(len(self._kept) - MOST_SERIES, 0)
        if excess:
            for identity in sorted(self._kept, key=lambda one: self._kept[one].until_ns)[:excess]:
                del self._kept[identity]
        return excess

    def _layout(self, shown: Mapping[Identity, tuple[Series, float]]) -> Layout:
        names = frozenset(shown)
        layout = self._layouts.get(names)
        if layout is None:
            if len(self._layouts) >= _LAYOUTS:
                self._layouts.clear()
            layout = self._layouts[names] = Layout(tuple([one for one, _ in shown.values()]), {})
        return layout


def without(put: Put) -> Put:
    """A page without what counts by interval."""
    if not put.since:
        return put
    there = [place for place in range(len(put.page.values)) if place not in put.since]
    layout = Layout(tuple([put.page.layout.series[place] for place in there]), {})
    return put._replace(page=Page(layout, [put.page.values[place] for place in there]), since={})
