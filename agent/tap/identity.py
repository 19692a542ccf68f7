"""Finds out which engine is behind a tap that was not told (``--engine auto``), and its version."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import structlog

from agent.errors import ServescopeError
from agent.probing import probe
from agent.vocabulary import Resource

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger()

_FIRST_SECONDS: Final = 2.0
_LONGEST_SECONDS: Final = 60.0


async def identify(
    url: str, tell: Callable[[dict[str, str]], None], ask: Callable[[str], dict[str, Any]] = probe
) -> None:
    """Ask the server now and then until it says what it is; then tell it, once.

    Args:
        url: The server.
        tell: Takes the resource attributes found.
        ask: ``probing.probe``: raises ``ServescopeError`` when the server is away or unknown.
    """
    wait = _FIRST_SECONDS
    while True:
        try:
            found = await asyncio.to_thread(ask, url)
        except (ServescopeError, OSError):
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_SECONDS)
            continue
        engine, version = found.get("engine"), found.get("version")
        log.info("tap_engine_found", engine=engine, version=version)
        told = {Resource.ENGINE: engine, Resource.VERSION: version}
        tell({key: str(value) for key, value in told.items() if value})
        return
