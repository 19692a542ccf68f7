"""Writes: any number at a time, but none while a failed one is being repaired."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collector.embedded.engine import Engine, Handle, Outcome

_log = structlog.get_logger()


class Writes:
    """Runs writes on handles and repairs after a failure."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Condition()
        self._running = 0
        self._repairing = False
        self._failed = 0

    def figures(self) -> dict[str, int]:
        """Counts for the health page."""
        return {"failed_writes": self._failed}

    def run(self, handle: Handle, sql: str, form: str, parameters: Mapping[str, str]) -> Outcome:
        """Run one write.

        Raises:
            QueryError: It failed.
        """
        return handle.query(sql, form, parameters)
