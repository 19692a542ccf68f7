"""Tiles: name, value with unit, a note in words and a sparkline; a row of them is one piece of HTML.

A tile is neutral unless an objective or a limit judges it; a judgement is a word and a mark, never colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from math import ceil
from typing import TYPE_CHECKING, Literal

from dashboard import words
from dashboard.escape import page as escape
from dashboard.theme import Palette, faded

if TYPE_CHECKING:
    from collections.abc import Sequence

Judgement = Literal["", "risk", "broken"]
_ONE_ROW = 10
_MIDDLE = 5
_HAIR = 94.0
"""Per cent from the top of a sparkline at which a line at zero lies."""
_SHORT = 11
"""Letters that fit into the narrowest tile in the size of a figure."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure.

    Attributes:
        name: What it is.
        value: With its unit.
        note: A few words beneath: the peak, a change, a target.
        line: Sparkline, oldest first; None for a gap.
        help: What it means or why there is no value, shown when the pointer rests on it.
        judged: Whether an objective or limit is at risk or broken.
    """

    name: str
    value: str
    note: str = ""
    line: Sequence[float | None] = ()
    help: str = ""
    judged: Judgement = ""


def change_in_words(value: float | None, before: float | None, unit: str, against: str) -> str:
    """Note of a tile whose figure is compared; empty where there is none, or nothing to compare it with."""
    if value is None or not against:
        return ""
    return words.change(value, before, unit) or f"{against}: no figure"


def compared(tile: Tile, value: float | None, before: float | None, unit: str, against: str) -> Tile:
    """A tile whose note is what became of its figure, where the page compares; else the tile as it is.

    Args:
        tile: With a note for a page that does not compare.
        value: The figure.
        before: The same of what the page compares with.
        unit: A unit of `words.figure`.
        against: What the page compares with, in words; empty where it does not.
    """
    told = change_in_words(value, before, unit, against)
    return replace(tile, note=told) if told else tile


def row(tiles: Sequence[Tile], colours: Palette, *, old: bool = False) -> str:
    """HTML of a row of tiles, all of one height; ``old`` greys what could not be renewed."""
    wide = _columns(len(tiles), _ONE_ROW)
    middle = _columns(len(tiles), _MIDDLE)
    shades = (
        f"--line:{colours.grid};--text:{colours.text};--quiet:{colours.quiet};--broken:{colours.broken};"
        f"--risk:{colours.at_risk};--spark:{faded(colours.quiet, 0.38)};--wide:{wide};--middle:{middle}"
    )
    sparks = any(_known(tile.line) for tile in tiles)
    body = "".join(_one(tile, sparks=sparks) for tile in tiles)
    return f'<div class="servescope-tiles{" servescope-old" if old else ""}" style="{shades}">{body}</div>'


def _columns(number: int, most: int) -> int:
    """Columns so that all rows are as full as can be: 12 tiles in rows of at most 10 make 2 rows of 6."""
    return max(ceil(number / ceil(number / most)), 1) if number else 1


def _one(tile: Tile, *, sparks: bool) -> str:
    kind = f" servescope-{tile.judged}" if tile.judged else ""
    told = ". ".join(part for part in (f"{tile.name}: {tile.value}", tile.note, tile.help) if part)
    size = " servescope-long" if len(tile.value) > _SHORT else ""
    known = _known(tile.line)
    spark = f'<div class="servescope-spark" style="clip-path:{_shape(tile.line)}"></div>' if known else ""
    if sparks and not known:
        spark = '<div class="servescope-flat"></div>'
    return (
        f'<div class="servescope-tile{kind}" title="{escape(told)}">'
        f'<div class="servescope-name">{escape(tile.name)}</div>'
        f'<div class="servescope-value{size}">{escape(tile.value)}</div>'
        f'<div class="servescope-note">{escape(tile.note)}</div>{spark}</div>'
    )


def _known(line: Sequence[float | None]) -> bool:
    return sum(value is not None for value in line) > 1


def _shape(line: Sequence[float | None]) -> str:
    """The area under the line, from zero to its peak, as a clip path; zero shows as a hair, and a gap is empty."""
    top = max((value for value in line if value is not None), default=0.0) or 1.0
    last = max(len(line) - 1, 1)
    points: list[str] = []
    for known, run in groupby(enumerate(line), key=lambda item: item[1] is not None):
        if not known:
            continue
        places = [(float(index), min(100 - 92 * max(value or 0.0, 0.0) / top, _HAIR)) for index, value in run]
        if len(places) == 1:  # alone between gaps: as wide as a step
            index, height = places[0]
            places = [(max(index - 0.5, 0.0), height), (min(index + 0.5, last), height)]
        outline = [(places[0][0], 100.0), *places, (places[-1][0], 100.0)]
        points += [f"{100 * at / last:.1f}% {height:.1f}%" for at, height in outline]
    return f"polygon({', '.join(points)})"
