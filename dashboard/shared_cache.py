"""Results by key, worked out once for all who ask at the same time and kept for a moment."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable


class SharedCache:
    """A bounded memory of results. Threads that ask for a key in the making wait for it; a failure is not kept.

    Args:
        seconds: How long a result is kept.
        entries: How many are kept, the oldest go first.
        clock: Monotonic seconds.
    """

    def __init__(self, seconds: float, entries: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._entries = entries
        self._clock = clock
        self._guard = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[float, Future[Any]]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The result of ``make`` for this key, from now or from a moment ago; raises what ``make`` raises."""
        now = self._clock()
        with self._guard:
            born, future = self._kept.get(key, (now, None))
            mine = future is None or now - born > self._seconds
            if mine:
                future = Future()
                self._kept[key] = (now, future)
                self._kept.move_to_end(key)
                while len(self._kept) > self._entries:
                    self._kept.popitem(last=False)
        assert future is not None  # noqa: S101 - made above when it was not there
        if mine:
            try:
                future.set_result(make())
            except BaseException as error:
                with self._guard:
                    if self._kept.get(key, (0.0, None))[1] is future:
                        del self._kept[key]
                future.set_exception(error)
                raise
        return future.result()

    def ready(self, key: Hashable) -> bool:
        """Whether a result for this key is there without waiting."""
        with self._guard:
            born, future = self._kept.get(key, (0.0, None))
        return future is not None and future.done() and self._clock() - born <= self._seconds

    def clear(self) -> None:
        """Forget everything."""
        with self._guard:
            self._kept.clear()
