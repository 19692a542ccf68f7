"""Numbers and durations as people read them: with units, never with an exponent.

A duration that somebody set is spelt exactly (`spell`), one that was measured is rounded (`rounded`).
"""

from __future__ import annotations

import math
from typing import Final

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_DAY: Final = 86400.0


def three(value: float) -> str:
    """Three significant digits without an exponent: ``0.0123``, ``7.08``, ``1,230``; a dash for what is not finite."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    digits = 2 - math.floor(math.log10(abs(value)))
    told = round(value, digits)
    return f"{told:,.{max(digits, 0)}f}".rstrip("0").rstrip(".") if digits > 0 else f"{told:,.0f}"


def spell(seconds: float) -> str:
    """A duration that somebody set, exact to the microsecond and short: ``90 s``, ``1 h``, ``30 d``.

    `base.durations.parse_duration` reads it back.
    """
    for unit, size in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + " s"


def rounded(seconds: float) -> str:
    """A measured duration to about three digits: ``850 µs``, ``21 ms``, ``7.08 s``, ``3 min 20 s``, ``2 h 5 min``.

    Args:
        seconds: Finite.
    """
    sign, size = "−" if seconds < 0 else "", abs(seconds)
    if size == 0:
        return "0 s"
    if size < 2 * _MINUTE:
        unit, factor = ("µs", 1e6) if size < 0.001 else ("ms", 1e3) if size < 1 else ("s", 1.0)  # noqa: PLR2004
        return f"{sign}{three(size * factor)} {unit}"
    if size < 2 * _HOUR:
        minutes, rest = divmod(round(size), 60)
        return f"{sign}{minutes} min {rest} s" if rest and minutes < 10 else f"{sign}{size / 60:.0f} min"  # noqa: PLR2004
    if size < 2 * _DAY:
        hours, rest = divmod(round(size / 60), 60)
        return f"{sign}{hours} h {rest} min" if rest else f"{sign}{hours} h"
    return f"{sign}{three(size / _DAY)} d"
