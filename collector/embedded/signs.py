"""What of a statement says how often the engine copies a SELECT, as signs.

Words of clauses but SELECT, FROM and DISTINCT are names as well, and the engine writes both alike. So no other word
ends an expression, but a kind of join or ARRAY with the word JOIN behind it does: two names never stand side by side.
"""

from __future__ import annotations

import re
from itertools import repeat
from typing import TYPE_CHECKING, Final, NamedTuple

from collector.embedded.pieces import LISTED, plain
from collector.embedded.reader import COUNTED_WORDS
from collector.embedded.refusal import FenceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

APPLIED: Final = "Q"
"""What follows in this item is for each of many columns."""
AS: Final = "A"
BODY: Final = "B"
"""A bracket: what is in it is what the name behind this sign stands for."""
BY: Final = "O"
"""A clause, in which a number may stand for a column."""
CLAUSE: Final = "C"
"""A clause may begin here, and then with expressions, no tables."""
ENDLESS: Final = "E"
"""More numbers than are counted, each of which may stand for a column."""
POSITION: Final = "P"
"""A number that may stand for a column."""
SELECT: Final = "S"
TABLES: Final = "T"
WEIGHT: Final = "W"
"""As a SELECT weighs, but where none begins."""
FIRST: Final = "\u1000"
"""The first letter of those that stand for names that are given."""
_OTHER: Final = "_"
_SIGNS: Final = {
    **dict.fromkeys(("WHERE", "PREWHERE", "ON", "USING", "HAVING", "QUALIFY", "WINDOW", "LIMIT"), CLAUSE),
    **dict.fromkeys(("OFFSET", "SETTINGS", "WITH", "UNION", "INTERSECT", "EXCEPT"), CLAUSE),
    **dict.fromkeys(("(", "["), "("),
    **dict.fromkeys((")", "]"), ")"),
    "AS": AS,
    "BY": BY,
    "SELECT": SELECT,
    "FROM": TABLES,
    ",": ",",
    ".": ".",
}
_ARRAY: Final = "Y"
_DISTINCT: Final = "D"
_JOIN: Final = "J"
_KIND: Final = "K"
_MANY: Final = "R"
_MATERIALIZED: Final = "M"
_LIST: Final = "L"
_NUMBER: Final = "N"
_SETS: Final = "G"
_VIEW: Final = "V"
_UNNAMED: Final = frozenset({"AS", "SELECT", "FROM", "(", ")", "[", "]", ",", ".", "'"})
_NAME: Final = f"[{FIRST}-\ud7ff]"
# Of a path only the first name may be an alias's.
_PATH: Final = re.compile(rf"(?:\.(?:{_NAME}|{_OTHER}))+")
_EMPTY: Final = re.compile(rf"\([,{CLAUSE}{BY}{POSITION}{ENDLESS}{APPLIED}]*+\)")
_COMMAS: Final = re.compile(",{2,}+")
_ROUNDS: Final = 6
# Numbers by themselves in a list, and what they become; the engine keeps brackets around them.
_ALONE: Final = [
    (form.replace("N", number), sign)
    for number, sign in ((_NUMBER, POSITION), (_LIST, ENDLESS))
    for form in ("N", "-N", "(N)", "(-N)")
]
_GROUPING: Final = re.compile(rf"{_SETS}\([^{SELECT}{_SETS}]*+")

VIEWS: Final = {"requests": 10}
"""Views that take the engine as long to plan as so many SELECTs."""


_WORDS: Final = {
    **_SIGNS,
    **{spelled: _VIEW for view in VIEWS for spelled in (view, f"`{view}`")},
    # No expression has one of them before the word JOIN: two names never stand side by side.
    **dict.fromkeys(("INNER", "LEFT", "RIGHT", "FULL", "CROSS", "PASTE", "OUTER"), _KIND),
    **dict.fromkeys(("GLOBAL", "ANY", "ALL", "ASOF", "SEMI", "ANTI"), _KIND),
    "APPLY": _MANY,
    "ARRAY": _ARRAY,
    "DISTINCT": _DISTINCT,
    "JOIN": _JOIN,
    "MATERIALIZED": _MATERIALIZED,
    "REPLACE": _MANY,
    "SETS": _SETS,
}
_COPYING: Final = frozenset({"APPLY", "AS", "BY", "REPLACE"})
# Before a column or a function of that name; what is done to many columns stands behind them.
_BEFORE_CALLS: Final = frozenset(
    {"(", "[", ",", "=", "-", ".", "SELECT", "DISTINCT", "WHERE", "PREWHERE", "HAVING", "ON", "BY", "AND", "OR", "AS"}
)


class Outline(NamedTuple):
    """A statement's tokens in short.

    Attributes:
        text: A sign for each token.
        numbers: Signs of its whole numbers, and of what makes one negative; none where no number is a column.
    """

    text: str
    numbers: Mapping[str, str]


def outlined(tokens: Sequence[str]) -> Outline | None:
    """A canonical text in short; None where it has too many tokens for names and numbers in it to be told."""
    distinct = set(tokens)
    if len(tokens) > COUNTED_WORDS and not distinct.isdisjoint(_COPYING):
        return None
    numbers = {}
    if "BY" in distinct:
        numbers = {token: _LIST if token.endswith(LISTED) else _NUMBER for token in distinct if token[0].isdigit()}
        numbers |= {"true": _NUMBER, "false": _NUMBER, "-": "-"}
    return Outline("".join(map((_WORDS | numbers).get, tokens, repeat(_OTHER))), numbers)


def may_copy(outline: str) -> bool:
    """Whether the engine may copy anything."""
    return any(sign in outline for sign in (AS, BY, _MANY))


def views(tokens: Sequence[str], outline: str, most: int) -> list[tuple[int, int]]:
    """Where views stand, and what they weigh; of those that are too many only some."""
    found = []
    for index in _places(outline, _VIEW):
        if _is_table(tokens, index):
            found.append((index, VIEWS[plain(tokens[index])]))
            if len(found) > most:
                break
    return found


def _is_table(tokens: Sequence[str], index: int) -> bool:
    # A name before a dot says whose something else is; so of a path only the last goes back along it.
    if index + 1 < len(tokens) and tokens[index + 1] == ".":
        return False
    while tokens[index - 1] == "." and index > 1:
        index -= 2
    return tokens[index - 1] in {"FROM", "JOIN", "IN", ",", "("}


def _places(outline: str, sign: str) -> Iterator[int]:
    index = outline.find(sign)
    while index >= 0:
        yield index
        index = outline.find(sign, index + 1)


def signs_of(tokens: Sequence[str], outline: Outline, tables: list[tuple[int, int]]) -> str:
    """The statement as signs and letters for names, without those that change nothing.

    Args:
        tokens: Of the canonical text.
        outline: The same in short.
        tables: Where views stand, and their weight.

    Raises:
        FenceError: Something is called AS.
    """
    text, numbers = outline
    aliases, bodies = _given(tokens, text)
    plains = {token: plain(token) for token in {*aliases, *(tokens[name] for _, name in bodies)}}
    letters = {name: chr(ord(FIRST) + number) for number, name in enumerate(set(plains.values()))}
    codes = _SIGNS | {name: f"{letter}{_SIGNS.get(name, '')}" for name, letter in letters.items()}
    codes |= {f"`{name}`": letter for name, letter in letters.items()}
    codes |= {token: letters[name] for token, name in plains.items() if token[0] == "`"}
    codes |= numbers
    signs = list(map(codes.get, tokens, repeat(_OTHER)))
    for index in _places(text, f"{_DISTINCT}{TABLES}"):
        signs[index + 1] = _OTHER
    for index in _places(text, f"{_KIND}{_JOIN}"):
        signs[index + 1] = TABLES
    for index in _places(text, f"{_ARRAY}{_JOIN}"):
        signs[index + 1] = f"{TABLES}{CLAUSE}"
    for index, weight in tables:
        own = signs[index] if text[index - 1] != "." else ""
        signs[index] = f"{own}{WEIGHT * weight}"
    _add_unnamed(signs, tokens, text)
    for bracket, name in bodies:
        letter = letters[plains[tokens[name]]]
        signs[name:bracket] = repeat(_OTHER, bracket - name)
        signs[bracket] = f"{BODY}{letter}"
    return _pruned(_numbered("".join(signs)) if numbers else "".join(signs))


def _add_unnamed(signs: list[str], tokens: Sequence[str], outline: str) -> None:
    """Add the signs of what the engine may copy without a name, but for single numbers."""
    for index in _places(outline, _MANY):
        if tokens[index - 1] not in _BEFORE_CALLS:
            signs[index] += APPLIED
    if BY not in outline:
        return
    for index in _places(outline, f"{BY}{_KIND}"):
        # ALL of them.
        signs[index + 1] += POSITION
    for found in _GROUPING.finditer(outline):
        signs[found.start()] += POSITION * found[0].count(_NUMBER) + ENDLESS * found[0].count(_LIST)


def _given(tokens: Sequence[str], outline: str) -> tuple[set[str], list[tuple[int, int]]]:
    """Names that are given behind AS; and of common table expressions the places of the bracket and of the name.

    Raises:
        FenceError: Something is called AS.
    """
    aliases: set[str] = set()
    bodies = []
    for index in _places(outline, AS):
        bracket = index + 1 + outline.startswith(_MATERIALIZED, index + 1)
        if not outline.startswith("(", bracket):
            aliases.update(tokens[index + 1 : index + 2])
            continue
        name = index - 1
        if outline[name] == ")":
            # The names of its columns.
            name = max(outline.rfind(sign, 0, name) for sign in "()") - 1
        bodies.append((bracket, max(name, 0)))
    if "AS" in aliases or any(tokens[name] in _UNNAMED for _, name in bodies):
        raise FenceError("length", "A name stands where nobody can tell it from the word AS", "Give it another name")
    return aliases - _UNNAMED, bodies


def _numbered(text: str) -> str:
    """Signs with those numbers alone that may stand for a column."""
    # Those of a fraction or a path.
    text = text.replace(f"{_NUMBER}.", f"{_OTHER}.")
    for number in (_NUMBER, _LIST):
        text = text.replace(f".{number}", f".{_OTHER}")
    for before in f",{BY}":
        for number, sign in _ALONE:
            text = text.replace(f"{before}{number}", f"{before}{sign}")
    for sign in (_NUMBER, _LIST, "-"):
        text = text.replace(sign, "")
    return text


def _pruned(text: str) -> str:
    """Signs without those that change nothing, as far as that is seen at once."""
    if "." in text:
        text = _PATH.sub(".", text)
        text = text.replace(f"{_OTHER}.", "")
    text = text.replace(_OTHER, "")
    for _ in range(_ROUNDS):
        before = len(text)
        text = _COMMAS.sub(",", _EMPTY.sub("", text))
        if len(text) == before:
            break
    return text
