"""Keeps things going for as long as the agent lives: what ends or fails is begun again after a growing pause."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import structlog

from agent.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

_STEADY_SECONDS: Final = 60.0
"""What ran for so long is begun again as soon as the first time."""

log = structlog.get_logger()


class State(StrEnum):
    """How something that is kept going stands."""

    RUNNING = "running"
    WAITING = "waiting"  # it failed, and is begun again after a pause


@dataclass(slots=True)
class Charge:
    """One thing that is kept going; ``restarts`` counts how often it failed."""

    state: State = State.RUNNING
    restarts: int = 0


class Supervision:
    """Runs things side by side; none stops another.

    Attributes:
        charges: How each stands, by its name; those that were ended stay.
    """

    def __init__(self) -> None:
        self.charges: dict[str, Charge] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, run: Callable[[], Awaitable[object]]) -> None:
        """Keep ``run`` going under a name that nothing else has."""
        self.charges[name] = Charge()
        self._tasks[name] = asyncio.create_task(self._keep(name, run), name=name)

    async def end(self, *, but: Collection[str] = ()) -> None:
        """Cancel all ``but`` these, and wait until they have ended."""
        tasks = [self._tasks.pop(name) for name in list(self._tasks) if name not in but]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _keep(self, name: str, run: Callable[[], Awaitable[object]]) -> None:
        charge = self.charges[name]
        backoff = Backoff(first=1.0, longest=60.0)
        while True:
            began = time.monotonic()
            charge.state = State.RUNNING
            try:
                await run()
                log.warning("source_ended", source=name)
            except Exception:
                log.exception("source_failed", source=name)
            charge.state = State.WAITING
            charge.restarts += 1
            if time.monotonic() - began > _STEADY_SECONDS:
                backoff.succeeded()
            await asyncio.sleep(backoff.failed())
