"""Writes: any number at a time, but none while the traces of a failed one are being repaired."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import structlog

from collector.embedded import repair
from collector.embedded.errors import QueryError, from_engine, refused
from collector.embedded.statement import first_word

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from collector.embedded.engine import Engine, Handle, Outcome

_log = structlog.get_logger()
# Syntax, format, settings and rights: refused before a block was written, so there is nothing to repair and no reason
# to disturb the tables. What a view may throw too (types, columns, functions, tables) is not among them: its targets
# before that one may be written.
_NOTHING_WRITTEN = frozenset({62, 73, 115, 164, 452, 497})

_INSERTING = frozenset({"INSERT", "WITH"})


class Writes:
    """Runs writes on handles; threads share it.

    Args:
        engine: The open engine.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Condition()
        self._running = 0
        self._repairing = False
        self._damage = False
        self._failed = 0
        self._repaired = 0

    def figures(self) -> dict[str, object]:
        """For the health page: failed writes, log lines repaired, whether a repair runs."""
        return {"failed_writes": self._failed, "repaired_lines": self._repaired, "repairing": self._repairing}

    @property
    def damage(self) -> bool:
        """Whether a failed write is not repaired, and none runs that would."""
        return self._damage and not self._repairing

    def run(self, handle: Handle, sql: str, form: str, parameters: Mapping[str, str]) -> Outcome:
        """Run one write; when it fails, repair before the error is handed on, so that a retry completes it.

        Raises:
            QueryError: It failed, or an earlier failure can't be repaired yet (a full disk).
        """
        if self._damage:
            self._repair()
        with self._shared():
            try:
                return handle.query(sql, form, parameters)
            except QueryError as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - a failed insert is repaired whatever failed it
                # Whatever it was, it came between the engine and us: what the engine did is not known.
                _log.exception("write_failed_oddly")
                handle.tainted = True
                failure = from_engine(error)
        self._failed += 1
        if failure.code not in _NOTHING_WRITTEN and first_word(sql) in _INSERTING:
            _log.warning("write_failed", code=failure.code)
            self._repair()
        raise failure

    def _repair(self) -> None:
        with self._exclusive():
            # Until a repair succeeds no write may pass: its parts would cover the missing ones.
            self._damage = True
            try:
                self._engine.root("SYSTEM STOP MERGES")
                try:
                    self._repaired += repair.after_failure(self._engine)
                finally:
                    self._engine.root("SYSTEM START MERGES")
            except Exception as error:  # noqa: BLE001 - no write may pass an unrepaired one, whatever the reason
                _log.exception("repair_failed")
                raise refused(
                    243,
                    "NOT_ENOUGH_SPACE",
                    f"A failed write could not be repaired yet: {error}",
                    "Free disk space; the next write tries again",
                ) from None
            self._damage = False

    @contextlib.contextmanager
    def _shared(self) -> Iterator[None]:
        with self._turn:
            self._turn.wait_for(lambda: not self._repairing)
            self._running += 1
        try:
            yield
        finally:
            with self._turn:
                self._running -= 1
                self._turn.notify_all()

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._turn:
            self._turn.wait_for(lambda: not self._repairing)
            self._repairing = True
            self._turn.wait_for(lambda: self._running == 0)
        try:
            yield
        finally:
            with self._turn:
                self._repairing = False
                self._turn.notify_all()
