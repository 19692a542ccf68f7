"""How long records gather into one batch: longer while the collector says that nobody reads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

UNREAD_SECONDS: Final = 1.5
"""While nobody reads: whoever begins to sees what is so old, and of what comes after that within three seconds all."""
_HOLDS_SECONDS: Final = 5.0
"""A collector's word is good for so long: it may have changed its mind while nothing was sent."""


class Gathering:
    """One of all lanes: what a collector says of one signal it says of all.

    Args:
        seconds: While somebody reads, or it is not known.
        clock: Monotonic seconds.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._unread_until = float("-inf")

    def told(self, *, unread: bool) -> None:
        """Take a collector's word."""
        self._unread_until = self._clock() + _HOLDS_SECONDS if unread else float("-inf")

    @property
    def seconds(self) -> float:
        """For how long now."""
        return max(self._seconds, UNREAD_SECONDS) if self._clock() < self._unread_until else self._seconds
