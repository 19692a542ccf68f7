"""What an instance's GPUs lost: seconds in which they were slowed down, and what followed upon their faults.

A GPU that draws too much power or gets too hot is slowed down by its driver, which says so (NVML's
``nvmlClocksEventReasons``). Busy GPUs say "power cap" most of the time and lose little: so not the reason counts but
the clock that is missing while there is one. Of a second of work at a clock ``c`` where usually it is ``c₀``, at most
``1 − c / c₀`` is lost to that; what a server lost besides has other reasons. The slowest of several GPUs sets the pace.
``c₀`` is the median of busy calm seconds, the higher of the GPU's own and that of its like at the same deployment: else
a GPU that was always slow were its own normal.

A fault (an Xid, an uncorrected memory error, a row to be remapped, a GPU that stopped answering) takes no time by
itself. What begins within a minute of it is its consequence: a stand-still, a restart, failures, slower work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analytics.causes.columns import Names, floats
from analytics.causes.place import AFTER_SECONDS, SLACK_SECONDS
from analytics.causes.slower import LEAST, are_slower, times_usual, worked
from analytics.causes.table import GPU_AGE, GPU_AGE_MOST, PHASE, PHASES, WORK, Fault, Gpu
from base.formats import rounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from analytics.causes.arrays import Flags, Floats
    from analytics.causes.charge import Ledger
    from analytics.causes.columns import Columns
    from analytics.causes.place import Place
    from analytics.causes.reference import Reference

REASONS: Final = {
    4: "power cap",
    8: "hardware slowdown",
    32: "software thermal limit",
    64: "hardware thermal limit",
    128: "power brake",
}
"""Bits of NVML's reasons that slow a GPU down; idle, set clocks and sync boost do not."""
MISSING: Final = 0.05
"""Share of the usual clock below which less is jitter."""
SLOWER_BY_CLOCK: Final = 1.1
"""Times the usual that work has to take for a missing clock to be its reason."""
SLOWER_BY_FAULT: Final = 1.3
FAILING: Final = 0.1
"""Share of requests that fail after a fault, and three times that of before, for the fault to be their reason."""
_FEWEST: Final = 3
_NEWEST: Final = 30
"""Requests before a fault that those after it are held against: what was slow already is not its doing."""
_HARMLESS_XIDS: Final = frozenset({"45"})
"""What the driver cleans up after a process that was killed: no reason of its end."""
_COUNTED: Final = {
    "xids": "an Xid",
    "ecc": "uncorrected memory errors",
    "pending": "a memory row to be remapped",
    "failed": "a memory row that could not be remapped",
}


def _apart(at: Floats) -> float:
    """Seconds for which a sample holds by how far apart samples are: an exporter looks seldom."""
    return min(3 * float(np.median(np.diff(at))), GPU_AGE_MOST) if len(at) > 2 else 0.0  # noqa: PLR2004


def gpus_of(
    row: Columns,
    whose: Iterable[Mapping[str, Any]],
    told: Iterable[Mapping[str, Any]],
    origin_ms: int,
    step_ms: int,
) -> dict[str, list[Gpu]]:
    """GPUs by instance.

    Args:
        row: The columns of `load.gpus`.
        whose: Rows of `load.whose`: ``gpu`` and ``instance``.
        told: Rows of `load.gpu_events`: ``at_ms``, ``gpu``, ``xid``, ``message``.
        origin_ms: What times are seconds since.
        step_ms: Milliseconds of a step of ``row``.
    """
    names, product, places, machines = (Names.of(row[name]) for name in ("gpu", "product", "place", "machine"))
    at = (floats(row["at_ms"]) - origin_ms) / 1000
    values = {name: floats(row[name]) for name in ("slowed", "reasons", "clock", *_COUNTED)}
    step = step_ms / 1000
    said: dict[str, list[tuple[float, str, str]]] = {}
    for one in told:
        where = (int(one["at_ms"]) - origin_ms) / 1000
        said.setdefault(str(one["gpu"]), []).append((where, str(one["xid"]), str(one["message"])))
    found: dict[str, Gpu] = {}
    for gpu in dict.fromkeys([*names.names, *said]):
        mine = np.flatnonzero(names.among([gpu]))
        mine = mine[np.argsort(at[mine], kind="stable")]
        columns = {name: column[mine] for name, column in values.items()}
        called, place, machine = (
            of.names[of.codes[mine[0]]] if len(mine) else "" for of in (product, places, machines)
        )
        made = Gpu(
            gpu,
            called,
            " of ".join(part for part in (f"GPU {place}" if place else gpu, machine) if part),
            at[mine],
            columns["slowed"],
            columns["reasons"],
            columns["clock"],
            age=max(GPU_AGE, 3 * step, _apart(at[mine])),
        )
        events = [Fault(when, gpu, text) for when, xid, text in said.get(gpu, ()) if xid not in _HARMLESS_XIDS]
        spoken = [when for when, _, _ in said.get(gpu, ())]
        counted = [
            Fault(when, gpu, f"{made.label} counts {what}")
            for name, what in _COUNTED.items()
            for when in _risen(made.time, columns[name])
            # an event says more of the same
            if name != "xids" or not any(abs(when - one) <= SLACK_SECONDS + step for one in spoken)
        ]
        made.faults = sorted([*events, *counted], key=lambda one: one.time)
        found[gpu] = made
    by_instance: dict[str, list[Gpu]] = {}
    for one in whose:
        if (gpu := str(one["gpu"])) in found:
            by_instance.setdefault(str(one["instance"]), []).append(found[gpu])
    return by_instance


def _risen(time: Floats, values: Floats) -> list[float]:
    """When a counter rose; one that shows less began again, what it showed at first is the past's."""
    known = np.isfinite(values)
    time, values = time[known], values[known]
    if len(values) < 2:  # noqa: PLR2004 - one does not rise
        return []
    before, after = values[:-1], values[1:]
    return [float(one) for one in time[1:][(after > before) | ((after < before) & (after > 0))]]


def charge_throttled(ledger: Ledger, place: Place, peers: Sequence[Place], reference: Reference) -> None:
    """``gpu_throttled``: work at a clock that was held down.

    Charged where requests worked in such seconds and took longer than calm ones by more than chance: a GPU that is
    slowed down and keeps nobody waiting has taken nothing.
    """
    missing = _missing(place, peers, reference)
    if not missing:
        return
    lack = np.max(list(missing.values()), axis=0)
    start, begin, first, last = place.span
    end = place.of(place.requests.end)
    calm = reference.calm[place.part]
    phases = worked(ledger, place)
    times = {"prefill": (begin, first), "decode": (first, last)}
    wanted = {phase: phases[:, PHASE[phase]] * place.bins.mean(lack, *times.get(phase, (start, end)))
              for phase in WORK}  # fmt: skip
    took = phases[:, [PHASE[phase] for phase in WORK]].sum(axis=1)
    hit = (sum(wanted.values(), start=np.zeros(len(took))) >= MISSING * took) & (took > 0)
    ratio = times_usual(ledger, place, reference, WORK)
    if not are_slower(ratio, hit, calm & ~hit, SLOWER_BY_CLOCK):
        return
    place.slowed_by = missing
    for phase, seconds in wanted.items():
        ledger.take("gpu_throttled", (phase,), np.where(hit, seconds, 0.0), place.part)


def _missing(place: Place, peers: Sequence[Place], reference: Reference) -> dict[str, Floats]:
    """Share of the usual clock that is missing in each bin in which a GPU is slowed down, by GPU."""
    if not any((gpu.slowed > 0).any() for gpu in place.gpus):
        return {}
    usual: dict[str, list[float]] = {}
    own: dict[str, float] = {}
    for one in (place, *peers):
        busy = _busy(one, reference)
        for gpu in one.gpus:
            clock = one.bins.held(gpu.time, gpu.clock, gpu.age)[busy]
            clock = clock[np.isfinite(clock)]
            if len(clock):
                usual.setdefault(gpu.name, []).append(float(np.median(clock)))
                if one is place:
                    own[gpu.gpu] = usual[gpu.name][-1]
    found: dict[str, Floats] = {}
    for gpu in place.gpus:
        if gpu.name not in usual:
            continue
        level = max(float(np.median(usual[gpu.name])), own.get(gpu.gpu, 0.0))
        slowed, clock = (place.bins.held(gpu.time, values, gpu.age) for values in (gpu.slowed, gpu.clock))
        lack = np.nan_to_num(slowed) * np.clip(1 - np.nan_to_num(clock, nan=level) / level, 0.0, 1.0)
        lack[lack < MISSING] = 0.0
        if lack.any():
            found[gpu.gpu] = lack
    return found


def _busy(place: Place, reference: Reference) -> Flags:
    """Bins in which calm requests were worked for: an idle GPU's clock is no measure."""
    _, begin, first, last = place.span
    calm = reference.calm[place.part]
    return place.bins.level(begin[calm], np.maximum(last, first)[calm]) > 0


def held_up(place: Place, first: int, last: int) -> bool:
    """Whether GPUs were slowed down in so many bins that those who waited there waited for that."""
    if not place.slowed_by:
        return False
    lack = np.max(list(place.slowed_by.values()), axis=0)[first:last]
    return bool(len(lack) and lack.mean() >= 1 - 1 / SLOWER_BY_CLOCK)


def charge_failed(ledger: Ledger, place: Place) -> None:
    """``gpu_fault``: requests that failed after a fault, where far more do than before it."""
    requests = place.requests
    end = place.of(requests.end)
    failed = requests.failed[place.part]
    for fault in place.faults:
        after = (end >= fault.time - SLACK_SECONDS) & (end < fault.time + AFTER_SECONDS)
        before = end < fault.time - SLACK_SECONDS
        usual = float(failed[before].mean()) if before.any() else 0.0
        if failed[after].sum() >= _FEWEST and failed[after].mean() >= max(FAILING, 3 * usual):
            ledger.take("gpu_fault", PHASES, np.inf, place.rows[failed & after])


def charge_slowed(ledger: Ledger, place: Place, reference: Reference) -> None:
    """``gpu_fault``: work that takes longer from a fault on than right before it, for no other reason."""
    if not place.faults:
        return
    start, end = place.span[0], place.of(place.requests.end)
    ratio = times_usual(ledger, place, reference, WORK)
    for fault in place.faults:
        before = np.zeros(len(end), dtype=np.bool_)
        ended = np.flatnonzero((end < fault.time) & (end >= fault.time - AFTER_SECONDS))
        before[ended[np.argsort(end[ended], kind="stable")][-_NEWEST:]] = True
        if before.sum() < LEAST:
            continue
        since, slower = fault.time, np.zeros(len(start), dtype=np.bool_)
        # as long as it goes on
        while are_slower(ratio, after := (start >= since) & (start < since + AFTER_SECONDS), before, SLOWER_BY_FAULT):
            slower |= after
            since += AFTER_SECONDS
        ledger.take("gpu_fault", WORK, np.inf, place.rows[slower])


def blamed(place: Place, cause: str, lost: Floats) -> dict[str, float]:
    """Seconds of a cause by GPU of an instance.

    Args:
        place: The instance.
        cause: ``gpu_throttled`` or ``gpu_fault``.
        lost: Seconds that its requests lost in each bin.
    """
    if cause == "gpu_throttled":
        weights = {gpu: float((lack * lost).sum()) for gpu, lack in place.slowed_by.items()}
    else:
        at = place.bins.edges[:-1]
        weights = {}
        for fault in place.faults:
            near = (at >= fault.time - SLACK_SECONDS) & (at < fault.time + AFTER_SECONDS)
            weights[fault.gpu] = weights.get(fault.gpu, 0.0) + float(lost[near].sum())
    total = sum(weights.values())
    return {gpu: float(lost.sum()) * one / total for gpu, one in weights.items()} if total > 0 else {}


def shown(place: Place, cause: str, first: float, last: float) -> list[str]:
    """Sentences with what shows it between two times."""
    if cause == "gpu_fault":
        near = [fault for fault in place.faults if first - AFTER_SECONDS <= fault.time <= last]
        return [f"{place.name}: {fault.what}." for fault in near[:_FEWEST]]
    found = []
    for gpu in place.gpus:
        lack = place.slowed_by.get(gpu.gpu)
        during = (place.bins.edges[1:] > first) & (place.bins.edges[:-1] < last)
        if lack is None or not (lack[during] > 0).any():
            continue
        inside = (gpu.time >= first) & (gpu.time <= last) & (np.nan_to_num(gpu.slowed) > 0)
        bits = int(np.bitwise_or.reduce(np.nan_to_num(gpu.reasons[inside]).astype(np.int64), initial=0))
        why = ", ".join(text for bit, text in REASONS.items() if bits & bit)
        held = lack[during & (lack > 0)]
        found.append(
            f"{place.name}: {gpu.label} slowed down for {rounded(len(held) * place.bins.step)} ({why}), "
            f"its clock {float(np.mean(held)):.0%} below the usual."
        )
    return found[:_FEWEST]
