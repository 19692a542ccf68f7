"""KV cache blocks: how long they live, whether those that are thrown out would have been of use, how they move.

vLLM samples lifetimes where it is told to (``--kv-cache-metrics``), and tells of transfers and offloading by the
connector that a server has.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from analytics import other_signals
from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.other_signals import delta, newest, told
from analytics.question import Command
from analytics.samples import peak
from analytics.values import ratio
from base.vocabulary import Distribution, Signal

if TYPE_CHECKING:
    from datetime import datetime

    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.selection import Selection
    from analytics.series import Line

COMMAND: Final = Command()

_TIMES: Final = {
    Distribution.KV_BLOCK_LIFETIME_SECONDS: "lifetime",
    Distribution.KV_BLOCK_IDLE_SECONDS: "idle before eviction",
    Distribution.KV_BLOCK_REUSE_GAP_SECONDS: "gap between uses",
    Distribution.KV_OFFLOAD_LOOKUP_SECONDS: "look-up in the offload store",
}
_COMPARED: Final = (Distribution.KV_BLOCK_IDLE_SECONDS, Distribution.KV_BLOCK_REUSE_GAP_SECONDS)
_LEVELS: Final = (0.5, 0.95, 0.99)
_POSTED: Final = delta(Signal.KV_TRANSFER_POST_SECONDS_TOTAL)
_PIECES: Final = delta(Signal.KV_TRANSFER_DESCRIPTORS_TOTAL)
_TRANSFERS: Final = delta(Signal.KV_TRANSFERS_TOTAL)
_MOVED: Final = delta(Signal.KV_TRANSFER_BYTES_TOTAL)
_COUNTS: Final = {
    "leases expired": delta(Signal.KV_TRANSFER_LEASES_EXPIRED_TOTAL),
    "notices too late": delta(Signal.KV_TRANSFER_NOTICES_LATE_TOTAL),
    "stores refused": delta(Signal.KV_OFFLOAD_STORES_REFUSED_TOTAL),
    "stores skipped": delta(Signal.KV_OFFLOAD_STORES_SKIPPED_TOTAL),
    "stores dropped": delta(Signal.KV_OFFLOAD_STORES_DROPPED_TOTAL),
    "moves failed": delta(Signal.KV_OFFLOAD_FAILURES_TOTAL),
    "blocks loaded": delta(Signal.KV_OFFLOAD_BLOCKS_LOADED_TOTAL),
}
_SIZES: Final = {
    "store": (delta(Signal.KV_OFFLOAD_STORE_BYTES_TOTAL), delta(Signal.KV_OFFLOAD_STORES_TOTAL)),
    "load": (delta(Signal.KV_OFFLOAD_LOAD_BYTES_TOTAL), delta(Signal.KV_OFFLOAD_LOADS_TOTAL)),
}
_UNDERWAY: Final = {
    "store not over": str(Signal.KV_OFFLOAD_BLOCKS_PENDING),
    "pinned": str(Signal.KV_OFFLOAD_BLOCKS_PINNED),
    "moves between tiers": str(Signal.KV_OFFLOAD_MOVES_ACTIVE),
}
_FETCHES: Final = {
    "not begun": str(Signal.KV_FETCH_TO_START),
    "under way": str(Signal.KV_FETCH_IN_PROGRESS),
    "there, not running": str(Signal.KV_FETCH_COMPLETED),
}
_PINNED: Final = str(Signal.KV_OFFLOAD_PINNED_RATIO)
_NAMES: Final = [
    _POSTED, _PIECES, _TRANSFERS, _MOVED, *_COUNTS.values(), *(name for pair in _SIZES.values() for name in pair),
    *_UNDERWAY.values(), *_FETCHES.values(), _PINNED,
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Times:
    """How long something of blocks takes, over the window.

    Attributes:
        name: What: ``lifetime``, ``idle before eviction``, ``gap between uses``, ``look-up in the offload store``.
        observations: Blocks (samples of them) or look-ups.
        mean: Seconds.
        p50: Seconds, out of a histogram.
        p95: Seconds.
        p99: Seconds.
    """

    name: str
    observations: int
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class KvBlocks:
    """Blocks over the window; what no server tells is None, or absent.

    Attributes:
        step: Seconds of a step.
        steps: Starts of the steps.
        times: How long blocks live, lie idle and are apart in their uses, and how long look-ups in a store take.
        useful_thrown_out: Whether the usual gap between two uses is longer than blocks lie idle before they are
            evicted, so that blocks go that would have been used again.
        transfers: Transfers between engines.
        transfer_mean_bytes: Of one.
        post_mean_seconds: Until one was handed to the network.
        pieces_mean: Pieces of memory (descriptors) that one is made of.
        counts: Name → how many in the window: leases that expired, notices that came too late, stores that were
            refused for want of room, skipped or dropped, moves between tiers that failed, blocks that were loaded.
        mean_bytes: ``store`` and ``load`` → bytes of one.
        underway: Blocks whose store is not over, blocks that are pinned, and moves between tiers, per step. A number
            that only grows is a transfer that is stuck.
        still_pending: Blocks whose store was not over at the window's end.
        stuck: Whether that number never fell in the window, grew, and is not 0.
        fetches: Waiting requests by how far the KV cache is that they wait for, per step.
        pinned_ratio: Share of the host's space for KV cache that is held by what goes on, the fullest engine, per step.
        pinned_most: Its highest.
    """

    step: int
    steps: list[datetime]
    times: list[Times]
    useful_thrown_out: bool | None
    transfers: float | None
    transfer_mean_bytes: float | None
    post_mean_seconds: float | None
    pieces_mean: float | None
    counts: dict[str, float]
    mean_bytes: dict[str, float]
    underway: list[Line]
    still_pending: float | None
    stuck: bool
    fetches: list[Line]
    pinned_ratio: list[Line]
    pinned_most: float | None


def ask(store: Reader, selection: Selection, *, points: int = 120) -> Answer[KvBlocks]:
    """How long KV cache blocks live, and what became of those that went between engines or to a slower memory."""
    inquiry = Inquiry(store, selection)
    cover = inquiry.coverage()
    grid = Grid.of(selection.window, points)
    heard = told(inquiry, grid, _NAMES, cover.samples)
    times = _times(inquiry) if cover.samples else []
    median = {one.name: one.p50 for one in times}
    idle, gap = (median.get(_TIMES[name]) for name in _COMPARED)
    counts = {name: heard.whole(key) for name, key in _COUNTS.items()}
    sizes = {name: ratio(heard.whole(moved), heard.whole(often)) for name, (moved, often) in _SIZES.items()}
    pending = heard.level[_UNDERWAY["store not over"]]
    last = newest(inquiry, [_UNDERWAY["store not over"]]) if cover.samples else {}
    transfers = heard.whole(_TRANSFERS)
    result = KvBlocks(
        step=grid.step,
        steps=grid.times,
        times=times,
        useful_thrown_out=None if idle is None or gap is None else gap > idle,
        transfers=transfers,
        transfer_mean_bytes=ratio(heard.whole(_MOVED), transfers),
        post_mean_seconds=ratio(heard.whole(_POSTED), transfers),
        pieces_mean=ratio(heard.whole(_PIECES), transfers),
        counts={name: count for name, count in counts.items() if count is not None},
        mean_bytes={name: size for name, size in sizes.items() if size is not None},
        underway=heard.lines(
            {name: heard.level[key] for name, key in _UNDERWAY.items() if peak(heard.level[key])}, "count"
        ),
        still_pending=last.get(_UNDERWAY["store not over"]),
        stuck=_only_grew(pending),
        fetches=heard.lines(
            {name: heard.level[key] for name, key in _FETCHES.items()}
            if any(peak(heard.level[key]) for key in _FETCHES.values())
            else {},
            "count",
        ),
        pinned_ratio=heard.lines({"": heard.most[_PINNED]} if peak(heard.most[_PINNED]) else {}, "ratio"),
        pinned_most=peak(heard.most[_PINNED]),
    )
    return inquiry.answer(
        result, cover, level="metrics", exactness="derived" if times else "exact", rows=cover.samples,
        samples_used=cover.samples > 0,
    )  # fmt: skip


_FEWEST: Final = 5
"""Steps with a value from which on a number that never fell says something."""


def _only_grew(line: list[float | None]) -> bool:
    """Whether a number of what is under way never fell, grew, and is not 0 at the end."""
    known = [value for value in line if value is not None]
    fell = any(later < earlier for earlier, later in pairwise(known))
    return len(known) >= _FEWEST and not fell and known[-1] > known[0]


def _times(inquiry: Inquiry) -> list[Times]:
    buckets = other_signals.times(inquiry, [str(name) for name in _TIMES])
    found = []
    for name, title in _TIMES.items():
        if (observed := buckets.get(name)) is not None and observed.n:
            p50, p95, p99 = observed.quantiles(_LEVELS)
            found.append(Times(title, observed.n, observed.mean(), p50, p95, p99))
    return found
