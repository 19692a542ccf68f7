"""A selection as conditions of SQL: values are parameters, columns are this product's own words."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from analytics.patterns import expression, is_pattern
from analytics.signals import signal_of
from analytics.traits import NAMES, NUMBERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analytics.selection import Filter, Selection
    from analytics.traits import Trait


_TRACE_ID: Final = re.compile("[0-9a-fA-F]{32}")
_ROOM: Final = 1000
"""Bytes of a list of names in a URL; a statement has a few of them."""
_ABSENT_FROM: Final[dict[str, frozenset[str]]] = {
    "requests": frozenset(),
    "samples": frozenset({"tenant"}),
    "events": frozenset({"tenant"}),
    "hardware": frozenset({"tenant", "model", "instance", "deployment", "engine", "version"}),
    "hosts": frozenset({"tenant", "model", "engine", "version"}),
    "recording": frozenset({"tenant", "model", "instance", "deployment", "engine", "version", "region"}),
}
"""Columns of a filter that a table does not have: hardware knows neither models nor, of itself, whose it is."""
_OF_TRACE: Final = "(time, key) IN (SELECT time, key FROM request_keys WHERE trace_id = unhex({of_trace_id:String}))"
"""A small table by trace id: the bloom filter of the wide one does not prune under FINAL."""


def conditions(
    filter: Filter,  # noqa: A002 the contract's word
    table: str,
    prefix: str = "only",
    *,
    patterns: bool = False,
) -> tuple[str, dict[str, Any]]:
    """``AND …`` conditions of a filter on a table of `_ABSENT_FROM`, and their parameters.

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


def of_requests(selection: Selection) -> tuple[str, dict[str, Any]]:
    """``AND …`` conditions on ``requests`` of a selection's outcome, latency, traits and ids, and their parameters.

    An engine's half alone says nothing of its outcome, which then is ``ok``.
    """
    parts: list[str] = []
    parameters: dict[str, Any] = {}
    if selection.outcome:
        parts.append("AND if(outcome = '', 'ok', outcome) IN {of_outcome:Array(String)}")
        parameters["of_outcome"] = list(selection.outcome)
    if selection.latency:
        about = signal_of(selection.latency.signal)
        parts.append(f"AND ({about.present})")
        for name, test in (("at_least", ">="), ("below", "<")):
            bound = getattr(selection.latency, name)
            if bound is not None:
                parts.append(f"AND {about.value} {test} {{of_{name}:Float64}}")
                parameters[f"of_{name}"] = float(bound)
    for number, trait in enumerate(selection.traits):
        test, bound = _of_trait(trait, f"of_trait_{number}")
        parts.append(f"AND {'NOT ' if trait.lacking else ''}({test})")
        parameters |= bound
    if selection.trace_id:
        parts.append(f"AND {_OF_TRACE}")
        parameters["of_trace_id"] = selection.trace_id
    if selection.request_id:
        (asked, parameters["of_request_id"]), (answered, _) = (
            one_of(column, "of_request_id", [selection.request_id]) for column in ("request_id", "response_id")
        )
        traced = ""
        if not selection.trace_id and _TRACE_ID.fullmatch(selection.request_id):
            traced, parameters["of_trace_id"] = f" OR {_OF_TRACE}", selection.request_id.lower()
        parts.append(f"AND ({asked} OR {answered}{traced})")
    if selection.key:
        parts.append("AND key = {of_key:UInt64}")
        parameters["of_key"] = int(selection.key)
    return " ".join(parts), parameters


def _of_trait(trait: Trait, parameter: str) -> tuple[str, dict[str, Any]]:
    if trait.column in NAMES:
        test, values = one_of(NAMES[trait.column], parameter, [trait.value])
        return test, {parameter: values}
    tests, bound = [], {}
    for name, sign in (("at_least", ">="), ("below", "<")):
        end = getattr(trait, name)
        if end is not None:
            tests.append(f"{NUMBERS[trait.column]} {sign} {{{parameter}_{name}:Float64}}")
            bound[f"{parameter}_{name}"] = float(end)
    return " AND ".join(tests), bound


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
