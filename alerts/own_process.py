"""Work of an account of requests, done in a process of its own.

What pages keeps its memory small and its interpreter free: an account takes a hundred megabytes and seconds of CPU. So
a process is started for each, at a low priority, is ended with its bound, and gives everything back.
"""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING, Any, Final

from base.errors import ServescopeError
from base.formats import spell

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

_NICE: Final = 10


def answer_of(what: Callable[..., Any], *args: Any, seconds: float) -> Any:
    """What a function of a module returns, called in a process of its own.

    Args:
        what: The function; it and what it is given are sent there.
        args: What it is given.
        seconds: After which it is ended.

    Raises:
        ServescopeError: It raised one; it came to no answer in time, or its process ended without one.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, what, *args), daemon=True, name="causes")
    process.start()
    there.close()
    try:
        if not here.poll(seconds):
            raise ServescopeError(f"it took longer than {spell(seconds)}", "`servescope causes` takes its time")
        answer, error = here.recv()
    except EOFError:
        process.join()
        raise ServescopeError(
            f"their process ended with code {process.exitcode}", "The alerts' log has its last words"
        ) from None
    finally:
        here.close()
        process.kill()
        process.join()
        process.close()
    if error is not None:
        raise ServescopeError(*error)
    return answer


def _answer(there: Connection, what: Callable[..., Any], *args: Any) -> None:
    os.nice(_NICE)
    try:
        there.send((what(*args), None))
    except ServescopeError as error:
        there.send((None, (error.what, error.fix)))
