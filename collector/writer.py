"""Brings sealed segments into the store, each once, and lets their files go when the rows are durable there."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from collector.log import SIGNALS
from collector.quarantine import divide
from collector.store.client import StoreError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from collector.config import CollectorConfig
    from collector.ledger import Ledger
    from collector.log import WriteAheadLog
    from collector.quarantine import Quarantine
    from collector.recovery import Segment

LOG: Final = structlog.get_logger()

UNREADABLE: Final = frozenset({27, 32, 33, 117, 435, 436, 437, 444})
"""Codes by which the engine refuses the bytes of a segment before anything is written (parse errors of the format)."""
UNFIT: Final = frozenset({6, 38, 41, 53, 69, 70, 72, 128, 131, 190, 349, 395, 407, 441})
"""Codes that a view could throw on odd values. Views are total, so these mean a fault of ours; targets written before
the throw hold rows under the old token, so the segment is only divided after ``_UNFIT_PATIENCE`` attempts."""
NO_SCHEMA: Final = frozenset({60, 81})
"""No such table or database: the store was emptied or replaced, and wants its migrations again."""
_UNFIT_PATIENCE: Final = 5
_LONGEST_PAUSE_SECONDS: Final = 15.0
_QUIET_SECONDS: Final = 20.0
_KEEP_SECONDS: Final = 10.0
_LATE_LOOK_SECONDS: Final = 75.0
"""Over a minute: what a probe told and nothing has come for by then is judged in one more run, if no other comes."""
_KEEP_BYTES: Final = 64 << 20


class SegmentStore(Protocol):
    """What the writer needs of ``collector.landing.Landing``."""

    def insert_segment(self, table: str, segment: Path, token: str) -> None:
        """Insert a file of length-delimited requests under a token."""


class Writer:
    """One consumer per signal.

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
        errors: What does not go well, in words: by signal, why the store did not take its last insert; under
            ``schema``, ``retention`` and ``settle`` likewise. What went well since has no entry.
        last_insert: Unix seconds of the last insert, ``last_traces`` of the last one of spans or log records.
        last_settle: Unix seconds at which the last successful settling began; what was inserted before is settled.
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
        self._store = store
        self._ledger = ledger
        self._quarantine = quarantine
        self._config = config
        self._migrate = migrate
        self._settle = settle
        self._make_durable = make_durable
        self._schema = asyncio.Event()
        self._wants_schema = asyncio.Event()
        self._wants_schema.set()
        self._inserted: list[Segment] = []
        self._reap = asyncio.Event()
        self._unsettled = asyncio.Event()
        self._unjudged = True  # what an earlier run inserted may be
        self._hurry = asyncio.Event()
        self.errors: dict[str, str] = {}
        self.last_insert: float | None = None
        self.last_traces: float | None = None
        self.last_settle: float | None = None

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_schema())
            tasks.create_task(self._keep_settled())
            tasks.create_task(self._keep_reaped())
            for signal in SIGNALS:
                tasks.create_task(self._consume(signal))

    @property
    def settled(self) -> bool:
        """Whether all that was inserted is put together."""
        return self.last_traces is None or (self.last_settle is not None and self.last_settle > self.last_traces)

    @property
    def blocked(self) -> bool:
        """Whether the store does not take some signal's inserts."""
        return not self.errors.keys().isdisjoint({"schema", *SIGNALS})

    def hurry(self) -> None:
        """Settle without waiting for more spans, from now on."""
        self._hurry.set()

    async def release(self) -> None:
        """Delete the files of segments whose rows are in the store, after making those durable."""
        batch, self._inserted = self._inserted, []
        if not batch:
            return
        try:
            if self._make_durable is not None:
                await asyncio.to_thread(self._make_durable)
            await self._log.unlink(batch)
        except OSError as error:
            # Kept files are inserted again at the next start and dropped by their tokens.
            self._inserted = batch + self._inserted
            LOG.warning("segments_kept", error=error.strerror, segments=len(batch))

    async def _keep_schema(self) -> None:
        while True:
            await self._wants_schema.wait()
            attempt = 0
            while True:
                try:
                    await asyncio.to_thread(self._migrate)
                except Exception as error:  # noqa: BLE001 - whatever it is, the log goes on taking requests
                    self._trouble("schema", "migrate_failed", error, attempt)
                    attempt += 1
                    await asyncio.sleep(_pause(attempt))
                else:
                    break
            self._well("schema")
            self._wants_schema.clear()
            self._schema.set()
            self._unsettled.set()  # what an earlier run inserted and did not settle

    async def _consume(self, signal: str) -> None:
        while True:
            await self._schema.wait()
            try:
                segment = await self._log.take(signal, seal_seconds=self._seal_seconds(signal))
                await self._bring(segment)
            except OSError as error:
                self._trouble(signal, "segment_unreadable", error, 0)
                await asyncio.sleep(_pause(1))

    def _seal_seconds(self, signal: str) -> float:
        quiet = signal != "traces" and self._log.quiet_seconds("traces") > _QUIET_SECONDS
        return max(self._config.seal_seconds, self._config.quiet_seal_seconds if quiet else 0.0)

    async def _bring(self, segment: Segment) -> None:
        attempt = 0
        while True:
            await self._schema.wait()
            started = time.monotonic()
            try:
                await asyncio.to_thread(self._store.insert_segment, f"land_{segment.signal}", segment.path, segment.id)
            except StoreError as error:
                self._ledger.insert_errors.labels(segment.signal, str(error.code)).inc()
                if error.code in UNREADABLE or (error.code in UNFIT and attempt >= _UNFIT_PATIENCE):
                    await self._divide(segment, error)
                    return
                if error.code in NO_SCHEMA:
                    self._schema.clear()
                    self._wants_schema.set()
                self._trouble(segment.signal, "insert_failed", error, attempt)
            except Exception as error:  # noqa: BLE001 - unknown outcomes are repeated under the same token
                code = "unavailable" if isinstance(error, StoreUnavailable) else type(error).__name__
                self._ledger.insert_errors.labels(segment.signal, code).inc()
                self._trouble(segment.signal, "insert_failed", error, attempt)
            else:
                self._ledger.insert_seconds.labels(segment.signal).observe(time.monotonic() - started)
                self._stored(segment)
                return
            attempt += 1
            await asyncio.sleep(_pause(attempt))

    def _stored(self, segment: Segment) -> None:
        if segment.signal in self.errors:
            LOG.info("store_takes_inserts_again", signal=segment.signal)
        self._well(segment.signal)
        self.last_insert = time.time()
        self._log.finished(segment)
        self._ledger.stored(segment.signal, segment.records)
        self._inserted.append(segment)
        self._reap.set()
        if segment.signal != "metrics":  # spans, and what a probe tells of finished requests
            self.last_traces = self.last_insert
            self._unjudged |= segment.signal == "logs"
            self._unsettled.set()

    async def _divide(self, segment: Segment, error: StoreError) -> None:
        children, apart = await asyncio.to_thread(divide, segment)
        LOG.warning(
            "segment_refused",
            segment=segment.id,
            code=error.code,
            name=error.name,
            requests=segment.bodies,
            becomes=len(children),
        )
        for index, frame in enumerate(apart):
            name, reason = f"{segment.id}-{index}", f"{error.code} {error.name}"
            await asyncio.to_thread(self._quarantine.put, name, frame.message, reason)
        await self._log.replace(segment, children)
        if lost := sum(frame.records for frame in apart):
            self._ledger.dropped(segment.signal, "quarantined", lost)

    async def _keep_reaped(self) -> None:
        while True:
            await self._reap.wait()
            if self._make_durable is not None and sum(s.bytes for s in self._inserted) < _KEEP_BYTES:
                # One sync for many segments; what is kept longer is only inserted again after a crash, and dropped.
                await asyncio.sleep(_KEEP_SECONDS)
            self._reap.clear()
            await self.release()

    async def _keep_settled(self) -> None:
        failures = 0
        while True:
            try:
                await asyncio.wait_for(self._unsettled.wait(), _LATE_LOOK_SECONDS if self._unjudged else None)
            except TimeoutError:
                self._unjudged = False
            else:
                with contextlib.suppress(TimeoutError):
                    wait = self._config.settle_seconds if not failures else _pause(failures + 2)
                    await asyncio.wait_for(self._hurry.wait(), wait)
            self._unsettled.clear()
            begun = time.time()
            try:
                await asyncio.to_thread(self._settle)
            except Exception as error:  # noqa: BLE001 - the next run does what this one left
                self._ledger.settle_errors.inc()
                self._trouble("settle", "settle_failed", error, failures)
                failures += 1
                self._unsettled.set()
            else:
                failures = 0
                self._well("settle")
                self.last_settle = begun

    def _well(self, what: str) -> None:
        self.errors.pop(what, None)
        self._show()

    def _trouble(self, what: str, event: str, error: Exception, attempt: int) -> None:
        self.errors[what] = text = f"{type(error).__name__}: {str(error)[:300]}"
        self._show()
        if attempt == 0:  # the metric counts the rest
            LOG.warning(event, what=what, error=text)

    def _show(self) -> None:
        taken = self.errors.keys().isdisjoint
        self._ledger.store_up.set(taken({"schema", *SIGNALS}))
        for signal in SIGNALS:
            self._ledger.signal_up.labels(signal).set(taken({"schema", signal}))


def _pause(attempt: int) -> float:
    longest = min(_LONGEST_PAUSE_SECONDS, 0.25 * 2 ** min(attempt, 10))
    return random.uniform(longest / 2, longest)  # noqa: S311 - jitter, not a secret
