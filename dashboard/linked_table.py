"""A table in HTML: for names that lead somewhere, which the canvas of other tables cannot show as links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dashboard import escape
from dashboard.theme import faded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dashboard.theme import Palette

_NAME = 40
"""Letters of a name in a cell; the whole name comes with the pointer."""
_BAR = 0.22


@dataclass(frozen=True, slots=True)
class Head:
    """Head of a column.

    Attributes:
        name: With its unit.
        help: What it means, shown when the pointer rests on it.
        words: Whether its cells are words, which stand left; numbers stand right.
    """

    name: str
    help: str = ""
    words: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell.

    Attributes:
        text: What it says.
        where: Where it leads, "" for nowhere.
        share: Length of the bar behind it, 0 to 1; None without one.
        quiet: Whether it is told in the quieter colour.
    """

    text: str
    where: str = ""
    share: float | None = None
    quiet: bool = False


def linked(heads: Sequence[Head], rows: Sequence[Sequence[Cell]], colours: Palette, *, called: str) -> str:
    """HTML of a table that scrolls where it is longer or wider than its place.

    Args:
        heads: Heads of the columns.
        rows: Cells, as many as heads; the first of a row names it.
        colours: Palette of the page's mode.
        called: What the table is, for who hears it.
    """
    shades = (
        f"--line:{colours.grid};--text:{colours.text};--quiet:{colours.quiet};--accent:{colours.accent};"
        f"--panel:{colours.panel};--bar:{faded(colours.quiet, _BAR)}"
    )
    head = "".join(
        f'<th scope="col"{_left(one)} title="{escape.page(one.help)}">{escape.page(one.name, _NAME)}</th>'
        for one in heads
    )
    body = "".join(f"<tr>{_row(row, heads)}</tr>" for row in rows)
    region = f'role="region" aria-label="{escape.page(called)}" tabindex="0"'
    return (
        f'<div class="servescope-linked" style="{shades}" {region}>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(row: Sequence[Cell], heads: Sequence[Head]) -> str:
    return "".join(_cell(cell, of, first=not place) for place, (cell, of) in enumerate(zip(row, heads, strict=True)))


def _cell(cell: Cell, of: Head, *, first: bool) -> str:
    text = escape.page(cell.text, _NAME)
    if cell.where:
        text = f'<a href="{escape.page(cell.where, len(cell.where))}" target="_self">{text}</a>'
    elif cell.quiet:
        text = f"<i>{text}</i>"
    bar = ""
    if cell.share is not None:
        wide = 100 * min(max(cell.share, 0.0), 1.0)
        bar = f' style="background:linear-gradient(to right, var(--bar) {wide:.1f}%, transparent {wide:.1f}%)"'
    kind = 'th scope="row"' if first else "td"
    return f'<{kind}{_left(of)}{bar} title="{escape.page(cell.text)}">{text}</{kind[:2]}>'


def _left(of: Head) -> str:
    return ' class="servescope-words"' if of.words else ""
