"""How many SELECTs a statement becomes once the engine has put the text of each name where the name stands.

The engine copies a common table expression, and an alias of an expression, to every place that names it, before any
limit of time or memory holds: fourteen lines of ``WITH`` are eight thousand subqueries. The count is of the canonical
text and never too low; a name that means something else in another place is counted there as well.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import compress, count
from typing import TYPE_CHECKING, Final

from collector.embedded.pieces import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet

# What begins an item of a list, behind which the expression of an alias may stand.
_STARTERS: Final = frozenset(
    {"SELECT", "WITH", "RECURSIVE", "DISTINCT", "FROM", "JOIN", "ON", "USING", "PREWHERE", "WHERE", "HAVING"}
    | {"QUALIFY", "BY", "IN", "UNION", "ALL", "THEN", "ELSE"}
)
_STRUCTURE: Final = _STARTERS | {"(", ")", ",", "AS"}
_LOOKUPS: Final = 200_000


@dataclass(slots=True)
class _Definition:
    """A stretch of text that a name stands for; ``inline``: it stands in place as well, as an alias does."""

    name: str
    start: int
    end: int
    inline: bool
    parent: int = 0
    selects: int = 0
    uses: dict[str, int] = field(default_factory=dict)


VIEWS: Final = {"requests": 10}
"""Views that take the engine as long to plan as so many SELECTs."""


def may_multiply(text: str, most: int) -> bool:
    """Whether a statement is worth counting: one SELECT is never multiplied, and few views weigh little.

    Args:
        text: The canonical text.
        most: As for `selects`.
    """
    weight = sum(weight * text.count(name) for name, weight in VIEWS.items())
    return text.count("SELECT") > 1 or weight >= most


def selects(tokens: Sequence[str], most: int) -> int:
    """SELECTs in a statement with all names replaced; ``most + 1`` where there are more, or nobody can tell.

    Args:
        tokens: Of the canonical text; strings are no names, whatever they say.
        most: Beyond it nothing is counted.
    """
    plainly = tokens.count("SELECT")
    plainly += sum(weight * _tables(tokens, name) for name, weight in VIEWS.items())
    if plainly > most or plainly < 2 or "AS" not in tokens:  # noqa: PLR2004 - one is never multiplied
        return min(plainly, most + 1)
    found, made = _definitions(tokens)
    # The whole statement, inside which all others lie.
    found.insert(0, _Definition("", -1, len(tokens), inline=False))
    _attribute(tokens, found, made)
    return min(_weigh(found, most), most + 1)


def _definitions(tokens: Sequence[str]) -> tuple[list[_Definition], set[int]]:
    """In the order of their beginnings, outer ones first; and where in the text their names are made."""
    found: list[_Definition] = []
    made: set[int] = set()
    opened: list[int] = []
    begun = [0]
    partner: dict[int, int] = {}
    bodies: dict[int, str] = {}
    often = Counter(tokens)
    for index, word in _those(tokens, _STRUCTURE):
        if word == "(":
            opened.append(index)
            begun.append(index + 1)
        elif word == ")" and opened:
            start = opened.pop()
            begun.pop()
            partner[index] = start
            if start in bodies:
                found.append(_Definition(bodies[start], start, index, inline=False))
        elif word == "," or word in _STARTERS:
            begun[-1] = index + 1
        elif word == "AS" and index + 1 < len(tokens):
            following = index + 1 + (tokens[index + 1] == "MATERIALIZED")
            if tokens[following : following + 1] == ["("]:
                named = index - 1
                while tokens[named] == ")" and named in partner:
                    named = partner[named] - 1
                bodies[following] = plain(tokens[named])
                made.add(named)
            elif often[name := tokens[index + 1]] > 1 or name[0] == "`" or f"`{name}`" in often:
                # One that nobody names is what stands in its place.
                made.add(index + 1)
                found.append(_Definition(plain(name), begun[-1], index, inline=True))
    found.sort(key=lambda one: (one.start, -one.end))
    return found, made


def _attribute(tokens: Sequence[str], found: list[_Definition], made: set[int]) -> None:
    """Give every SELECT, and every use of a name that is defined, to the innermost definition around it."""
    names = {one.name for one in found}
    spelled = _spellings(tokens, names)
    views = _spellings(tokens, VIEWS.keys())
    around = [0]
    following = 1
    for index, word in _those(tokens, {"SELECT", *spelled, *views}):
        while following < len(found) and found[following].start <= index:
            while found[around[-1]].end <= found[following].start:
                around.pop()
            found[following].parent = around[-1]
            around.append(following)
            following += 1
        while found[around[-1]].end <= index:
            around.pop()
        if word == "SELECT":
            found[around[-1]].selects += 1
            continue
        if word in views and _is_table(tokens, index):
            found[around[-1]].selects += VIEWS[views[word]]
        if (
            (name := spelled.get(word)) is not None
            and index not in made
            # Beside a dot it says whose column, or is one's.
            and tokens[index - 1] != "."
            and tokens[index + 1 : index + 2] != ["."]
        ):
            uses = found[around[-1]].uses
            uses[name] = uses.get(name, 0) + 1


def _those(tokens: Sequence[str], wanted: AbstractSet[str]) -> Iterator[tuple[int, str]]:
    """Places of the tokens that are one of ``wanted``, and the tokens."""
    chosen = list(map(wanted.__contains__, tokens))
    return zip(compress(count(), chosen), compress(tokens, chosen), strict=True)


def _spellings(tokens: Sequence[str], names: AbstractSet[str]) -> dict[str, str]:
    """Those of ``names`` that stand in the text, by how they are spelled there."""
    distinct = set(tokens)
    quoted = {token: plain(token) for token in distinct if token[0] == "`"}
    return {name: name for name in distinct & names} | {token: name for token, name in quoted.items() if name in names}


def _tables(tokens: Sequence[str], name: str) -> int:
    return sum(_is_table(tokens, index) for index, _ in _those(tokens, _spellings(tokens, {name}).keys()))


def _is_table(tokens: Sequence[str], index: int) -> bool:
    while tokens[index - 1] == "." and index > 1:
        index -= 2
    return tokens[index - 1] in {"FROM", "JOIN", "IN", ",", "("}


def _weigh(found: list[_Definition], most: int) -> int:
    heavy = _heavy(found)
    by_name: dict[str, list[int]] = {}
    for index in sorted(heavy):
        by_name.setdefault(found[index].name, []).append(index)
    needs: dict[int, Counter[int]] = {index: Counter() for index in heavy}
    lookups = 0
    for index in heavy:
        if found[index].inline:
            needs[found[index].parent][index] += 1
        for name, times in found[index].uses.items():
            candidates = by_name.get(name, [])
            lookups += len(candidates)
            if lookups > _LOOKUPS:
                return most + 1
            for other in candidates:
                # Inside its own text a name means something else, or the step before.
                if not found[other].start <= found[index].start < found[other].end:
                    needs[index][other] += times
    weights: dict[int, int] = {}
    try:
        for index in TopologicalSorter({index: needs[index].keys() for index in heavy}).static_order():
            inner = sum(times * weights[other] for other, times in needs[index].items())
            weights[index] = min(found[index].selects + inner, most + 1)
    except CycleError:
        return most + 1
    return weights[0]


def _heavy(found: list[_Definition]) -> set[int]:
    """Definitions that become SELECTs, by themselves or by names they use, and the whole statement."""
    users: dict[str, list[int]] = {}
    for index, one in enumerate(found):
        for name in one.uses:
            users.setdefault(name, []).append(index)
    heavy = {0}
    waiting = [index for index, one in enumerate(found) if one.selects]
    while waiting:
        index = waiting.pop()
        if index in heavy:
            continue
        heavy.add(index)
        waiting += [found[index].parent, *users.pop(found[index].name, ())]
    return heavy
