"""Results that a page does without while they are not there: worked out beside it, a few at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable


class Later:
    """Works out results by key in threads of its own; a key in the making is not begun again.

    Args:
        workers: How many are worked out at once.
        most: How many may be in the making or wait to be fetched; beyond that none is begun.
    """

    def __init__(self, workers: int = 2, most: int = 12) -> None:
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="later")
        self._most = most
        self._guard = threading.Lock()
        self._begun: OrderedDict[Hashable, Future[Any]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any], seconds: float) -> Any:
        """The result of ``make``, fetched once; None where it is not there after some seconds.

        What ``make`` raises is raised to who asks next, who then may begin it anew.
        """
        with self._guard:
            future = self._begun.get(key)
            if future is None:
                self._forget()
                if len(self._begun) >= self._most:
                    return None
                future = self._begun[key] = self._pool.submit(make)
        wait([future], seconds)
        if not future.done():
            return None
        with self._guard:
            if self._begun.get(key) is future:
                del self._begun[key]
        return future.result()

    def _forget(self) -> None:
        """Make room: what is done and was not fetched goes, the oldest first."""
        for key in [key for key, future in self._begun.items() if future.done()]:
            if len(self._begun) < self._most:
                return
            del self._begun[key]
