"""What a server counts and shows on no page, asked for beside the page and put at its end as further lines.

It is asked for seldomer than the page, and the page never waits for it: a page takes along what came last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import aiohttp

from agent.pages.fetch import fetch, reason_of, same_server, serving_url
from base.errors import PageError, ServescopeError
from base.redact import shown

if TYPE_CHECKING:
    from agent.engine_table import Table
    from agent.target import Target

BYTES: Final = 2 * 1024 * 1024
"""Of the longest answer: some hundred models."""


class Beside:
    """The statistics of one server.

    Attributes:
        lines: What came last, as lines of a page; empty before anything came. It stays when nothing comes: a counter
            that is gone and comes again would have counted all of it anew.
        problem: Why nothing came when it was last asked for; "" where it came.
    """

    def __init__(self) -> None:
        self.lines = b""
        self.problem = ""

    async def ask(self, session: aiohttp.ClientSession, table: Table, target: Target, page_url: str) -> None:
        """Ask once; an engine without statistics is not asked.

        Args:
            session: Asks.
            table: The engine's.
            target: The server.
            page_url: Of its metrics page.
        """
        statistics = table.statistics
        if statistics is None:
            return
        url = serving_url(table, statistics.path, target.url, page_url)
        key = target.access.headers() if same_server(url, page_url) else None
        try:
            body = await fetch(session, url, BYTES, key)
            try:
                self.lines = statistics.page(body)
            except ValueError:  # quotes what came, line by line
                raise PageError(f"{shown(url)} answers with something else than {statistics.what}") from None
        except ServescopeError as error:
            self.problem = error.what
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self.problem = f"{shown(url)}: {reason_of(error) or type(error).__name__}"
        else:
            self.problem = ""
