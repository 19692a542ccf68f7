"""Statements on the engine: handles, slots, cancellation, and the repair that follows a failed write."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import structlog

from collector.embedded.errors import TOO_MANY_SIMULTANEOUS_QUERIES, QueryError, refused
from collector.embedded.guard import Admitted, Guard
from collector.embedded.sessions import Sessions
from collector.embedded.statement import first_word
from collector.embedded.writes import Writes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from collector.embedded.engine import Engine, Handle, Outcome
    from collector.embedded.pipe import Pipe
    from collector.embedded.request import Ask, Plan

_log = structlog.get_logger()
_OWNERS = 16
_WAITING = 128
P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Job:
    """One statement with its handle.

    Attributes:
        admitted: The statement, as it runs.
    """

    runner: Runner
    handle: Handle
    ask: Ask
    plan: Plan
    tag: str
    admitted: Admitted
    running: asyncio.Future[Outcome] | None = None
    slot: asyncio.Semaphore | None = None
    left: bool = False

    @property
    def form(self) -> str | None:
        """Format of the answer; None where the statement has no result set."""
        return self.admitted.answer.form if self.admitted.answer else None

    async def settle(self) -> None:
        """Give handle and slot back before the client sees the end: its next request may need the same session."""
        await asyncio.shield(self.runner.later(self.runner.finish(self)))

    async def run(self) -> Outcome:
        """Run a statement without a result set, or an insert.

        Raises:
            QueryError: It failed; a failed write has been repaired.
        """
        sql, form, parameters = self.admitted.sql, self.ask.default_format, self.ask.parameters
        if self.admitted.writes:
            self.running = self.runner.submit(self.runner.writes.run, self.handle, sql, form, parameters)
        else:
            self.running = self.runner.submit(self.handle.query, f"{sql}\n/* {self.tag} */", form, parameters)
        # A write runs to its end even if the client has gone: half a batch helps nobody.
        return await asyncio.shield(self.running)

    def start(self, pipe: Pipe) -> asyncio.Future[Outcome]:
        """Start a query whose answer goes into ``pipe``; the job must have a ``form``."""
        answer = self.admitted.answer
        if answer is None:
            raise ValueError("a statement without an answer")
        self.running = self.runner.submit(self.handle.answer, answer, str(pipe.path), self.tag, self.ask.parameters)
        self.running.add_done_callback(lambda _: pipe.finish())
        return self.running


class Runner:
    """Hands statements to the engine's threads, so many at a time.

    Args:
        engine: The open engine.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.writes = Writes(engine)
        self.sessions = Sessions(engine)
        self._guard = Guard(engine)
        self._threads = ThreadPoolExecutor(_OWNERS + engine.limits.readers + 8, thread_name_prefix="query")
        self._control = ThreadPoolExecutor(2, thread_name_prefix="control")
        self._slots = {"owner": asyncio.Semaphore(_OWNERS), "reader": asyncio.Semaphore(engine.limits.readers)}
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._served = 0

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Run ``work`` in a thread."""
        return asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args, **kwargs))

    async def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``work`` in a thread and wait for it."""
        return await self.submit(work, *args, **kwargs)

    async def check(self) -> None:
        """Ask the engine for a sign of life.

        Raises:
            QueryError: It gives none.
        """
        await asyncio.get_running_loop().run_in_executor(self._control, self.engine.root, "SELECT 1")

    def figures(self) -> dict[str, int]:
        """Counts for the health page."""
        return {
            "queries": self._served,
            "waiting": self._waiting,
            "sessions": len(self.sessions),
        } | self.writes.figures()

    @contextlib.asynccontextmanager
    async def job(self, ask: Ask, plan: Plan) -> AsyncIterator[Job]:
        """Take a slot and a handle for ``plan``; both are given back whatever happens, the query cancelled first.

        Raises:
            QueryError: Refused by the guard, the session or the engine; too many wait already (202).
        """
        if self._waiting >= _WAITING:
            raise refused(
                TOO_MANY_SIMULTANEOUS_QUERIES,
                "TOO_MANY_SIMULTANEOUS_QUERIES",
                f"{self._waiting} queries wait for one of {self.engine.limits.readers} readers' places",
                "Try again in a second",
            )
        slot = self._slots[ask.role]
        self._waiting += 1
        try:
            await slot.acquire()
        finally:
            self._waiting -= 1
        self._served += 1
        opening = self.submit(self._open, ask, plan)
        try:
            job = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(lambda done: self.later(_forget(self, done, slot)))
            raise
        except BaseException:
            slot.release()
            raise
        job.slot = slot
        try:
            yield job
        finally:
            if not job.left:
                # Cancelled: the handle outlives its query, so clean up apart from the request's own task.
                self.later(self.finish(job))

    def later(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run ``work`` to its end, whatever becomes of the request that needed it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _open(self, ask: Ask, plan: Plan) -> Job:
        handle, kept = self.sessions.enter(ask)
        try:
            admitted = self._guard.admit(handle, ask, plan)
            if kept is not None:
                kept.custom |= first_word(plan.sql) == "SET"
                if admitted.settings:
                    kept.remember(admitted.settings)
            handle.use(admitted.settings)
            return Job(self, handle, ask, plan, f"q{secrets.token_hex(12)}", admitted)
        except BaseException:
            self.sessions.leave(ask, handle)
            raise

    async def finish(self, job: Job) -> None:
        """Give handle and slot back, cancelling a query that still runs."""
        if job.left:
            return
        job.left = True
        try:
            if job.running is not None and not job.running.done():
                await self._cancel(job)
            await self.call(self.sessions.leave, job.ask, job.handle)
        finally:
            if job.slot is not None:
                job.slot.release()

    async def _cancel(self, job: Job) -> None:
        loop = asyncio.get_running_loop()
        while job.running is not None and not job.running.done():
            if not job.admitted.writes:
                with contextlib.suppress(QueryError):
                    await loop.run_in_executor(self._control, self.engine.kill, job.tag)
            await asyncio.wait([job.running], timeout=1)
        if job.running is not None and not job.running.cancelled():
            # Read it, so that nobody reports an exception that was never looked at.
            job.running.exception()

    async def close(self, seconds: float) -> bool:
        """Wait for what runs, at most ``seconds``, then give the engine's threads back.

        Returns:
            Whether everything had ended; if not, the engine can't be closed.
        """
        pending: set[asyncio.Task[None]] = set()
        if self._tasks:
            _, pending = await asyncio.wait(self._tasks, timeout=seconds)
        if pending:
            return False
        self.sessions.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._control.shutdown(wait=False, cancel_futures=True)
        return True


async def _forget(runner: Runner, opening: asyncio.Future[Job], slot: asyncio.Semaphore) -> None:
    try:
        if opening.exception() is None:
            job = opening.result()
            await runner.call(runner.sessions.leave, job.ask, job.handle)
    finally:
        slot.release()
