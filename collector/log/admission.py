"""Whether a request finds room in the log: what lies on disk and what is on its way, under one bound."""

from __future__ import annotations

import math
import time

from collector.log.segment import SIGNALS


class LogFullError(Exception):
    """The log can't take a request now: it is over its bound (``bound``) or the disk refused the write (``disk``)."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Admission:
    """Bytes of the log; belongs to the event loop's thread.

    Args:
        max_bytes: Bound of all of them together.

    Attributes:
        bytes: Those on disk, of segments that the store has but that were not removed yet too.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._reserved = 0
        self._came = dict.fromkeys(SIGNALS, -math.inf)
        self.bytes = 0

    def reserve(self, signal: str, size: int) -> None:
        """Hold room for a frame of ``size`` bytes, until ``give_back``.

        Raises:
            LogFullError: There is none; nothing is held.
        """
        if self.bytes + self._reserved + size > self._max_bytes:
            raise LogFullError("bound")
        self._reserved += size
        self._came[signal] = time.monotonic()

    def give_back(self, size: int) -> None:
        """What was reserved is on disk and counted there, or was refused."""
        self._reserved -= size

    def grew(self, size: int) -> None:
        """So many bytes are on disk now that were not, fewer where negative."""
        self.bytes += size

    def quiet_seconds(self, signal: str) -> float:
        """Seconds since the last request of a signal found room, infinite before the first."""
        return time.monotonic() - self._came[signal]
