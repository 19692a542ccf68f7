"""Has what arrived in pieces put together a while after it was inserted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

from collector.writing import backoff
from collector.writing.health import SETTLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.ledger import Ledger
    from collector.writing.health import Health

LATE_LOOK_SECONDS: Final = 75.0
"""Over a minute: what a probe told and nothing has come for by then is judged in one more run, if no other comes."""


class SettleKeeper:
    """Runs a settling after inserts, and one more where a probe told something.

    Args:
        settle: Puts together what was inserted since its last run; may fail in any way.
        pause: Seconds from an insert to the settling, so that one is for several.
        health: Told of ``settle``.
        ledger: Counts failures.

    Attributes:
        last_traces: Unix seconds of the last insert of spans or log records.
        last_settle: Unix seconds at which the last successful settling began; what was inserted before is settled.
    """

    def __init__(self, settle: Callable[[], object], pause: float, health: Health, ledger: Ledger) -> None:
        self._settle = settle
        self._pause = pause
        self._health = health
        self._ledger = ledger
        self._unsettled = asyncio.Event()
        self._unjudged = True  # what an earlier run inserted may be
        self._hurry = asyncio.Event()
        self.last_traces: float | None = None
        self.last_settle: float | None = None

    @property
    def settled(self) -> bool:
        """Whether all that was inserted is put together."""
        return self.last_traces is None or (self.last_settle is not None and self.last_settle > self.last_traces)

    def look(self) -> None:
        """Something may be there that an earlier run inserted and did not settle."""
        self._unsettled.set()

    def inserted(self, signal: str, time_s: float) -> None:
        """Rows of a signal are in the store since a time, Unix seconds."""
        if signal == "metrics":  # neither spans nor what a probe tells of finished requests
            return
        self.last_traces = time_s
        self._unjudged |= signal == "logs"
        self._unsettled.set()

    def hurry(self) -> None:
        """Settle without waiting for more spans, from now on."""
        self._hurry.set()

    async def run(self) -> None:
        """Work until cancelled."""
        failures = 0
        while True:
            await self._due(failures)
            self._unsettled.clear()
            begun = time.time()
            try:
                await asyncio.to_thread(self._settle)
            except Exception as error:  # noqa: BLE001 - the next run does what this one left
                self._ledger.settle_errors.inc()
                self._health.trouble(SETTLE, "settle_failed", error, failures)
                failures += 1
                self._unsettled.set()
            else:
                failures = 0
                self._health.well(SETTLE)
                self.last_settle = begun

    async def _due(self, failures: int) -> None:
        try:
            await asyncio.wait_for(self._unsettled.wait(), LATE_LOOK_SECONDS if self._unjudged else None)
        except TimeoutError:
            self._unjudged = False
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), backoff.pause(failures + 2) if failures else self._pause)
