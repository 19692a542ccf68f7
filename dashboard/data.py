"""The pages' way to the questions: one store, and every question and statement asked once for all who ask it.

Questions of one page share statements (what the store covers, engine samples), and viewers share questions, so both
are kept for a moment by their plain values.
"""

from __future__ import annotations

import functools
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from analytics.ask import question as named
from base.errors import ServescopeError
from collector.store.address import locate
from collector.store.client import Store, StoreError, StoreUnavailable
from dashboard import words
from dashboard.once import Once

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from analytics.answer import Answer
    from analytics.selection import Filter
    from analytics.window import Window

Question = tuple[str, dict[str, Any]]
"""A question's name and its options."""

_STORE_SECONDS: Final = 20.0
_MESSAGE: Final = 240
"""Letters of ClickHouse's message on a page; the log has it whole."""
_ANSWERS: Final = Once(seconds=30, entries=300)
_STATEMENTS: Final = Once(seconds=20, entries=120)
_LONG_SECONDS: Final = 3.0
"""A store that failed only after so long hangs: to wait for it once is enough for all panels of a page."""
_HUNG_SECONDS: Final = 10.0
"""How long nobody else waits for it then. One that refuses at once costs no wait and is asked each time."""
_POOL: Final = ThreadPoolExecutor(max_workers=4, thread_name_prefix="question")


class _Hung:
    """Whether the store let somebody wait in vain a moment ago."""

    def __init__(self) -> None:
        self._until = 0.0
        self._error: StoreUnavailable | None = None

    def check(self) -> None:
        """Raise what was raised then, while it is that moment."""
        error = self._error
        if error is not None and time.monotonic() < self._until:
            raise StoreUnavailable(error.what, error.fix)

    def note(self, error: StoreUnavailable, began: float) -> None:
        """It failed whoever asked it at ``began`` (monotonic seconds)."""
        if time.monotonic() - began >= _LONG_SECONDS:
            self._error, self._until = error, time.monotonic() + _HUNG_SECONDS

    def forget(self) -> None:
        """Ask it again."""
        self._until = 0.0


_hung: Final = _Hung()


def store() -> Store:
    """The store of this dashboard, as a reader.

    Raises:
        ServescopeError: No store is running where it was said to be, or it hung a moment ago; names place and fix.
    """
    _hung.check()
    return _store(os.environ.get("SERVESCOPE_DATA"), os.environ.get("SERVESCOPE_CLICKHOUSE") or None)


@functools.cache
def _store(data: str | None, url: str | None) -> Store:
    return Store(locate(Path(data) if data else None, url, role="reader"), timeout_seconds=_STORE_SECONDS)


def owner() -> Store:
    """A store that may write, for the one thing that a viewer may write: that he takes an incident. Close it.

    Raises:
        ServescopeError: No store is running, or its key cannot be read.
    """
    data = os.environ.get("SERVESCOPE_DATA")
    address = locate(Path(data) if data else None, os.environ.get("SERVESCOPE_CLICKHOUSE") or None, role="owner")
    return Store(address, timeout_seconds=_STORE_SECONDS)


class Shared:
    """A reader that puts a statement to the store once, however many questions of a page need its rows."""

    def rows(
        self, sql: str, parameters: Mapping[str, object] | None = None, settings: Mapping[str, object] | None = None
    ) -> list[dict[str, Any]]:
        """Rows of a SELECT; the caller's own to change."""
        key = (sql, repr(sorted((parameters or {}).items())), repr(sorted((settings or {}).items())))
        found: list[dict[str, Any]] = _STATEMENTS.get(key, lambda: store().rows(sql, parameters, settings))
        return [dict(row) for row in found]


def ask(question: str, window: Window | None = None, filter: Filter | None = None, **options: Any) -> Answer[Any]:  # noqa: A002 - the questions' own word
    """The answer to a question, shared by all viewers who ask the same.

    Args:
        question: Name of a file of `analytics.questions`, such as ``latency``.
        window: The window, where the question takes one.
        filter: The filter, where the question takes one.
        options: Keyword arguments; hashable values alone.

    Raises:
        ServescopeError: The store does not answer, or refuses.
    """
    found: Answer[Any] = _ANSWERS.get(
        _key(question, window, filter, options), _maker(question, window, filter, options)
    )
    return found


def ahead(questions: Sequence[Question], window: Window, filter: Filter) -> None:  # noqa: A002 - as above
    """Start to work out several questions; `ask` then waits for what is left of each.

    The first runs alone, for the page begins with its answer: beside others it would wait for theirs. The others
    follow side by side.
    """
    waiting = [
        (key, _maker(question, window, filter, options))
        for question, options in questions
        if not _ANSWERS.ready(key := _key(question, window, filter, options))
    ]

    def follow(_: Future[None]) -> None:
        for key, make in waiting[1:]:
            _POOL.submit(_quietly, key, make)

    if waiting:
        _POOL.submit(_quietly, *waiting[0]).add_done_callback(follow)


def ready(question: str, window: Window, filter: Filter, **options: Any) -> bool:  # noqa: A002 - as above
    """Whether `ask` would answer at once."""
    return _ANSWERS.ready(_key(question, window, filter, options))


def forget() -> None:
    """Drop all answers and the store itself, so that the next question looks for it anew."""
    _ANSWERS.clear()
    _STATEMENTS.clear()
    _store.cache_clear()
    _hung.forget()


def _quietly(key: Hashable, make: Callable[[], Answer[Any]]) -> None:
    try:
        _ANSWERS.get(key, make)
    except ServescopeError:
        return  # failures are not kept: the panel asks again and says what is wrong


def _key(question: str, window: Window | None, filter: Filter | None, options: Mapping[str, Any]) -> Hashable:  # noqa: A002 - as above
    span = (window.from_ms, window.to_ms) if window else None
    narrowed = tuple(asdict(filter).items()) if filter else None
    place = (os.environ.get("SERVESCOPE_DATA"), os.environ.get("SERVESCOPE_CLICKHOUSE"))
    return (place, question, span, narrowed, tuple(sorted(options.items())))


def _maker(
    question: str,
    window: Window | None,
    filter: Filter | None,  # noqa: A002 - as above
    options: Mapping[str, Any],
) -> Callable[[], Answer[Any]]:
    def make() -> Answer[Any]:
        asked = named(question)
        given = [part for part in (window, replace(filter) if filter else None) if part is not None]
        began = time.monotonic()
        try:
            return asked(Shared(), *given, **options)
        except StoreUnavailable as error:
            _hung.note(error, began)
            _store.cache_clear()  # it may come back at another address
            raise

    return make


def explain(error: ServescopeError) -> tuple[str, str]:
    """What is wrong and what mends it, as two sentences for a box on the page."""
    what = error.what[:1].upper() + error.what[1:]
    if isinstance(error, StoreError):
        return f"ClickHouse refused a question ({error.name or error.code})", words.short(error.message, _MESSAGE)
    return what, error.fix


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)
