"""Guests whose queries the engine could only be rid of by starting again: for a growing while they are refused.

A recycling costs everybody two seconds and every guest's query, and a guest has no right that could be taken away. It
is blamed on the client, from the second on also on its network, and from the fifth on on guests as such: a client that
goes by another name each time gains nothing in the end. Owner and own readers are never blamed.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

from collector.embedded.errors import QUOTA_EXCEEDED, refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collector.embedded.places import Client

FIRST_SECONDS: Final = 60.0
"""Seconds of the first refusal; each further one lasts twice as long."""

LONGEST_SECONDS: Final = 3600.0
"""Seconds after which nobody is refused any more, whatever was."""

FORGOTTEN_SECONDS: Final = 6 * 3600.0
"""Seconds without another recycling after which the earlier ones don't count any more."""

_FREE: Final = {"client": 0, "network": 1, "guests": 4}
_KEPT: Final = 1000

Record = tuple[int, float]
"""How many recyclings are blamed on somebody, and the monotonic time of the last."""


class Penalties:
    """Who is refused, and until when; lives on the event loop.

    Args:
        records: What an earlier life of the process found, by who is blamed. The clock is the machine's, so that times
            hold across lives.
    """

    def __init__(self, records: Mapping[str, Record]) -> None:
        self._records = dict(records)
        self._refused = 0

    def blame(self, client: Client | None) -> None:
        """Note that this client's query had the engine recycled."""
        if client is None or client.group != "guest":
            return
        now = time.monotonic()
        for who in _blamed(client):
            count = self._count(who, now)
            # What was blamed last stands last.
            self._records.pop(who, None)
            self._records[who] = (count + 1, now)
        while len(self._records) > _KEPT:
            del self._records[next(iter(self._records))]

    def check(self, client: Client) -> None:
        """Refuse a client while its time lasts.

        Raises:
            QueryError: It is refused (201), and for how long.
        """
        if client.group != "guest":
            return
        now = time.monotonic()
        left, who = max((self._left(who, now), who) for who in _blamed(client))
        if left <= 0:
            return
        self._refused += 1
        whom = {"client": "you", "network": "your address", "guests": "guests"}[who.partition(" ")[0]]
        raise refused(
            QUOTA_EXCEEDED,
            "QUOTA_EXCEEDED",
            f"Queries that would not end had the engine started again, {self._count(who, now)} blamed on {whom}",
            f"Ask again in {math.ceil(left)} s, for less at a time",
            retry_seconds=math.ceil(left),
        )

    def records(self) -> dict[str, Record]:
        """What the next life of the process needs to know."""
        now = time.monotonic()
        return {who: record for who, record in self._records.items() if self._count(who, now)}

    def figures(self) -> dict[str, int]:
        """Counts for the health page."""
        now = time.monotonic()
        left = [seconds for who in self._records if (seconds := self._left(who, now)) > 0]
        return {"penalties": len(left), "penalty_seconds": math.ceil(max(left, default=0.0)), "refused": self._refused}

    def _count(self, who: str, now: float) -> int:
        count, last = self._records.get(who, (0, now))
        return count if now - last < FORGOTTEN_SECONDS else 0

    def _left(self, who: str, now: float) -> float:
        beyond = self._count(who, now) - _FREE[who.partition(" ")[0]]
        if beyond <= 0:
            return 0.0
        seconds = min(LONGEST_SECONDS, FIRST_SECONDS * (1 << min(beyond - 1, 10)))
        return max(0.0, self._records[who][1] + seconds - now)


def _blamed(client: Client) -> tuple[str, ...]:
    return f"client {client.name}", f"network {client.network}", "guests"
