"""How long to wait before something that failed is tried again."""

from __future__ import annotations

import random
from typing import Final

LONGEST_SECONDS: Final = 15.0
_FIRST_SECONDS: Final = 0.25


def pause(attempt: int) -> float:
    """Seconds after so many failures: they double up to a bound, the latter half of each is chance."""
    longest = min(LONGEST_SECONDS, _FIRST_SECONDS * 2 ** min(attempt, 10))
    return random.uniform(longest / 2, longest)  # noqa: S311 - jitter, not a secret
