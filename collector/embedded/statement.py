"""Where a statement ends and its data begins, and where clauses of our own go: a tokenizer, no parser.

The engine parses; this only finds positions in text that the engine then checks again. Every step is linear in the
text: what is not closed ends with the text, and is looked for once.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# The engine's lexer: these are its blanks, comments and quotes. Curly quotes know no escapes. Signs that mean nothing
# here go by in one piece, so that the work is by the words. What repeats possessively is atomic inside: Python 3.11.2,
# which is Debian 12's, loses its way where such a repetition leaves a choice behind.
_TOKEN = re.compile(
    r"""
    (?P<space>(?:(?>[\s\u180e\u200b-\u200d\u2060\ufeff]++|--[^\n]*+|\#[!\ ][^\n]*+|//[^\n]*+))++)
  | (?P<word>[A-Za-z_][A-Za-z0-9_$]*+)
  | (?P<open>[(\[{]++)
  | (?P<close>[)\]}]++)
  | (?P<string>'(?:(?>[^'\\]++|\\.|''))*+'|\u2018[^\u2019]*+\u2019)
  | (?P<quoted>`(?:(?>[^`\\]++|\\.|``))*+`|"(?:(?>[^"\\]++|\\.|""))*+"|\u201c[^\u201d]*+\u201d)
  | (?P<comment>/\*)
  | (?P<broken>['`"\u2018\u201c].*+)
  | (?P<heredoc>\$)
  | (?P<end>;)
  | (?P<other>(?:(?>[^\s\u180e\u200b-\u200d\u2060\ufeffA-Za-z_()\[\]{}'`"\u2018\u201c$;/\#-]
      |-(?!-)|/(?![/*])|\#(?![!\ ])))++)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_MARK = re.compile(r"/\*|\*/")
_FORMAT = re.compile("format", re.IGNORECASE)
_BEFORE_DATA = re.compile(r"[ \t\f]*+;?[ \t\f]*+\r?\n?")

_NO_DATA = frozenset({"SELECT", "WITH", "WATCH", "INFILE", "EXPLAIN"})


class Token(NamedTuple):
    """A word, a quoted name, a string, a bracket or other signs, with its place and bracket depth."""

    kind: str
    text: str
    start: int
    end: int
    depth: int

    @property
    def word(self) -> str:
        """The word in capitals, or '' for anything else."""
        return self.text.upper() if self.kind == "word" else ""


@dataclass(frozen=True)
class Insert:
    """An INSERT whose data follow it.

    Attributes:
        head: Statement up to where ``FROM INFILE`` goes.
        tail: ``SETTINGS …`` part, may be empty.
        form: Input format.
        data_start: Index in the text at which data begin.
    """

    head: str
    tail: str
    form: str
    data_start: int

    def from_file(self, path: str) -> str:
        """The same insert, reading the file at ``path`` (no quotes in it)."""
        # On lines of their own: either part may end in a comment.
        return f"{self.head}\nFROM INFILE '{path}' COMPRESSION 'none'\n{self.tail}\nFORMAT {self.form}"


class _Heredocs:
    """Where ``$tag$ … $tag$`` ends: the tags of a text, gathered once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._places: dict[str, list[int]] | None = None

    def end(self, start: int) -> int | None:
        """The index after the heredoc that begins at ``start``; None where none does."""
        if self._places is None:
            self._places = {}
            for first, last in pairwise(match.start() for match in re.finditer(r"\$", self._text)):
                self._places.setdefault(self._text[first : last + 1], []).append(first)
        closing = self._text.find("$", start + 1)
        if closing < 0:
            return None
        tag = self._text[start : closing + 1]
        places = self._places.get(tag, [])
        index = bisect_left(places, closing + 1)
        return places[index] + len(tag) if index < len(places) else None


def tokens(text: str) -> Iterator[Token]:
    """Yield the meaningful tokens of ``text``; comments and white space are skipped."""
    position, depth = 0, 0
    heredocs = _Heredocs(text)
    scan = _TOKEN.match
    while (match := scan(text, position)) is not None:
        kind, stop = match.lastgroup or "other", match.end()
        if kind == "space":
            position = stop
            continue
        if kind == "comment":
            # Comments nest.
            position = _comment_end(text, position)
            continue
        if kind == "heredoc":
            found = heredocs.end(position)
            kind, stop = ("other", stop) if found is None else (kind, found)
        if kind == "close":
            depth -= stop - position
        yield Token(kind, text[position:stop], position, stop, depth)
        if kind == "open":
            depth += stop - position
        position = stop


def _comment_end(text: str, position: int) -> int:
    level = 0
    for mark in _COMMENT_MARK.finditer(text, position):
        level += 1 if mark.group() == "/*" else -1
        if level == 0:
            return mark.end()
    return len(text)


def first_word(text: str) -> str:
    """The first word in capitals; '' where the text doesn't start with one (brackets are stepped over)."""
    for token in tokens(text):
        if token.kind == "open":
            continue
        return token.word
    return ""


def split_insert(text: str) -> Insert | None:
    """Split an INSERT that carries (or expects) data; None for any other statement, INSERT … SELECT included."""
    if first_word(text) != "INSERT":
        return None
    found = tokens(text)
    _skip_target(found)
    settings: int | None = None
    for token in found:
        if token.depth or token.word in {"", *_NO_DATA}:
            if token.depth == 0 and token.word:
                return None
            continue
        if token.word == "SETTINGS":
            settings = token.start
        elif token.word == "VALUES":
            return _insert(text, settings, token, "Values", token.end)
        elif token.word == "FORMAT":
            form = next(found, None)
            if form is None or not form.word:
                return None
            values = form.word == "VALUES"
            data = form.end if values else _data_start(text, form.end)
            return _insert(text, settings, token, "Values" if values else form.text, data)
    return None


def _skip_target(found: Iterator[Token]) -> None:
    # The table's name may itself be a keyword: INSERT INTO format FORMAT CSV.
    for token in found:
        if token.word not in {"INSERT", "INTO", "TABLE", "FUNCTION"}:
            return


def _insert(text: str, settings: int | None, keyword: Token, form: str, data: int) -> Insert:
    head = text[: keyword.start if settings is None else settings]
    tail = "" if settings is None else text[settings : keyword.start]
    return Insert(head, tail, form, data)


def _data_start(text: str, position: int) -> int:
    # As the server does: blanks, then at most one line end; the rest belongs to the data.
    match = _BEFORE_DATA.match(text, position)
    return match.end() if match else position


def output_clause(text: str) -> tuple[int, str]:
    """Where ``INTO OUTFILE`` goes and the format that the statement asks for ('' where it asks for none).

    The place is before the trailing ``FORMAT name [SETTINGS …]``, or the end of the text without its semicolon.
    """
    if ";" not in text and not _FORMAT.search(text):
        return len(text), ""
    # The last FORMAT with a name behind it, and whether what follows the name may follow a format.
    place, form, last, after = -1, "", "", 0
    start, end = 0, 0
    for token in tokens(text):
        if token.kind == "end":
            continue
        end = token.end
        if after == 1 and token.word != "SETTINGS":
            place = -1
        after = max(0, after - 1)
        if last == "FORMAT" and token.kind in {"word", "quoted"}:
            place, form, after = start, token.text.strip('`"\u201c\u201d'), 1
        last, start = token.word if token.depth == 0 else "", token.start
    return (end, "") if place < 0 else (place, form)


def before_data(text: str) -> str:
    """The statement alone, without a trailing semicolon."""
    if ";" not in text:
        return text
    end = 0
    for token in tokens(text):
        if token.kind != "end":
            end = token.end
    return text[:end]
