"""What an engine's probe tells of every step, and what a step costs by it.

A step takes ``alone + sequence · n + token · p`` seconds for `n` sequences decoded and `p` prompt tokens computed; the
three are learnt where all was well (non-negative least squares over sums of a second). So nobody has to have been
alone on the server to know what others cost him.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.optimize import nnls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analytics.causes.arrays import Flags, Floats
    from analytics.causes.grid import Bins

SILENT_SECONDS: Final = 1.5
"""Seconds between two steps, requests being inside, from which an engine stands still."""
LEAST_SECONDS: Final = 20
"""Calm seconds with steps below which nothing is learnt of their cost."""
SPREAD: Final = 1.25
"""Times by which a step's sequences differ between calm seconds, 90th percentile over 10th, so that they tell."""
TOLD_SHARE: Final = 0.9
"""Share of slots that tell their batch, below which batches are taken for unknown."""
FEATURES: Final = ("generated", "drafts", "accepted")
"""What steps tell of `table.FEATURES`: tokens made, drafts of them, drafted tokens that were accepted."""
_EDGE: Final = 0.25
"""Seconds at a silence's ends in which another rank's steps may still be counted."""


@dataclass(frozen=True)
class Silence:
    """Between two steps that follow each other, requests being inside.

    Attributes:
        since, until: When they ended, seconds since the origin.
        prefilled: Prompt tokens of the later one.
    """

    since: float
    until: float
    prefilled: float


@dataclass(frozen=True)
class StepCost:
    """Seconds of a step: by itself, a sequence that is decoded in it, a prompt token that is computed in it.

    ``sequence`` is NaN where calm seconds do not differ enough in sequences to tell.
    """

    alone: float
    sequence: float
    token: float


@dataclass
class Steps:
    """One instance's steps, in slots of time, summed over models and ranks; ``(n,)`` each.

    Attributes:
        since: When each slot begins, seconds since the origin, in order.
        width: Seconds of a slot.
        count: Steps that ended in it.
        busy: Seconds that they took, from the end of the one before where requests were open.
        prefilled: Prompt tokens computed; NaN where the engine does not tell the batch of a step.
        decoded: Tokens of sequences decoded, likewise.
        preempted: Preemptions.
        waiting: The most requests that waited.
        kv: The fullest that the KV cache was.
        silences: Stretches without any step.
        features: Of `FEATURES` those that were asked for; NaN where no step told.
    """

    since: Floats
    width: float
    count: Floats
    busy: Floats
    prefilled: Floats
    decoded: Floats
    preempted: Floats
    waiting: Floats
    kv: Floats
    silences: list[Silence] = field(default_factory=list)
    features: dict[str, Floats] = field(default_factory=dict)

    @property
    def batch_told(self) -> bool:
        """Whether steps tell their batch: nearly all, since single ones may not."""
        return bool(len(self.count)) and float(np.mean(self._told)) >= TOLD_SHARE

    @property
    def _told(self) -> Flags:
        return np.isfinite(self.decoded) & np.isfinite(self.prefilled)

    def between(self, name: str, start: Floats, end: Floats) -> Floats:
        """Sum of a column between each start and end; a slot that is cut counts by its share."""
        values = np.nan_to_num(getattr(self, name))
        # an edge where each slot begins and one where it ends, so that gaps add nothing
        edges = np.stack([self.since, self.since + self.width], axis=1).ravel()
        total = np.stack([np.cumsum(values) - values, np.cumsum(values)], axis=1).ravel()
        return np.asarray(np.interp(end, edges, total) - np.interp(start, edges, total))

    def known(self, start: Floats, end: Floats) -> Flags:
        """Whether a time lies between the first step and the last."""
        if not len(self.since):
            return np.zeros(len(start), dtype=np.bool_)
        return np.asarray((start >= self.since[0] - 1) & (end <= self.since[-1] + self.width + 1))

    def over(self, name: str, bins: Bins) -> Floats:
        """Sum of a column in each bin."""
        return self._added(getattr(self, name), bins)

    def untold(self, bins: Bins) -> Floats:
        """How many slots of each bin do not tell their batch."""
        return self._added((~self._told).astype(np.float64), bins)

    def counted(self, name: str, bins: Bins) -> Floats | None:
        """The same of one of `features`: NaN in bins without a step; None where no step told it."""
        values = self.features.get(name)
        if values is None or not np.isfinite(values).any():
            return None
        return np.where(self.over("count", bins) > 0, self._added(values, bins), np.nan)

    def _added(self, values: Floats, bins: Bins) -> Floats:
        at = ((self.since + self.width / 2 - bins.first) / bins.step).astype(np.int64)
        mine = (at >= 0) & (at < bins.n)
        return np.asarray(np.bincount(at[mine], np.nan_to_num(values)[mine], bins.n), dtype=np.float64)

    def most(self, name: str, bins: Bins) -> Floats:
        """The most of a column in each bin; NaN where there was no step."""
        at = ((self.since + self.width / 2 - bins.first) / bins.step).astype(np.int64)
        mine = (at >= 0) & (at < bins.n)
        found = np.full(bins.n, -np.inf)
        np.maximum.at(found, at[mine], np.nan_to_num(getattr(self, name), nan=-np.inf)[mine])
        return np.where(np.isfinite(found), found, np.nan)

    def stood(self, token: float) -> list[tuple[float, float]]:
        """Silences of all ranks that are longer by `SILENT_SECONDS` than the prompt tokens computed in them take.

        Args:
            token: Seconds a prompt token takes.
        """
        return [
            (one.since, one.until)
            for one in self.silences
            if one.until - one.since - token * one.prefilled >= SILENT_SECONDS
            and not self.went_on(one.since, one.until)
        ]

    def went_on(self, since: float, until: float) -> bool:
        """Whether a step ended well inside of a span."""
        ends = self.since[self.count > 0] + self.width
        return bool(((ends > since + _EDGE + self.width) & (ends < until - _EDGE)).any())


def cost_of(steps: Steps, calm: Flags, bins: Bins) -> StepCost | None:
    """What a step costs in calm seconds; None where too few are known.

    Args:
        steps: Steps.
        calm: Of each bin, whether all was well in it.
        bins: Seconds.
    """
    if not steps.batch_told:
        return None
    count, busy, decoded, prefilled = (
        steps.over(name, bins)[calm] for name in ("count", "busy", "decoded", "prefilled")
    )
    used = (count > 0) & (busy > 0) & (steps.untold(bins)[calm] == 0)
    if used.sum() < LEAST_SECONDS:
        return None
    count, busy, decoded, prefilled = (column[used] for column in (count, busy, decoded, prefilled))
    # in shares of each second's own time: one long second must not outweigh all others
    alone, sequence, token = nnls(np.stack([count, decoded, prefilled], axis=1) / busy[:, None], np.ones(len(busy)))[0]
    low, high = np.quantile(decoded / count, [0.1, 0.9])
    return StepCost(float(alone), float(sequence) if high >= SPREAD * max(low, 1.0) else float("nan"), float(token))


def steps_of(row: Mapping[str, Any], origin_ms: int, slot_ms: int) -> dict[str, Steps]:
    """Steps by instance out of the row of arrays of `causes.steps`."""
    names = np.asarray(row["name"], dtype=object)
    slot = np.asarray(row["slot"], dtype=np.int64)
    columns = {name: np.asarray(row[name], dtype=np.float64) for name in _COLUMNS}
    features = {name: np.asarray(row[name], dtype=np.float64) for name in FEATURES if name in row}
    found: dict[str, Steps] = {}
    for name in dict.fromkeys(str(one) for one in names):
        mine = np.flatnonzero(names == name)
        mine = mine[np.argsort(slot[mine], kind="stable")]
        found[name] = Steps(
            since=(slot[mine] * slot_ms - origin_ms) / 1000,
            width=slot_ms / 1000,
            silences=[
                Silence(since / 1e6 - origin_ms / 1000, until / 1e6 - origin_ms / 1000, float(tokens))
                for place in mine
                for since, until, tokens in row["silences"][place]
            ],
            features={column: values[mine] for column, values in features.items()},
            **{column: values[mine] for column, values in columns.items()},
        )
    return found


_COLUMNS: Final = ("count", "busy", "prefilled", "decoded", "preempted", "waiting", "kv")
