"""Texts from elsewhere as people can read them: names are whatever a client, a server or a header says."""

from __future__ import annotations

import unicodedata
from typing import Final

_JOINERS: Final = "\u200c\u200d"
"""Invisible, and part of how Persian, Hindi and emoji are written."""
_UNSEEN: Final = frozenset({"Cc", "Cf", "Co", "Cn", "Cs"})
_BREAKS: Final = frozenset({"Zl", "Zp"})
_ODD: Final = "\ufffd"
_MARKS: Final = 4
"""Accents on one letter; a longer pile grows over its neighbours."""

_STEERS: Final = str.maketrans(
    dict.fromkeys(
        [
            *range(9),
            *range(11, 32),
            *range(127, 160),
            0x061C,
            0x200E,
            0x200F,
            *range(0x2028, 0x202F),
            *range(0x2066, 0x206A),
        ],
        _ODD,
    )
)
"""Controls but tab and line feed, lines' and paragraphs' separators, and marks that turn the direction."""


def steady(text: str) -> str:
    """Lines of text as they may go to a terminal: what would steer it becomes ``\N{REPLACEMENT CHARACTER}``."""
    return text.replace("\r\n", "\n").translate(_STEERS)


def legible(text: str, most: int = 200) -> str:
    """One line of at most ``most`` letters in which everything is seen.

    Line breaks and tabs become spaces; controls, marks that turn the direction of what follows, and letters that no
    font has become ``\N{REPLACEMENT CHARACTER}``; what is cut off ends in an ellipsis.
    """
    shown: list[str] = []
    marks = 0
    for letter in text[: most + _MARKS * most]:
        kind = unicodedata.category(letter)
        marks = marks + 1 if kind in {"Mn", "Me"} else 0
        if marks > _MARKS:
            continue
        if letter in "\t\n\v\f\r\x85" or kind in _BREAKS:
            letter = " "  # noqa: PLW2901 - the letter as it is shown
        elif kind in _UNSEEN and letter not in _JOINERS:
            letter = _ODD  # noqa: PLW2901 - as above
        shown.append(letter)
    whole = "".join(shown)
    return whole if len(whole) <= most and len(text) <= most + _MARKS * most else f"{whole[: most - 1]}…"
