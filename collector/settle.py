"""Put together what arrives in pieces: spans of one request, halves that lie apart, what probes told.

ClickHouse does the work, in four statements (``schema/settle/``) that may be repeated at will: rows of ``requests_t``
merge by maximum, and a half that was given away is marked, never deleted. Which of them have anything to do is asked
first.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from collector.store.migrate import SCHEMA

if TYPE_CHECKING:
    from collector.store.client import Store

FIRST_LOOK: Final = timedelta(days=1)
"""How far back the first run looks: what was inserted before a crash and not yet settled."""

OVERLAP: Final = timedelta(seconds=15)
"""Spans are stamped when their insert runs and visible when it ends: a run looks this far behind the one before."""

_WAITING: Final = "waiting"
_STEPS: Final = ("triton", "claims", "orphans", "finished")
_FRESH_SECONDS: Final = 45
_LATE_SECONDS: Final = 600
_LATE_EVERY: Final = timedelta(minutes=1)
"""Nearly all finished requests find their row at once: those that did not are looked at again once a minute."""


class Settler:
    """Settles what was inserted since its last run.

    Args:
        store: A store opened as owner, its schema applied.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._since: datetime | None = None
        self._looked_late: datetime | None = None
        self._statements = {
            name: (SCHEMA / "settle" / f"{name}.sql")
            .read_text(encoding="utf-8")
            .replace("{database}", store.address.database)
            for name in (_WAITING, *_STEPS)
        }

    def run(self) -> None:
        """Settle once; the next run begins where this one began.

        Raises:
            StoreError: ClickHouse refused a statement; the next run repeats it.
            StoreUnavailable: The store does not answer; likewise.
        """
        now = datetime.fromisoformat(self._store.command("SELECT toString(now64(3, 'UTC'))"))
        since = self._since or now - FIRST_LOOK
        late = self._looked_late is None or now - self._looked_late >= _LATE_EVERY
        parameters = {
            "since": since.isoformat(sep=" ", timespec="milliseconds"),
            "looks_back": _LATE_SECONDS if late else _FRESH_SECONDS,
        }
        waiting = {row["step"] for row in self._store.rows(self._statements[_WAITING], parameters)}
        for step in _STEPS:
            if step in waiting:
                self._store.command(self._statements[step], parameters)
        self._since = now - OVERLAP
        if late:
            self._looked_late = now


def settle(store: Store) -> None:
    """Settle everything of the last day once."""
    Settler(store).run()
