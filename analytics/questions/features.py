"""What features that not every server has switched on do: cache tiers and blocks, speculation, adapters, estimates."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from analytics import gpu_peaks
from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.other_signals import delta, times, told, whole
from analytics.question import Command
from analytics.samples import STEP, line_of, peak, sampled
from analytics.values import ratio
from base.named_sql import beside
from base.vocabulary import Distribution, Signal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.selection import Selection
    from analytics.series import Line

COMMAND: Final = Command()
_SQL: Final = beside(__file__)

TIERS: Final = {
    "external": delta(Signal.PREFIX_CACHE_HITS_EXTERNAL_TOTAL),
    "GPU": delta(Signal.PREFIX_CACHE_HITS_DEVICE_TOTAL),
    "host": delta(Signal.PREFIX_CACHE_HITS_HOST_TOTAL),
    "disk": delta(Signal.PREFIX_CACHE_HITS_DISK_TOTAL),
}
"""Where a prompt's tokens were found, besides in the engine's own prefix cache; some may be told under two of these."""
_POSITIONS: Final = tuple(delta(signal) for signal in Signal if signal.startswith("spec_decode_accepted_at_"))
_DRAFTS: Final = delta(Signal.SPEC_DECODE_DRAFTS_TOTAL)
_DRAFTED: Final = delta(Signal.SPEC_DECODE_DRAFT_TOKENS_TOTAL)
_ACCEPTED: Final = delta(Signal.SPEC_DECODE_ACCEPTED_TOKENS_TOTAL)
_MOVED: Final = {
    "transferred": delta(Signal.KV_TRANSFER_BYTES_TOTAL),
    "offloaded": delta(Signal.KV_OFFLOAD_BYTES_TOTAL),
    "stored": delta(Signal.KV_OFFLOAD_STORE_BYTES_TOTAL),
    "loaded": delta(Signal.KV_OFFLOAD_LOAD_BYTES_TOTAL),
}
_BUSY: Final = {
    "transferred": delta(Signal.KV_TRANSFER_SECONDS_TOTAL),
    "offloaded": delta(Signal.KV_OFFLOAD_SECONDS_TOTAL),
    "stored": delta(Signal.KV_OFFLOAD_STORE_SECONDS_TOTAL),
    "loaded": delta(Signal.KV_OFFLOAD_LOAD_SECONDS_TOTAL),
}
_TRANSFERS: Final = delta(Signal.KV_TRANSFERS_TOTAL)
_FAILED: Final = delta(Signal.KV_TRANSFER_FAILURES_TOTAL)
_WAITING: Final = {"capacity": str(Signal.WAITING_CAPACITY), "deferred": str(Signal.WAITING_DEFERRED)}
_FLOPS: Final = delta(Signal.ESTIMATED_FLOPS_TOTAL)
_TRAFFIC: Final = {
    "read": delta(Signal.ESTIMATED_READ_BYTES_TOTAL),
    "written": delta(Signal.ESTIMATED_WRITE_BYTES_TOTAL),
}
_LORA: Final = {
    "running": str(Signal.LORA_ADAPTERS_RUNNING),
    "waiting": str(Signal.LORA_ADAPTERS_WAITING),
    "slots": str(Signal.LORA_SLOTS),
}
_BLOCKS: Final = {
    f"{what}, {where}": delta(signal)
    for what, where, signal in (
        ("stored", "GPU", Signal.KV_BLOCKS_STORED_DEVICE_TOTAL),
        ("removed", "GPU", Signal.KV_BLOCKS_REMOVED_DEVICE_TOTAL),
        ("stored", "host", Signal.KV_BLOCKS_STORED_HOST_TOTAL),
        ("removed", "host", Signal.KV_BLOCKS_REMOVED_HOST_TOTAL),
        ("stored", "elsewhere", Signal.KV_BLOCKS_STORED_OTHER_TOTAL),
        ("removed", "elsewhere", Signal.KV_BLOCKS_REMOVED_OTHER_TOTAL),
    )
}
_CLEARS: Final = delta(Signal.KV_CACHE_CLEARS_TOTAL)
_LOST: Final = delta(Signal.KV_EVENT_BATCHES_LOST_TOTAL)
_CACHES: Final = {
    "external": (
        delta(Signal.PREFIX_CACHE_HITS_EXTERNAL_TOTAL),
        delta(Signal.PREFIX_CACHE_QUERIES_EXTERNAL_TOTAL),
    ),
    "multimodal": (delta(Signal.MULTIMODAL_CACHE_HITS_TOTAL), delta(Signal.MULTIMODAL_CACHE_QUERIES_TOTAL)),
}
_NAMES: Final = [
    *TIERS.values(), *_POSITIONS, _DRAFTS, _DRAFTED, _ACCEPTED, *_MOVED.values(), *_BUSY.values(), _TRANSFERS, _FAILED,
    *_LORA.values(), *_BLOCKS.values(), _CLEARS, _LOST, *_WAITING.values(), _FLOPS, *_TRAFFIC.values(),
    *(name for pair in _CACHES.values() for name in pair),
]  # fmt: skip


_OPERATIONS: Final = {
    Distribution.SLEEP_OPERATION_SECONDS: "sleep",
    Distribution.WEIGHT_UPDATE_SECONDS: "weight update",
}
_BY_ENGINE: Final = [*_WAITING.values(), *(name for pair in _CACHES.values() for name in pair)]


@dataclass(frozen=True, slots=True)
class EngineFeatures:
    """What one engine told of itself over the window; None where it does not tell.

    Attributes:
        instance: Its server.
        dp_rank: Its rank there, "" where there is none.
        waiting: Why requests waited there: ``capacity`` or ``deferred`` → (mean, most at one time).
        hit_shares: Hits over look-ups of its caches: ``external``, ``multimodal``.
    """

    instance: str
    dp_rank: str
    waiting: dict[str, tuple[float, float]]
    hit_shares: dict[str, float]


@dataclass(frozen=True, slots=True)
class Operation:
    """What operators have servers do besides serving, over the window.

    Attributes:
        name: ``sleep`` (going to sleep and waking up) or ``weight update``.
        count: How often.
        mean: Seconds.
        p99: Seconds, out of a histogram.
    """

    name: str
    count: int
    mean: float | None
    p99: float | None


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
        draft_share: Accepted draft tokens over all tokens that were generated in the window.
        tokens_per_verification: One and the tokens accepted per draft, over the window: what a step yields a sequence.
        operations: Sleeps and weight updates, those that servers tell of.
        adapters: LoRA adapters ``running`` and ``waiting``, mean per step, and the ``slots`` for them.
        adapter_slots: The most slots, over all servers; None where none tells.
        moved: Bytes of KV cache per second: ``transferred`` between engines or with a store, ``stored`` out of the GPU
            and ``loaded`` back, or both as ``offloaded`` where a server does not tell them apart.
        moved_while: Bytes per second of these while they were moved, over the window; without those that tell no time.
        transfers: Transfers in the window; None where none tells.
        transfer_mean_seconds: Mean time of one.
        transfer_failures: Transfers that failed in the window; None where none tells.
        blocks: KV cache blocks ``stored`` and ``removed`` per second, by where they lie, as engines publish it.
        cache_clears: How often a whole cache was cleared in the window; None where none tells.
        blocks_lost: Batches of such events that were missed in the window, so that ``blocks`` lack them.
        waiting: Requests that wait, by why, mean per step: for ``capacity`` (blocks, sequences, the token budget), or
            ``deferred`` (an adapter, a KV transfer, a grammar).
        hit_shares: Hits over look-ups of each cache that servers tell of besides the engines' own prefix cache:
            ``external`` (tokens), ``multimodal`` (images and the like).
        engines: What single engines told of reasons to wait and of these caches.
        work: Floating point operations per second of a GPU, as engines estimate them, mean over engines.
        memory_traffic: Bytes per second ``read`` and ``written`` of a GPU's memory, in the same way.
        gpu: The GPUs' name where all that are seen have one; None otherwise, or where none is seen.
        peak: What its vendor says of that GPU (`analytics.gpu_peaks`); None where nobody here knows.
    """

    step: int
    times: list[datetime]
    tiers: list[Line]
    acceptance: list[Line]
    acceptance_share: float | None
    draft_share: float | None
    tokens_per_verification: float | None
    operations: list[Operation]
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
    hit_shares: list[Line]
    engines: list[EngineFeatures]
    work: list[Line]
    memory_traffic: list[Line]
    gpu: str | None
    peak: gpu_peaks.Peak | None


def ask(store: Reader, selection: Selection, *, points: int = 120) -> Answer[Features]:
    """Prefix hits by tier, speculative acceptance by position, adapters and moved KV cache, as servers tell them."""
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    grid = Grid.of(selection.window, points)
    heard = told(inquiry, grid, _NAMES, cover.samples)
    added, level, rates = heard.added, heard.level, heard.rates
    steps = sampled(inquiry, grid, (STEP,))[STEP] if cover.samples else []
    slots = level[_LORA["slots"]]
    drafted, accepted, drafts = (heard.whole(name) for name in (_DRAFTED, _ACCEPTED, _DRAFTS))
    yielded = ratio(accepted, drafts)
    moved = {name: heard.whole(key) for name, key in _MOVED.items()}
    if moved["stored"] is not None or moved["loaded"] is not None:
        moved["offloaded"] = None  # the same bytes under their former name
    speeds = {name: ratio(moved[name], heard.whole(key)) for name, key in _BUSY.items()}
    tiers = {name: rates(key) for name, key in TIERS.items() if heard.whole(key)}
    worked = heard.whole(_FLOPS) or any(heard.whole(key) for key in _TRAFFIC.values())
    gpus = [str(row["name"]) for row in inquiry.ask("gpu_names")] if worked else []
    gpu = gpus[0] if len(gpus) == 1 else None
    result = Features(
        step=grid.step,
        times=grid.times,
        tiers=heard.lines({"engine": grid.rates(line_of(steps, grid, "prefix_hits")), **tiers}, "tokens_per_second")
        if tiers
        else [],
        acceptance=heard.lines(
            {
                "all": _over(added[_ACCEPTED], added[_DRAFTED]),
                **{
                    f"position {place}": _over(added[name], added[_DRAFTS])
                    for place, name in enumerate(_POSITIONS, start=1)
                    if heard.whole(name)
                },
            },
            "ratio",
        ),
        acceptance_share=ratio(accepted, drafted),
        draft_share=ratio(accepted, whole(line_of(steps, grid, "generation_tokens"))),
        tokens_per_verification=None if yielded is None else 1 + yielded,
        operations=_operations(inquiry) if cover.samples else [],
        adapters=heard.lines({name: level[key] for name, key in _LORA.items()}, "count") if peak(slots) else [],
        adapter_slots=peak(slots),
        moved=heard.lines({name: rates(key) for name, key in _MOVED.items() if moved[name]}, "bytes_per_second"),
        moved_while={name: speed for name, speed in speeds.items() if speed is not None},
        transfers=heard.whole(_TRANSFERS),
        transfer_mean_seconds=ratio(heard.whole(_BUSY["transferred"]), heard.whole(_TRANSFERS)),
        transfer_failures=heard.whole(_FAILED),
        blocks=heard.lines({name: rates(key) for name, key in _BLOCKS.items() if heard.whole(key)}, "per_second"),
        cache_clears=heard.whole(_CLEARS),
        blocks_lost=heard.whole(_LOST),
        waiting=heard.lines({name: level[key] for name, key in _WAITING.items()}, "count"),
        hit_shares=heard.lines(
            {name: _over(added[hit], added[asked]) for name, (hit, asked) in _CACHES.items()}, "ratio"
        ),
        engines=_engines(inquiry) if cover.samples else [],
        work=heard.lines({"": grid.rates(heard.of_each[_FLOPS])} if heard.whole(_FLOPS) else {}, "flop_per_second"),
        memory_traffic=heard.lines(
            {name: grid.rates(heard.of_each[key]) for name, key in _TRAFFIC.items() if heard.whole(key)},
            "bytes_per_second",
        ),
        gpu=gpu,
        peak=gpu_peaks.peak_of(gpu) if gpu else None,
    )
    return inquiry.answer(
        result, cover, level="metrics", exactness="exact", rows=cover.samples, samples_used=cover.samples > 0
    )


def _operations(inquiry: Inquiry) -> list[Operation]:
    spent = times(inquiry, [str(name) for name in _OPERATIONS])
    return [
        Operation(title, spent[name].n, spent[name].mean(), spent[name].quantiles((0.99,))[0])
        for name, title in _OPERATIONS.items()
        if name in spent and spent[name].n
    ]


def _engines(inquiry: Inquiry) -> list[EngineFeatures]:
    """Those that tell why requests wait or of a cache of these, the one with most that wait first."""
    told_by: dict[tuple[str, str], dict[str, tuple[float, float, float]]] = defaultdict(dict)
    for row in inquiry.ask("engines", names=_BY_ENGINE):
        who = str(row["instance"]), str(row["dp_rank"])
        told_by[who][str(row["name"])] = float(row["added"]), float(row["mean"]), float(row["most"])
    found = []
    for (instance, rank), named in told_by.items():
        waiting = {why: named[name][1:] for why, name in _WAITING.items() if name in named}
        shares = {
            cache: ratio(named[hit][0], named[asked][0])
            for cache, (hit, asked) in _CACHES.items()
            if hit in named and asked in named
        }
        known = {cache: share for cache, share in shares.items() if share is not None}
        if waiting or known:
            found.append(EngineFeatures(instance, rank, waiting, known))
    return sorted(found, key=lambda one: (-sum(mean for mean, _ in one.waiting.values()), one.instance, one.dp_rank))


def _over(parts: Sequence[float | None], wholes: Sequence[float | None]) -> list[float | None]:
    return [ratio(part, whole) for part, whole in zip(parts, wholes, strict=True)]
