"""Reading the engine's canonical text of a statement: one line, no comments, two kinds of quotes with backslashes.

Linear in the text, and a few passes of compiled code: hundreds of kilobytes must not be felt.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_STRING: Final = r"'[^'\\]*+(?:\\.[^'\\]*+)*+'"
_QUOTED: Final = r"`[^`\\]*+(?:\\.[^`\\]*+)*+`"
# A quote that is never closed, which the engine doesn't write, takes the rest: looked for once.
_BROKEN: Final = r"['`].*+"
_NUMBER: Final = r"[0-9][0-9A-Za-z_.]*+"
# Lists of numbers, and signs that mean nothing here, go by in one piece.
_TOKEN: Final = re.compile(
    rf"[A-Za-z_][A-Za-z0-9_]*+|{_STRING}|{_QUOTED}|{_BROKEN}|{_NUMBER}(?:, {_NUMBER})*+|[(),.=\-]"
    r"|[^\sA-Za-z0-9_'`(),.=\-]++",
    re.DOTALL,
)
# The interpreter does nothing else while it matches: pieces so small that nobody waits for them.
_PIECE: Final = 1 << 15
_NAME: Final = re.compile(r"[A-Za-z_]|`")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_LETTERS: Final = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f", "a": "\a", "v": "\v"}


def plain(token: str) -> str:
    """A name without its quotes or a string's value."""
    if token[:1] not in {"`", "'"}:
        return token
    return _ESCAPE.sub(lambda found: _LETTERS.get(found[1], found[1]), token[1:-1])


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
    """A statement in the engine's own text.

    Args:
        text: All of it.

    Attributes:
        tokens: Its words, names, strings, numbers and signs.
        names: Its words and names in small letters without quotes, each with its spellings among the tokens.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        self.names: dict[str, set[str]] = {}
        seen: set[str] = set()
        for piece in _pieces(text):
            self.tokens += piece
            new = set(piece) - seen
            seen |= new
            for token in new:
                if _NAME.match(token):
                    self.names.setdefault(plain(token).lower(), set()).add(token)

    def places(self, *names: str) -> Iterator[int]:
        """Indexes of the tokens that are one of ``names``, given in small letters: one pass for all of them."""
        spellings = {spelling for name in names for spelling in self.names.get(name, ())}
        if len(spellings) == 1:
            yield from self._indexes(*spellings)
        elif spellings:
            yield from (index for index, token in enumerate(self.tokens) if token in spellings)

    def at(self, index: int) -> str:
        """The token at ``index``, '' beyond the ends."""
        return self.tokens[index] if 0 <= index < len(self.tokens) else ""

    def settings(self) -> Iterator[Assignment]:
        """Everything that a ``SETTINGS`` clause sets, in order.

        The engine writes the keyword in capitals and ``name = value``, or a name alone, or ``name = DEFAULT``. A column
        that is called SETTINGS in capitals may be taken for a clause: refused then, never overlooked.
        """
        depth, counted = 0, 0
        for index in self._indexes("SETTINGS"):
            if index == 1 and self.tokens[0] == "SHOW":
                continue
            between = self.tokens[counted:index]
            depth += between.count("(") - between.count(")")
            counted = index
            clause = index + 1
            while _NAME.match(self.at(clause)):
                assignment, clause = self._assignment(clause, inner=depth > 0)
                yield assignment
                if assignment.value is None or self.at(clause) != ",":
                    break
                clause += 1

    def _indexes(self, token: str) -> Iterator[int]:
        index = -1
        with contextlib.suppress(ValueError):
            while True:
                index = self.tokens.index(token, index + 1)
                yield index

    def _assignment(self, index: int, *, inner: bool) -> tuple[Assignment, int]:
        name = plain(self.at(index))
        if self.at(index + 1) != "=":
            return Assignment(name, "1", inner), index + 1
        first = self.at(index + 2)
        if first == "-":
            number = self.at(index + 3)
            return Assignment(name, f"-{number}" if number[:1].isdigit() else None, inner), index + 4
        known = first[:1] == "'" or first[:1].isdigit() or first in {"true", "false"}
        return Assignment(name, plain(first) if known else None, inner), index + 3

    def answer(self) -> tuple[str, str, str]:
        """Cut at the trailing ``FORMAT name [SETTINGS …]``: (text before it, name or '', text after the name)."""
        last = len(self.tokens) - 2 if "FORMAT" in self.tokens else -1
        while last >= 0 and not (
            self.tokens[last] == "FORMAT"
            and _NAME.match(self.tokens[last + 1])
            and self.at(last + 2) in {"", "SETTINGS"}
        ):
            last -= 1
        if last < 0:
            return self.text, "", ""
        place, name_end = len(self.text), 0
        for index in range(len(self.tokens) - 1, last - 1, -1):
            token = self.tokens[index]
            # Only blanks stand between tokens, so the nearest one is this one.
            place = self.text.rindex(token, 0, place)
            if index == last + 1:
                name_end = place + len(token)
        return self.text[:place].rstrip(), plain(self.tokens[last + 1]), self.text[name_end:]


def _pieces(text: str) -> Iterator[list[str]]:
    place, size = 0, _PIECE
    while place < len(text):
        end = place + size
        found: list[str] = _TOKEN.findall(text, place, end)
        if end < len(text) and found and text.endswith(found[-1], place, end):
            # It may go on behind the piece's end: it is read again, with what follows.
            end -= len(found.pop())
        yield found
        size = _PIECE if found else 2 * size
        place = end


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
    names = "|".join(tables)
    pattern = re.compile(rf"{_STRING}|{_QUOTED}|{_BROKEN}|\b(FROM|JOIN) system\.({names})\b(?!\s*\.)( AS )?", re.DOTALL)
    count = 0

    def write(found: re.Match[str]) -> str:
        nonlocal count
        if found[1] is None:
            return found[0]
        count += 1
        alias = found[3] or f" AS {found[2]}"
        # Constant text around a table's name of our own list.
        return f"{found[1]} (SELECT * REPLACE ({tables[found[2]]}) FROM system.{found[2]}){alias}"  # noqa: S608

    return pattern.sub(write, text), count
