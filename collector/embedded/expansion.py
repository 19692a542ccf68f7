"""How many SELECTs a statement becomes once the engine has put the text of each name where the name stands.

The engine copies a common table expression, and an alias of an expression, to every place that names it, before any
limit of time or memory holds: fourteen lines of ``WITH`` are eight thousand subqueries. The count is of the canonical
text and not too low for any name; one that means something else in another place is counted there as well.

Linear: everything that matters becomes a sign, by whole passes of compiled code; what holds nothing is taken out, and
what is left costs a step a sign. Of signs, names and look-ups there are only so many.

Words of clauses but SELECT, FROM and DISTINCT are names as well, and the engine writes both alike. So no other word
ends an expression, but a kind of join or ARRAY with the word JOIN behind it does: two names never stand side by side.
"""

from __future__ import annotations

import re
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from itertools import repeat
from typing import TYPE_CHECKING, Final, NamedTuple

from collector.embedded.pieces import plain
from collector.embedded.reader import COUNTED_NAMES, COUNTED_SIGNS, COUNTED_USES, COUNTED_WORDS
from collector.embedded.refusal import FenceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet

_AS: Final = "A"
_BODY: Final = "B"  # a bracket: what is in it is what the name behind this sign stands for
_CLAUSE: Final = "C"  # a clause may begin here, and then with expressions, no tables
_SELECT: Final = "S"
_TABLES: Final = "T"
_WEIGHT: Final = "W"  # as a SELECT weighs, but where none begins
_OTHER: Final = "_"
_SIGNS: Final = {
    **dict.fromkeys(("WHERE", "PREWHERE", "ON", "USING", "BY", "HAVING", "QUALIFY", "WINDOW", "LIMIT"), _CLAUSE),
    **dict.fromkeys(("OFFSET", "SETTINGS", "WITH", "UNION", "INTERSECT", "EXCEPT"), _CLAUSE),
    **dict.fromkeys(("(", "["), "("),
    **dict.fromkeys((")", "]"), ")"),
    "AS": _AS,
    "SELECT": _SELECT,
    "FROM": _TABLES,
    ",": ",",
    ".": ".",
}
_ARRAY: Final = "Y"
_DISTINCT: Final = "D"
_JOIN: Final = "J"
_KIND: Final = "K"
_MATERIALIZED: Final = "M"
_VIEW: Final = "V"
_UNNAMED: Final = frozenset({"AS", "SELECT", "FROM", "(", ")", "[", "]", ",", ".", "'"})
# A letter of its own for each name that is given.
_FIRST: Final = "\u1000"
_NAME: Final = f"[{_FIRST}-\ud7ff]"
# Of a path only the first name may be an alias's.
_PATH: Final = re.compile(rf"(?:\.(?:{_NAME}|{_OTHER}))+")
_EMPTY: Final = re.compile(rf"\([,{_CLAUSE}]*+\)")
_COMMAS: Final = re.compile(",{2,}+")
_ROUNDS: Final = 6

VIEWS: Final = {"requests": 10}
"""Views that take the engine as long to plan as so many SELECTs."""


_WORDS: Final = {
    **_SIGNS,
    **{spelled: _VIEW for view in VIEWS for spelled in (view, f"`{view}`")},
    # No expression has one of them before the word JOIN: two names never stand side by side.
    **dict.fromkeys(("INNER", "LEFT", "RIGHT", "FULL", "CROSS", "PASTE", "OUTER"), _KIND),
    **dict.fromkeys(("GLOBAL", "ANY", "ALL", "ASOF", "SEMI", "ANTI"), _KIND),
    "ARRAY": _ARRAY,
    "DISTINCT": _DISTINCT,
    "JOIN": _JOIN,
    "MATERIALIZED": _MATERIALIZED,
}


def may_multiply(text: str, most: int) -> bool:
    """Whether a statement is worth counting: one SELECT is never multiplied, and few views weigh little.

    Args:
        text: The canonical text.
        most: As for `selects`.
    """
    weight = sum(weight * text.count(name) for name, weight in VIEWS.items())
    return text.count("SELECT") > 1 or weight >= most


def selects(tokens: Sequence[str], most: int) -> int:
    """SELECTs in a statement with all names replaced; ``most + 1`` where there are more, or names go in circles.

    Args:
        tokens: Of the canonical text; strings are no names, whatever they say.
        most: Beyond it nothing is counted.

    Raises:
        FenceError: It has too many names and brackets to be counted.
    """
    if len(tokens) > COUNTED_WORDS and "AS" in tokens:
        raise too_much(f"has more than {COUNTED_WORDS} words and signs", "Make it shorter")
    outline = "".join(map(_WORDS.get, tokens, repeat(_OTHER)))
    tables = _views(tokens, outline, most)
    plainly = outline.count(_SELECT) + sum(weight for _, weight in tables)
    names = outline.count(_AS)
    if plainly > most or plainly < 2 or not names:  # noqa: PLR2004 - one is never multiplied
        return min(plainly, most + 1)
    if names > COUNTED_NAMES:
        raise too_much(f"gives more than {COUNTED_NAMES} names", "Name fewer columns")
    text = _pruned(_signs(tokens, outline, tables))
    if len(text) > COUNTED_SIGNS:
        raise too_much(f"has more than {COUNTED_SIGNS} names, brackets and commas in them", "Name and nest less")
    return min(_weigh(_definitions(text), most), most + 1)


def too_much(what: str, fix: str) -> FenceError:
    """The error of a statement in which SELECTs can't be counted for its length."""
    return FenceError("length", f"A statement with subqueries {what}", f"{fix}, or ask in several statements")


def _views(tokens: Sequence[str], outline: str, most: int) -> list[tuple[int, int]]:
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


def _signs(tokens: Sequence[str], outline: str, tables: list[tuple[int, int]]) -> str:
    """The statement as signs and names.

    Args:
        tokens: Of the canonical text.
        outline: A sign for each token.
        tables: Where views stand, and their weight.

    Raises:
        FenceError: Something is called AS.
    """
    aliases, bodies = _given(tokens, outline)
    plains = {token: plain(token) for token in {*aliases, *(tokens[name] for _, name in bodies)}}
    letters = {name: chr(ord(_FIRST) + number) for number, name in enumerate(set(plains.values()))}
    codes = _SIGNS | {name: f"{letter}{_SIGNS.get(name, '')}" for name, letter in letters.items()}
    codes |= {f"`{name}`": letter for name, letter in letters.items()}
    codes |= {token: letters[name] for token, name in plains.items() if token[0] == "`"}
    signs = list(map(codes.get, tokens, repeat(_OTHER)))
    for index in _places(outline, f"{_DISTINCT}{_TABLES}"):
        signs[index + 1] = _OTHER
    for index in _places(outline, f"{_KIND}{_JOIN}"):
        signs[index + 1] = _TABLES
    for index in _places(outline, f"{_ARRAY}{_JOIN}"):
        signs[index + 1] = f"{_TABLES}{_CLAUSE}"
    for index, weight in tables:
        own = signs[index] if outline[index - 1] != "." else ""
        signs[index] = f"{own}{_WEIGHT * weight}"
    for bracket, name in bodies:
        letter = letters[plains[tokens[name]]]
        signs[name:bracket] = repeat(_OTHER, bracket - name)
        signs[bracket] = f"{_BODY}{letter}"
    return "".join(signs)


def _given(tokens: Sequence[str], outline: str) -> tuple[set[str], list[tuple[int, int]]]:
    """Names that are given behind AS; and of common table expressions the places of the bracket and of the name.

    Raises:
        FenceError: Something is called AS.
    """
    aliases: set[str] = set()
    bodies = []
    for index in _places(outline, _AS):
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


def _pruned(text: str) -> str:
    """The signs without those that change nothing, as far as that is seen at once."""
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


class _Definition(NamedTuple):
    """What a name stands for.

    Attributes:
        name: Its letter.
        first: Number of the first definition that is in its text for sure, its own being the last.
        holds: SELECTs, names that are used, and numbers of aliases that are given in it and stand in their place too.
        table: It is a table's, of which names behind a dot are columns.
    """

    name: str
    first: int
    holds: list[str | int]
    table: bool


def _definitions(signs: str) -> list[_Definition]:  # noqa: C901, PLR0912 - a step for each sign: no calls
    """All definitions, inner ones first, the whole statement last."""
    found: list[_Definition] = []
    # What no definition has yet.
    held: list[str | int] = []
    # Where the item of a list begins in it, where at the latest, and with which definition; whether it is a table.
    item, surely, first, table = 0, 0, 0, False
    around: list[tuple[int, int, int, bool, int, int, str]] = []
    before = name = ""
    for sign in signs:
        if sign >= _FIRST:
            if before == _AS:
                if len(held) > item:
                    # One of that name in front of a clause is no use within its own text.
                    other = [part for part in held[item:surely] if part in {sign, f"{sign}."}]
                    found.append(_Definition(sign, first, held[item:], table))
                    held[item:] = [*other, len(found) - 1]
                    surely = min(surely, len(held))
            elif before == _BODY:
                around.append((item, surely, first, table, len(held), len(found), sign))
                item, surely, first, table = len(held), len(held), len(found), False
            else:
                held.append(sign)
        elif sign == ",":
            item, surely, first = len(held), len(held), len(found)
        elif sign == "(":
            around.append((item, surely, first, table, len(held), len(found), ""))
            item, surely, first, table = len(held), len(held), len(found), False
        elif sign == ")":
            if around:
                item, surely, first, table, opened, inner, name = around.pop()
                if name:
                    found.append(_Definition(name, inner, held[opened:], table=True))
                    del held[opened:]
        elif sign == _WEIGHT:
            held.append(sign)
        elif sign == _CLAUSE:
            surely, first, table = len(held), len(found), False
        elif sign in {_SELECT, _TABLES}:
            if sign == _SELECT:
                held.append(sign)
            item, surely, first, table = len(held), len(held), len(found), sign == _TABLES
        elif sign == "." and before >= _FIRST and held and held[-1] == before:
            held[-1] = f"{before}."
        before = sign
    found.append(_Definition("", 0, held, table=True))
    return found


def _weigh(found: list[_Definition], most: int) -> int:
    """SELECTs in the last of the definitions; ``most + 1`` where nobody can tell.

    Raises:
        FenceError: Too many names stand for SELECTs.
    """
    heavy = _heavy(found)
    by_name: dict[str | int, list[int]] = {}
    for index in sorted(heavy):
        one = found[index]
        by_name.setdefault(one.name, []).append(index)
        if not one.table:
            by_name.setdefault(f"{one.name}.", []).append(index)
    needs: dict[int, Counter[int]] = {}
    own: dict[int, int] = {}
    lookups = len(heavy)
    for index in heavy:
        held = Counter(found[index].holds)
        own[index] = held[_SELECT] + held[_WEIGHT]
        need = needs[index] = Counter()
        for part, times in held.items():
            if isinstance(part, int):
                candidates = [part] if part in heavy else []
            else:
                # Inside its own text a name means something else, or the step before.
                candidates = [one for one in by_name.get(part, ()) if not found[one].first <= index <= one]
            lookups += len(by_name.get(part, ()))
            if lookups > COUNTED_USES:
                raise too_much(f"makes more than {COUNTED_USES} uses of names", "Name a subquery less often")
            for other in candidates:
                need[other] += times
    weights: dict[int, int] = {}
    try:
        for index in TopologicalSorter(needs).static_order():
            inner = sum(times * weights[other] for other, times in needs[index].items())
            weights[index] = min(own[index] + inner, most + 1)
    except CycleError:
        return most + 1
    return weights[len(found) - 1]


def _heavy(found: list[_Definition]) -> AbstractSet[int]:
    """Definitions that become SELECTs, by themselves or by names they use, and the whole statement."""
    users: dict[str | int, list[int]] = {}
    waiting: list[int] = []
    for index, one in enumerate(found[:-1]):
        held = set(one.holds)
        if _SELECT in held or _WEIGHT in held:
            waiting.append(index)
        for part in held:
            users.setdefault(part, []).append(index)
    heavy = {len(found) - 1}
    while waiting:
        index = waiting.pop()
        if index not in heavy:
            heavy.add(index)
            name = found[index].name
            for key in (index, name, f"{name}."):
                waiting += users.pop(key, ())
    return heavy
