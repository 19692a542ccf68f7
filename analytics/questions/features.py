"""What features that not every server has switched on do: cache tiers and blocks, speculation, adapters, estimates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.question import Command
from analytics.samples import STEP, line_of, peak, sampled
from analytics.series import Line
from analytics.values import number, ratio
from base.named_sql import beside
from base.vocabulary import Signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.selection import Selection
    from analytics.series import Unit

COMMAND: Final = Command()
_SQL: Final = beside(__file__)


def _delta(signal: str) -> str:
    return f"{signal.removesuffix('_total')}_delta"


TIERS: Final = {
    "external": _delta(Signal.PREFIX_CACHE_HITS_EXTERNAL_TOTAL),
    "GPU": _delta(Signal.PREFIX_CACHE_HITS_DEVICE_TOTAL),
    "host": _delta(Signal.PREFIX_CACHE_HITS_HOST_TOTAL),
    "disk": _delta(Signal.PREFIX_CACHE_HITS_DISK_TOTAL),
}
"""Where a prompt's tokens were found, besides in the engine's own prefix cache; some may be told under two of these."""
_POSITIONS: Final = tuple(_delta(signal) for signal in Signal if signal.startswith("spec_decode_accepted_at_"))
_DRAFTS: Final = _delta(Signal.SPEC_DECODE_DRAFTS_TOTAL)
_DRAFTED: Final = _delta(Signal.SPEC_DECODE_DRAFT_TOKENS_TOTAL)
_ACCEPTED: Final = _delta(Signal.SPEC_DECODE_ACCEPTED_TOKENS_TOTAL)
_MOVED: Final = {
    "transferred": _delta(Signal.KV_TRANSFER_BYTES_TOTAL),
    "offloaded": _delta(Signal.KV_OFFLOAD_BYTES_TOTAL),
}
_BUSY: Final = {
    "transferred": _delta(Signal.KV_TRANSFER_SECONDS_TOTAL),
    "offloaded": _delta(Signal.KV_OFFLOAD_SECONDS_TOTAL),
}
_TRANSFERS: Final = _delta(Signal.KV_TRANSFERS_TOTAL)
_FAILED: Final = _delta(Signal.KV_TRANSFER_FAILURES_TOTAL)
_WAITING: Final = {"capacity": str(Signal.WAITING_CAPACITY), "deferred": str(Signal.WAITING_DEFERRED)}
_FLOPS: Final = _delta(Signal.ESTIMATED_FLOPS_TOTAL)
_TRAFFIC: Final = {
    "read": _delta(Signal.ESTIMATED_READ_BYTES_TOTAL),
    "written": _delta(Signal.ESTIMATED_WRITE_BYTES_TOTAL),
}
_LORA: Final = {
    "running": str(Signal.LORA_ADAPTERS_RUNNING),
    "waiting": str(Signal.LORA_ADAPTERS_WAITING),
    "slots": str(Signal.LORA_SLOTS),
}
_BLOCKS: Final = {
    f"{what}, {where}": _delta(signal)
    for what, where, signal in (
        ("stored", "GPU", Signal.KV_BLOCKS_STORED_DEVICE_TOTAL),
        ("removed", "GPU", Signal.KV_BLOCKS_REMOVED_DEVICE_TOTAL),
        ("stored", "host", Signal.KV_BLOCKS_STORED_HOST_TOTAL),
        ("removed", "host", Signal.KV_BLOCKS_REMOVED_HOST_TOTAL),
        ("stored", "elsewhere", Signal.KV_BLOCKS_STORED_OTHER_TOTAL),
        ("removed", "elsewhere", Signal.KV_BLOCKS_REMOVED_OTHER_TOTAL),
    )
}
_CLEARS: Final = _delta(Signal.KV_CACHE_CLEARS_TOTAL)
_LOST: Final = _delta(Signal.KV_EVENT_BATCHES_LOST_TOTAL)
_NAMES: Final = [
    *TIERS.values(), *_POSITIONS, _DRAFTS, _DRAFTED, _ACCEPTED, *_MOVED.values(), *_BUSY.values(), _TRANSFERS, _FAILED,
    *_LORA.values(), *_BLOCKS.values(), _CLEARS, _LOST, *_WAITING.values(), _FLOPS, *_TRAFFIC.values(),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Features:
    """What features do over time. A feature that no server of the window told of has no line.

    Attributes:
        step: Seconds of a step.
        times: Starts of the steps.
        tiers: Prompt tokens found per second, by where: ``engine`` for its own prefix cache, then of `TIERS`.
        acceptance: Drafted tokens that were accepted, as a share: of all (``all``) and, of each position of a draft
            (``position 1`` and on), over drafts.
        acceptance_share: Accepted over drafted tokens of the window.
        tokens_per_verification: One and the tokens accepted per draft, over the window: what a step yields a sequence.
        adapters: LoRA adapters ``running`` and ``waiting``, mean per step, and the ``slots`` for them.
        adapter_slots: The most slots, over all servers; None where none tells.
        moved: Bytes of KV cache per second: ``transferred`` between engines or with a store, ``offloaded``.
        moved_while: Bytes per second of these while they were moved, over the window; without those that tell no time.
        transfers: Transfers in the window; None where none tells.
        transfer_mean_seconds: Mean time of one.
        transfer_failures: Transfers that failed in the window; None where none tells.
        blocks: KV cache blocks ``stored`` and ``removed`` per second, by where they lie, as engines publish it.
        cache_clears: How often a whole cache was cleared in the window; None where none tells.
        blocks_lost: Batches of such events that were missed in the window, so that ``blocks`` lack them.
        waiting: Requests that wait, by why, mean per step: for ``capacity`` (blocks, sequences, the token budget), or
            ``deferred`` (an adapter, a KV transfer, a grammar).
        work: Floating point operations per second of a GPU, as engines estimate them, mean over engines.
        memory_traffic: Bytes per second ``read`` and ``written`` of a GPU's memory, in the same way.
    """

    step: int
    times: list[datetime]
    tiers: list[Line]
    acceptance: list[Line]
    acceptance_share: float | None
    tokens_per_verification: float | None
    adapters: list[Line]
    adapter_slots: float | None
    moved: list[Line]
    moved_while: dict[str, float]
    transfers: float | None
    transfer_mean_seconds: float | None
    transfer_failures: float | None
    blocks: list[Line]
    cache_clears: float | None
    blocks_lost: float | None
    waiting: list[Line]
    work: list[Line]
    memory_traffic: list[Line]


def ask(store: Reader, selection: Selection, *, points: int = 120) -> Answer[Features]:
    """Prefix hits by tier, speculative acceptance by position, adapters and moved KV cache, as servers tell them."""
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    grid = Grid.of(selection.window, points)
    added, level, of_each = ({name: grid.blank() for name in _NAMES} for _ in range(3))
    rows = inquiry.ask("signals", step_ms=grid.step_ms, names=_NAMES) if cover.samples else []
    for row in rows:
        place, name = grid.at(row["slot"]), str(row["name"])
        added[name][place], level[name][place] = number(row["added"]), number(row["level"])
        of_each[name][place] = number(row["of_each"])
    own = line_of(sampled(inquiry, grid, (STEP,))[STEP], grid, "prefix_hits") if rows else grid.blank()
    slots = level[_LORA["slots"]]

    def lines(named: Mapping[str, Sequence[float | None]], unit: Unit) -> list[Line]:
        return [
            Line(name, list(values), unit, "exact", cover.samples)
            for name, values in named.items()
            if any(value is not None for value in values)
        ]

    drafted, accepted, drafts = (_whole(added[name]) for name in (_DRAFTED, _ACCEPTED, _DRAFTS))
    yielded = ratio(accepted, drafts)
    moved = {name: _whole(added[key]) for name, key in _MOVED.items()}
    speeds = {name: ratio(moved[name], _whole(added[key])) for name, key in _BUSY.items()}
    tiers = {name: grid.rates(added[key]) for name, key in TIERS.items() if _whole(added[key])}
    result = Features(
        step=grid.step,
        times=grid.times,
        tiers=lines({"engine": grid.rates(own), **tiers}, "tokens_per_second") if tiers else [],
        acceptance=lines(
            {
                "all": _over(added[_ACCEPTED], added[_DRAFTED]),
                **{
                    f"position {place}": _over(added[name], added[_DRAFTS])
                    for place, name in enumerate(_POSITIONS, start=1)
                    if _whole(added[name])
                },
            },
            "ratio",
        ),
        acceptance_share=ratio(accepted, drafted),
        tokens_per_verification=None if yielded is None else 1 + yielded,
        adapters=lines({name: level[key] for name, key in _LORA.items()}, "count") if peak(slots) else [],
        adapter_slots=peak(slots),
        moved=lines({name: grid.rates(added[key]) for name, key in _MOVED.items() if moved[name]}, "bytes_per_second"),
        moved_while={name: speed for name, speed in speeds.items() if speed is not None},
        transfers=_whole(added[_TRANSFERS]),
        transfer_mean_seconds=ratio(_whole(added[_BUSY["transferred"]]), _whole(added[_TRANSFERS])),
        transfer_failures=_whole(added[_FAILED]),
        blocks=lines(
            {name: grid.rates(added[key]) for name, key in _BLOCKS.items() if _whole(added[key])}, "per_second"
        ),
        cache_clears=_whole(added[_CLEARS]),
        blocks_lost=_whole(added[_LOST]),
        waiting=lines({name: level[key] for name, key in _WAITING.items()}, "count"),
        work=lines({"": grid.rates(of_each[_FLOPS])} if _whole(added[_FLOPS]) else {}, "flop_per_second"),
        memory_traffic=lines(
            {name: grid.rates(of_each[key]) for name, key in _TRAFFIC.items() if _whole(added[key])}, "bytes_per_second"
        ),
    )
    return inquiry.answer(
        result, cover, level="metrics", exactness="exact", rows=cover.samples, samples_used=cover.samples > 0
    )


def _whole(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _over(parts: Sequence[float | None], wholes: Sequence[float | None]) -> list[float | None]:
    return [ratio(part, whole) for part, whole in zip(parts, wholes, strict=True)]
