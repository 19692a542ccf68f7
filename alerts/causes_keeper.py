"""Keeps what requests cost and why they were slow, a period at a time, for the accounts that come after.

Which period is due the store says, so that nothing is lost by a restart and nothing counts twice. Where no request
came, no process is started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from alerts.own_process import answer_of
from base.errors import ServescopeError
from collector.store.client import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.store.address import StoreAddress

log = structlog.get_logger()

EVERY_SECONDS: Final = 30.0
"""How often it is asked whether a period is due."""
_WHOLE_SECONDS: Final = 100.0
"""A process that is not done by then is ended, below the patience with a task (`alerts.worker.PATIENCE_SECONDS`)."""
_STORE_SECONDS: Final = 30.0
_MOST_FAILURES: Final = 3
"""Failures in a row after which a period is left out, so that those that come are kept."""


class CausesKeeper:
    """Keeps one period after the other.

    Args:
        due: Says which period is to be kept next (its end, Unix seconds), given the end of the newest that was given
            up; None where none is.
        keep: Keeps it.
        ready: Whether the store answers and is believed.
        newest: End of the newest period that may be due, Unix seconds: where none was due, that is asked again when
            there is another.
    """

    def __init__(
        self,
        due: Callable[[float], float | None],
        keep: Callable[[float], object],
        *,
        ready: Callable[[], bool] = lambda: True,
        newest: Callable[[], float] = lambda: float("nan"),
    ) -> None:
        self._due, self._keep, self._ready, self._newest = due, keep, ready, newest
        self._none_until = float("nan")  # as no end is
        self._given_up, self._failed = 0.0, 0

    def once(self) -> None:
        """Keep the oldest period that is due; what fails is tried again, and left out after some times."""
        newest = self._newest()
        if not self._ready() or newest == self._none_until:
            return
        try:
            until = self._due(self._given_up)
        except ServescopeError as error:
            log.warning("causes_not_kept", error=error.what)
            return
        if until is None:
            self._none_until = newest
            return
        try:
            self._keep(until)
        except ServescopeError as error:
            self._failed += 1
            if self._failed >= _MOST_FAILURES:
                self._given_up, self._failed = until, 0
            log.warning("causes_not_kept", error=error.what, until=until, given_up=self._given_up == until)
        else:
            self._failed = 0


def apart(address: StoreAddress, until: float) -> int:
    """Keep a period in a process of its own; the requests of its account.

    Raises:
        ServescopeError: As `analytics.causes.keeping.keep` does; it took too long, or ended without an answer.
    """
    return int(answer_of(_keep, address, until, seconds=_WHOLE_SECONDS))


def _keep(address: StoreAddress, until: float) -> int:
    from analytics.causes.keeping import keep  # noqa: PLC0415 - what pages imports this module, and needs none of that

    with Store(address, timeout_seconds=_STORE_SECONDS) as store:
        return keep(store, until)
