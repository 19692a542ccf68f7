"""Statements on the engine: handles, places, cancellation, and the repair that follows a failed write."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import structlog

from collector.embedded.errors import QueryError
from collector.embedded.guard import Admitted, Guard
from collector.embedded.places import Client, Group, Places, Stay
from collector.embedded.sessions import Sessions
from collector.embedded.statement import first_word
from collector.embedded.stays import time_limit, watch
from collector.embedded.writes import Writes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from collector.embedded.engine import Engine, Handle, Outcome
    from collector.embedded.pipe import Pipe
    from collector.embedded.recycle import Recycle
    from collector.embedded.request import Ask, Plan

_log = structlog.get_logger()
_OWNERS = 16
_WAITING = 128
_GUEST_WAITING = 32
# The engine holds a query back while one with a smaller number runs, so long at each of its steps.
_SETTINGS: dict[Group, dict[str, str]] = {
    "owner": {"priority": "1"},
    "own": {"priority": "1"},
    "guest": {"priority": "10", "low_priority_query_wait_time_ms": "250"},
}
_WAITED_FOR: tuple[Group, ...] = ("owner", "own")
_CONTROL_SECONDS = 10
_DRAIN_STEP_SECONDS = 0.1
# An insert runs to its end without its client; one that has not ended so long after never will.
_INSERT_PATIENCE = 600.0
P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Job:
    """One statement with its handle.

    Attributes:
        admitted: The statement, as it runs.
    """

    runner: Runner
    stay: Stay
    handle: Handle
    ask: Ask
    plan: Plan
    tag: str
    admitted: Admitted
    running: asyncio.Future[Outcome] | None = None
    left: bool = False

    @property
    def form(self) -> str | None:
        """Format of the answer; None where the statement has no result set."""
        return self.admitted.answer.form if self.admitted.answer else None

    async def settle(self) -> None:
        """Give handle and place back before the client sees the end: its next request may need the same session."""
        await asyncio.shield(self.runner.later(self.runner.finish(self)))

    async def run(self) -> Outcome:
        """Run a statement without a result set, or an insert, and give its place back.

        Raises:
            QueryError: It failed; a failed write has been repaired.
        """
        sql, form, parameters = self.admitted.sql, self.ask.default_format, self.ask.parameters
        if self.admitted.writes:
            self.running = self.runner.submit(self.runner.writes.run, self.handle, sql, form, parameters)
        else:
            self.running = self.runner.submit(self.handle.query, f"{sql}\n/* {self.tag} */", form, parameters)
        return await self.outcome()

    async def outcome(self) -> Outcome:
        """The end of what runs; its place is given back by then.

        Raises:
            QueryError: It failed, or overstayed (159).
        """
        if self.running is None:
            raise RuntimeError("nothing runs")
        try:
            return await self.stay.unless_cut(self.running)
        finally:
            if self.running.done():
                await self.settle()

    def start(self, pipe: Pipe) -> None:
        """Start a query whose answer goes into ``pipe``; the job must have a ``form``."""
        answer = self.admitted.answer
        if answer is None:
            raise ValueError("a statement without an answer")
        self.running = self.runner.submit(self.handle.answer, answer, str(pipe.path), self.tag, self.ask.parameters)
        self.running.add_done_callback(lambda _: pipe.finish())
        self.stay.when_cut(pipe.close)


class Runner:
    """Hands statements to the engine's threads, so many at a time.

    Args:
        engine: The open engine.
        recycle: Takes the order to replace the process.
    """

    def __init__(self, engine: Engine, recycle: Recycle) -> None:
        self.engine = engine
        self.recycle = recycle
        self.writes = Writes(engine)
        self.sessions = Sessions(engine)
        self._guard = Guard(engine)
        readers = engine.limits.readers
        self._threads = ThreadPoolExecutor(_OWNERS + 2 * readers + 8, thread_name_prefix="query")
        self._control = ThreadPoolExecutor(2, thread_name_prefix="control")
        entered = asyncio.Event()
        self.places: dict[Group, Places] = {
            "owner": Places(_OWNERS, _OWNERS, (_WAITING, _WAITING), entered),
            "own": Places(readers, readers, (_WAITING, _WAITING), entered),
            "guest": Places(readers, max(1, readers - 1), (_WAITING, _GUEST_WAITING), entered),
        }
        self._tasks: set[asyncio.Task[None]] = set()
        self._served = 0
        self._watch = asyncio.get_running_loop().create_task(watch(self.places, recycle, entered))
        recycle.listeners.append(self._refuse)

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
            TimeoutError: It says nothing for ten seconds.
        """
        async with asyncio.timeout(_CONTROL_SECONDS):
            await asyncio.get_running_loop().run_in_executor(self._control, self.engine.root, "SELECT 1")

    def figures(self) -> dict[str, object]:
        """Counts for the health page."""
        return {
            "queries": self._served,
            "sessions": len(self.sessions),
            "places": {group: places.figures() for group, places in self.places.items()},
            "waiting": sum(places.figures()["waiting"] for places in self.places.values()),
        } | self.writes.figures()

    def arrive(self, client: Client) -> Stay:
        """Come in and wait for ``enter``; end the stay whatever happens.

        Raises:
            QueryError: Too many wait already (202), the store is being recycled (745), or the client had it recycled
                not long ago (201).
        """
        self.recycle.penalties.check(client)
        stay = self.places[client.group].arrive(client.name)
        stay.client = client
        if client.role == "reader":
            stay.limit = self.engine.limits.reader_seconds
        return stay

    @contextlib.asynccontextmanager
    async def job(self, stay: Stay, client: Client, ask: Ask, plan: Plan) -> AsyncIterator[Job]:
        """Take a handle for ``plan``; it and the place are given back whatever happens, the query cancelled first.

        Raises:
            QueryError: Refused by the guard, the session or the engine.
        """
        self._served += 1
        opening = self.submit(self._open, stay, client, ask, plan)
        stay.busy = True
        try:
            job = await stay.unless_cut(opening)
        except BaseException:
            if opening.done() and not opening.cancelled() and opening.exception() is not None:
                stay.end()
            else:
                stay.left = True
                opening.add_done_callback(lambda done: self.later(_forget(self, done, stay)))
            raise
        stay.when_late(lambda: self._kill(job))
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

    def _open(self, stay: Stay, client: Client, ask: Ask, plan: Plan) -> Job:
        handle, kept = self.sessions.enter(ask, _SETTINGS[client.group])
        try:
            admitted = self._guard.admit(handle, ask, plan)
            if kept is not None:
                kept.custom |= first_word(plan.sql) == "SET"
                if admitted.settings:
                    kept.remember(admitted.settings)
            handle.use(admitted.settings)
            if admitted.answer is not None:
                # What a reader's text sets is among the settings already.
                text = admitted.answer.text if ask.role == "owner" else ""
                stay.limit = min(stay.limit, time_limit(text, admitted.settings))
            else:
                # A write runs to its end even if the client has gone: half a batch helps nobody.
                stay.limit, stay.patience = float("inf"), _INSERT_PATIENCE if plan.insert is not None else float("inf")
            return Job(self, stay, handle, ask, plan, f"q{secrets.token_hex(12)}", admitted)
        except BaseException:
            self.sessions.leave(ask, handle)
            raise

    async def finish(self, job: Job) -> None:
        """Give handle and place back, cancelling a query that still runs."""
        if job.left:
            return
        job.left = True
        try:
            if job.running is not None and not job.running.done():
                job.stay.left = True
                await self._cancel(job)
            await self.call(self.sessions.leave, job.ask, job.handle)
        finally:
            job.stay.end()

    async def _cancel(self, job: Job) -> None:
        while job.running is not None and not job.running.done():
            killing = self._kill(job)
            await asyncio.wait([job.running], timeout=1)
            await asyncio.wait([killing])
        if job.running is not None and not job.running.cancelled():
            # Read it, so that nobody reports an exception that was never looked at.
            job.running.exception()

    def _kill(self, job: Job) -> asyncio.Task[None]:
        async def kill() -> None:
            if not job.admitted.writes:
                with contextlib.suppress(QueryError):
                    await asyncio.get_running_loop().run_in_executor(self._control, self.engine.kill, job.tag)

        return self.later(kill())

    def _refuse(self, why: str) -> None:
        for places in self.places.values():
            places.close(f"starts its engine again: {why}")

    async def drain(self, seconds: float) -> None:
        """Wait for what runs but has not overstayed, at most ``seconds``; what guests ask is not waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # Stays end in many places, and this is once in a life.
                while any(not stay.over for group in _WAITED_FOR for stay in self.places[group].stays):  # noqa: ASYNC110
                    await asyncio.sleep(_DRAIN_STEP_SECONDS)

    async def close(self, seconds: float) -> bool:
        """Wait for what runs, at most ``seconds``, then give the engine's threads back.

        Returns:
            Whether everything had ended; if not, the engine can't be closed.
        """
        self._watch.cancel()
        pending: set[asyncio.Task[None]] = set()
        if self._tasks:
            _, pending = await asyncio.wait(self._tasks, timeout=seconds)
        if pending:
            return False
        self.sessions.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._control.shutdown(wait=False, cancel_futures=True)
        return True


async def _forget(runner: Runner, opening: asyncio.Future[Job], stay: Stay) -> None:
    try:
        if opening.exception() is None:
            job = opening.result()
            await runner.call(runner.sessions.leave, job.ask, job.handle)
    finally:
        stay.end()
