"""How long to wait before something that failed is tried again."""

from __future__ import annotations

import random


class Backoff:
    """Exponential backoff with full jitter: a random wait of up to ``first``·2ⁿ seconds, at most ``longest``."""

    def __init__(self, first: float = 0.5, longest: float = 30.0) -> None:
        self._first = first
        self._longest = longest
        self._failures = 0

    def failed(self, at_least: float = 0.0) -> float:
        """Seconds to wait before the next attempt, never less than ``at_least``."""
        bound = min(self._longest, self._first * 2**self._failures)
        self._failures = min(self._failures + 1, 32)
        return at_least + random.uniform(self._first / 5, bound)  # noqa: S311 - spreads load, hides nothing

    def succeeded(self) -> None:
        """Begin anew."""
        self._failures = 0
