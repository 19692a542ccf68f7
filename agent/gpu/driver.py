"""Calls into a driver that may never return.

A call that hangs inside the kernel can't be taken back, so each is made by a thread that can be left behind: it is a
daemon, which an exit doesn't wait for, and its late answer is dropped. The binding lets go of the interpreter's lock
while it calls.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PATIENCE_SECONDS: Final = 5.0
"""How long a round of calls may take: one of eight GPUs takes milliseconds."""
OPENING_PATIENCE_SECONDS: Final = 60.0
"""How long opening may take: a GPU that nobody keeps awake takes seconds, one after another."""


class HungError(Exception):
    """A call did not return in time.

    Attributes:
        over: Set when it has returned after all.
    """

    def __init__(self, over: threading.Event) -> None:
        super().__init__("the driver does not answer")
        self.over = over


class Caller:
    """Makes calls one after another in a thread of its own, and another thread once that one hangs.

    Args:
        patience_seconds: How long a call may take.
    """

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience = patience_seconds
        self._work: SimpleQueue[Callable[[], None] | None] | None = None

    async def call(self, function: Callable[..., T], *arguments: Any, patience_seconds: float | None = None) -> T:
        """What the function returns.

        Args:
            function: It makes the calls.
            arguments: The function's.
            patience_seconds: How long they may take, where that is another time than usual.

        Raises:
            HungError: It did not return in time; the next call is made by another thread.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        over = threading.Event()

        def work() -> None:
            found: T | None = None
            failure: BaseException | None = None
            try:
                found = function(*arguments)
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                failure = error
            over.set()
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(_settle, answer, found, failure)

        if self._work is None:
            self._work = SimpleQueue()
            threading.Thread(target=_serve, args=(self._work,), name="gpu-driver", daemon=True).start()
        self._work.put(work)
        try:
            return await asyncio.wait_for(answer, self._patience if patience_seconds is None else patience_seconds)
        except TimeoutError:
            self.close()
            raise HungError(over) from None

    def close(self) -> None:
        """Let the thread end once it has nothing to do."""
        if self._work is not None:
            self._work.put(None)
            self._work = None


def _serve(work: SimpleQueue[Callable[[], None] | None]) -> None:
    while (one := work.get()) is not None:
        one()


def _settle(answer: asyncio.Future[T], found: T | None, failure: BaseException | None) -> None:
    if answer.done():
        return  # nobody waits any more
    if failure is not None:
        answer.set_exception(failure)
    else:
        answer.set_result(cast("T", found))
