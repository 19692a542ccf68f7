"""Steps that one API server told, as two would have told them: vLLM tells one what the scheduler says, each its own."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

FIRST, SECOND = 107, 108
"""Their process ids."""
_OWN = ("prompt_tokens", "generation_tokens", "finished")
_NAMES = ("time", "instance", "model", "dp_rank", "recording")
_AFTER = timedelta(microseconds=300)
"""What one tells after the other."""


def by_two(steps: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of both: now the one, now the other has the scheduler's half; preemptions are the other's."""
    counted: Counter[int] = Counter()
    rows = []
    for number, step in enumerate(steps):
        told, other = (FIRST, SECOND) if number % 5 < 3 else (SECOND, FIRST)
        counted.update((told, other))
        theirs = {name: step[name] // 2 for name in _OWN if step.get(name) is not None}
        ours = {name: step[name] - value for name, value in theirs.items()}
        nothing: dict[str, Any] = dict.fromkeys(step)
        named = {name: step[name] for name in _NAMES if name in step}
        rows += [
            nothing | named | theirs | {
                "time": step["time"] - _AFTER, "pid": other, "counter": counted[other],
                "preemptions": step["preemptions"],
            },
            step | ours | {"pid": told, "counter": counted[told], "preemptions": 0},
        ]  # fmt: skip
    return rows
