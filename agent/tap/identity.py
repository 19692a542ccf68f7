"""Finds out which engine is behind a tap that was not told (``--engine auto``), and its version."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import structlog

from agent.pages.probe import probe
from base.errors import ServescopeError
from base.vocabulary import Resource

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger()

_FIRST_SECONDS: Final = 2.0
_LONGEST_SECONDS: Final = 60.0
_AGAIN_SECONDS: Final = 600.0
"""A server that answered is asked again after this: it may have been restarted, upgraded, between two requests."""


async def identify(
    url: str,
    away: asyncio.Event,
    tell: Callable[[dict[str, str]], None],
    ask: Callable[[str], dict[str, Any]] = probe,
) -> None:
    """Ask the server what it is until it says so, tell it, and ask again after it was away; runs until cancelled.

    Args:
        url: The server.
        away: Set by whoever could not reach the server; cleared here.
        tell: Takes the resource attributes found.
        ask: ``agent.pages.probe.probe``: raises ``ServescopeError`` when the server is away or unknown.
    """
    known: dict[str, str] = {}
    wait = _FIRST_SECONDS
    while True:
        away.clear()
        try:
            found = await asyncio.to_thread(ask, url)
        except (ServescopeError, OSError):
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_SECONDS)
            continue
        told = {Resource.ENGINE: found.get("engine"), Resource.VERSION: found.get("version")}
        if (new := {key: str(value) for key, value in told.items() if value}) != known:
            log.info("tap_engine_found", engine=found.get("engine"), version=found.get("version"))
            tell(new)
            known = new
        wait = _FIRST_SECONDS
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(away.wait(), _AGAIN_SECONDS)
            await asyncio.sleep(_FIRST_SECONDS)
