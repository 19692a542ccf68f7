"""The collector's clock minus ours, from the stamps of its answers."""

from __future__ import annotations

from collections import deque
from typing import Final

_SAMPLES: Final = 32


class ClockOffset:
    """Collector's clock minus ours, from the stamps of its answers.

    A request received at the collector's ``r``, between our ``sent`` and ``answered``, bounds the offset by
    ``[r - answered, r - sent]``; the middle is wrong by half the round trip at most, so the shortest of the last
    rounds is the one to believe (Cristian's algorithm).
    """

    def __init__(self) -> None:
        self._rounds: deque[tuple[int, float]] = deque(maxlen=_SAMPLES)

    def add(self, sent_ns: int, answered_ns: int, received_ns: int) -> float:
        """Take one round (Unix nanoseconds) and return the best estimate in seconds."""
        self._rounds.append((answered_ns - sent_ns, (received_ns - (sent_ns + answered_ns) / 2) / 1e9))
        return min(self._rounds)[1]
