"""A filter as conditions of SQL: values are parameters, columns are this product's own words."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from analytics.patterns import expression, is_pattern

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


def conditions(
    filter: Filter,  # noqa: A002 the contract's word
    table: str,
    prefix: str = "only",
    *,
    patterns: bool = False,
) -> tuple[str, dict[str, Any]]:
    """``AND …`` conditions of a filter on ``requests``, ``samples`` or ``events``, and their parameters.

    Parameters are named ``<prefix>_<column>``, so that one statement can hold several filters. With ``patterns`` the
    values are `analytics.patterns`; else a star is a letter like others, for names are whatever a client says.
    """
    parts: list[str] = []
    parameters: dict[str, Any] = {}
    for column, values in filter.chosen():
        if column in _ABSENT_FROM[table]:
            continue
        name = f"{prefix}_{column}"
        wide = f" OR {column} = ''" if table == "events" else ""
        of = like_any if patterns and any(map(is_pattern, values)) else one_of
        test, parameters[name] = of(column, name, values)
        parts.append(f"AND ({test}{wide})" if wide else f"AND {test}")
    if filter.recording != "include":
        parts.append(f"AND recording {'=' if filter.recording == 'exclude' else '!='} ''")
    return " ".join(parts), parameters


def like_any(column: str, parameter: str, patterns: Sequence[str]) -> tuple[str, str]:
    """The condition that a column matches one of several `analytics.patterns`, and the parameter's value."""
    return f"match({column}, {{{parameter}:String}})", f"^{expression(tuple(patterns))}$"


def one_of(column: str, parameter: str, values: Sequence[str]) -> tuple[str, list[str]]:
    """The condition that a column has one of several values, and the parameter's value.

    Parameters travel in the URL, which has room for few kilobytes: long names are compared by their MD5 sums.
    """
    if not values or len(quote(repr(list(values)))) <= _ROOM:
        return f"{column} IN {{{parameter}:Array(String)}}", list(values)
    sums = [hashlib.md5(value.encode(), usedforsecurity=False).hexdigest() for value in values]
    return f"lower(hex(MD5({column}))) IN {{{parameter}:Array(String)}}", sums
