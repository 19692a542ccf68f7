"""How many SELECTs a statement becomes once the engine has put the text of each name where the name stands.

The engine copies a common table expression, and an alias of an expression, to every place that names it, before any
limit of time or memory holds: fourteen lines of ``WITH`` are eight thousand subqueries. The count is of the canonical
text and not too low for any name; one that means something else in another place is counted there as well.

It copies without a name, too: a column that GROUP BY, ORDER BY or LIMIT BY calls by its number, and what APPLY and
REPLACE do to each of the columns that an asterisk stands for. A number counts as all columns of its SELECT, and
nobody can tell how many an asterisk is.

Linear: everything that matters becomes a sign, by whole passes of compiled code; what holds nothing is taken out, and
what is left costs a step a sign. Of signs, names and look-ups there are only so many.
"""

from __future__ import annotations

from collections import Counter
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, NamedTuple

from collector.embedded.reader import COUNTED_NAMES, COUNTED_SIGNS, COUNTED_USES, COUNTED_WORDS
from collector.embedded.refusal import FenceError
from collector.embedded.signs import (
    APPLIED,
    AS,
    BODY,
    BY,
    CLAUSE,
    ENDLESS,
    FIRST,
    POSITION,
    SELECT,
    TABLES,
    VIEWS,
    WEIGHT,
    may_copy,
    outlined,
    signs_of,
    views,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet


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
    outline = outlined(tokens)
    if outline is None:
        raise too_much(f"has more than {COUNTED_WORDS} words and signs", "Make it shorter")
    tables = views(tokens, outline.text, most)
    plainly = outline.text.count(SELECT) + sum(weight for _, weight in tables)
    names = outline.text.count(AS)
    if plainly > most or plainly < 2 or not may_copy(outline.text):  # noqa: PLR2004 - one is never multiplied
        return min(plainly, most + 1)
    if names > COUNTED_NAMES:
        raise too_much(f"gives more than {COUNTED_NAMES} names", "Name fewer columns")
    text = signs_of(tokens, outline, tables)
    if len(text) > COUNTED_SIGNS:
        raise too_much(f"has more than {COUNTED_SIGNS} names, brackets and commas in them", "Name and nest less")
    return min(_weigh(_definitions(text), most), most + 1)


def too_much(what: str, fix: str) -> FenceError:
    """The error of a statement in which SELECTs can't be counted for its length."""
    return FenceError("length", f"A statement with subqueries {what}", f"{fix}, or ask in several statements")


class _Definition(NamedTuple):
    """What a name stands for.

    Attributes:
        name: Its letter.
        first: Number of the first definition that is in its text for sure, its own being the last.
        holds: SELECTs, names that are used, and numbers of aliases that are given in it and stand in their place too.
        table: It is a table's, of which names behind a dot are columns.
        endless: The engine may copy it any number of times where it stands.
    """

    name: str
    first: int
    holds: list[str | int]
    table: bool
    endless: bool = False


class _Columns:
    """The columns of a SELECT, which a number may stand for.

    Attributes:
        begin: Where they begin in what no definition has yet; below zero once they have ended.
        known: The number of their definition; below zero while there is none.
        seen: How much was held when a number stood for them the last time.
        called: Numbers may stand for them by now.
        applied: Where that begins which is for each of many columns; below zero for nowhere.
    """

    __slots__ = ("applied", "begin", "called", "known", "seen")

    def __init__(self, begin: int = -1) -> None:
        self.begin, self.known, self.seen, self.called, self.applied = begin, -1, 0, False, -1

    def define(self, held: list[str | int], found: list[_Definition]) -> None:
        """Make a definition of what is held of them."""
        if self.begin >= 0:
            found.append(_Definition("", 0, held[self.begin :], table=False))
            self.known = len(found) - 1
            held[self.begin :] = [self.known]

    def call(self, held: list[str | int], found: list[_Definition], *, endless: bool) -> None:
        """Hold them once more, or any number of times."""
        if len(held) > self.seen:
            self.define(held, found)
        held.append(self.known)
        if endless:
            self._endless(held, found, len(held) - 1)
        self.seen = len(held)

    def apply(self, held: list[str | int], found: list[_Definition]) -> None:
        """Hold any number of times what is for each of many columns: its item has ended."""
        if 0 <= self.applied < len(held):
            self._endless(held, found, self.applied)
        self.applied = -1

    def _endless(self, held: list[str | int], found: list[_Definition], begin: int) -> None:
        found.append(_Definition("", 0, held[begin:], table=False, endless=True))
        held[begin:] = [len(found) - 1]


def _definitions(signs: str) -> list[_Definition]:  # noqa: C901, PLR0912, PLR0915 - a step for each sign: no calls
    """All definitions, inner ones first, the whole statement last."""
    found: list[_Definition] = []
    # What no definition has yet.
    held: list[str | int] = []
    # Where the item of a list begins in it, where at the latest, and with which definition; whether it is a table.
    item, surely, first, table = 0, 0, 0, False
    around: list[tuple[int, int, int, bool, _Columns | None, int, int, str]] = []
    columns: _Columns | None = None
    numbered = POSITION in signs or ENDLESS in signs
    before = name = ""
    for sign in signs:
        if sign >= FIRST:
            if before == AS:
                if len(held) > item:
                    # One of that name in front of a clause is no use within its own text.
                    other = [part for part in held[item:surely] if part in {sign, f"{sign}."}]
                    found.append(_Definition(sign, first, held[item:], table))
                    held[item:] = [*other, len(found) - 1]
                    surely = min(surely, len(held))
                    if columns is not None:
                        columns.applied = min(columns.applied, item)
            elif before == BODY:
                around.append((item, surely, first, table, columns, len(held), len(found), sign))
                item, surely, first, table, columns = len(held), len(held), len(found), False, None
            else:
                held.append(sign)
        elif sign == ",":
            if columns is not None and columns.applied >= 0:
                columns.apply(held, found)
            item, surely, first = len(held), len(held), len(found)
        elif sign == "(":
            around.append((item, surely, first, table, columns, len(held), len(found), ""))
            item, surely, first, table, columns = len(held), len(held), len(found), False, None
        elif sign == ")":
            if around:
                if columns is not None:
                    columns.apply(held, found)
                item, surely, first, table, columns, opened, inner, name = around.pop()
                if name:
                    found.append(_Definition(name, inner, held[opened:], table=True))
                    del held[opened:]
        elif sign == WEIGHT:
            held.append(sign)
        elif sign in {CLAUSE, BY}:
            surely, first, table = len(held), len(found), False
            if sign == BY and columns is not None:
                columns.called = True
        elif sign in {POSITION, ENDLESS}:
            if columns is not None and columns.called:
                item, surely, first = len(held), len(held), len(found)
                columns.call(held, found, endless=sign == ENDLESS)
        elif sign == APPLIED:
            columns = columns or _Columns()
            if columns.applied < 0:
                columns.applied = len(held)
        elif sign in {SELECT, TABLES}:
            if columns is not None:
                columns.apply(held, found)
            if sign == SELECT:
                held.append(sign)
                columns = _Columns(len(held))
            elif numbered and columns is not None:
                columns.define(held, found)
                columns.begin = -1
            item, surely, first, table = len(held), len(held), len(found), sign == TABLES
        elif sign == "." and before >= FIRST and held and held[-1] == before:
            held[-1] = f"{before}."
        before = sign
    if columns is not None:
        columns.apply(held, found)
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
        own[index] = held[SELECT] + held[WEIGHT]
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
            weights[index] = (
                most + 1 if found[index].endless and own[index] + inner else min(own[index] + inner, most + 1)
            )
    except CycleError:
        return most + 1
    return weights[len(found) - 1]


def _heavy(found: list[_Definition]) -> AbstractSet[int]:
    """Definitions that become SELECTs, by themselves or by names they use, and the whole statement."""
    users: dict[str | int, list[int]] = {}
    waiting: list[int] = []
    for index, one in enumerate(found[:-1]):
        held = set(one.holds)
        if SELECT in held or WEIGHT in held:
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
