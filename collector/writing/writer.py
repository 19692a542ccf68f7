"""The writer as the collector sees it: its jobs, wired."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

from collector.log.segment import SIGNALS
from collector.writing.divider import Divider
from collector.writing.health import Health
from collector.writing.inserter import Inserter
from collector.writing.pace import Pace
from collector.writing.reaper import Reaper
from collector.writing.schema_keeper import SchemaKeeper
from collector.writing.settle_keeper import SettleKeeper

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.config import CollectorConfig
    from collector.ledger import Ledger
    from collector.log.segment import Segment
    from collector.log.write_ahead import WriteAheadLog
    from collector.quarantine import Quarantine
    from collector.writing.inserter import SegmentStore


class Writer:
    """One inserter per signal, and what goes with them.

    Args:
        log: Where segments come from.
        store: Where they go.
        ledger: Told of every record stored or dropped.
        quarantine: Takes requests that the store can't read.
        config: Ages and sizes.
        migrate: Brings the schema up to date; called before the first insert and again when tables are missing.
        settle: Puts pieces of one request together; called a while after spans or log records were inserted.
        make_durable: Returns once everything inserted so far is on the store's disk; None where the store itself
            answers for that.

    Attributes:
        last_insert: Unix seconds of the last insert.
    """

    def __init__(
        self,
        log: WriteAheadLog,
        store: SegmentStore,
        ledger: Ledger,
        quarantine: Quarantine,
        config: CollectorConfig,
        *,
        migrate: Callable[[], object],
        settle: Callable[[], object],
        make_durable: Callable[[], None] | None = None,
    ) -> None:
        self._log = log
        self._ledger = ledger
        self._health = health = Health(ledger)
        self._pace = Pace(log, health, config)
        self._reaper = Reaper(log.unlink, make_durable)
        self._settling = SettleKeeper(settle, config.settle_seconds, health, ledger)
        self._schema = SchemaKeeper(migrate, health, self._settling.look)
        divider = Divider(quarantine, log.replace, ledger)
        self._inserters = [
            Inserter(
                signal,
                partial(log.take, signal, seal_seconds=partial(self._pace.seal_seconds, signal)),
                store,
                self._schema,
                divide=divider.divide,
                stored=self._stored,
                health=health,
                ledger=ledger,
            )
            for signal in SIGNALS
        ]
        self.last_insert: float | None = None

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._schema.run())
            tasks.create_task(self._settling.run())
            tasks.create_task(self._reaper.run())
            for inserter in self._inserters:
                tasks.create_task(inserter.run())

    @property
    def errors(self) -> dict[str, str]:
        """What does not go well, in words, by signal, ``schema``, ``retention`` and ``settle``."""
        return self._health.errors

    @property
    def blocked(self) -> bool:
        """Whether the store does not take some signal's inserts."""
        return self._health.blocked

    @property
    def unhurried(self) -> bool:
        """Whether rows of every signal are held back until somebody wants them."""
        return self._pace.unhurried

    @property
    def settled(self) -> bool:
        """Whether all that was inserted is put together."""
        return self._settling.settled

    @property
    def last_traces(self) -> float | None:
        """Unix seconds of the last insert of spans or log records."""
        return self._settling.last_traces

    @property
    def last_settle(self) -> float | None:
        """Unix seconds at which the last successful settling began; what was inserted before is settled."""
        return self._settling.last_settle

    @property
    def unread(self) -> bool:
        """Whether rows were wanted of no signal for a while, as far as is known."""
        return self._pace.unread

    @property
    def call_seconds(self) -> float:
        """From one call for a signal's rows to the next, at least."""
        return self._pace.call_seconds

    def hold_back(self, signal: str, *, allowed: bool) -> None:
        """Say whether ``wanted`` will be called when rows of a signal are."""
        self._pace.hold_back(signal, allowed=allowed)

    async def wanted(self, signal: str) -> None:
        """Somebody reads of a signal: ``bring_in``."""
        await self._pace.wanted(signal)

    async def bring_in(self, signal: str) -> None:
        """Return when the store has all of a signal that was taken before; earlier where it is away, or slow."""
        await self._pace.bring_in(signal)

    def hurry(self) -> None:
        """Settle without waiting for more spans, from now on."""
        self._settling.hurry()

    async def release(self) -> None:
        """Delete the files of segments whose rows are in the store, after making those durable."""
        await self._reaper.release()

    def _stored(self, segment: Segment) -> None:
        self.last_insert = now = time.time()
        self._log.finished(segment)
        self._ledger.stored(segment.signal, segment.records)
        self._reaper.add(segment)
        self._settling.inserted(segment.signal, now)
