"""Reading the engine's canonical text of a statement: one line, no comments, two kinds of quotes with backslashes.

Linear in the text, and a few passes of compiled code over all of it instead of a step for each token: hundreds of
kilobytes must not be felt, also where each letter is a token.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import compress, count
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

_STRING: Final = r"'[^'\\]*+(?:\\.[^'\\]*+)*+'"
_QUOTED: Final = r"`[^`\\]*+(?:\\.[^`\\]*+)*+`"
# A quote that is never closed, which the engine doesn't write, takes the rest: looked for once.
_BROKEN: Final = r"['`].*+"
_CUT: Final = re.compile(r"(['`](?:(?<=')[^'\\]*+(?:\\.[^'\\]*+)*+'|(?<=`)[^`\\]*+(?:\\.[^`\\]*+)*+`|.*+))", re.DOTALL)
_MARKS: Final = frozenset({"'", "`"})
_QUOTES: Final = frozenset({"'", "`"})
_BUT_QUOTES: Final = bytes(code for code in range(256) if chr(code) not in "'`")
_WORD: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"
_SIGNS: Final = "(),.=-+"
_OTHER: Final = {
    code: " " if chr(code).isspace() else "+" for code in range(128) if chr(code) not in f"{_WORD}{_SIGNS}'`"
}
# Of a long list of whole numbers, which readers do send, the first one stands for all.
_LISTS: Final = re.compile(r"([0-9])(?:, [0-9]++(?![A-Za-z0-9_.])){8,}+")
_FOREIGN_BLANK: Final = re.compile(r"[^\S\x00-\x7f]")
# The interpreter does nothing else while it splits: pieces so small that nobody waits for them.
_PIECE: Final = 1 << 15
_BEFORE_TABLES: Final = frozenset({"from", "join", "table", "."})
_NAME: Final = re.compile("[A-Za-z_`]")
_FORMAT: Final = re.compile(rf"{_STRING}|{_QUOTED}|{_BROKEN}|(?<![A-Za-z0-9_])(FORMAT)(?![A-Za-z0-9_])", re.DOTALL)
_AFTER: Final = re.compile(rf"[^A-Za-z_`]*+(?:[A-Za-z_][A-Za-z0-9_]*+|{_QUOTED}|{_BROKEN})", re.DOTALL)
_LETTERS: Final = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f", "a": "\a", "v": "\v"}
# Stand-ins while a text is taken apart: nothing that was UTF-8 holds them.
_GAP: Final = "\ud800"
_ESCAPED: Final = {"\\": "\ud801", "'": "\ud802", "`": "\ud803"}


def plain(token: str) -> str:
    """A name without its quotes or a string's value."""
    if token[:1] not in {"`", "'"}:
        return token
    return _meant([token[1:-1]])


def _meant(quoted: list[str]) -> str:
    """What is meant by what stands in quotes, with gaps between."""
    text = _GAP.join(quoted)
    if "\\" not in text:
        return text
    text = _set_aside(text)
    for letter, sign in _LETTERS.items():
        text = text.replace(f"\\{letter}", sign)
    return _put_back(text.replace("\\", ""))


def _set_aside(text: str) -> str:
    """The text, of the same length, with stand-ins for the quotes and backslashes behind a backslash."""
    for sign, stand_in in _ESCAPED.items():
        text = text.replace(f"\\{sign}", f"\\{stand_in}")
    return text


def _put_back(text: str) -> str:
    for sign, stand_in in _ESCAPED.items():
        text = text.replace(stand_in, sign)
    return text


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
        # Of each token what it says, and the same in small letters or, of what stands in quotes, the quote.
        self._values: list[str] = []
        self._words: list[str] = []
        self._places: dict[str, list[int]] = {}
        self._paths: list[int] = []
        self._starts: list[tuple[int, int]] = []
        wanted = wanted | {"settings", "format"}
        for place, piece in _pieces(text):
            self._starts.append((len(self._words), place))
            distinct = {*piece.words, *piece.quoted}
            self.names |= distinct
            if found := wanted & distinct:
                self._gather(piece.names(), found)
            if "/" in "".join(piece.quoted):
                self._gather_paths(piece)
            self._values += piece.values
            self._words += piece.words
        # What stands before the first token and behind the last.
        self._words += ("", "")

    def _gather(self, names: list[str], found: AbstractSet[str]) -> None:
        start = len(self._words)
        if len(found) == 1:
            (name,) = found
            self._places.setdefault(name, []).extend(compress(count(start), map(name.__eq__, names)))
            return
        for index in compress(range(len(names)), map(found.__contains__, names)):
            self._places.setdefault(names[index], []).append(start + index)

    def _gather_paths(self, piece: _Piece) -> None:
        chosen = list(map("`".__eq__, piece.words))
        places = compress(count(len(self._words)), chosen)
        before = compress([*(self._words[-1:] or ("",)), *piece.words], chosen)
        quoted = zip(places, before, piece.quoted, strict=True)
        self._paths += [place for place, word, name in quoted if word in _BEFORE_TABLES and "/" in name]

    def __len__(self) -> int:
        """The number of tokens."""
        return len(self._values)

    @property
    def tokens(self) -> list[str]:
        """All of them as `at` tells them, made anew each time."""
        pairs = zip(self._words, self._values, strict=False)  # behind the last token stand two that are none
        return [f"{word}{value}{word}" if word in _QUOTES else value for word, value in pairs]

    def at(self, index: int) -> str:
        """The token at ``index``, '' beyond the ends. A sign that means nothing here is a ``+``."""
        if not 0 <= index < len(self._values):
            return ""
        word, value = self._words[index], self._values[index]
        return f"{word}{value}{word}" if word in _QUOTES else value

    def places(self, names: Iterable[str]) -> Iterator[int]:
        """Indexes of the tokens that are one of ``names``, each of which was wanted."""
        for name in sorted(self._places.keys() & names):
            yield from self._places[name]

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
        values, words = self._values, self._words
        return [index for index in self._places.get(word.lower(), ()) if values[index] == word and words[index] != "`"]

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
        first, place = self._starts[bisect_right(self._starts, index, key=lambda start: start[0]) - 1]
        ahead = sum(first <= other < index for other in places)
        for found in _FORMAT.finditer(self.text, place):
            if found[1]:
                if not ahead:
                    name = _AFTER.match(self.text, found.end())
                    return found.start(), name.end() if name else found.end()
                ahead -= 1
        return len(self.text), len(self.text)


class _Piece(NamedTuple):
    """What a part of a text holds, in order.

    Attributes:
        values: What its tokens say, without quotes.
        words: The same in small letters, strings and names in quotes as a quote of their kind.
        quoted: Names that stand in quotes, in small letters and without them.
    """

    values: list[str]
    words: list[str]
    quoted: list[str]

    def names(self) -> list[str]:
        """Its words with the names in their places."""
        if not self.quoted:
            return self.words
        quoted = iter(self.quoted)
        return [next(quoted) if word == "`" else word for word in self.words]


def _pieces(text: str) -> Iterator[tuple[int, _Piece]]:
    """Pairs of a place in the text and what begins there; each ends where a token does."""
    place, size = 0, _PIECE
    while place < len(text):
        part, last = text[place : place + size], place + size >= len(text)
        length, piece = _count(part, last=last) or _cut(part, last=last)
        if length:
            yield place, piece
        size = _PIECE if length else 2 * size
        place += length


def _count(text: str, *, last: bool) -> tuple[int, _Piece] | None:
    """Take apart by splitting at the quotes; None where one is open or stands behind a backslash outside of quotes."""
    escapes = stand_ins = "\\" in text
    text = _set_aside(text) if escapes else text
    around, between = _split(text)
    # The first quote opens what it seems to, and so does the next one, as long as none is within another kind's.
    if "'" in "".join(between[1::2]) or len(around) % 2 == len(between) % 2 == 0:
        stand_ins = True
        around, between = _split(_told_apart(text))
    if not last:
        # The last token may go on behind the end: it is read again, with what follows.
        if len(around) % 2 == 0:
            around.pop()
        elif len(between) % 2 == 0:
            around[-1] = around[-1][: -len(between.pop()) - 1]
        around[-1], between[-1] = around[-1].rstrip(_WORD), between[-1].rstrip(_WORD)
    rest = "`".join(between[::2])
    if not (len(around) % 2 and len(between) % 2) or _ESCAPED["'"] in rest or _ESCAPED["`"] in rest:
        return None
    length = sum(map(len, around)) + len(around) - 1
    strings = _as_written(around[1::2]) if escapes else around[1::2]
    quoted = _as_written(between[1::2]) if stand_ins else between[1::2]
    padded = _padded(rest)
    return length, _Piece(_filled(padded.split(), strings, quoted), padded.lower().split(), _names(quoted))


def _split(text: str) -> tuple[list[str], list[str]]:
    """What stands around and in strings; what stands around and in names, a string there being its quote."""
    around = text.split("'")
    return around, "'".join(around[::2]).split("`")


def _told_apart(text: str) -> str:
    """The text, of the same length, with stand-ins for the quotes of strings within names."""
    parts = text.split("`")
    quotes = text.encode("utf-8", "surrogatepass").translate(None, _BUT_QUOTES)
    string, name, names = 0, False, []
    for number, within in enumerate(map(len, quotes.split(b"`"))):
        if name:
            name = False
            if within:
                names.append(number)
        else:
            string ^= within & 1
            name = not string
    if names:
        told = _GAP.join([parts[number] for number in names]).replace("'", _ESCAPED["'"])
        for number, part in zip(names, told.split(_GAP), strict=True):
            parts[number] = part
    return "`".join(parts)


def _cut(text: str, *, last: bool) -> tuple[int, _Piece]:
    """Cut at the quotes one by one."""
    parts = _CUT.split(text)
    if not last and not parts[-1] and len(parts) > 1:
        # It may go on behind the end: it is read again, with what follows.
        del parts[-2:]
    elif not last:
        parts[-1] = parts[-1].rstrip(_WORD)
    length = sum(map(len, parts))
    quotes = parts[1::2]
    parts[1::2] = [quote[0] for quote in quotes]
    strings, quoted = ([quote[1:-1] for quote in quotes if quote[0] == kind] for kind in "'`")
    padded = _padded("".join(parts))
    return length, _Piece(_filled(padded.split(), strings, quoted), padded.lower().split(), _names(quoted))


def _padded(text: str) -> str:
    """What stands outside of quotes, with blanks around each token: in ASCII, a quote's sign for each quote."""
    if not text.isascii():
        text = _FOREIGN_BLANK.sub(" ", text).encode("ascii", "replace").decode()
    text = _LISTS.sub(r"\1", text).translate(_OTHER)
    for sign in f"{_SIGNS}'`":
        text = text.replace(sign, f" {sign} ")
    return text


def _filled(words: list[str], strings: list[str], quoted: list[str]) -> list[str]:
    """The words with what stands in the quotes in their places."""
    if not strings and not quoted:
        return words
    string, name = iter(strings), iter(quoted)
    return [next(string) if word == "'" else next(name) if word == "`" else word for word in words]


def _as_written(quoted: list[str]) -> list[str]:
    return _put_back(_GAP.join(quoted)).split(_GAP) if quoted else []


def _names(quoted: list[str]) -> list[str]:
    # Where nothing is escaped, no name has a quote of its kind in it.
    text = "`".join(quoted)
    if "\\" not in text:
        return text.lower().split("`") if quoted else []
    return _meant(quoted).lower().split(_GAP)


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
    other = rf"[^'`FJ]++|{_STRING}|{_QUOTED}|{_BROKEN}|(?!\b(?:FROM|JOIN){after})[FJ]"
    pattern = re.compile(rf"((?:{other}){{0,4096}}+)(?:(FROM|JOIN) system\.(\w++)( AS )?)?", re.DOTALL)
    # Constant text around a table's name of our own list.
    instead = {table: f" (SELECT * REPLACE ({columns}) FROM system.{table}) AS " for table, columns in tables.items()}  # noqa: S608
    count = 0

    def write(found: re.Match[str]) -> str:
        nonlocal count
        skipped, word, table, alias = found.groups()
        if table is None:
            return skipped
        count += 1
        return skipped + word + instead[table] + ("" if alias else table)

    return pattern.sub(write, text), count
