"""What does not go well on the way into the store, in words and on the gauges."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from collector.log.segment import SIGNALS

if TYPE_CHECKING:
    from collector.ledger import Ledger

LOG: Final = structlog.get_logger()

SCHEMA: Final = "schema"
SETTLE: Final = "settle"


class Health:
    """Troubles by what they are of: a signal, ``schema``, ``settle``, or what else somebody writes there.

    Args:
        ledger: Its gauges say which signals the store takes.

    Attributes:
        errors: Why the last try did not go well, in words. What went well since has no entry.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._told = asyncio.Event()
        self.errors: dict[str, str] = {}

    @property
    def blocked(self) -> bool:
        """Whether the store does not take some signal's inserts."""
        return not self.errors.keys().isdisjoint({SCHEMA, *SIGNALS})

    def well(self, what: str) -> None:
        """Something went well."""
        self.errors.pop(what, None)
        self._show()

    def trouble(self, what: str, event: str, error: Exception, attempt: int = 0) -> None:
        """Something failed; logged as ``event`` at the first attempt."""
        self.errors[what] = text = f"{type(error).__name__}: {str(error)[:300]}"
        self._show()
        if attempt == 0:  # the metric counts the rest
            LOG.warning(event, what=what, error=text)

    async def news(self) -> None:
        """Return when something went well or failed."""
        self._told.clear()
        await self._told.wait()

    def _show(self) -> None:
        self._told.set()
        self._ledger.store_up.set(not self.blocked)
        for signal in SIGNALS:
            self._ledger.signal_up.labels(signal).set(self.errors.keys().isdisjoint({SCHEMA, signal}))
