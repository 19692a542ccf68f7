"""Taking the engine's canonical text of a statement apart, by pieces: what stands in quotes, and the words around it.

A few passes of compiled code over all of it instead of a step for each token.
"""

from __future__ import annotations

import re
from itertools import repeat
from operator import and_
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

STRING: Final = r"'[^'\\]*+(?:\\.[^'\\]*+)*+'"
QUOTED: Final = r"`[^`\\]*+(?:\\.[^`\\]*+)*+`"
# A quote that is never closed, which the engine doesn't write, takes the rest: looked for once.
BROKEN: Final = r"['`].*+"
_CUT: Final = re.compile(r"(['`](?:(?<=')[^'\\]*+(?:\\.[^'\\]*+)*+'|(?<=`)[^`\\]*+(?:\\.[^`\\]*+)*+`|.*+))", re.DOTALL)
_BUT_QUOTES: Final = bytes(code for code in range(256) if chr(code) not in "'`")
_WORD: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"
_SIGNS: Final = "()[],.=-+"
_OTHER: Final = {
    code: " " if chr(code).isspace() else "+" for code in range(128) if chr(code) not in f"{_WORD}{_SIGNS}'`"
}
# Of a long list of whole numbers, which readers do send, the first one stands for all.
_LISTS: Final = re.compile(r"([0-9])(?:, [0-9]++(?![A-Za-z0-9_.])){24,}+")
_FOREIGN_BLANK: Final = re.compile(r"[^\S\x00-\x7f]")
LISTED: Final = "_"
"""The end of a whole number that stands for a list."""
# The interpreter does nothing else while it splits: pieces so small that nobody waits for them.
_SIZE: Final = 1 << 15
_LETTERS: Final = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f", "a": "\a", "v": "\v"}
# Stand-ins while a text is taken apart: nothing that was UTF-8 holds them.
GAP: Final = "\ud800"
"""Nothing that was UTF-8 holds it."""
_ESCAPED: Final = {"\\": "\ud801", "'": "\ud802", "`": "\ud803"}


def plain(token: str) -> str:
    """A name without its quotes or a string's value."""
    if token[:1] not in {"`", "'"}:
        return token
    return _meant([token[1:-1]])


def _meant(quoted: list[str]) -> str:
    """What is meant by what stands in quotes, with gaps between."""
    text = GAP.join(quoted)
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


class Piece(NamedTuple):
    """What a part of a text holds, in order.

    Attributes:
        written: Its tokens, strings and names in quotes as a quote of their kind.
        words: The same in small letters.
        strings: What its strings say, without quotes.
        called: Names that stand in quotes, without them.
        quoted: The same in small letters.
    """

    written: list[str]
    words: list[str]
    strings: list[str]
    called: list[str]
    quoted: list[str]

    def names(self) -> list[str]:
        """Its words with the names in their places."""
        if not self.quoted:
            return self.words
        quoted = iter(self.quoted)
        return [next(quoted) if word == "`" else word for word in self.words]


def pieces(text: str) -> Iterator[tuple[int, Piece]]:
    """Pairs of a place in the text and what begins there; each ends where a token does."""
    place, size = 0, _SIZE
    while place < len(text):
        part, last = text[place : place + size], place + size >= len(text)
        length, piece = _count(part, last=last) or _cut(part, last=last)
        if length:
            yield place, piece
        size = _SIZE if length else 2 * size
        place += length


def _count(text: str, *, last: bool) -> tuple[int, Piece] | None:
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
    return length, Piece(padded.split(), padded.lower().split(), strings, quoted, _names(quoted))


def _split(text: str) -> tuple[list[str], list[str]]:
    """What stands around and in strings; what stands around and in names, a string there being its quote."""
    around = text.split("'")
    return around, "'".join(around[::2]).split("`")


def _told_apart(text: str) -> str:
    """The text, of the same length, with stand-ins for the quotes of strings within names."""
    parts = text.split("`")
    if not any(map(and_, map(str.count, parts[::2], repeat("'")), repeat(1))):
        # No string goes on behind a backquote: between the first and the second is a name, and so on.
        parts[1::2] = GAP.join(parts[1::2]).replace("'", _ESCAPED["'"]).split(GAP) if len(parts) > 1 else []
        return "`".join(parts)
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
        told = GAP.join([parts[number] for number in names]).replace("'", _ESCAPED["'"])
        for number, part in zip(names, told.split(GAP), strict=True):
            parts[number] = part
    return "`".join(parts)


def _cut(text: str, *, last: bool) -> tuple[int, Piece]:
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
    return length, Piece(padded.split(), padded.lower().split(), strings, quoted, _names(quoted))


def _padded(text: str) -> str:
    """What stands outside of quotes, with blanks around each token: in ASCII, a quote's sign for each quote."""
    if not text.isascii():
        text = _FOREIGN_BLANK.sub(" ", text).encode("ascii", "replace").decode()
    text = _LISTS.sub(rf"\g<1>{LISTED}", text).translate(_OTHER)
    for sign in f"{_SIGNS}'`":
        text = text.replace(sign, f" {sign} ")
    return text


def filled(piece: Piece) -> list[str]:
    """Its tokens with what stands in the quotes in their places."""
    if not piece.strings and not piece.called:
        return piece.written
    string, name = iter(piece.strings), iter(piece.called)
    return [next(string) if word == "'" else next(name) if word == "`" else word for word in piece.written]


def _as_written(quoted: list[str]) -> list[str]:
    return _put_back(GAP.join(quoted)).split(GAP) if quoted else []


def _names(quoted: list[str]) -> list[str]:
    # Where nothing is escaped, no name has a quote of its kind in it.
    text = "`".join(quoted)
    if "\\" not in text:
        return text.lower().split("`") if quoted else []
    return _meant(quoted).lower().split(GAP)
