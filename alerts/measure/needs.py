"""What a rule needs to know, told before anything is asked, so that many rules share few questions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from analytics.slo import Measure


@dataclass(frozen=True, slots=True)
class Needs:
    """What one rule, or many together, must know.

    Attributes:
        measures: What to count of requests, in each of `windows` (seconds) and by each of `dimensions`.
        columns: Of the engine samples, with how each joins (``sum``, ``min``, ``max``), over `look_back` seconds.
        look_back: Seconds of samples; 0: none.
        remember: Seconds for which an instance that sends nothing is still known; 0: not asked.
        breaches: Seconds back to which what servers must tell and do not is looked for; 0: not asked.
        open_requests: Whether it wants what taps say of requests that are open.
        replays: Whether replayed rows may count.
    """

    measures: tuple[Measure, ...] = ()
    windows: tuple[float, ...] = ()
    dimensions: frozenset[str] = frozenset()
    columns: Mapping[str, str] = field(default_factory=dict)
    look_back: float = 0.0
    remember: float = 0.0
    breaches: float = 0.0
    open_requests: bool = False
    replays: bool = False


def together(needs: Iterable[Needs]) -> Needs:
    """What all of them need, each thing once, in the order in which they name it."""
    listed = list(needs)
    return Needs(
        tuple(dict.fromkeys(measure for one in listed for measure in one.measures)),
        tuple(dict.fromkeys(window for one in listed for window in one.windows)),
        frozenset(name for one in listed for name in one.dimensions),
        {name: how for one in listed for name, how in one.columns.items()},
        max((one.look_back for one in listed), default=0.0),
        max((one.remember for one in listed), default=0.0),
        max((one.breaches for one in listed), default=0.0),
        any(one.open_requests for one in listed),
        any(one.replays for one in listed),
    )
