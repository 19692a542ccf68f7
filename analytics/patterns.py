"""Patterns of names, as they narrow rules and objectives: ``*`` any letters, ``?`` one, ``[ab]`` or ``[!ab]`` of a set.

Read as Python's `fnmatch` does. Labels in memory and rows in the store are matched by the same regular expression, in
the dialect that Python and RE2 share, so that a rule and its budget line speak of the same requests.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_SPECIAL: Final = frozenset("\\.+*?()|[]{}^$")
_NOTHING: Final = r"[^\s\S]"


def is_pattern(text: str) -> bool:
    """Whether a text may match others than itself."""
    return not set("*?[").isdisjoint(text)


@lru_cache(maxsize=65_536)
def matches(value: str, patterns: tuple[str, ...]) -> bool:
    """Whether a value matches one of several patterns, letter case included.

    Remembered, for a round of rules asks the same of every group each few seconds.
    """
    return re.fullmatch(expression(patterns), value) is not None


@lru_cache(maxsize=1024)
def expression(patterns: tuple[str, ...]) -> str:
    """The regular expression that a whole value must match."""
    return f"(?s:{'|'.join(''.join(_pieces(pattern)) for pattern in patterns)})"


def _pieces(pattern: str) -> Iterator[str]:
    place = 0
    while place < len(pattern):
        letter = pattern[place]
        place += 1
        if letter == "*":
            yield ".*"
        elif letter == "?":
            yield "."
        elif letter == "[" and (end := _end_of_set(pattern, place)) > 0:
            yield _one_of(pattern[place:end])
            place = end + 1
        else:
            yield _literal(letter)


def _end_of_set(pattern: str, start: int) -> int:
    """Where the set that begins at ``start`` ends; -1 where it never does and the bracket is a letter."""
    first = start + (pattern[start : start + 1] == "!")
    return pattern.find("]", first + (pattern[first : first + 1] == "]"))


def _one_of(letters: str) -> str:
    inverted = letters.startswith("!")
    letters = letters.removeprefix("!") if inverted else letters
    parts: list[str] = []
    place = 0
    while place < len(letters):
        if letters[place + 1 : place + 2] == "-" and place + 2 < len(letters):
            low, high = letters[place], letters[place + 2]
            parts += [f"{_in_set(low)}-{_in_set(high)}"] if low <= high else []
            place += 3
        else:
            parts.append(_in_set(letters[place]))
            place += 1
    if not parts:
        return "." if inverted else _NOTHING
    return f"[{'^' if inverted else ''}{''.join(parts)}]"


def _literal(letter: str) -> str:
    return f"\\{letter}" if letter in _SPECIAL else letter


def _in_set(letter: str) -> str:
    return f"\\{letter}" if letter in "\\]^-[&~|" else letter
