"""One signal's way into the store: a segment after the other, each repeated under its token until it is there."""

from __future__ import annotations

import asyncio
import time
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from collector.store.client import StoreError, StoreUnavailable
from collector.store.said import NO_SCHEMA
from collector.writing import backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from collector.ledger import Ledger
    from collector.log.segment import Segment
    from collector.writing.health import Health
    from collector.writing.schema_keeper import SchemaKeeper

LOG: Final = structlog.get_logger()

UNREADABLE: Final = frozenset({27, 32, 33, 117, 435, 436, 437, 444})
"""Codes by which the engine refuses the bytes of a segment before anything is written (parse errors of the format)."""
UNFIT: Final = frozenset({6, 38, 41, 53, 69, 70, 72, 128, 131, 190, 349, 395, 407, 441})
"""Codes that a view could throw on odd values. Views are total, so these mean a fault of ours; targets written before
the throw hold rows under the old token, so the segment is only divided after ``UNFIT_PATIENCE`` attempts."""
UNFIT_PATIENCE: Final = 5


class SegmentStore(Protocol):
    """What is needed of ``collector.landing.Landing``."""

    def insert_segment(self, table: str, segment: Path, token: str) -> None:
        """Insert a file of length-delimited requests under a token."""


class Refusal(Enum):
    """What is done where the store refuses a segment."""

    REPEAT = "it is inserted again"
    DIVIDE = "parts of it take its place"
    MIGRATE = "the schema is brought first, then it is inserted again"


def judge(code: int, attempt: int) -> Refusal:
    """What is done at a code of the store's.

    Args:
        code: ClickHouse's error code.
        attempt: Failures of this segment before.
    """
    if code in UNREADABLE or (code in UNFIT and attempt >= UNFIT_PATIENCE):
        return Refusal.DIVIDE
    return Refusal.MIGRATE if code in NO_SCHEMA else Refusal.REPEAT


class Inserter:
    """Takes a signal's segments in their order.

    Args:
        signal: ``traces``, ``metrics`` or ``logs``.
        take: The oldest segment that the store does not have; the same one until it is stored or divided.
        store: Where it goes.
        schema: Waited for before an insert, told where it is missing.
        divide: Puts others in the place of a segment that the store can't read.
        stored: Called of a segment that the store has.
        health: Told of the signal.
        ledger: Counts inserts that failed and times the others.
    """

    def __init__(
        self,
        signal: str,
        take: Callable[[], Awaitable[Segment]],
        store: SegmentStore,
        schema: SchemaKeeper,
        *,
        divide: Callable[[Segment, StoreError], Awaitable[None]],
        stored: Callable[[Segment], None],
        health: Health,
        ledger: Ledger,
    ) -> None:
        self._signal = signal
        self._take = take
        self._store = store
        self._schema = schema
        self._divide = divide
        self._stored = stored
        self._health = health
        self._ledger = ledger

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._schema.there()
            try:
                await self._bring(await self._take())
            except OSError as error:
                self._health.trouble(self._signal, "segment_unreadable", error)
                await asyncio.sleep(backoff.pause(1))

    async def _bring(self, segment: Segment) -> None:
        attempt = 0
        while True:
            await self._schema.there()
            started = time.monotonic()
            try:
                await asyncio.to_thread(self._store.insert_segment, f"land_{self._signal}", segment.path, segment.id)
            except StoreError as error:
                self._ledger.insert_errors.labels(self._signal, str(error.code)).inc()
                refusal = judge(error.code, attempt)
                if refusal is Refusal.DIVIDE:
                    await self._divide(segment, error)
                    return
                if refusal is Refusal.MIGRATE:
                    self._schema.missing()
                self._health.trouble(self._signal, "insert_failed", error, attempt)
            except Exception as error:  # noqa: BLE001 - unknown outcomes are repeated under the same token
                code = "unavailable" if isinstance(error, StoreUnavailable) else type(error).__name__
                self._ledger.insert_errors.labels(self._signal, code).inc()
                self._health.trouble(self._signal, "insert_failed", error, attempt)
            else:
                self._succeeded(segment, time.monotonic() - started)
                return
            attempt += 1
            await asyncio.sleep(backoff.pause(attempt))

    def _succeeded(self, segment: Segment, seconds: float) -> None:
        self._ledger.insert_seconds.labels(self._signal).observe(seconds)
        if self._signal in self._health.errors:
            LOG.info("store_takes_inserts_again", signal=self._signal)
        self._health.well(self._signal)
        self._stored(segment)
