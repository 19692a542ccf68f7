"""Which requests have one half alone, and why: what the tap saw and no engine told of, and the other way round."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from analytics.inquiry import Inquiry
from base.named_sql import beside

if TYPE_CHECKING:
    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.selection import Selection

_SQL: Final = beside(__file__)

MET: Final = "met"
EXPECTED: Final = frozenset({"refused", "given_up", "failed", "not_sampled", "pending"})
"""Causes by which an engine rightly has nothing to tell of."""
UNEXPECTED: Final = frozenset({"silent", "edge_missing", "past_the_edge"})
"""Causes that are worth a look."""
_PENDING_MS: Final = 30_000
"""An engine's exporter sends its spans some seconds after the request."""


@dataclass(frozen=True, slots=True)
class InstanceHalves:
    """One instance over the window.

    Attributes:
        instance: Its name.
        engine: Engine id.
        met: Requests of which both halves are there.
        alone: Requests with one half, by cause. Without the engine's: ``refused`` before it worked, ``given_up`` by
            the client, ``failed``, ``not_sampled`` (sent on so), ``pending`` (its spans may be under way), ``silent``
            (nothing explains it). Without the edge's: ``past_the_edge`` (not sent through a tap), ``edge_missing``
            (a tap's span id, and no record of it).
    """

    instance: str
    engine: str
    met: float = 0.0
    alone: dict[str, float] = field(default_factory=dict)

    @property
    def speaks(self) -> bool:
        """Whether its engine sends spans at all: of one that does not, a missing half says nothing."""
        return self.met > 0 or bool(self.alone.keys() & {"past_the_edge", "edge_missing"})

    @property
    def unexplained(self) -> dict[str, float]:
        """Requests with one half for no good cause, by cause; none where the engine sends no spans."""
        return {cause: n for cause, n in self.alone.items() if cause in UNEXPECTED} if self.speaks else {}


@dataclass(frozen=True, slots=True)
class Halves:
    """Instances by name.

    Attributes:
        instances: Those with a request in the window.
    """

    instances: list[InstanceHalves]


def ask(store: Reader, selection: Selection) -> Answer[Halves]:
    """Requests with one half alone per instance, by cause; rows of model operations alone."""
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    rows = inquiry.ask("causes", pending_ms=now_ms - _PENDING_MS) if cover.rows else []
    engines: dict[str, str] = {}
    met: dict[str, float] = {}
    alone: dict[str, dict[str, float]] = {}
    for row in rows:
        name = str(row["instance"])
        engines[name] = engines.get(name) or str(row["engine"])
        if row["cause"] == MET:
            met[name] = float(row["n"])
        else:
            alone.setdefault(name, {})[str(row["cause"])] = float(row["n"])
    found = [InstanceHalves(name, engine, met.get(name, 0.0), alone.get(name, {})) for name, engine in engines.items()]
    return inquiry.answer(Halves(found), cover, level="rows", exactness="exact", rows=cover.rows)
