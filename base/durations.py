"""Durations as people write them: ``3s``, ``500ms``, ``5m``, ``1h30m``, ``30d``, or a number of seconds.

How they are told to people is `base.formats`' business.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, Field

_UNITS: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART: Final = re.compile(rf"(\d+(?:\.\d+)?)({'|'.join(_UNITS)})")


def parse_duration(text: object) -> float:
    """Seconds of a duration.

    Args:
        text: A number of seconds, or parts with units: ms, s, m or min, h, d, w.

    Raises:
        ValueError: The text is not a duration; the message shows the accepted form.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        return float(text)
    compact = text.replace(" ", "") if isinstance(text, str) else ""
    parts = _PART.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ValueError(f"{text!r} is not a duration; write it as 30s, 5m, 1h or 30d")
    return float(sum(float(number) * _UNITS[unit] for number, unit in parts))


Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0, allow_inf_nan=False)]
"""Seconds, read by :func:`parse_duration`."""

PositiveDuration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, allow_inf_nan=False)]
"""Seconds above zero, read by :func:`parse_duration`."""
