"""The metrics page of each target, once a second: samples, up and down, restarts, versions, configuration.

Each target has a task and a schedule of its own: a hung server delays nobody else and is never asked twice at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiohttp
import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from agent.pages.page import Limits
from agent.pages.watch import ScrapeStats, Watch
from agent.source import METRICS, Overheard, Source
from agent.target import Known, Place
from base.formats import rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

    from agent.otlp.emit import Emit
    from agent.source import Scene
    from agent.target import Target

INTERVAL_SECONDS: Final = 1.0
TIMEOUT_SECONDS: Final = 3.0
"""A starved API server can take a second or two for its page and is not down for that."""
BESIDE_SECONDS: Final = 5.0
"""Time between two requests for what a server shows on no page: with the page at most a GET a second and a fifth."""
_STALE_SECONDS: Final = 15.0
"""A page this old is a problem."""

log = structlog.get_logger()


class MetricsPages(Source):
    """Scrapes every target's metrics page.

    Args:
        targets: The servers; an instance name must be unique.
        place: Where this agent runs.
        interval_seconds: Time between two scrapes of a target.
        timeout_seconds: When a page counts as not answered.
        limits: Bounds of a page.
        beside_seconds: Time between two requests for what stands on no page.
        overheard: Told of every page.

    Raises:
        UnknownEngineError: A target names an engine for which there is no table.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        place: Place | None = None,
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        timeout_seconds: float = TIMEOUT_SECONDS,
        limits: Limits | None = None,
        beside_seconds: float = BESIDE_SECONDS,
        overheard: Overheard | None = None,
    ) -> None:
        self._interval = interval_seconds
        self._timeout = timeout_seconds
        self._place = place or Place()
        self._limits = limits or Limits()
        self._overheard = overheard or Overheard()
        self._watches = {target.instance: self._watched(target) for target in targets}
        self._beside = beside_seconds
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        self._follow_too: Callable[[Watch], None] = lambda _watch: None

    @property
    def stats(self) -> Mapping[str, ScrapeStats]:
        """Counts by instance."""
        return {instance: watch.stats for instance, watch in self._watches.items()}

    def known(self, instance: str) -> Known | None:
        """What a server told, once its engine is known."""
        watch = self._watches.get(instance)
        if watch is None or not watch.engine:
            return None
        return Known(watch.engine, watch.version, watch.model, watch.stats.served)

    def seen(self) -> Mapping[str, Mapping[str, float]]:
        """When each page was last understood."""
        return {"page": {instance: stats.last_good for instance, stats in self.stats.items()}}

    def problems(self, now: float, since: float) -> Iterable[str]:
        """Servers that show no page, and why."""
        for instance, stats in self.stats.items() if now - since >= _STALE_SECONDS else ():
            if now - stats.last_good > _STALE_SECONDS:
                how_long = f"for {rounded(round(now - stats.last_good))}" if stats.last_good else "since the start"
                why = f": {stats.last_error}" if stats.last_error else ""
                yield f"{instance} has shown no metrics page {how_long}{why}"

    def metrics(self) -> Iterable[Metric]:
        """Counts of the pages."""
        return families(self.stats)

    def watch(self, targets: Sequence[Target]) -> None:
        """Scrape these too."""
        for target in targets:
            if target.instance not in self._watches:
                self._watches[target.instance] = self._watched(target)
                self._follow_too(self._watches[target.instance])

    def forget(self, targets: Sequence[Target]) -> None:
        """Scrape these no longer; a page that is under way is given up."""
        for target in targets:
            self._watches.pop(target.instance, None)
            for task in self._tasks.pop(target.instance, ()):
                task.cancel()

    def answers(self, instance: str) -> bool | None:
        """Whether its last page came."""
        watch = self._watches.get(instance)
        if watch is None or not (watch.stats.last_good or watch.stats.last_error or watch.stats.unknown_pages):
            return None
        return not watch.stats.last_error

    def _watched(self, target: Target) -> Watch:
        return Watch(target, self._place, self._limits, self._overheard)

    async def run(self, emit: Emit) -> None:
        """Scrape until cancelled; without targets, wait for some."""
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as session,
            asyncio.TaskGroup() as tasks,
        ):
            # All at the same instant: samples of several servers compare, and one wake-up with warm caches costs a
            # third of twenty spread over the second (decision 0015).
            start = asyncio.get_running_loop().time()

            def follow(watch: Watch) -> None:
                self._tasks[watch.instance] = [
                    tasks.create_task(self._follow(watch, session, start, emit), name=f"scrape {watch.instance}"),
                    tasks.create_task(self._ask_beside(watch, session, emit), name=f"statistics {watch.instance}"),
                ]

            for watch in self._watches.values():
                follow(watch)
            self._follow_too = follow
            try:
                await asyncio.Event().wait()
            finally:
                self._follow_too = lambda _watch: None
                self._tasks.clear()

    async def _follow(self, watch: Watch, session: aiohttp.ClientSession, start: float, emit: Emit) -> None:
        loop = asyncio.get_running_loop()
        turn = 0
        while True:
            await asyncio.sleep(max(0.0, start + turn * self._interval - loop.time()))
            await watch.scrape(session, emit)
            # A scrape that took longer than an interval skips turns instead of catching up.
            turn = max(turn + 1, int((loop.time() - start) / self._interval) + 1)

    async def _ask_beside(self, watch: Watch, session: aiohttp.ClientSession, emit: Emit) -> None:
        while True:
            await asyncio.sleep(self._beside)
            await watch.ask_beside(session, emit)


def source(scene: Scene) -> MetricsPages:
    """The pages of all targets, those that are found later too."""
    interval = scene.config.interval_seconds
    return MetricsPages(scene.targets, scene.place, interval_seconds=interval, overheard=scene.overheard)


def families(pages: Mapping[str, ScrapeStats]) -> Iterable[Metric]:
    """Counts by instance, as the agent's own metrics tell them."""
    labels = ["instance"]
    last = GaugeMetricFamily(
        f"{METRICS}_last_page_timestamp_seconds", "When a target's page was last read.", labels=labels
    )
    scrapes = CounterMetricFamily(f"{METRICS}_scrapes", "Metrics pages asked for.", labels=labels)
    failures = CounterMetricFamily(f"{METRICS}_scrape_failures", "Metrics pages that did not come.", labels=labels)
    malformed = CounterMetricFamily(f"{METRICS}_malformed_lines", "Lines of pages passed over.", labels=labels)
    unknown = CounterMetricFamily(f"{METRICS}_unknown_pages", "Pages of no known engine.", labels=labels)
    for instance, stats in pages.items():
        last.add_metric([instance], stats.last_good)
        scrapes.add_metric([instance], stats.scrapes)
        failures.add_metric([instance], stats.failures)
        malformed.add_metric([instance], stats.malformed_lines)
        unknown.add_metric([instance], stats.unknown_pages)
    return last, scrapes, failures, malformed, unknown
