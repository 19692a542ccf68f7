"""Where a server's metrics page is: looked for among the URLs that may have it, and kept once it was found."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import aiohttp

from agent.access import KeyWantedError
from agent.engine_table import detect
from agent.pages import iterations
from agent.pages.fetch import fetch, page_urls
from agent.pages.page import PageReader
from base.errors import PageError, UnknownEngineError
from base.redact import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.engine_table import Table
    from agent.pages.page import Limits, Page
    from agent.target import Target

_LEFT_SECONDS: Final = 600.0
"""Time before a URL is asked again that had no page but what can be read only once."""
_EAGER_TURNS: Final = 30
"""Turns without a page after which each looks in one place, and every so many in all: a server may have none at all."""


class PageSearch:
    """Reads the page from the first URL that has one; that URL stays.

    Args:
        target: Whose; its engine is None where the page shall tell it.
        limits: Of a page.
        completed: What a body becomes before it is read: with what is told elsewhere.

    Attributes:
        body: What was read last, completed, until somebody takes it; None where nothing came.
    """

    def __init__(self, target: Target, limits: Limits, completed: Callable[[bytes], bytes]) -> None:
        self.body: bytes | None = None
        self._target = target
        self._limits = limits
        self._completed = completed
        self._reader = PageReader(limits)
        self._urls = [target.metrics_url] if target.metrics_url else page_urls(target.url, target.engine)
        self._lacking = 0
        self._problem: Exception | None = None
        self._left_until: dict[str, float] = {}

    @property
    def url(self) -> str:
        """Where it was found, else where it is likeliest."""
        return self._urls[0]

    async def page(self, session: aiohttp.ClientSession, known: Table | None) -> Page:
        """The page of this moment, or one that nobody here can read: its server answers.

        Args:
            session: To ask with.
            known: The engine's table; None where the page shall tell it.

        Raises:
            KeyWantedError: It wants a key, or another one.
            PageError: None of the URLs has a page.
            aiohttp.ClientError: None answers.
        """
        self.body = None
        key = self._target.access.headers()
        if len(self._urls) == 1:
            return await self._read(session, self._urls[0], key)
        problem: Exception | None = None
        stranger: Page | None = None
        everywhere = self._lacking < _EAGER_TURNS or self._lacking % _EAGER_TURNS == 0
        for url in self._urls if everywhere else [self._urls[self._lacking % len(self._urls)]]:
            try:
                page = await self._read(session, url, key)
                table = known or detect(page)
            except UnknownEngineError:
                stranger = stranger or page
            except KeyWantedError as error:
                problem = error
            except (aiohttp.ClientError, TimeoutError, OSError, PageError) as error:
                problem = problem or error
            else:
                if table.recognises(page.layout):
                    self._urls = [url]
                    return page
        if stranger is not None:
            self._lacking = 0
            return stranger  # it answers: up, though nobody here can read it
        self._lacking += 1
        if everywhere or self._problem is None:
            self._problem = problem or PageError(
                f"no page of {known.engine if known else 'an engine'} at {shown(self._urls[0])}",
                f"Set engine and metrics_url of target {self._target.instance} to what runs there",
            )
        raise self._problem.with_traceback(None)  # again and again, without where it was raised before

    async def _read(self, session: aiohttp.ClientSession, url: str, key: Mapping[str, str]) -> Page:
        """The page of a URL; what hands each statistic out once is left to whoever else reads it."""
        if time.monotonic() >= self._left_until.get(url, 0.0):
            body = await fetch(session, url, self._limits.bytes, key)
            if not iterations.looks_like(body):
                self.body = self._completed(body)
                return self._reader.read(self.body)
            self._left_until[url] = time.monotonic() + _LEFT_SECONDS
        raise PageError(
            f"{shown(url)} is no page but iteration statistics, each of which is told to one reader only",
            "Have the server show its metrics page too (trtllm-serve: return_perf_metrics, /prometheus/metrics)",
        )
