"""One server's metrics page, read again and again: samples, up and down, restarts, versions, configuration.

Beside the page, a server is asked for its version at first sight, after a restart and every few minutes, and some for
what they count and show on no page.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import aiohttp
import structlog

from agent.engine_table import About, detect, find_table
from agent.otlp.encode import attributes
from agent.pages import exposition
from agent.pages.beside import Beside
from agent.pages.contract import served
from agent.pages.fetch import about_url, learn_about, reason_of, same_server
from agent.pages.follow import Follower
from agent.pages.samples import Sampler
from agent.pages.search import PageSearch
from agent.source import Overheard, PageTold
from agent.target import BOTH
from base.errors import ServescopeError, UnknownEngineError

if TYPE_CHECKING:
    from agent.engine_table import Table
    from agent.otlp.emit import Emit
    from agent.otlp.encode import Moment
    from agent.pages.page import Limits, Page
    from agent.target import Place, Target

_ABOUT_EVERY_SECONDS: Final = 300.0
_ABOUT_RETRY_SECONDS: Final = 30.0

log = structlog.get_logger()


@dataclass(slots=True)
class ScrapeStats:
    """Counts of one target since start, for the agent's own metrics."""

    scrapes: int = 0
    failures: int = 0
    malformed_lines: int = 0
    unknown_pages: int = 0
    """Pages that no engine's table knows."""
    served: float = 0.0
    """Requests that finished with an answer, by the pages' counters."""
    last_good: float = 0.0
    """Unix time of the last page that was understood, 0 before the first."""
    last_error: str = ""
    """Why the last page did not come, without secrets; empty once one came."""


class Watch:
    """What is known of one target."""

    def __init__(self, target: Target, place: Place, limits: Limits, overheard: Overheard | None = None) -> None:
        engine = target.engine if target.engine not in {None, "", "auto"} else None
        self._auto = engine is None
        self._target = replace(target, engine=engine)
        self._place = place
        self._overheard = overheard or Overheard()
        self._search = PageSearch(self._target, limits, self._completed)
        self._table: Table | None = find_table(engine) if engine else None
        self._sampler: Sampler | None = None
        self._about = About()
        self._about_due = 0.0
        self._beside = Beside()
        self._missed = False
        self._follower = Follower(target.instance, attributes(self._target, place), self._told)
        self._configure_again = True
        self._unknown = ""
        self._cast_as = BOTH
        self.instance = target.instance
        self.stats = ScrapeStats()

    @property
    def engine(self) -> str:
        """Engine id, empty until the page was recognised."""
        return self._table.engine if self._table else ""

    @property
    def version(self) -> str:
        """Version that the server told, empty where it tells none."""
        return self._about.version

    @property
    def model(self) -> str:
        """The one model that the page shows, empty where it shows several or none."""
        return self._follower.model

    async def scrape(self, session: aiohttp.ClientSession, emit: Emit) -> None:
        """One turn: whatever happens ends in a sample, never in an exception."""
        self.stats.scrapes += 1
        try:
            await self._turn(session, emit)
        except Exception:  # a fault of ours must neither stop this target nor any other
            self.stats.failures += 1
            log.exception("scrape_failed", instance=self.instance)

    async def ask_beside(self, session: aiohttp.ClientSession, emit: Emit) -> None:
        """Ask once for what the page does not show; that it does not come is told once, and once that it came again."""
        table = self._table
        if table is None or table.statistics is None or self.stats.last_error or not self.stats.last_good:
            return
        try:
            await self._beside.ask(session, table, self._target, self._search.url)
        except Exception:  # a fault of ours must not stop the pages
            log.exception("statistics_failed", instance=self.instance)
            return
        missed, self._missed = self._missed, bool(self._beside.problem)
        if self._missed and not missed:
            message = f"{self.instance} does not tell its {table.statistics.what}: {self._beside.problem}"
            self._follower.event("statistics_absent", message, time.time_ns(), emit)
        elif missed and not self._missed:
            message = f"{self.instance} tells its {table.statistics.what} again"
            self._follower.event("statistics_back", message, time.time_ns(), emit)

    async def _turn(self, session: aiohttp.ClientSession, emit: Emit) -> None:
        time_ns, begun = time.time_ns(), time.perf_counter()
        problem = ""
        try:
            page = await self._search.page(session, self._table)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, ServescopeError) as error:
            problem = reason_of(error) or type(error).__name__
        took = time.perf_counter() - begun
        body, self._search.body = self._search.body, None  # twenty of them are a megabyte
        self._overheard.page(PageTold(self.instance, time_ns / 1e9, took, None if problem else body, problem))
        if problem:
            self._went_down(problem, time_ns, emit)
        else:
            moment = self._follower.moment(time_ns, took)
            await self._understand(session, page, moment, emit)
        self._follower.learn(self._overheard.inside.get(self.instance), time_ns, emit)

    def _completed(self, body: bytes) -> bytes:
        """A page with what stands elsewhere: what the server tells beside it, and what other sources count."""
        return exposition.after(exposition.after(body, self._beside.lines), self._told_elsewhere())

    def _told_elsewhere(self) -> bytes:
        """What other sources count of the server."""
        told = self._overheard.beside.get(self.instance)
        return told(self._table.rank_label) if told is not None and self._table is not None else b""

    async def _understand(self, session: aiohttp.ClientSession, page: Page, moment: Moment, emit: Emit) -> None:
        if self._table is None and not self._detect(page, moment, emit):
            return
        table = self._table
        if table is None:
            return
        if moment.time_ns / 1e9 >= self._about_due:
            await self._ask(session, table, moment.time_ns, emit)
        if self._sampler is None:
            self._sampler = Sampler(table, self._about.model)
        self._sampler.contract.version = self._about.version
        scrape = self._sampler.sample(page, moment.time_ns / 1e9)
        if scrape.layout_changed:
            self._cast(table, page)
        config = None
        if scrape.layout_changed or self._configure_again:
            self._configure_again = False
            config = {**scrape.config, **self._about.config}
        self.stats.malformed_lines += page.faults_total
        self.stats.served += max(sum(served(table, one.deltas) for one in scrape.samples), 0.0)
        self._follower.page(page, scrape, config, moment, emit)
        if scrape.restarted:
            self._about_due = 0.0
        if not scrape.samples and self._auto and scrape.layout_changed and not table.recognises(page.layout):
            # Another engine took the place of the one that was known: look again at the next page.
            self._table, self._sampler, self._about_due = None, None, 0.0
            self._beside = Beside()
        self.stats.last_good, self.stats.last_error = moment.time_ns / 1e9, ""

    def _detect(self, page: Page, moment: Moment, emit: Emit) -> bool:
        try:
            self._table = detect(page)
        except UnknownEngineError as error:
            self.stats.unknown_pages += 1
            self._follower.stranger(moment, emit)
            if error.what != self._unknown:
                self._unknown = error.what
                message = f"{self.instance}: {error}"
                self._follower.event("engine_unknown", message, moment.time_ns, emit, warning=True)
            return False
        self._target = replace(self._target, engine=self._table.engine)
        self._identify()
        return True

    def _cast(self, table: Table, page: Page) -> None:
        """Take over the role that the page shows, where nobody gave the target one."""
        role = table.plays(page.layout)
        if role != self._target.role and self._target.role in {BOTH, self._cast_as}:
            self._cast_as, self._target = role, replace(self._target, role=role)
            self._identify()

    def _identify(self) -> None:
        self._follower.identify(attributes(self._target, self._place, self._about.version))

    async def _ask(self, session: aiohttp.ClientSession, table: Table, time_ns: int, emit: Emit) -> None:
        """Ask for version, model and settings, and tell of what changed."""
        url = about_url(table, self._target.url, self._search.url)
        key = self._target.access.headers() if same_server(url, self._search.url) else None
        about = await learn_about(session, table, url, key)
        wait = _ABOUT_EVERY_SECONDS if about != About() or not table.about_path else _ABOUT_RETRY_SECONDS
        self._about_due = time_ns / 1e9 + wait
        if about in (About(), self._about):
            return
        before, self._about = self._about, about
        self._identify()
        if before.version and about.version != before.version:
            message = f"{self.instance} went from version {before.version} to {about.version or 'one it does not tell'}"
            details = {"from": before.version, "to": about.version}
            self._follower.event("version_changed", message, time_ns, emit, details)
        if about.model != before.model:
            self._sampler = None  # the same series are another model's now
        self._configure_again = self._configure_again or about.config != before.config

    def _went_down(self, reason: str, time_ns: int, emit: Emit) -> None:
        self.stats.failures += 1
        self.stats.last_error = reason
        if self._follower.down(reason, time_ns, emit):
            self._about_due = 0.0  # what comes back may be another version
            if self._sampler is not None:
                self._sampler.contract.away()

    def _told(self, event: str, message: str, warning: bool) -> None:
        self._overheard.event(event, self.instance)
        log.log(30 if warning else 20, event, instance=self.instance, message=message)
