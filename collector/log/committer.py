"""The log's thread: appends in groups, one sync for each, and whatever else must keep its place among them.

Requests that come while the disk syncs wait together, so that the next sync is for all of them (group commit). A
request is answered only when the one who writes has said what became of it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

LOG: Final = structlog.get_logger()

GROUP_LIMIT: Final = 32 << 20
"""Bytes that one group takes together at most, but for a last frame that is larger."""

T = TypeVar("T")


@dataclass(slots=True)
class Append:
    """A frame on its way to the disk.

    Attributes:
        signal: ``traces``, ``metrics`` or ``logs``.
        frame: Its bytes.
        records: Spans, data points or log records in it.
        digest: Identity of the request.
        done: What its sender waits for.
    """

    signal: str
    frame: bytes
    records: int
    digest: bytes
    done: asyncio.Future[None]


@dataclass(slots=True)
class _Task:
    run: Callable[[], Any]
    done: asyncio.Future[Any]


class State(Enum):
    """Where a committer is in its life; it goes through these in this order, once."""

    NEW = "not started"
    RUNNING = "running"
    CLOSED = "closed"


class Committer:
    """A thread that is handed appends and tasks by the event loop.

    Attributes:
        state: Where it is in its life.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Append | _Task | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.state = State.NEW

    def start(self, commit: Callable[[Sequence[Append]], None]) -> None:
        """Begin; call it in the event loop's thread.

        Args:
            commit: Makes a group durable, in the thread; has ``succeed`` or ``fail`` called of each, through ``post``.
        """
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=(commit,), name="log-commit")
        self._thread.start()
        self.state = State.RUNNING

    async def append(self, signal: str, frame: bytes, records: int, digest: bytes) -> None:
        """Return when the frame is durable.

        Raises:
            LogFullError: Nothing of the frame was kept.
            RuntimeError: Not started, or closed.
        """
        done: asyncio.Future[None] = self._running().create_future()
        self._queue.put(Append(signal, frame, records, digest, done))
        # A sender that hangs up must not undo what the thread is about to make durable.
        await asyncio.shield(done)

    async def in_order(self, run: Callable[[], T]) -> T:
        """What ``run`` returns or raises, called in the thread after all that was given before.

        Raises:
            RuntimeError: Not started, or closed.
        """
        done: asyncio.Future[T] = self._running().create_future()
        self._queue.put(_Task(run, done))
        return await done

    def post(self, call: Callable[..., None], *arguments: object) -> None:
        """Have something called in the event loop, in the order of posting; from the thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(call, *arguments)

    async def close(self) -> None:
        """Take nothing more, finish what was given before and end the thread."""
        if self._thread is None or self.state is not State.RUNNING:
            return
        self.state = State.CLOSED
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self.state is not State.RUNNING:
            raise RuntimeError(f"the log is {self.state.value}")
        return self._loop

    # Everything below runs in the thread.

    def _run(self, commit: Callable[[Sequence[Append]], None]) -> None:
        while True:
            group, after = self._collect()
            if group:
                self._commit(commit, group)
            if isinstance(after, _Task):
                self._run_task(after)
            elif after is None:
                return

    def _collect(self) -> tuple[list[Append], Append | _Task | None]:
        """Appends that wait now, and what ended the group: its last append where nothing else did."""
        group: list[Append] = []
        size = 0
        item = self._queue.get()
        while isinstance(item, Append):
            group.append(item)
            size += len(item.frame)
            if size >= GROUP_LIMIT or self._queue.empty():
                break
            item = self._queue.get()
        return group, item

    def _commit(self, commit: Callable[[Sequence[Append]], None], group: list[Append]) -> None:
        try:
            commit(group)
        except Exception as error:
            # A thread that ends here would leave every sender without an answer, for ever.
            LOG.exception("log_commit_failed", requests=len(group))
            self.post(fail, [item.done for item in group], error)

    def _run_task(self, task: _Task) -> None:
        try:
            result = task.run()
        except Exception as error:  # noqa: BLE001 - handed to the one who waits for it
            self.post(fail, [task.done], error)
        else:
            self.post(succeed, [task.done], result)


def succeed(futures: Iterable[asyncio.Future[Any]], result: object = None) -> None:
    """Give those who wait still their result."""
    for future in (one for one in futures if not one.done()):
        future.set_result(result)


def fail(futures: Iterable[asyncio.Future[Any]], error: Exception) -> None:
    """Give those who wait still an error."""
    for future in (one for one in futures if not one.done()):
        future.set_exception(error)
