"""The pages' way to the questions: one store, and every question and statement asked once for all who ask it.

Questions of one page share statements (what the store covers, engine samples), and viewers share questions, so both
are kept for a moment by who asked, where, and what.
"""

from __future__ import annotations

import functools
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from analytics.ask import question as named
from base.errors import ServescopeError
from collector.store.address import locate
from collector.store.asker import Asker
from collector.store.client import Store, StoreError, StoreUnavailable
from dashboard import words
from dashboard.later import Later
from dashboard.shared_cache import SharedCache

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    import pyarrow as pa

    from analytics.answer import Answer
    from analytics.selection import Selection

Question = tuple[str, dict[str, Any]]
"""A question's name and its options."""

_STORE_SECONDS: Final = 20.0
_MESSAGE: Final = 240
"""Letters of ClickHouse's message on a page; the log has it whole."""
_ANSWERS: Final = SharedCache(seconds=30, entries=300)
_STATEMENTS: Final = SharedCache(seconds=20, entries=120)
_LONG_SECONDS: Final = 3.0
"""A store that failed only after so long hangs: to wait for it once is enough for all panels of a page."""
_HUNG_SECONDS: Final = 10.0
"""How long nobody else waits for it then. One that refuses at once costs no wait and is asked each time."""
_POOL: Final = ThreadPoolExecutor(max_workers=4, thread_name_prefix="question")
_LATER: Final = Later()


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


def asker() -> Asker:
    """Who looks at the page that is being drawn."""
    return Asker()


def store(who: Asker | None = None) -> Store:
    """The store of this dashboard for one who asks, for who looks at the page when nobody is named.

    Raises:
        ServescopeError: No store is running where it was said to be, or it hung a moment ago; names place and fix.
    """
    _hung.check()
    return _store(_place(), who or asker())


@functools.lru_cache(maxsize=64)
def _store(place: tuple[str | None, str | None], who: Asker) -> Store:
    data, url = place
    address = locate(Path(data) if data else None, url, role=who.role)
    return Store(address, timeout_seconds=_STORE_SECONDS, tenant=who.tenant)


def _place() -> tuple[str | None, str | None]:
    """Where the store is said to be: data folder and URL."""
    return os.environ.get("SERVESCOPE_DATA"), os.environ.get("SERVESCOPE_CLICKHOUSE") or None


def owner() -> Store:
    """A store that may write, for the one thing that a viewer may write: that he takes an incident. Close it.

    Raises:
        ServescopeError: No store is running, or its key cannot be read.
    """
    data, url = _place()
    return Store(locate(Path(data) if data else None, url, role="owner"), timeout_seconds=_STORE_SECONDS)


class Shared:
    """A reader that puts a statement to the store once, however many questions of a page need its rows.

    Args:
        asker: Who asks: what was read for one is not given to another.
    """

    def __init__(self, asker: Asker) -> None:
        self.asker = asker

    def rows(
        self, sql: str, parameters: Mapping[str, object] | None = None, settings: Mapping[str, object] | None = None
    ) -> list[dict[str, Any]]:
        """Rows of a SELECT; the caller's own to change."""
        key = self._key("rows", sql, parameters, settings)
        found: list[dict[str, Any]] = _STATEMENTS.get(key, lambda: store(self.asker).rows(sql, parameters, settings))
        return [dict(row) for row in found]

    def arrow(
        self, sql: str, parameters: Mapping[str, object] | None = None, settings: Mapping[str, object] | None = None
    ) -> pa.Table:
        """A SELECT as an Arrow table."""
        key = self._key("arrow", sql, parameters, settings)
        found: pa.Table = _STATEMENTS.get(key, lambda: store(self.asker).arrow(sql, parameters, settings))
        return found

    def _key(
        self, how: str, sql: str, parameters: Mapping[str, object] | None, settings: Mapping[str, object] | None
    ) -> tuple[object, ...]:
        given = (repr(sorted((one or {}).items())) for one in (parameters, settings))
        return how, _place(), self.asker, sql, *given


def ask(question: str, selection: Selection, **options: Any) -> Answer[Any]:
    """The answer to a question, shared by all viewers who ask the same and may see the same.

    Args:
        question: Name of a file of `analytics.questions`, such as ``latency``.
        selection: What is looked at.
        options: Keyword arguments; hashable values alone.

    Raises:
        ServescopeError: The store does not answer, or refuses.
    """
    who = asker()
    found: Answer[Any] = _ANSWERS.get(
        _key(who, question, selection, options), _maker(who, question, selection, options)
    )
    return found


def ahead(questions: Sequence[Question], selection: Selection) -> None:
    """Start to work out several questions; `ask` then waits for what is left of each.

    The first runs alone, for the page begins with its answer: beside others it would wait for theirs. The others
    follow side by side.
    """
    who = asker()  # here, for the pool's threads draw no page
    waiting = [
        (key, _maker(who, question, selection, options))
        for question, options in questions
        if not _ANSWERS.ready(key := _key(who, question, selection, options))
    ]

    def follow(_: Future[None]) -> None:
        for key, make in waiting[1:]:
            _POOL.submit(_quietly, key, make)

    if waiting:
        _POOL.submit(_quietly, *waiting[0]).add_done_callback(follow)


def soon(question: str, selection: Selection, *, seconds: float, **options: Any) -> Answer[Any] | None:
    """The answer if it is there within some seconds; else it is worked out beside the page, for who asks again.

    For what may take long: it takes none of the threads that panels wait for.

    Raises:
        ServescopeError: The store does not answer, or refuses; told once.
    """
    who = asker()  # here, for no other thread draws the page
    key = _key(who, question, selection, options)
    make = _maker(who, question, selection, options)
    if _ANSWERS.ready(key):
        return _ANSWERS.get(key, make)  # type: ignore[no-any-return]
    return _LATER.get(key, lambda: _ANSWERS.get(key, make), seconds)  # type: ignore[no-any-return]


def soon_known(key: Hashable, make: Callable[[Store], Any], *, seconds: float) -> Any:
    """What ``make`` reads out of the store of who asks, as `soon`; kept as long as an answer.

    Args:
        key: What it is; who asks and where is added.
        make: Reads it.
        seconds: How long to wait for it.

    Raises:
        ServescopeError: The store does not answer, or refuses; told once.
    """
    who = asker()
    whole = (_place(), who, key)
    if _ANSWERS.ready(whole):
        return _ANSWERS.get(whole, lambda: make(store(who)))
    return _LATER.get(whole, lambda: _ANSWERS.get(whole, lambda: make(store(who))), seconds)


def ready(question: str, selection: Selection, **options: Any) -> bool:
    """Whether `ask` would answer at once."""
    return _ANSWERS.ready(_key(asker(), question, selection, options))


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


def _key(who: Asker, question: str, selection: Selection, options: Mapping[str, Any]) -> Hashable:
    return (_place(), who, question, selection, tuple(sorted(options.items())))


def _maker(who: Asker, question: str, selection: Selection, options: Mapping[str, Any]) -> Callable[[], Answer[Any]]:
    def make() -> Answer[Any]:
        began = time.monotonic()
        try:
            return named(question)(Shared(who), selection, **options)
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
