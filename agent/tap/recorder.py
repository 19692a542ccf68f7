"""Puts records into the spool and lets an answer's last bytes go once its record is safe.

A record must be in the spool before the client has its whole answer, or a crash right after loses a row that the client
could miss. But a disk must not hold up serving. So: a record is appended at once, which is one write to the page cache,
as long as that is quick. When it was slow once, a thread writes for a while: the answer's last bytes wait for it, but
only ``hold_seconds``; and once a wait ran out, no answer waits any more until the thread has caught up.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from agent.otlp.request_wire import enclose, pack_resource, pack_span
from agent.tap.counters import describe_fault

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from agent.otlp.request import RequestRecord
    from agent.spool.writer import SpoolSignal
    from agent.tap.counters import Counters

log = structlog.get_logger()

_BATCH: Final = 64
_SLOW_SECONDS: Final = 0.05
_COOL_SECONDS: Final = 60.0


class Spool(Protocol):
    """What the recorder needs of ``agent.spool.writer.SpoolWriter``."""

    def append(self, signal: SpoolSignal, body: bytes) -> bool:
        """Append one serialized OTLP request; ``False`` when it was refused."""
        ...

    def close(self) -> None:
        """Seal what is open."""
        ...


class Recorder:
    """Writes records in order of submission.

    Args:
        spool: Where they go.
        resource: Attributes of the target, the same for all records.
        counters: The tap's counters.
        hold_seconds: Longest that an answer's last bytes wait for their record.
        capacity: Records that may wait for the thread; more are dropped and counted.
        inline: Append at once while that is quick. ``False`` always leaves it to the thread: slower for every answer,
            but then not even a disk that hangs outright can hold one up.
        done: Told the span id of each record that is written or given up, from any thread.
    """

    def __init__(
        self,
        spool: Spool,
        resource: Mapping[str, str],
        counters: Counters,
        *,
        hold_seconds: float = 0.25,
        capacity: int = 10_000,
        inline: bool = True,
        done: Callable[[bytes], object] = bool,
    ) -> None:
        self._spool = spool
        self._given = {key: value for key, value in resource.items() if value}
        self._resource = dict(resource)
        self._packed: bytes | None = None
        self._counters = counters
        self._hold_seconds = hold_seconds
        self._capacity = capacity
        self._done = done
        self._queue: queue.SimpleQueue[tuple[int, bytes, bytes] | None] = queue.SimpleQueue()
        self._waiting: dict[int, tuple[Callable[[], None], asyncio.TimerHandle]] = {}
        self._numbers = itertools.count()
        self._behind = False
        self._threaded_until = 0.0 if inline else float("inf")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="tap-recorder", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to write; ``release`` callbacks run on this loop."""
        self._loop = loop
        self._thread.start()

    def learn(self, resource: Mapping[str, str]) -> None:
        """Add attributes of the target that were found out later; what was given at the start wins, then the newest."""
        self._resource = {**self._resource, **resource, **self._given}
        self._packed = None

    @property
    def resource(self) -> dict[str, str]:
        """Attributes of the target as far as they are known."""
        return self._resource

    def submit(self, record: RequestRecord, release: Callable[[], None]) -> None:
        """Queue a record; ``release`` is called exactly once: when it is written, given up, or too slow."""
        if self._loop is None or self._queue.qsize() >= self._capacity:
            self._counters.lost.labels("backlog").inc()
            self._done(record.span_id)
            release()
            return
        try:
            if (target := self._packed) is None:
                target = self._packed = pack_resource(self._resource)
            body = enclose((pack_span(record),), target)  # here: a thread preempted while it builds would hold the GIL
        except Exception:  # noqa: BLE001 - whatever the recording does, the request is served
            self._fault()
            self._done(record.span_id)
            release()
            return
        began = time.monotonic()
        if began >= self._threaded_until and not self._waiting and not self._behind:
            self._write(body, record.span_id)
            if time.monotonic() - began > _SLOW_SECONDS:
                self._threaded_until = time.monotonic() + _COOL_SECONDS
                log.warning("tap_spool_slow", seconds=round(time.monotonic() - began, 3))
            release()
            return
        number = next(self._numbers)
        if self._behind:
            self._counters.late.inc()
            self._queue.put((number, body, record.span_id))
            release()
            return
        timer = self._loop.call_later(self._hold_seconds, self._give_up_waiting)
        self._waiting[number] = (release, timer)
        self._queue.put((number, body, record.span_id))

    def close(self, seconds: float = 5.0) -> bool:
        """Write what is queued, seal the spool; returns whether that was done within ``seconds``."""
        if self._loop is None:
            return True
        self._queue.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            log.warning("tap_records_left_unwritten", records=self._queue.qsize())
            return False
        return True

    def _give_up_waiting(self) -> None:
        if not self._behind:
            log.warning("tap_spool_too_slow", waited_seconds=self._hold_seconds)
        self._behind = True
        waiting, self._waiting = self._waiting, {}
        for release, timer in waiting.values():
            timer.cancel()
            self._counters.late.inc()
            release()

    def _written(self, numbers: list[int]) -> None:
        for number in numbers:
            if (entry := self._waiting.pop(number, None)) is not None:
                entry[1].cancel()
                entry[0]()
        if self._behind and self._queue.empty():
            self._behind = False

    def _run(self) -> None:
        while True:
            entry = self._queue.get()
            numbers: list[int] = []
            while entry is not None:
                self._write(entry[1], entry[2])
                numbers.append(entry[0])
                if len(numbers) >= _BATCH or self._queue.empty():
                    break
                entry = self._queue.get()
            if numbers and not self._tell(numbers):
                return
            if entry is None:
                self._spool.close()
                return

    def _tell(self, numbers: list[int]) -> bool:
        loop = self._loop
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self._written, numbers)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return False
        return True

    def _write(self, body: bytes, span_id: bytes) -> None:
        try:
            written = self._spool.append("traces", body)
        except Exception:  # noqa: BLE001 - whatever the recording does, the request is served
            self._fault()
        else:
            if written:
                self._counters.written.add()
            else:
                self._counters.lost.labels("spool").inc()
        self._done(span_id)

    def _fault(self) -> None:
        self._counters.faults.labels("spool").inc()
        self._counters.lost.labels("fault").inc()
        log.error("tap_record_failed", error=describe_fault())
