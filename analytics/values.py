"""Values out of rows and of people, as Python has them."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from analytics.question import QuestionError

if TYPE_CHECKING:
    from collections.abc import Sequence


def moment(milliseconds: object) -> datetime:
    """Unix milliseconds as an aware datetime."""
    whole = int(str(milliseconds))
    return datetime.fromtimestamp(whole // 1000, UTC).replace(microsecond=whole % 1000 * 1000)


def number(value: object) -> float | None:
    """A figure as a float; None for NULL, NaN and infinity."""
    if value is None:
        return None
    figure = float(str(value)) if not isinstance(value, int | float) else float(value)
    return figure if math.isfinite(figure) else None


def ratio(part: float | None, whole: float | None) -> float | None:
    """``part / whole``; None where either is unknown or the whole is 0."""
    return part / whole if part is not None and whole else None


def names(values: Sequence[object]) -> tuple[str, ...]:
    """Sorted texts without the empty one."""
    return tuple(sorted({str(value) for value in values if value}))


def trace_hex(text: str) -> str:
    """A trace id as 32 lower-case hex digits.

    Raises:
        QuestionError: It is not one.
    """
    plain = text.strip().lower()
    if re.fullmatch(r"[0-9a-f]{32}", plain) is None:
        raise QuestionError(f"{text!r} is no trace id", "A trace id has 32 hex digits")
    return plain
