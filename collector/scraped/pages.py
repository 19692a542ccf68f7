"""Pages put together from what a sender cut apart.

A sender spreads the series of one scrape over several requests and, while it catches up, has several instants under
way at once. A page is whole when it has as many series as the one before, or when nothing has come for it for a while;
a target's pages are handed on in the order of their times. All is bounded: series of a target beyond those that a page
may have are passed over, and of too many open pages the oldest are taken as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agent.pages.page import Layout, Page, Series

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.scraped.series import Point

PATIENCE_SECONDS: Final = 5.0
"""Time since the last of a page's series after which it is taken as it is."""
MOST_SERIES: Final = 20_000
_MOST_OPEN: Final = 240
_LAYOUTS: Final = 16


@dataclass(slots=True)
class _Open:
    values: dict[int, float] = field(default_factory=dict)
    touched: float = 0.0


@dataclass(slots=True)
class Assembly:
    """The pages of one target.

    Attributes:
        late: Values that came after their page, or a later one, was handed on.
        passed_over: Values of series beyond the bound.
    """

    late: int = 0
    passed_over: int = 0
    _slots: dict[tuple[str, frozenset[tuple[str, str]]], int] = field(default_factory=dict)
    _series: list[Series] = field(default_factory=list)
    _open: dict[int, _Open] = field(default_factory=dict)
    _layouts: dict[tuple[int, ...], Layout] = field(default_factory=dict)
    _expected: int = 0
    _done_ns: int = 0

    def add(self, point: Point, now: float) -> None:
        """One value; ``now`` in seconds of a clock that never goes back."""
        if point.time_ns <= self._done_ns:
            self.late += 1
            if point.time_ns == self._done_ns:
                self._expected += 1  # that page was not whole after all
            return
        identity = frozenset(point.labels.items())
        slot = self._slots.get((point.name, identity))
        if slot is None:
            if len(self._series) >= MOST_SERIES:
                self.passed_over += 1
                return
            slot = self._slots[point.name, identity] = len(self._series)
            self._series.append(Series(point.name, dict(point.labels), identity))
        page = self._open.get(point.time_ns)
        if page is None:
            page = self._open[point.time_ns] = _Open()
        page.values[slot] = point.value
        page.touched = now

    def ready(self, now: float, *, last: bool = False) -> Iterator[tuple[int, Page]]:
        """Pages that are whole or have been waited for, oldest first, with their time in ns; all where ``last``."""
        for time_ns in sorted(self._open):
            page = self._open[time_ns]
            whole = 0 < self._expected <= len(page.values)
            if not (whole or last) and now - page.touched < PATIENCE_SECONDS and len(self._open) <= _MOST_OPEN:
                return
            del self._open[time_ns]
            self._done_ns, self._expected = time_ns, len(page.values)
            yield time_ns, self._page(page.values)
        if not self._open and len(self._series) > 2 * max(self._expected, 1):
            # most of what was ever seen is gone: models unloaded, processes replaced
            self._slots, self._series, self._layouts = {}, [], {}

    @property
    def size(self) -> int:
        """Series that are remembered."""
        return len(self._series)

    @property
    def waiting(self) -> bool:
        """Whether a page is under way."""
        return bool(self._open)

    def _page(self, values: dict[int, float]) -> Page:
        slots = tuple(sorted(values))
        layout = self._layouts.get(slots)
        if layout is None:
            if len(self._layouts) >= _LAYOUTS:
                self._layouts.clear()
            layout = self._layouts[slots] = Layout(tuple([self._series[slot] for slot in slots]), {})
        return Page(layout, [values[slot] for slot in slots])
