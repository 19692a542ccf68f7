"""Pages put together from what a sender cut apart.

A sender spreads the series of one scrape over several requests and, while it catches up, has several instants under
way at once. A page is whole when it has as many series as its scraper counted, else as the page before had, or when
nothing has come for it, nor for an older one, for a while. Whole pages are handed on in whatever order they are whole
(`collector.scraped.order` puts them in that of their times), each once. All is bounded: series of a target beyond those
that a page may have are passed over, and of too many open pages the oldest are taken as they are.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from agent.pages.page import Layout, Page, Series

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from collector.scraped.series import Point

PATIENCE_SECONDS: Final = 5.0
"""Time since the last of a page's series, or of an older page's, after which it is taken as it is."""
OLD_PATIENCE_SECONDS: Final = 60.0
"""The same for a page that nobody watches live: a shard that failed comes again 5 s (Prometheus) to 60 s (vmagent)
later, and the other has gone on.

Sources: ``max_backoff`` of Prometheus' ``queue_config``, ``-remoteWrite.retryMaxInterval`` of vmagent."""
OLD_SECONDS: Final = 30.0
MOST_SERIES: Final = 20_000
MOST_OPEN: Final = 4096
"""Pages under way: over an hour of them, a second apart. Twice as many are the most."""
_HANDED_KEPT: Final = 4096
_LAYOUTS: Final = 16
_UP: Final = "up"
_SCRAPE_SECONDS: Final = "scrape_duration_seconds"
_COUNTED: Final = "scrape_samples_post_metric_relabeling"
"""How many series a page has, by the scraper's own count."""


OF_THE_SCRAPER: Final = frozenset({
    _UP, _SCRAPE_SECONDS, "scrape_samples_scraped", _COUNTED,
    "scrape_series_added", "scrape_body_size_bytes", "scrape_sample_limit", "scrape_timeout_seconds",
    "scrape_samples_limit", "scrape_series_current", "scrape_series_limit", "scrape_series_limit_samples_dropped",
    "scrape_response_size_bytes",
})  # fmt: skip
"""Series that Prometheus, vmagent and an OpenTelemetry Collector add to a page: of the scrape, not of the server."""


_NONE: Final[Mapping[int, int]] = MappingProxyType({})


@dataclass(slots=True)
class _Open:
    patience: float
    values: dict[int, float] = field(default_factory=dict)
    scrape: dict[str, float] = field(default_factory=dict)
    since: dict[int, int] = field(default_factory=dict)
    touched: float = 0.0


class Put(NamedTuple):
    """A page that was put together.

    Attributes:
        time_ns: When it was scraped.
        page: What the server showed.
        scrape: What the scraper said of the scrape, by the names of its series.
        came: When the last of it came, by the clock that ``add`` was given.
        since: Since when values count that count by interval, Unix ns by their places on the page; 0 is unknown.
        rest: What counts by interval and came after its page was handed on.
    """

    time_ns: int
    page: Page
    scrape: Mapping[str, float]
    came: float
    since: Mapping[int, int] = _NONE
    rest: bool = False

    @property
    def shows(self) -> bool:
        """Whether the scrape reached the server."""
        return self.scrape.get(_UP) != 0


@dataclass(slots=True)
class Assembly:
    """The pages of one target.

    Attributes:
        late: Values that came after their page was handed on, and are lost.
        passed_over: Values of series beyond the bound.
        repeated: Values that count by interval and came twice for a page.
        values: Values of pages under way.
    """

    late: int = 0
    passed_over: int = 0
    repeated: int = 0
    values: int = 0
    _slots: dict[tuple[str, frozenset[tuple[str, str]]], int] = field(default_factory=dict)
    _series: list[Series] = field(default_factory=list)
    _open: dict[int, _Open] = field(default_factory=dict)
    _rests: dict[int, _Open] = field(default_factory=dict)
    _layouts: dict[tuple[int, ...], Layout] = field(default_factory=dict)
    _handed: array[int] = field(default_factory=lambda: array("q"))
    _newest: int = 0
    _newest_had: tuple[int, ...] = ()
    _newest_scrape: Mapping[str, float] = field(default_factory=dict)
    _newest_rest: set[int | str] = field(default_factory=set)
    _expected: int = 0
    _of_scraper: int = 0
    _unsent: float = 0.0

    def add(self, point: Point, now: float, wall_ns: int) -> None:
        """One value.

        Args:
            point: It.
            now: Seconds of a clock that never goes back.
            wall_ns: Unix time in ns.
        """
        page = self._open.get(point.time_ns)
        if page is None:
            if self._was_handed(point.time_ns):
                self._come_after(point, now)
                return
            if len(self._open) >= 2 * MOST_OPEN:
                self.passed_over += 1
                return
            old = wall_ns - point.time_ns > OLD_SECONDS * 1e9
            page = _Open(OLD_PATIENCE_SECONDS if old else PATIENCE_SECONDS)
        if point.name in OF_THE_SCRAPER:
            page.scrape[point.name] = point.value
        else:
            slot = self._slot(point)
            if slot is None:
                self.passed_over += 1
                return
            self._put(page, slot, point)
        page.touched = now
        self._open[point.time_ns] = page

    def ready(self, now: float, *, last: bool = False, most: int = MOST_OPEN) -> Iterator[Put]:
        """Pages that are whole or have been waited for, oldest first.

        Args:
            now: The clock of ``add``.
            last: All are taken.
            most: Of more open pages than these the oldest are taken.
        """
        touched = 0.0
        for time_ns in sorted(self._open):
            page = self._open[time_ns]
            # who still brings older pages may bring the rest of this one
            touched = max(touched, page.touched)
            waited = now - touched >= page.patience or len(self._open) > most
            if not (last or waited or self._whole(page)):
                continue
            del self._open[time_ns]
            slots = tuple(sorted(page.values))
            self._learn(time_ns, page, slots)
            yield self._handed_on(time_ns, page, slots)
        for time_ns in sorted(self._rests):
            rest = self._rests.pop(time_ns)
            yield self._handed_on(time_ns, rest, tuple(sorted(rest.values)))._replace(rest=True)
        if not self._open and len(self._series) > 2 * max(self._expected, 1):
            # most of what was ever seen is gone: models unloaded, processes replaced
            self._slots, self._series, self._layouts, self._newest = {}, [], {}, 0

    @property
    def size(self) -> int:
        """Series that are remembered."""
        return len(self._series)

    @property
    def waiting(self) -> int:
        """Pages under way."""
        return len(self._open) + len(self._rests)

    def _whole(self, page: _Open) -> bool:
        counted = page.scrape.get(_COUNTED)
        if not self._of_scraper and not self._expected:  # no page to go by
            told = counted is not None and _UP in page.scrape and _SCRAPE_SECONDS in page.scrape
            return told and len(page.values) == counted
        if len(page.scrape) < self._of_scraper:
            return False
        if page.scrape.get(_UP) == 0:
            return True  # there is nothing to come
        wanted = self._expected if counted is None else counted - self._unsent
        return 0 < wanted <= len(page.values)

    def _learn(self, time_ns: int, page: _Open, slots: tuple[int, ...]) -> None:
        place = bisect_left(self._handed, time_ns)
        self._handed.insert(place, time_ns)
        if len(self._handed) > _HANDED_KEPT:
            del self._handed[0]
        self._of_scraper = len(page.scrape)
        if page.scrape.get(_UP) != 0:
            self._newest, self._expected = time_ns, len(slots)
            self._newest_had, self._newest_scrape, self._newest_rest = slots, page.scrape, set()
            # a sender may be told to keep series to itself
            self._unsent = max(page.scrape.get(_COUNTED, 0.0) - len(slots), 0.0)

    def _was_handed(self, time_ns: int) -> bool:
        place = bisect_left(self._handed, time_ns)
        known = place < len(self._handed) and self._handed[place] == time_ns
        return known or (place == 0 and len(self._handed) >= _HANDED_KEPT)

    def _come_after(self, point: Point, now: float) -> None:
        """A value whose page was handed on.

        Of what counts by interval nothing is lost for being late: no later value has it in it.
        """
        newest = point.time_ns == self._newest
        of_server = point.name not in OF_THE_SCRAPER
        slot = self._slot(point) if of_server and (newest or point.since_ns is not None) else None
        if newest:
            self._expect(point.name, slot)
        if slot is None or point.since_ns is None or len(self._rests) >= MOST_OPEN:
            self.late += 1
            return
        rest = self._rests.setdefault(point.time_ns, _Open(PATIENCE_SECONDS))
        self._put(rest, slot, point)
        rest.touched = now

    def _expect(self, name: str, slot: int | None) -> None:
        """The newest page was not whole after all, unless it had this: then it merely comes again."""
        if name in OF_THE_SCRAPER:
            if name not in self._newest_scrape and name not in self._newest_rest:
                self._newest_rest.add(name)
                self._of_scraper += 1
        elif slot is not None and slot not in self._newest_rest:
            place = bisect_left(self._newest_had, slot)
            if place < len(self._newest_had) and self._newest_had[place] == slot:
                return
            self._newest_rest.add(slot)
            self._expected += 1
            self._unsent = max(self._unsent - 1, 0.0)

    def _put(self, page: _Open, slot: int, point: Point) -> None:
        if slot in page.since and slot in page.values:
            self.repeated += 1
            return
        self.values += slot not in page.values
        page.values[slot] = point.value
        if point.since_ns is not None:
            page.since[slot] = point.since_ns

    def _handed_on(self, time_ns: int, page: _Open, slots: tuple[int, ...]) -> Put:
        self.values -= len(page.values)
        since: Mapping[int, int] = _NONE
        if page.since:
            since = {at: page.since[slot] for at, slot in enumerate(slots) if slot in page.since}
        return Put(time_ns, self._page(slots, page.values), page.scrape, page.touched, since)

    def _slot(self, point: Point) -> int | None:
        identity = frozenset(point.labels.items())
        slot = self._slots.get((point.name, identity))
        if slot is None and len(self._series) < MOST_SERIES:
            slot = self._slots[point.name, identity] = len(self._series)
            self._series.append(Series(point.name, dict(point.labels), identity))
        return slot

    def _page(self, slots: tuple[int, ...], values: dict[int, float]) -> Page:
        layout = self._layouts.get(slots)
        if layout is None:
            if len(self._layouts) >= _LAYOUTS:
                self._layouts.clear()
            layout = self._layouts[slots] = Layout(tuple([self._series[slot] for slot in slots]), {})
        return Page(layout, [values[slot] for slot in slots])
