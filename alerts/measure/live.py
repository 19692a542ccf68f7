"""What is known in memory: whether the store answers, and since when it does not."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import structlog

from alerts.text import plain
from base.errors import ServescopeError

if TYPE_CHECKING:
    from alerts.measure.measured import Measured
    from alerts.measure.rows import Living
    from alerts.measure.store import Measurer

log = structlog.get_logger()


class Standing(StrEnum):
    """How it stands with the store."""

    UNASKED = "unasked"
    ANSWERS = "answers"
    AWAY = "away"
    BLOCKED = "blocked"
    """It may answer, and must not be believed yet."""


class StoreWatch:
    """Asks the store what a round needs, and remembers whether it answered.

    Args:
        store: Where to ask.
        measurer: What to ask.

    Attributes:
        blocked: Why the store must not be believed yet, empty when it may.
        error: Why it could not be asked last time, empty when it could.
        away_since: Unix seconds, None while it answers.
        failures: Times that it did not answer or refused.
    """

    def __init__(self, store: Living, measurer: Measurer) -> None:
        self.store, self.measurer = store, measurer
        self.blocked = ""
        self.error = ""
        self.away_since: float | None = None
        self.failures = 0
        self._asked = False

    @property
    def standing(self) -> Standing:
        """How it stands."""
        if self.blocked:
            return Standing.BLOCKED
        if self.away_since is not None:
            return Standing.AWAY
        return Standing.ANSWERS if self._asked else Standing.UNASKED

    def ask(self, now: float) -> Measured | None:
        """What the round knows; None while the store is away or not believed.

        Args:
            now: Unix seconds.
        """
        self._asked = True
        try:
            measured = self._measured(now)
        except ServescopeError as error:
            self.failures += 1
            self.error = plain(str(error), 500)
            if self.away_since is None:
                self.away_since = now
                log.error("store_unreachable", error=self.error)  # noqa: TRY400 one line is enough
            return None
        if self.away_since is not None:
            log.info("store_reachable", away_seconds=round(now - self.away_since, 1))
        self.away_since, self.error = None, ""
        return measured

    def _measured(self, now: float) -> Measured:
        if self.blocked:
            raise ServescopeError(self.blocked)
        return self.measurer.measure(self.store, now)
