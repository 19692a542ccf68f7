"""What an engine's counters of requests mean: whether *finished* counts the failed ones too is each engine's own.

SQL over ``engine_samples``. A counter of failures that a server does not show is unknown, and its requests then belong
to no share of failures. Where *finished* counts failures by their reason, a reason without a series is 0.

What a router hands on is on its servers' pages too, and the sum of both is twice what there was. So a router's requests
count where nothing else does: of what is added up, of one recording or live, and of the window there are no samples of
servers. Statements of questions have this as `once`; rules, of which many share a statement, as `only_once`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from agent.engine_table import tables
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from analytics.selection import Filter

_SQL: Final = beside(__file__)
_INCLUDING: Final = ", ".join(f"'{name}'" for name, table in sorted(tables().items()) if table.finished_includes_failed)
_ROUTERS: Final = ", ".join(f"'{name}'" for name, table in sorted(tables().items()) if table.role == "router")
_FAILED: Final = "requests_failed_delta"
_FINISHED: Final = "requests_finished_delta"

FAILED: Final = f"if(engine IN ({_INCLUDING}) AND {_FINISHED} IS NOT NULL, ifNull({_FAILED}, 0), {_FAILED})"
"""Failed requests of a sample; NULL where the server does not say."""
ENDED: Final = f"if(engine IN ({_INCLUDING}) OR {_FAILED} IS NULL, {_FINISHED}, ifNull({_FINISHED}, 0) + {_FAILED})"
"""Requests that ended, well or not, each once; NULL where the server counts none."""
JUDGED: Final = f"if(({FAILED}) IS NULL, NULL, {ENDED})"
"""Requests that ended at a server that says which of them failed: what a share of failures is of."""
FRAGMENTS: Final = {"failed_requests": FAILED, "ended_requests": ENDED, "judged_requests": JUDGED}
"""For the statements that count them."""


ROUTER: Final = f"(engine IN ({_ROUTERS}))"
"""Whether a sample or histogram is a router's: histograms carry no role, but the engine tells."""


class Part(Protocol):
    """Some of what is added up."""

    @property
    def router(self) -> bool:
        """Whether it is of routers."""

    @property
    def recording(self) -> str:
        """What it was replayed from, empty when live."""

    @property
    def served(self) -> bool:
        """Whether servers have samples in it, whatever these say."""


_Part = TypeVar("_Part", bound=Part)


def once(chosen: Filter, promised: Filter | None = None) -> str:
    """Condition that counts each request once. It wants the fragments ``router`` and ``filter:samples``.

    A viewer who asks for instances or engines is shown those, router or not; what is promised counts each request once,
    whoever is asked for.

    Args:
        chosen: What is looked at.
        promised: What an objective looks at of that.
    """
    return "" if promised is None and (chosen.instance or chosen.engine) else f" {_SQL['once']}"


def only_once(parts: Iterable[_Part], place: Callable[[_Part], Hashable]) -> list[_Part]:
    """The parts that count each request once; those of one place are added up."""
    listed = list(parts)
    served = {(place(part), part.recording) for part in listed if part.served}
    return [part for part in listed if not (part.router and (place(part), part.recording) in served)]
