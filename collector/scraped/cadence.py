"""How far apart a target's pages are scraped, which nobody says: learned from the pages themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_NEAR: Final = 1.5
"""Intervals between two pages that have none between them: a scrape is put off by less than half of one."""
_ALIKE: Final = 0.1
_REGULAR: Final = 3
"""Pages that come as they are due before a longer interval than so far is believed."""
_TICK_SECONDS: Final = 0.6
"""How exactly the time of a page's coming is known."""


@dataclass(slots=True)
class Cadence:
    """The interval of one target's scrapes.

    Attributes:
        interval_ns: As far as is known, 0 before.
    """

    interval_ns: int = 0
    _before_ns: int = 0
    _regular: int = 0

    def learn(self, spacing_ns: int, came_seconds: float) -> None:
        """Two pages without a third between them, as far as is known.

        Shorter than so far is believed when it is seen twice in a row. Longer, as a changed configuration makes it, may
        as well be for want of pages that are on their way: it is believed of pages that come as they are scraped.

        Args:
            spacing_ns: How far apart they were scraped.
            came_seconds: How far apart they came.
        """
        alike = abs(spacing_ns - self._before_ns) <= _ALIKE * spacing_ns
        due = abs(came_seconds - spacing_ns / 1e9) <= _TICK_SECONDS + _ALIKE * spacing_ns / 1e9
        self._regular = self._regular + 1 if alike and due else int(due)
        self._before_ns = spacing_ns
        shorter = alike and spacing_ns < (1 - _ALIKE) * self.interval_ns
        longer = self._regular >= _REGULAR and spacing_ns > (1 + _ALIKE) * self.interval_ns
        if shorter or longer or (not self.interval_ns and (alike or due)):
            self.interval_ns = spacing_ns

    def near(self, spacing_ns: int) -> bool:
        """Whether pages so far apart have none between them."""
        return 0 < spacing_ns <= _NEAR * self.interval_ns
