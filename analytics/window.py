"""A span of time that questions are about: aware UTC datetimes, half open, ``[start, end)``.

Steps and ends are rounded so that viewers who look at the same thing at nearly the same time ask the same query and
share its cached result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from base.errors import ServescopeError

STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Seconds a step may have: divisors of a day, so that steps of every window lie on the same grid."""
_DAY: Final = 86400


class WindowError(ServescopeError):
    """A window or another field of a selection makes no sense; names the field."""


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open span of time ``[start, end)``.

    Args:
        start: First instant, aware; kept in UTC.
        end: First instant after the window, aware; later than ``start``.

    Raises:
        WindowError: A time has no zone, or the end is not after the start.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("end", self.end)):
            if value.tzinfo is None:
                raise WindowError(f"The window's {name} {value.isoformat()} has no time zone", "Add one, such as Z")
            object.__setattr__(self, name, value.astimezone(UTC))
        if self.end <= self.start:
            raise WindowError(
                f"The window ends at {iso(self.end)}, not after its start {iso(self.start)}", "Swap the two times"
            )

    @classmethod
    def last(cls, seconds: float, now: datetime | None = None, round_to: int = 5) -> Window:
        """The window of ``seconds`` that ends at ``now``, rounded down to a multiple of ``round_to`` seconds."""
        at = (now or datetime.now(UTC)).timestamp()
        end = math.floor(at / round_to) * round_to
        return cls(datetime.fromtimestamp(end - seconds, UTC), datetime.fromtimestamp(end, UTC))

    @classmethod
    def instant(cls, at: datetime) -> Window:
        """The millisecond that begins at a time, such as a request's arrival."""
        return cls(at, at + timedelta(milliseconds=1))

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return (self.end - self.start).total_seconds()

    @property
    def from_ms(self) -> int:
        """Start in Unix milliseconds, rounded down."""
        return _milliseconds(self.start)

    @property
    def to_ms(self) -> int:
        """End in Unix milliseconds, rounded up so that no row of the window falls out."""
        whole = _milliseconds(self.end)
        return whole + (self.end.microsecond % 1000 > 0)

    def step(self, points: int = 120) -> int:
        """Seconds of one step so that the window has at most about ``points`` of them; from `STEPS`, then days."""
        wanted = self.seconds / max(points, 1)
        for step in STEPS:
            if step >= wanted:
                return step
        return math.ceil(wanted / _DAY) * _DAY

    def times(self, step: int) -> list[datetime]:
        """Starts of all steps that the window touches, on the grid of whole multiples of ``step`` since 1970."""
        width = step * 1000
        first = self.from_ms // width
        last = (self.to_ms - 1) // width
        return [datetime.fromtimestamp(index * step, UTC) for index in range(first, last + 1)]

    def covered(self, step: int) -> list[float]:
        """Seconds of each step of `times` that lie inside the window: the divisor of a rate at both edges."""
        width = step * 1000
        first, last = self.from_ms // width, (self.to_ms - 1) // width
        return [
            (min((index + 1) * width, self.to_ms) - max(index * width, self.from_ms)) / 1000
            for index in range(first, last + 1)
        ]

    def previous(self) -> Window:
        """The window of the same length that ends where this one starts."""
        return Window(self.start - (self.end - self.start), self.start)

    def as_json(self) -> dict[str, object]:
        """``{"start", "end", "seconds"}`` with ISO 8601 times."""
        return {"start": iso(self.start), "end": iso(self.end), "seconds": self.seconds}


EVER: Final = Window(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
"""All time."""


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and a Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _milliseconds(moment: datetime) -> int:
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * _DAY + delta.seconds) * 1000 + delta.microseconds // 1000
