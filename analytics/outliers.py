"""What stands out among its like: a robust distance from the median.

A figure stands out where it is further from the median than three times the scaled median absolute deviation, which one
odd value does not move (Rousseeuw and Croux, 1993), and than a tenth of the median, so that likes that hardly differ
have no outlier.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST: Final = 3
"""Fewer have no usual value to stand out from."""
_DEVIATIONS: Final = 3.0
_SCALE: Final = 1.4826
"""Makes the median absolute deviation of a normal distribution its standard deviation."""
_SHARE: Final = 0.1
_MANY: Final = 9.0


def outliers(values: Mapping[str, float | None]) -> dict[str, float]:
    """Those that stand out, by name, with their distance from the median as a share of it.

    Args:
        values: One figure per name; None where it is not known.
    """
    known = {name: value for name, value in values.items() if value is not None}
    if len(known) < LEAST:
        return {}
    middle = median(known.values())
    spread = _SCALE * median(abs(value - middle) for value in known.values())
    least = max(_DEVIATIONS * spread, _SHARE * abs(middle))
    return {
        name: (value - middle) / abs(middle) for name, value in known.items() if middle and abs(value - middle) > least
    }


def beside_median(away: float) -> str:
    """A difference, as a share of the median, in words: many times it is no percentage that anybody reads."""
    if away >= _MANY:
        return f"{away + 1:.0f} times the median"
    return f"{abs(away):.0%} {'above' if away > 0 else 'below'} the median"
