"""Requests that nobody saw one by one, by what their servers' metrics pages say of those that finished in a second.

A page counts who finished and adds up their seconds and tokens. Those of one model of one instance that finished
between two samples are a cohort: as many requests as it counts, each with the cohort's means. So the account is made of
them as of rows, and sums to what the pages say; what differs inside of a cohort, and who asked, is not known.

Where a page has no seconds, Little's law gives them: requests that waited (and ran) over a time, times that time, over
those that finished in it (Little, *Operations Research* 9, 1961).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analytics.causes.columns import Names
from analytics.causes.table import PHASE, PHASES, Requests, measured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analytics.causes.arrays import Floats, Ints

_TOLD: Final = ("queue", "prefill", "decode", "compute_input", "compute_infer", "compute_output")
_SMOOTHED: Final = 15.0
"""Seconds over which the prefix cache's hits are taken: a page counts them as prompts are computed, not as they end."""


def cohorts(row: Mapping[str, Any], origin_ms: int, from_ms: int, to_ms: int, most: int) -> Requests:
    """Requests out of the row of arrays of `causes.finishers`.

    Args:
        row: Arrays of one value a cohort: ``at_ms`` is when the page was read, ``interval`` the seconds since the one
            before, ``n`` who finished, seconds (``…_s``) in sum and NaN where the page has none, ``first`` mean seconds
            to the first token of those that got theirs.
        origin_ms: What times are seconds since.
        from_ms: Where the window begins; what arrived before is its reference.
        to_ms: Where it ends; what arrived later is left out.
        most: Requests to be made; where more finished each stands for several.
    """
    values = {name: np.asarray(row[name], dtype=np.float64) for name in _NUMBERS}
    values = {name: np.maximum(column, 0.0) for name, column in values.items()}  # NaN stays
    texts = {name: np.asarray(row[name], dtype=object) for name in _TEXTS}
    order = np.lexsort((values["at_ms"], texts["model"].astype(str), texts["instance"].astype(str)))
    values = {name: column[order] for name, column in values.items()}
    texts = {name: column[order] for name, column in texts.items()}
    series = _series(texts)
    n, e2e, phases = _means(values, series)
    cached = _cached(values, series)
    scale = max(1.0, float(np.ceil(n.sum() / most)))
    copies = _copies(n / scale, series)
    which = np.repeat(np.arange(len(n)), copies)
    # evenly over the time in which they finished
    turn = (np.arange(len(which)) - np.repeat(np.cumsum(copies) - copies, copies) + 0.5) / np.repeat(copies, copies)
    end = (values["at_ms"][which] - origin_ms) / 1000 - values["interval"][which] * (1 - turn)
    start = end - e2e[which]
    kept = (start >= 0) & (start < (to_ms - origin_ms) / 1000)
    which, start = which[kept], start[kept]
    order = np.lexsort((start, Names.of(list(texts["instance"])).codes[which]))
    which, start = which[order], start[order]
    own = phases[which]
    first = own[:, PHASE["queue"]] + own[:, PHASE["stall"]] + own[:, PHASE["prefill"]]
    size = len(which)
    nothing, every = np.zeros(size), np.ones(size, dtype=np.bool_)
    names = {name: Names.of(list(texts[name][which])) for name in _TEXTS}
    blank = Names.of([""] * size)
    return Requests(
        start=start,
        e2e=e2e[which],
        phases=own,
        ttft=np.where(own[:, PHASE["decode"]] > 0, first, 0.0),
        prompt=np.nan_to_num(values["prompt"])[which],
        cached=np.minimum(cached, np.nan_to_num(values["prompt"]))[which],
        output=np.nan_to_num(values["output"])[which],
        gap_max=nothing,
        preempted=nothing,
        engine_half=every,
        whole=every,
        failed=~every,
        inside=start >= (from_ms - origin_ms) / 1000,
        selected=values["selected"][which] > 0,
        tenant=blank,
        route=blank,
        outcome=blank,
        error=blank,
        scale=scale,
        cohort=which,
        key=np.empty(0, dtype=np.uint64),
        **names,
    )


def _series(texts: Mapping[str, Any]) -> Ints:
    """A number for each cohort's instance and model."""
    return Names.of([f"{a}\0{b}" for a, b in zip(texts["instance"], texts["model"], strict=True)]).codes


def _means(values: Mapping[str, Floats], series: Ints) -> tuple[Floats, Floats, Floats]:
    """Who finished, their mean seconds, and those by phase, of each cohort; who has no seconds is left out."""
    n = np.maximum(np.nan_to_num(values["n"]), 0.0)
    timed = values["e2e_s"] > 0
    told = np.zeros(int(series.max(initial=-1)) + 1, dtype=np.bool_)
    np.logical_or.at(told, series, timed)
    # seconds of a page that has them are theirs who finished; elsewhere those of the time since somebody finished
    waited, ran = (_since_last(values[name], n, series) for name in ("waiting_s", "running_s"))
    little = ~told[series] if len(series) else np.zeros(0, dtype=np.bool_)
    n = np.where(timed | (little & (ran + waited > 0)), n, 0.0)
    some = np.maximum(n, 1e-9)
    phases = np.zeros((len(n), len(PHASES)))
    for name in _TOLD:
        phases[:, PHASE[name]] = np.where(little, 0.0, np.nan_to_num(values[f"{name}_s"])) / some
    # a page that tells no phases but the queue: up to the first token it is prefill, then decode
    whole = np.nan_to_num(values["e2e_s"]) / some
    split = timed & np.isfinite(values["first"]) & np.isnan(values["prefill_s"]) & (n > 0)
    queued = np.minimum(phases[:, PHASE["queue"]], whole)
    prefill = np.clip(values["first"] - queued, 0.0, whole - queued)
    phases[split, PHASE["prefill"]] = prefill[split]
    decode = np.where(np.isnan(values["decode_s"]), whole - queued - prefill, phases[:, PHASE["decode"]])
    phases[split, PHASE["decode"]] = decode[split]
    phases[little, PHASE["queue"]] = (waited / some)[little]
    phases[little, PHASE["decode"]] = (ran / some)[little]
    e2e = np.where(little, (waited + ran) / some, np.nan_to_num(values["e2e_s"]) / some)
    phases[n == 0] = 0.0
    e2e[n == 0] = 0.0
    phases, e2e = measured(phases), measured(e2e)
    # sums that a page adds up apart may differ by what was rounded
    whole = phases.sum(axis=1)
    over = whole > e2e
    phases[over] *= (e2e[over] / whole[over])[:, None]
    apart = np.maximum(e2e - phases.sum(axis=1), 0.0)
    generates = phases[:, PHASE["decode"]] > 0
    phases[:, PHASE["stall"]] = np.where(generates, apart, 0.0)
    phases[:, PHASE["other"]] = np.where(generates, 0.0, apart)
    return n, e2e, phases


def _since_last(mass: Floats, n: Floats, series: Ints) -> Floats:
    """What has come together since somebody of the series finished before, where somebody does; 0 elsewhere."""
    total = np.cumsum(np.nan_to_num(mass))
    found = np.zeros(len(n))
    done = np.flatnonzero(n > 0)
    before = np.concatenate([[0.0], total[done][:-1]])
    begins = np.concatenate([[True], series[done][1:] != series[done][:-1]]) if len(done) else np.zeros(0, dtype=bool)
    # the first of a series counts its own time alone
    before = np.where(begins, total[done] - np.nan_to_num(mass)[done], before)
    found[done] = total[done] - before
    return found


def _cached(values: Mapping[str, Floats], series: Ints) -> Floats:
    """Prompt tokens found in the prefix cache of each cohort's mean prompt, by the share around it."""
    asked, hits = np.nan_to_num(values["asked"]), np.nan_to_num(values["hits"])
    at = values["at_ms"] / 1000
    found = np.zeros(len(at))
    for code in range(int(series.max(initial=-1)) + 1):
        mine = series == code
        time, sums = at[mine], [np.concatenate([[0.0], np.cumsum(one[mine])]) for one in (asked, hits)]
        first = np.searchsorted(time, time - _SMOOTHED, side="right")
        last = np.searchsorted(time, time, side="right")
        among, found_there = (one[last] - one[first] for one in sums)
        found[mine] = np.where(among > 0, found_there / np.maximum(among, 1e-9), 0.0)
    return np.clip(found, 0.0, 1.0) * np.nan_to_num(values["prompt"])


def _copies(wanted: Floats, series: Ints) -> Ints:
    """Whole numbers that sum to the wanted ones as near as can be, series by series, in order of time."""
    if not len(wanted):
        return np.empty(0, dtype=np.int64)
    total = np.cumsum(wanted)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(series)) + 1])
    base = np.repeat(np.concatenate([[0.0], total[starts[1:] - 1]]), np.diff([*starts, len(series)]))
    rounded = np.floor(total - base + 0.5)
    before = np.concatenate([[0.0], rounded[:-1]])
    before[starts] = 0.0
    return np.asarray(np.maximum(rounded - before, 0), dtype=np.int64)


_NUMBERS: Final = (
    *(
        "at_ms",
        "selected",
        "interval",
        "n",
        "e2e_s",
        "waiting_s",
        "running_s",
        "asked",
        "hits",
        "first",
        "prompt",
        "output",
    ),
    *(f"{name}_s" for name in _TOLD),
)
_TEXTS: Final = ("instance", "deployment", "model", "version", "engine")
