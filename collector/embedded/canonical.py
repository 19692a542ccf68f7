"""Reading the engine's canonical text of a statement: one line, no comments, two kinds of quotes with backslashes.

Linear in the text, and a few passes of compiled code over all of it instead of a step for each token: hundreds of
kilobytes must not be felt, also where each letter is a token.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from itertools import compress, count
from typing import TYPE_CHECKING, Final

from collector.embedded.pieces import BROKEN, GAP, QUOTED, STRING, filled, pieces, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from collector.embedded.pieces import Piece

_QUOTES: Final = frozenset({"'", "`"})
_BEFORE_TABLES: Final = frozenset({"from", "join", "table", "."})
_NAME: Final = re.compile("[A-Za-z_`]")
_FORMAT: Final = re.compile(rf"{STRING}|{QUOTED}|{BROKEN}|(?<![A-Za-z0-9_])(FORMAT)(?![A-Za-z0-9_])", re.DOTALL)
_AFTER: Final = re.compile(rf"[^A-Za-z_`]*+(?:[A-Za-z_][A-Za-z0-9_]*+|{QUOTED}|{BROKEN})", re.DOTALL)


@dataclass(frozen=True)
class Assignment:
    """A setting in a ``SETTINGS`` clause.

    Attributes:
        name: The setting.
        value: Its value, None where it is no plain number, string or truth value.
        inner: It stands in a subquery.
    """

    name: str
    value: str | None
    inner: bool


class Canonical:
    """A statement in the engine's own text: words, names, strings, whole numbers and signs.

    Args:
        text: All of it.
        wanted: Names in small letters whose places will be asked for.

    Attributes:
        names: Its tokens but strings, in small letters and without quotes.
    """

    def __init__(self, text: str, wanted: AbstractSet[str] = frozenset()) -> None:
        self.text = text
        self.names: set[str] = set()
        # Of each token what it says, of what stands in quotes the quote, and the same in small letters.
        self._written: list[str] = []
        self._words: list[str] = []
        self._pieces: list[Piece] = []
        self._filled: dict[int, list[str]] = {}
        self._places: dict[str, list[int]] = {}
        self._paths: list[int] = []
        self._starts: list[tuple[int, int]] = []
        wanted = wanted | {"settings", "format"}
        for place, piece in pieces(text):
            self._starts.append((len(self._words), place))
            distinct, quoted = set(piece.words), set(piece.quoted)
            if found := wanted & quoted:
                self._gather(piece.names(), found | wanted & distinct)
            elif found := wanted & distinct:
                self._gather(piece.words, found)
            distinct |= quoted
            self.names |= distinct
            if "/" in "".join(piece.quoted) and not _BEFORE_TABLES.isdisjoint((*distinct, *self._words[-1:])):
                self._gather_paths(piece)
            self._pieces.append(piece)
            self._written += piece.written
            self._words += piece.words
        # What stands before the first token and behind the last.
        self._written += ("", "")
        self._words += ("", "")

    def _gather(self, names: list[str], found: AbstractSet[str]) -> None:
        start = len(self._words)
        if len(found) == 1:
            (name,) = found
            self._places.setdefault(name, []).extend(compress(count(start), map(name.__eq__, names)))
            return
        for index in compress(range(len(names)), map(found.__contains__, names)):
            self._places.setdefault(names[index], []).append(start + index)

    def _gather_paths(self, piece: Piece) -> None:
        chosen = list(map("`".__eq__, piece.words))
        places = compress(count(len(self._words)), chosen)
        before = compress([*(self._words[-1:] or ("",)), *piece.words], chosen)
        quoted = zip(places, before, piece.quoted, strict=True)
        self._paths += [place for place, word, name in quoted if word in _BEFORE_TABLES and "/" in name]

    def __len__(self) -> int:
        """The number of tokens."""
        return len(self._written) - 2

    @property
    def quoted(self) -> int:
        """How many of them are names in quotes."""
        return sum(len(piece.called) for piece in self._pieces)

    @property
    def outline(self) -> list[str]:
        """All tokens as `at` tells them, but of a string its quote alone; made anew each time."""
        found = self._written[:-2]
        for (start, _), piece in zip(self._starts, self._pieces, strict=True):
            if piece.called:
                called = f"`{GAP}`".join(piece.called)
                name = iter(f"`{called}`".split(GAP))
                end = start + len(piece.written)
                found[start:end] = [next(name) if word == "`" else word for word in piece.written]
        return found

    def at(self, index: int) -> str:
        """The token at ``index``, '' beyond the ends. A sign that means nothing here is a ``+``."""
        if not 0 <= index < len(self._written):
            return ""
        word = self._written[index]
        if word not in _QUOTES:
            return word
        number = bisect_right(self._starts, index, key=_first) - 1
        return f"{word}{self._said(number)[index - self._starts[number][0]]}{word}"

    def _said(self, number: int) -> list[str]:
        """What the tokens of a piece say, without quotes: few pieces are asked."""
        found = self._filled.get(number)
        if found is None:
            found = self._filled[number] = filled(self._pieces[number])
        return found

    def places(self, names: Iterable[str]) -> Iterator[int]:
        """Indexes of the tokens that are one of ``names``, each of which was wanted."""
        for name in sorted(self._places.keys() & names):
            yield from self._places[name]

    def in_database(self, name: str) -> list[int]:
        """Indexes of the database's name, wanted, where one of its tables follows."""
        words = self._words
        return [index for index in self.places({name}) if words[index + 1] == "."]

    def tables(self, database: str) -> Counter[tuple[str, str, str]]:
        """Names behind ``database.`` with the tokens before and behind, quotes for what they hold, and how often."""
        written, places = self._written, self.in_database(database)
        # Before the first token stands what stands behind the last. What quotes hold matters in the name alone.
        before, names, behind = ([written[index + step] for index in places] for step in (-1, 2, 3))
        if not _QUOTES.isdisjoint(names):
            said = [word for number in range(len(self._pieces)) for word in self._said(number)]
            names = [
                f"{name}{said[index + 2]}{name}" if name in _QUOTES else name
                for index, name in zip(places, names, strict=True)
            ]
        return Counter(zip(before, names, behind, strict=True))

    def calls(self, names: Iterable[str]) -> Iterator[int]:
        """Those of the ``places`` with a bracket behind them."""
        words = self._words
        for name in sorted(self._places.keys() & names):
            yield from [index for index in self._places[name] if words[index + 1] == "("]

    def paths(self) -> Iterator[int]:
        """Indexes of the names with a slash in them that stand where a table may."""
        yield from self._paths

    def settings(self) -> Iterator[Assignment]:
        """Everything that a ``SETTINGS`` clause sets, in order.

        The engine writes the keyword in capitals and ``name = value``, or a name alone, or ``name = DEFAULT``. A column
        that is called SETTINGS in capitals may be taken for a clause: refused then, never overlooked.
        """
        depth, counted = 0, 0
        for index in self._capital("SETTINGS"):
            clause = index + 1
            if not _NAME.match(self._words[clause]) or (index == 1 and self.at(0) == "SHOW"):
                continue
            between = self._words[counted:index]
            depth += between.count("(") - between.count(")")
            counted = index
            while _NAME.match(self.at(clause)):
                assignment, clause = self._assignment(clause, inner=depth > 0)
                yield assignment
                if assignment.value is None or self.at(clause) != ",":
                    break
                clause += 1

    def _capital(self, word: str) -> list[int]:
        # A name in quotes is no word.
        written = self._written
        return [index for index in self._places.get(word.lower(), ()) if written[index] == word]

    def _assignment(self, index: int, *, inner: bool) -> tuple[Assignment, int]:
        name = plain(self.at(index))
        if self.at(index + 1) != "=":
            return Assignment(name, "1", inner), index + 1
        first = self.at(index + 2)
        if first == "-" or first[:1].isdigit():
            sign = "-" if first == "-" else ""
            number, end = self._number(index + 2 + len(sign))
            return Assignment(name, sign + number if number else None, inner), end
        known = first[:1] == "'" or first in {"true", "false"}
        return Assignment(name, plain(first) if known else None, inner), index + 3

    def _number(self, index: int) -> tuple[str, int]:
        whole, point, part = self.at(index), self.at(index + 1), self.at(index + 2)
        if not whole[:1].isdigit():
            return "", index + 1
        if point != ".":
            return whole, index + 1
        return (f"{whole}.{part}", index + 3) if part[:1].isdigit() else (f"{whole}.", index + 2)

    def answer(self) -> tuple[str, str, str]:
        """Cut at the trailing ``FORMAT name [SETTINGS …]``: (text before it, name or '', text after the name)."""
        places = self._capital("FORMAT")
        words = self._words
        for index in reversed([index for index in places if words[index + 2] in {"", "settings"}]):
            name = self.at(index + 1)
            if _NAME.match(name) and self.at(index + 2) in {"", "SETTINGS"}:
                place, end = self._format(index, places)
                return self.text[:place].rstrip(), plain(name), self.text[end:]
        return self.text, "", ""

    def _format(self, index: int, places: list[int]) -> tuple[int, int]:
        """Where in the text the FORMAT that is the token ``index`` begins, and where the name behind it ends."""
        first, place = self._starts[bisect_right(self._starts, index, key=_first) - 1]
        ahead = sum(first <= other < index for other in places)
        for found in _FORMAT.finditer(self.text, place):
            if found[1]:
                if not ahead:
                    name = _AFTER.match(self.text, found.end())
                    return found.start(), name.end() if name else found.end()
                ahead -= 1
        return len(self.text), len(self.text)


def _first(start: tuple[int, int]) -> int:
    return start[0]


def replace_tables(text: str, tables: Mapping[str, str]) -> tuple[str, int]:
    """Put a subquery where a table of ``system`` stands after FROM or JOIN.

    Args:
        text: Canonical text.
        tables: The ``REPLACE`` list by table.

    Returns:
        The text, and how many were put in.
    """
    if "system." not in text:
        return text, 0
    # What is no such table goes by in long runs, but not so long that other threads would wait.
    after = rf" system\.(?:{'|'.join(tables)})\b(?!\s*+\.)"
    other = rf"[^'`FJ]++|{STRING}|{QUOTED}|{BROKEN}|(?!\b(?:FROM|JOIN){after})[FJ]"
    # Atomic inside, as the lexer's repetitions are (`collector.embedded.statement`).
    pattern = re.compile(rf"((?:(?>{other})){{0,4096}}+)(?:(FROM|JOIN) system\.(\w++)( AS )?)?", re.DOTALL)
    # Constant text around a table's name of our own list.
    instead = {table: f" (SELECT * REPLACE ({columns}) FROM system.{table}) AS " for table, columns in tables.items()}  # noqa: S608
    written, count = [], 0
    for found in pattern.finditer(text):
        skipped, word, table, alias = found.groups()
        written.append(skipped)
        if table is not None:
            count += 1
            written += (word, instead[table], "" if alias else table)
    return "".join(written), count
