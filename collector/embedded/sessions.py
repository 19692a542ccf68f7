"""Sessions: ``session_id`` keeps temporary tables and settings between an owner's requests."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import structlog

from collector.embedded.engine import Engine, Handle, name, quote
from collector.embedded.errors import SESSION_IS_LOCKED, SESSION_NOT_FOUND, QueryError, refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from collector.embedded.request import Ask

_log = structlog.get_logger()


class Session:
    """One session's handle, and the settings to put back after a request."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.lock = threading.Lock()
        self.expires = float("inf")
        self.custom = False
        self._before: dict[str, str | None] = {}

    def remember(self, settings: Iterable[str]) -> None:
        """Note the values that a request is about to change for itself.

        Raises:
            QueryError: The engine can't tell them.
        """
        self._before = dict.fromkeys(settings)
        if not self.custom:
            # Nobody has SET anything in this session: the defaults are what to put back.
            return
        names = ", ".join(quote(setting) for setting in settings)
        rows = self.handle.query(
            f"SELECT name, value, changed FROM system.settings WHERE name IN ({names})",  # noqa: S608 - quoted above
            "JSONCompactEachRow",
        )
        for line in rows.data.splitlines():
            key, value, changed = json.loads(line)
            self._before[key] = value if changed else None

    def restore(self) -> None:
        """Put the noted values back.

        Raises:
            QueryError: The engine refuses; the session is no longer worth keeping.
        """
        if self._before:
            texts = [
                f"{key} = DEFAULT" if value is None else f"{key} = {quote(value)}"
                for key, value in self._before.items()
            ]
            self._before = {}
            self.handle.query(f"SET {', '.join(texts)}")


class Sessions:
    """The sessions of a store; threads share it.

    A session is the owner's: a reader may change nothing that would last, so each of its requests stands alone.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._open: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, ask: Ask, settings: Mapping[str, str]) -> tuple[Handle, Session | None]:
        """A handle for this request, and its session where it has one; give it back with ``leave``.

        Args:
            ask: The request.
            settings: The store's own choices for a handle that is made.

        Raises:
            QueryError: The session is in use (373), unknown though it must exist (372), or no handle could be made.
        """
        if not ask.session or ask.role != "owner":
            return self._engine.handle(ask.role, ask.database, settings), None
        with self._lock:
            self._expire()
            session = self._open.get(ask.session)
            if session is None:
                if ask.session_check:
                    raise refused(SESSION_NOT_FOUND, "SESSION_NOT_FOUND", f"Session {ask.session} not found")
                self._make_room()
                session = Session(self._engine.handle("owner", ask.database, settings))
                self._open[ask.session] = session
            if not session.lock.acquire(blocking=False):
                raise refused(
                    SESSION_IS_LOCKED,
                    "SESSION_IS_LOCKED",
                    f"Session {ask.session} is locked by a concurrent client",
                    "Use one session per thread, or none",
                )
            session.expires = float("inf")
        try:
            if ask.database:
                session.handle.query(f"USE {name(ask.database)}")
        except BaseException:
            self.leave(ask, session.handle)
            raise
        return session.handle, session

    def leave(self, ask: Ask, handle: Handle) -> None:
        """Give a handle back: closed, or kept for the session's next request after its settings are put back."""
        session = self._open.get(ask.session) if ask.role == "owner" else None
        if session is None or session.handle is not handle:
            handle.close()
            return
        keep = False
        try:
            if not ask.close_session and (not handle.tainted or handle.drain()):
                session.restore()
                keep = True
        except QueryError as error:
            _log.warning("session_dropped", code=error.code)
        finally:
            self._release(ask, session, keep=keep)

    def _release(self, ask: Ask, session: Session, *, keep: bool) -> None:
        with self._lock:
            session.expires = time.monotonic() + ask.session_timeout
            if not keep:
                self._open.pop(ask.session, None)
        session.lock.release()
        if not keep:
            session.handle.close()

    def close(self) -> None:
        """End every session."""
        with self._lock:
            for session in self._open.values():
                session.handle.close()
            self._open.clear()

    def _expire(self) -> None:
        now = time.monotonic()
        for key in [key for key, session in self._open.items() if session.expires < now]:
            self._open.pop(key).handle.close()

    def _make_room(self) -> None:
        idle = [key for key, session in self._open.items() if not session.lock.locked()]
        if len(self._open) >= self._engine.limits.sessions and idle:
            oldest = min(idle, key=lambda key: self._open[key].expires)
            self._open.pop(oldest).handle.close()
