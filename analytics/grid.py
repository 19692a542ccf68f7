"""The steps of a window, and lines over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from analytics.window import Window


@dataclass(frozen=True, slots=True)
class Grid:
    """The steps of a window.

    Attributes:
        step: Seconds of one.
        times: Their starts.
        first: ``slot`` number of the first: Unix time over step, as in the statements.
        covered: Seconds of each that lie inside the window, the divisor of rates.
    """

    step: int
    times: list[datetime]
    first: int
    covered: list[float]

    @classmethod
    def of(cls, window: Window, points: int) -> Grid:
        """About ``points`` steps over the window."""
        step = window.step(points)
        return cls(step, window.times(step), window.from_ms // (step * 1000), window.covered(step))

    @property
    def step_ms(self) -> int:
        """Milliseconds of a step."""
        return self.step * 1000

    def blank(self) -> list[float | None]:
        """A line without data."""
        return [None] * len(self.times)

    def zeros(self) -> list[float]:
        """A line of zeros."""
        return [0.0] * len(self.times)

    def at(self, slot: object) -> int:
        """Position of a slot in `times`."""
        return int(str(slot)) - self.first

    def settled(self, line: Sequence[float | None], settled_ms: int) -> list[float | None]:
        """A line of arrivals without the steps that are not settled to their end; those of the window's end stay."""
        last_ms = (self.first + len(self.times)) * self.step_ms
        whole = settled_ms >= last_ms - self.step_ms + round(self.covered[-1] * 1000) if self.covered else True
        return [
            value if whole or (self.first + place + 1) * self.step_ms <= settled_ms else None
            for place, value in enumerate(line)
        ]

    def rates(self, amounts: Sequence[float | None]) -> list[float | None]:
        """Amounts per step as amounts per second."""
        return [
            None if amount is None else amount / seconds for amount, seconds in zip(amounts, self.covered, strict=True)
        ]
