"""The way in that every receiver shares: check, recognise a repeat, write to the log, acknowledge."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from base.otlp_depth import Cuts
from base.signing import REPLAYED
from collector import framing
from collector.decode import decode
from collector.framing import DIGEST_BYTES
from collector.journal import identity
from collector.log.admission import LogFullError

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.auth import Sender
    from collector.config import CollectorConfig
    from collector.decode import Decoded
    from collector.journal import Journal
    from collector.ledger import Ledger
    from collector.log.write_ahead import WriteAheadLog
    from collector.sift import Refusal

RETRY_AFTER_SECONDS: Final = {"bound": 5, "disk": 10, "memory": 1, "store": 1}
"""How long a sender should wait, by what is short."""
_OFFLOAD_BYTES: Final = 1 << 20


class BusyError(Exception):
    """The request can't be taken now and stays its sender's; ``reason`` is a key of ``RETRY_AFTER_SECONDS``."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.retry_after = RETRY_AFTER_SECONDS[reason]
        super().__init__(
            {
                "bound": "the write-ahead log is at its bound: the store is behind or away",
                "disk": "the disk of the write-ahead log refuses writes; free some space",
                "memory": "too many requests are in work",
                "store": "the store has not answered yet, and only then is it known whether a replay is a repeat",
            }[reason]
        )


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a request that was not turned away.

    Attributes:
        new: Whether it was new; False for a repeat and for a request without records.
        refusal: Which of its records are refused for good, None where none are.
        cuts: What lay too deep in its records and was left out of them.
    """

    new: bool
    refusal: Refusal | None
    cuts: Cuts = field(default_factory=Cuts)

    def text(self) -> str:
        """What of it was not kept, for the sender; empty where all was."""
        return "; ".join(filter(None, (self.refusal.text if self.refusal else "", self.cuts.text())))


class Intake:
    """Takes decompressed requests of any transport."""

    def __init__(self, config: CollectorConfig, log: WriteAheadLog, journal: Journal, ledger: Ledger) -> None:
        self._config = config
        self._log = log
        self._journal = journal
        self._ledger = ledger
        self._committing: dict[bytes, asyncio.Task[None]] = {}
        self._held = 0
        self.observers: list[Callable[[bytes, Sender], None]] = []
        """Called with each new request of metrics that is in the log."""

    def hold(self, size: int) -> None:
        """Account for bytes of a request in memory; a negative size gives them back.

        Raises:
            BusyError: The bound of all requests together is reached; nothing was accounted.
        """
        if size > 0 and self._held + size > self._config.max_inflight_bytes:
            raise BusyError("memory")
        self._held += size

    async def take(
        self, signal: str, body: bytes, *, as_json: bool, batch: str, sender: Sender, received_ns: int
    ) -> Taken:
        """Return once the request is durable (or was before).

        Args:
            signal: ``traces``, ``metrics`` or ``logs``.
            body: The decompressed request.
            as_json: It is OTLP/JSON.
            batch: The sender's batch id, empty where it gives none.
            sender: Who sent it, as the door says.
            received_ns: The collector's clock at receipt.

        Raises:
            MalformedError: It is no OTLP request, or nothing of it can be kept.
            BusyError: It can't be taken now.
        """
        if as_json or len(body) > _OFFLOAD_BYTES:
            decoded = await asyncio.to_thread(self._decode, signal, body, as_json)
        else:
            decoded = self._decode(signal, body, as_json)
        if decoded.scrubbed:
            self._ledger.scrubbed.labels(signal).inc(decoded.scrubbed)
        if not decoded.records:
            return Taken(new=False, refusal=None)
        if batch.startswith(REPLAYED) and not self._journal.knows_store:
            raise BusyError("store")
        # one tenant's request is no repeat of another's, whatever batch it says it is
        space = f"{signal} of {sender.tenant}" if sender.tenant else signal
        digest = identity(space, body, batch) if self._config.drop_repeats else os.urandom(DIGEST_BYTES)
        if digest in self._journal:
            self._ledger.repeated(signal, decoded.records)
            return self._taken(signal, decoded, new=False)
        task = self._committing.get(digest)
        repeated = task is not None
        if task is None:
            frame = framing.encode(
                decoded.body,
                records=decoded.records,
                digest=digest,
                received_ns=received_ns,
                batch=batch,
                sender=sender,
            )
            task = asyncio.create_task(self._commit(signal, frame, decoded, digest, sender))
            self._committing[digest] = task
        try:
            # A sender that hangs up must not stop what others may wait for.
            await asyncio.shield(task)
        except LogFullError as error:
            raise BusyError(error.reason) from None
        if repeated:
            self._ledger.repeated(signal, decoded.records)
        elif signal == "metrics":
            self._observe(decoded.body, sender)
        return self._taken(signal, decoded, new=not repeated)

    def _observe(self, body: bytes, sender: Sender) -> None:
        for look in self.observers:
            look(body, sender)

    def _taken(self, signal: str, decoded: Decoded, *, new: bool) -> Taken:
        refusal, cuts = decoded.refusal, decoded.cuts
        if refusal is not None:
            self._ledger.rejected(signal, refusal.reason, refusal.records)
        if cuts.count:
            self._ledger.cut.labels(signal).inc(cuts.count)
        return Taken(new, refusal, cuts)

    async def drain(self) -> None:
        """Wait for what is on its way into the log."""
        await asyncio.gather(*self._committing.values(), return_exceptions=True)

    def _decode(self, signal: str, body: bytes, as_json: bool) -> Decoded:
        return decode(signal, body, as_json=as_json, store_prompts=self._config.store_prompts)

    async def _commit(self, signal: str, frame: bytes, decoded: Decoded, digest: bytes, sender: Sender) -> None:
        try:
            with self._ledger.commit_seconds.time():
                await self._log.append(signal, frame, decoded.records, digest)
            self._ledger.received(signal, decoded.records, len(decoded.body))
            # the door lets in no key but the configured ones: the labels are few
            self._ledger.sent.labels(signal, sender.key_id).inc(decoded.records)
        finally:
            del self._committing[digest]
