"""What one column of a request says: a value or a range of its numbers, that requests have or that they lack."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from analytics.question import QuestionError

_AS_THEY_ARE: Final = (
    *("model", "tenant", "engine", "deployment", "instance", "role", "dp_rank", "pod", "node", "region", "cluster"),
    *("version", "operation", "route", "finish_reason", "error_type"),
)
NAMES: Final = {
    **dict(zip(_AS_THEY_ARE, _AS_THEY_ARE, strict=True)),
    "stream": "if(stream = 1, 'yes', 'no')",
    "outcome": "if(outcome = '', 'ok', outcome)",
    "status": "if(status = 0, '', toString(status))",
}
"""Columns of names of ``requests`` → their SQL; "" is untold."""
NUMBERS: Final = {
    "prompt_tokens": "prompt_tokens",
    "uncached_prompt_tokens": "toInt64(prompt_tokens) - toInt64(cached_tokens)",
    "cached_tokens": "cached_tokens",
    "completion_tokens": "completion_tokens",
    "request_bytes": "request_bytes",
    "response_bytes": "response_bytes",
    "preemptions": "preemptions",
}
"""Columns of numbers of ``requests`` → their SQL; what is 0 and what is untold is the same."""
_TO: Final = ".."


@dataclass(frozen=True, slots=True)
class Trait:
    """Requests whose column has a value, or of a column of numbers lies in ``[at_least, below)``; or all others.

    Args:
        column: Of `NAMES`, or of `NUMBERS`.
        value: Of a column of names; "" is untold.
        at_least: Lowest accepted number; None for any.
        below: Number that is too many; None for none.
        lacking: Whether it is asked for the requests that do not have it.

    Raises:
        QuestionError: There is no such column, or nothing can lie between the bounds.
    """

    column: str
    value: str = ""
    at_least: float | None = None
    below: float | None = None
    lacking: bool = False

    def __post_init__(self) -> None:
        if self.column in NAMES and self.at_least is None and self.below is None:
            return
        if self.column not in NUMBERS or self.value:
            raise QuestionError(
                f"Requests can't be told by their {self.column!r} so",
                f"Give COLUMN=VALUE of {', '.join(NAMES)}, or COLUMN=FROM..BELOW of {', '.join(NUMBERS)}",
            )
        ends = [end for end in (self.at_least, self.below) if end is not None]
        if not ends or not all(map(math.isfinite, ends)) or ends != sorted(set(ends)):
            raise QuestionError(
                f"{self.column} has no numbers from {self.at_least} to below {self.below}",
                "Give FROM.., ..BELOW or FROM..BELOW",
            )

    @classmethod
    def of(cls, text: str, *, lacking: bool = False) -> Trait:
        """As people and addresses write it: ``tenant=hooli``, ``prompt_tokens=900..``, ``completion_tokens=..3``.

        Raises:
            QuestionError: It is neither.
        """
        column, _, said = text.partition("=")
        if column not in NUMBERS:
            return cls(column, said, lacking=lacking)
        low, to, high = said.partition(_TO)
        try:
            ends = float(low) if low and to else None, float(high) if high else None
        except ValueError:
            ends = None, None
        return cls(column, "" if to else said, *ends, lacking)

    def __str__(self) -> str:
        """As `of` reads it."""
        if self.column in NAMES:
            return f"{self.column}={self.value}"
        low, high = ("" if end is None else f"{end:.17g}" for end in (self.at_least, self.below))
        return f"{self.column}={low}{_TO}{high}"

    def in_words(self) -> str:
        """``only tenant=hooli``, ``not tenant=hooli``."""
        return f"{'not' if self.lacking else 'only'} {self}"
