"""Pages put together from what a sender cut apart.

A sender spreads the series of one scrape over several requests and, while it catches up, has several instants under
way at once. A page is whole when it has as many series as the one before, or when nothing has come for it for a while;
a target's pages are handed on in the order of their times. All is bounded: series of a target beyond those that a page
may have are passed over, and of too many open pages the oldest are taken as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from agent.pages.page import Layout, Page, Series

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from collector.scraped.series import Point

PATIENCE_SECONDS: Final = 5.0
"""Time since the last of a page's series after which it is taken as it is."""
MOST_SERIES: Final = 20_000
_MOST_OPEN: Final = 240
"""Pages under way; twice as many are the most."""
_LAYOUTS: Final = 16


OF_THE_SCRAPER: Final = frozenset({
    "up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling",
    "scrape_series_added", "scrape_body_size_bytes", "scrape_sample_limit", "scrape_timeout_seconds",
    "scrape_samples_limit", "scrape_series_current", "scrape_series_limit", "scrape_series_limit_samples_dropped",
    "scrape_response_size_bytes",
})  # fmt: skip
"""Series that Prometheus, vmagent and an OpenTelemetry Collector add to a page: of the scrape, not of the server."""


@dataclass(slots=True)
class _Open:
    values: dict[int, float] = field(default_factory=dict)
    scrape: dict[str, float] = field(default_factory=dict)
    touched: float = 0.0


class Put(NamedTuple):
    """A page that was put together.

    Attributes:
        time_ns: When it was scraped.
        page: What the server showed.
        scrape: What the scraper said of the scrape, by the names of its series.
    """

    time_ns: int
    page: Page
    scrape: Mapping[str, float]


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
    _values: int = 0

    def add(self, point: Point, now: float) -> None:
        """One value; ``now`` in seconds of a clock that never goes back."""
        if point.time_ns <= self._done_ns:
            self.late += 1
            if point.time_ns == self._done_ns and point.name not in OF_THE_SCRAPER:
                self._expected += 1  # that page was not whole after all
            return
        if len(self._open) >= 2 * _MOST_OPEN and point.time_ns not in self._open:
            self.passed_over += 1
            return
        if point.name in OF_THE_SCRAPER:
            page = self._opened(point.time_ns, now)
            page.scrape[point.name] = point.value
            return
        identity = frozenset(point.labels.items())
        slot = self._slots.get((point.name, identity))
        if slot is None:
            if len(self._series) >= MOST_SERIES:
                self.passed_over += 1
                return
            slot = self._slots[point.name, identity] = len(self._series)
            self._series.append(Series(point.name, dict(point.labels), identity))
        values = self._opened(point.time_ns, now).values
        self._values += slot not in values
        values[slot] = point.value

    def ready(self, now: float, *, last: bool = False) -> Iterator[Put]:
        """Pages that are whole or have been waited for, oldest first; all where ``last``."""
        for time_ns in sorted(self._open):
            page = self._open[time_ns]
            whole = 0 < self._expected <= len(page.values)
            if not (whole or last) and now - page.touched < PATIENCE_SECONDS and len(self._open) <= _MOST_OPEN:
                return
            del self._open[time_ns]
            self._done_ns, self._expected = time_ns, len(page.values)
            self._values -= len(page.values)
            yield Put(time_ns, self._page(page.values), page.scrape)
        if not self._open and len(self._series) > 2 * max(self._expected, 1):
            # most of what was ever seen is gone: models unloaded, processes replaced
            self._slots, self._series, self._layouts = {}, [], {}

    @property
    def size(self) -> int:
        """Series that are remembered, and values of pages under way."""
        return len(self._series) + self._values

    @property
    def waiting(self) -> bool:
        """Whether a page is under way."""
        return bool(self._open)

    def _opened(self, time_ns: int, now: float) -> _Open:
        page = self._open.setdefault(time_ns, _Open())
        page.touched = now
        return page

    def _page(self, values: dict[int, float]) -> Page:
        slots = tuple(sorted(values))
        layout = self._layouts.get(slots)
        if layout is None:
            if len(self._layouts) >= _LAYOUTS:
                self._layouts.clear()
            layout = self._layouts[slots] = Layout(tuple([self._series[slot] for slot in slots]), {})
        return Page(layout, [values[slot] for slot in slots])
