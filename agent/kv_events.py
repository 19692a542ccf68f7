"""KV cache events as counts: how many blocks an engine stored and let go, and where.

Events come once a step; what a page has of them is their sums, as lines of it (`agent.pages.exposition`). Blocks are
counted as they are told: an engine with several groups of layers tells each group's own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agent.engine_table import Rule
from agent.pages.exposition import counters
from base.vocabulary import Signal

if TYPE_CHECKING:
    from collections.abc import Sequence

DEVICE: Final = "device"
"""The accelerator's memory; also where an engine names no medium, as those did that knew no other."""
_TIERS: Final = (DEVICE, "host", "other")
_STORED: Final = "servescope_kv_blocks_stored_total"
_REMOVED: Final = "servescope_kv_blocks_removed_total"
_CLEARS: Final = "servescope_kv_cache_clears_total"
_LOST: Final = "servescope_kv_event_batches_lost_total"

RESULTS: Final = ("read", "replayed", "lost", "unread")
"""What becomes of a batch, or of an event that can't be read."""

RULES: Final = (
    *(
        Rule(Signal(f"kv_blocks_{what}_{tier}_total"), family, where={"tier": tier}, of_server=True)
        for what, family in (("stored", _STORED), ("removed", _REMOVED))
        for tier in _TIERS
    ),
    Rule(Signal.KV_CACHE_CLEARS_TOTAL, _CLEARS, of_server=True),
    Rule(Signal.KV_EVENT_BATCHES_LOST_TOTAL, _LOST, of_server=True),
)
"""For the tables of engines that publish such events."""


def tier_of(medium: str | None) -> str:
    """Where a block lies, by what the engine calls it (``GPU``, ``CPU``, ``CPU_PINNED``, …)."""
    named = (medium or "GPU").upper()
    return DEVICE if named.startswith("GPU") else "host" if named.startswith("CPU") else "other"


@dataclass(slots=True)
class Counts:
    """Of one publisher, since it is listened to.

    Attributes:
        rank: Its data-parallel rank.
        stored: Blocks by tier.
        removed: Blocks by tier.
        clears: How often the whole cache was cleared.
        batches: Batches that were read, replayed ones among them.
        replayed: Batches that were missed and asked for again.
        lost: Batches that were missed and are not to be had.
        unread: Messages and events that could not be read, or of a kind that is not known.
        last: When a batch came last, Unix seconds; 0 before the first.
    """

    rank: str
    stored: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    clears: int = 0
    batches: int = 0
    replayed: int = 0
    lost: int = 0
    unread: int = 0
    last: float = 0.0

    def results(self) -> Counter[str]:
        """How many batches had which of `RESULTS`."""
        counted = self.batches - self.replayed, self.replayed, self.lost, self.unread
        return Counter(dict(zip(RESULTS, counted, strict=True)))


def page_lines(publishers: Sequence[Counts], rank_label: str) -> bytes:
    """Counts as lines of a page; nothing where nobody publishes.

    Args:
        publishers: Those of which it is known: of the others nothing is told.
        rank_label: How the engine's own series name a rank; "" where they do not.
    """
    if not publishers:
        return b""
    whose = [{rank_label: one.rank} if rank_label else {} for one in publishers]
    told = list(zip(whose, publishers, strict=True))
    return b"".join([
        counters(_STORED, [(who | {"tier": tier}, one.stored[tier]) for who, one in told for tier in _TIERS]),
        counters(_REMOVED, [(who | {"tier": tier}, one.removed[tier]) for who, one in told for tier in _TIERS]),
        counters(_CLEARS, [(who, one.clears) for who, one in told]),
        counters(_LOST, [(who, one.lost) for who, one in told]),
    ])  # fmt: skip
