"""What is wrong with rules that see nothing: by field, with what mends it.

A rule that can never fire looks like a fleet that is well. Each kind of rule says of itself what it can't see; what
they have in common is here. Pure: no file, no clock, no store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent.engine_table import Table, tables
from analytics.patterns import matches
from base.formats import spell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from alerts.rules.scope import Scope
    from base.vocabulary import Signal

Location = tuple[int | str, ...]
"""Keys and indices that lead to a field of an entry of the file."""
Blind = tuple[Location, str]
"""A field, and why the rule can never fire, or always does, with what mends it."""

FILTER: Final[Location] = ("filter",)
MOST_PER_SECOND: Final = 1e6
"""No fleet that this product looks at answers more requests in a second."""
KEPT_SECONDS: Final = 30 * 86_400.0
"""Samples and requests are kept so long by default; nothing can hold, or be looked at, for longer."""
SHORTEST_SECONDS: Final = 1.0
"""Samples come once a second: a window below holds none."""


def labels(scope: Scope, seen: Sequence[str], what: str) -> Iterator[Blind]:
    """A filter by labels that what the rule looks at does not have, or by engines that nobody's pages are read as."""
    for name in scope.dimensions():
        if name not in seen:
            told = f"{what} have no {name}, so that nothing matches: leave it out; there is {_list(seen)}"
            yield (*FILTER, name), told
    yield from strangers(scope)


def strangers(scope: Scope) -> Iterator[Blind]:
    """Engines that this product does not know. Models and tenants are anybody's to name, engines are a list."""
    for pattern in scope.engine:
        if pattern and not _engines_of((pattern,)):
            told = f"no engine is called {pattern}, so that nothing matches: use {_list(list(tables()))}"
            yield (*FILTER, "engine"), told


def engines(scope: Scope, shown: Callable[[Table], bool], what: str) -> Iterator[Blind]:
    """An engine filter that leaves only engines whose pages do not have what the rule looks at."""
    left = _engines_of(scope.engine)
    if left and not any(shown(table) for table in left):
        there = [table.engine for table in tables().values() if shown(table)]
        names = _list([table.engine for table in left])
        yield (*FILTER, "engine"), f"{names} shows no {what}: {f'use {_list(there)}' if there else 'no engine does'}"


def _engines_of(patterns: Sequence[str]) -> list[Table]:
    return [table for table in tables().values() if matches(table.engine, tuple(patterns))] if patterns else []


def shows(*needs: Signal) -> Callable[[Table], bool]:
    """Whether an engine's page has all these signals."""
    return lambda table: {rule.signal for rule in table.rules} >= set(needs)


def spans(*given: tuple[Location, float]) -> Iterator[Blind]:
    """Spans in which nothing is measured, or from which nothing is kept."""
    for location, seconds in given:
        if seconds < SHORTEST_SECONDS:
            yield location, f"shorter than {spell(SHORTEST_SECONDS)}, in which nothing is measured: make it longer"
    yield from longest(*given)


def longest(*given: tuple[Location, float]) -> Iterator[Blind]:
    """Spans from which nothing is kept."""
    for location, seconds in given:
        if seconds > KEPT_SECONDS:
            yield location, f"longer than the {spell(KEPT_SECONDS)} for which anything is kept: make it shorter"


def weight(location: Location, wanted: float, seconds: float) -> Iterator[Blind]:
    """A number of requests that no window of so many seconds holds."""
    most = MOST_PER_SECOND * seconds
    if wanted > most:
        yield location, f"no window of {spell(seconds)} holds {wanted:g} requests: ask for fewer"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
