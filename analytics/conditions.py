"""A filter as conditions of SQL: values are parameters, columns are this product's own words."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analytics.selection import Filter


_ROOM: Final = 1000
"""Bytes of a list of names in a URL; a statement has a few of them."""
_ABSENT_FROM: Final[dict[str, frozenset[str]]] = {
    "requests": frozenset(),
    "samples": frozenset({"tenant"}),
    "events": frozenset({"tenant"}),
}


def conditions(filter: Filter, table: str, prefix: str = "only") -> tuple[str, dict[str, Any]]:  # noqa: A002 the contract's word
    """``AND …`` conditions of a filter on ``requests``, ``samples`` or ``events``, and their parameters.

    Parameters are named ``<prefix>_<column>``, so that one statement can hold several filters.
    """
    parts: list[str] = []
    parameters: dict[str, Any] = {}
    for column, values in filter.chosen():
        if column in _ABSENT_FROM[table]:
            continue
        name = f"{prefix}_{column}"
        wide = f" OR {column} = ''" if table == "events" else ""
        test, parameters[name] = one_of(column, name, values)
        parts.append(f"AND ({test}{wide})" if wide else f"AND {test}")
    if filter.recording != "include":
        parts.append(f"AND recording {'=' if filter.recording == 'exclude' else '!='} ''")
    return " ".join(parts), parameters


def one_of(column: str, parameter: str, values: Sequence[str]) -> tuple[str, list[str]]:
    """The condition that a column has one of several values, and the parameter's value.

    Parameters travel in the URL, which has room for few kilobytes: long names are compared by their MD5 sums.
    """
    if not values or len(quote(repr(list(values)))) <= _ROOM:
        return f"{column} IN {{{parameter}:Array(String)}}", list(values)
    sums = [hashlib.md5(value.encode(), usedforsecurity=False).hexdigest() for value in values]
    return f"lower(hex(MD5({column}))) IN {{{parameter}:Array(String)}}", sums
