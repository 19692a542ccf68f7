"""Small pictures inside table cells, as images that need no server: a request's phases as one stacked bar."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from dashboard.theme import colour_of, unmeasured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dashboard.theme import Palette

_WIDE, _HIGH = 124, 16
"""The cell draws a picture as high as itself and cuts what is too wide: this fits the column of 168 pixels."""
_LEAST = 0.5


def phase_bar(parts: Sequence[tuple[str, float]], colours: Palette) -> str | None:
    """A stacked bar of phases as a data URI; None when nobody measured any.

    Args:
        parts: Phase and seconds, in the order a request meets them.
        colours: Palette.
    """
    whole = sum(seconds for _, seconds in parts)
    if whole <= 0:
        return None
    at, drawn = 0.0, []
    for phase, seconds in parts:
        wide = _WIDE * seconds / whole
        if wide >= _LEAST:
            rim = f' stroke="{colours.quiet}" stroke-width="1"' if unmeasured(phase) else ""
            drawn.append(
                f'<rect x="{at:.1f}" width="{wide:.1f}" height="{_HIGH}" fill="{colour_of(phase, colours)}"{rim}/>'
            )
        at += wide
    picture = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDE}" height="{_HIGH}">{"".join(drawn)}</svg>'
    return f"data:image/svg+xml,{quote(picture)}"


def keys(phases: Sequence[str], colours: Palette) -> str:
    """HTML that names the colours of phases."""
    named = "".join(
        f'<span><i style="background:{colour_of(phase, colours)}'
        f'{f";box-shadow:inset 0 0 0 1px {colours.quiet}" if unmeasured(phase) else ""}"></i>'
        f"{phase.replace('_', ' ')}</span>"
        for phase in phases
    )
    return f'<div class="servescope-keys" style="--quiet:{colours.quiet}">{named}</div>'
