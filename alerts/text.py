"""Plain English for numbers and names. Names come from tenants and servers and are hostile input: cut and cleaned."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME_LIMIT: Final = 80
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})

_MARKUP: Final = re.compile(r"[\\`|<>\[\]()*_#!~&$^{}]|^[-+=]|^\d+(?=[.)])")
_ADDRESSES: Final = re.compile(r"(?<=http)(?=s?://)|(?<=ftp)(?=://)|(?<=www)(?=\.)|(?<=[@#])(?=\w)", re.IGNORECASE)
"""Where addresses, mentions and tickets are recognised in plain text, after escapes are read."""

SUBJECTS: Final = ("component", "instance", "deployment", "model", "tenant", "region", "version", "engine")
"""Labels in the order in which a sentence names them."""


def plain(text: str, limit: int = NAME_LIMIT) -> str:
    """One line without control, format or bidirectional characters, at most `limit` characters."""
    clean = "".join(" " if unicodedata.category(c) in _HIDDEN else c for c in text).strip()
    return clean if len(clean) <= limit else clean[: max(limit - 1, 0)] + "…"


def number(value: float, unit: str = "") -> str:
    """A number as a person writes it: three significant digits, no exponent where one can do without."""
    if not math.isfinite(value):
        return "unknown"
    if unit == "ratio":
        return f"{number(value * 100)} %"
    size = abs(value)
    text = f"{value:.0f}" if size >= 100 or float(value).is_integer() else f"{value:.3g}"  # noqa: PLR2004 digits
    return f"{text} {unit}" if unit else text


def subject(labels: Mapping[str, str]) -> str:
    """What an alert is about: ``triton-a`` or ``model m on deployment d``; ``all requests`` without labels."""
    named = [(name, plain(labels[name])) for name in SUBJECTS if labels.get(name)]
    if not named:
        return "all requests"
    if named[0][0] == "component":
        return named[0][1]
    if named[0][0] == "instance":
        rest = [f"{name} {value}" for name, value in named[1:] if name in {"model", "tenant"}]
        return ", ".join([named[0][1], *rest])
    return ", ".join(f"{name} {value}" for name, value in named)


def markdown(text: str, limit: int = 300) -> str:
    """For Markdown: nothing in it is read as a mark, an address, a picture, a mention or a number of a ticket."""
    apart = _ADDRESSES.sub("\N{WORD JOINER}", plain(text, limit))
    return _MARKUP.sub(r"\\\g<0>", apart)


def within(text: str, limit: int) -> str:
    """At most `limit` characters, with an ellipsis where something was cut."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"
