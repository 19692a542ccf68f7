"""Hears of the embedded store that somebody reads of a signal, and has the writer bring in what waits of it.

A ClickHouse server does not tell; there rows are inserted as soon as ever.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiohttp
import structlog

if TYPE_CHECKING:
    from collector.store.address import StoreAddress
    from collector.writing.writer import Writer

LOG: Final = structlog.get_logger()

PATH: Final = "/demand"
_ANSWER_SECONDS: Final = 60.0
_AWAY_SECONDS: Final = 1.0
_DUMB_SECONDS: Final = 300.0
"""Until a store that knows no such path is asked again: another one may be there."""


async def listen(address: StoreAddress, writer: Writer, signal: str) -> None:
    """Listen until cancelled; the writer may be unhurried with the signal as long as the store answers.

    Args:
        address: The store.
        writer: Told whether somebody listens, and when rows are wanted.
        signal: What is listened for.
    """
    credentials = aiohttp.BasicAuth(address.user, address.password) if address.user else None
    timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
    async with aiohttp.ClientSession(auth=credentials, timeout=timeout) as session:
        called = False
        while True:
            try:
                asked = {"signal": signal, "pause": f"{writer.call_seconds:g}", "done": str(int(called))}
                # nothing is held back before the store is known to tell
                async with session.get(f"{address.url}{PATH}", params=asked) as answer:
                    answer.raise_for_status()
                    found = await answer.json()
                called = bool(found["wanted"])
            except aiohttp.ClientResponseError as error:
                called = False
                writer.hold_back(signal, allowed=False)
                await asyncio.sleep(_AWAY_SECONDS if error.status >= 500 else _DUMB_SECONDS)  # noqa: PLR2004
            except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
                called = False
                writer.hold_back(signal, allowed=False)
                await asyncio.sleep(_AWAY_SECONDS)
            else:
                writer.hold_back(signal, allowed=True)
                if called:
                    await writer.wanted(signal)
