"""Which signals feed a table, and of which a statement would miss rows that have not been brought in.

The schema itself says it: its views and the statements that settle pass rows on from table to table, from those in
which a signal lands. What only others write (incidents, kept causes) is fed by none.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

from collector.log.segment import SIGNALS
from collector.store.migrate import SCHEMA, Layout, of_new
from collector.store.statements import LANDING

if TYPE_CHECKING:
    from collections.abc import Mapping

EVERYTHING: Final = frozenset(SIGNALS)
_VIEW: Final = re.compile(
    r"CREATE (?:OR REPLACE )?(MATERIALIZED )?VIEW (?:IF NOT EXISTS )?\w+\.(\w+)\s*(?:TO \w+\.(\w+))?"
)
_INTO: Final = re.compile(r"INSERT INTO \{database\}\.(\w+)")
_OF: Final = re.compile(r"\b(?:FROM|JOIN)\s+(?:(?:\w+|\{database\})\.)?(\w+)")

_ANY: Final = re.compile(rb"\b(?:from|join)\b", re.IGNORECASE)
_NAME: Final = rb"(?:[`\"]?(?P<%(base)b>\w+)[`\"]?\s*\.\s*)?[`\"]?(?P<%(name)b>\w+)[`\"]?"
_READ: Final = re.compile(
    rb"\barray\s+join\b"
    rb"|(?:\b(?P<word>from|join)\b\s*"
    rb"(?P<what>\(|" + _NAME % {b"base": b"base", b"name": b"name"} +
    rb"(?P<call>\s*\()?)?)"
    rb"|\bin\s+" + _NAME % {b"base": b"other_base", b"name": b"other"},
    re.IGNORECASE,
)  # fmt: skip
_MORE: Final = re.compile(rb"\s*(?:final\b\s*)?(?:(?:as\s+)?[`\"]?\w+[`\"]?\s*)?,", re.IGNORECASE)
_BRACKET: Final = re.compile(rb"[()]")
_TABLE: Final = re.compile(r"CREATE TABLE IF NOT EXISTS \w+\.(\w+?)(?:_next)?\s")
_ASIDE: Final = re.compile(
    rb"(?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))"
    rb"|(?P<name>(?!`(?:from|join|in)`)(?:`(?:[^`\\]|\\.?)*(?:`|\Z)|\"(?:[^\"\\]|\\.?)*(?:\"|\Z)))"
    rb"|'(?:[^'\\]|\\.?)*(?:'|\Z)|`\w+`|\{\s*\w+\s*:[^{}]*\}",
    re.DOTALL | re.IGNORECASE,
)  # fmt: skip
"""What may hold words that are none of the statement's: comments, texts, parameters, and columns named like words."""
_HEREDOC: Final = re.compile(rb"\$\w*\$")
_DEFINED: Final = re.compile(rb"\b(\w+)[`\"]?\s+as\s*\(", re.IGNORECASE)
_OTHERS: Final = frozenset({b"system", b"information_schema"})
_MADE_UP: Final = frozenset({b"numbers", b"numbers_mt", b"zeros", b"zeros_mt", b"values", b"generate_series"})
"""Table functions that read no table."""
_LONGEST: Final = 64 << 10
"""A longer statement is not looked into."""


@cache
def tables() -> Mapping[str, frozenset[str]]:
    """Signals by the name of each table and view of the schema."""
    of: dict[str, set[str]] = {}
    fed: dict[str, set[str]] = {name: {signal} for name, (signal, _) in LANDING.items()}
    for statement in of_new(Layout()):
        if found := _VIEW.match(statement):
            of.setdefault(found[3] or found[2], set()).update(_OF.findall(statement))
        elif made := _TABLE.match(statement):
            fed.setdefault(made[1], set())
    for path in (SCHEMA / "settle").glob("*.sql"):
        text = path.read_text(encoding="utf-8")
        for into in _INTO.findall(text):
            of.setdefault(into, set()).update(_OF.findall(text))
    for name in of:
        fed.setdefault(name, set())
    grown = True
    while grown:
        before = sum(map(len, fed.values()))
        for name, sources in of.items():
            fed[name].update(*(fed[source] for source in sources if source in fed))
        grown = sum(map(len, fed.values())) > before
    return {name: frozenset(signals) for name, signals in fed.items()}


def signals_of(statement: bytes) -> frozenset[str]:
    """The signals that feed what a statement reads; none where it merely asks for a sign of life.

    A name that is neither the schema's nor the statement's own may be anything, and stands for all.
    """
    if not _ANY.search(statement):
        return frozenset()
    if len(statement) > _LONGEST or _HEREDOC.search(statement):
        return EVERYTHING
    bare = _ASIDE.sub(lambda found: found["name"] or (b" " if found["comment"] else b" ? "), statement)
    own, ends = frozenset(_DEFINED.findall(bare)), _ends(bare)
    found: set[str] = set()
    for match in _READ.finditer(bare):
        signals = _fed_by(match, own)
        if signals is None or (match["word"] and _MORE.match(bare, ends.get(match.end(), match.end()))):
            return EVERYTHING
        found |= signals
    return frozenset(found)


def _ends(statement: bytes) -> dict[int, int]:
    # where what follows an opening bracket ends, by where it begins
    found: dict[int, int] = {}
    opened: list[int] = []
    for bracket in _BRACKET.finditer(statement):
        if bracket[0] == b"(":
            opened.append(bracket.end())
        elif opened:
            found[opened.pop()] = bracket.end()
    return found


def _fed_by(match: re.Match[bytes], own: frozenset[bytes]) -> frozenset[str] | None:
    # None: it may be anything
    name = match["name"] or match["other"] or b""
    if (match["base"] or match["other_base"] or b"").lower() in _OTHERS:
        return frozenset()
    if (signals := tables().get(name.decode())) is not None and not match["call"]:
        return signals
    if match["call"]:
        harmless = name.lower() in _MADE_UP
    else:
        # after FROM and JOIN stand tables and nothing else; elsewhere a column may
        harmless = match["word"] is None or match["what"] == b"(" or (name in own and not match["base"])
    return frozenset() if harmless else None
