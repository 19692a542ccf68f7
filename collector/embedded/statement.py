"""Where a statement ends and its data begins, and where clauses of our own go: a tokenizer, no parser.

The engine parses; this only finds positions in text that the engine then checks again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*|\#[!\ ][^\n]*|//[^\n]*)
  | (?P<comment>/\*)
  | (?P<string>'(?:[^'\\]|\\.|'')*')
  | (?P<quoted>`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*")
  | (?P<heredoc>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
  | (?P<word>[A-Za-z_][A-Za-z0-9_$]*)
  | (?P<open>[(\[{])
  | (?P<close>[)\]}])
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)

_NO_DATA = frozenset({"SELECT", "WITH", "WATCH", "INFILE", "EXPLAIN"})


@dataclass(frozen=True)
class Token:
    """A word, a quoted name, a string or a sign, with its place and bracket depth."""

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


def tokens(text: str, limit: int | None = None) -> Iterator[Token]:
    """Yield the meaningful tokens of ``text``; comments and white space are skipped."""
    position, depth = 0, 0
    end = len(text) if limit is None else min(limit, len(text))
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            return
        kind = match.lastgroup or "other"
        stop = match.end()
        if kind == "tag":
            kind = "heredoc"
        if kind == "comment":
            # Comments nest.
            stop = _comment_end(text, position)
        elif kind != "space":
            if kind == "close":
                depth -= 1
            yield Token(kind, match.group(), position, stop, depth)
            if kind == "open":
                depth += 1
        position = stop


def _comment_end(text: str, position: int) -> int:
    level = 0
    for mark in re.finditer(r"/\*|\*/", text[position:]):
        level += 1 if mark.group() == "/*" else -1
        if level == 0:
            return position + mark.end()
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
    match = re.compile(r"[ \t\f]*;?[ \t\f]*\r?\n?").match(text, position)
    return match.end() if match else position


def output_clause(text: str) -> tuple[int, str]:
    """Where ``INTO OUTFILE`` goes and the format that the statement asks for ('' where it asks for none).

    The place is before the trailing ``FORMAT name [SETTINGS …]``, or the end of the text without its semicolon.
    """
    found = list(tokens(text))
    while found and found[-1].text == ";":
        found.pop()
    end = found[-1].end if found else 0
    for index in range(len(found) - 2, -1, -1):
        token, after = found[index], found[index + 1]
        if token.word != "FORMAT" or token.depth or after.kind not in {"word", "quoted"}:
            continue
        rest = found[index + 2 :]
        if not rest or rest[0].word == "SETTINGS":
            return token.start, after.text.strip('`"')
    return end, ""


def before_data(text: str) -> str:
    """The statement alone, without a trailing semicolon."""
    found = list(tokens(text))
    while found and found[-1].text == ";":
        found.pop()
    return text[: found[-1].end] if found else ""
