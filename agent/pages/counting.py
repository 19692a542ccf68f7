"""Increases, series by series: what came, went or began anew is told apart before anything is added up.

Sums come after increases: a sum over series falls when one of them goes, though nothing counted backwards.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from math import inf, isfinite, nan
from operator import add, itemgetter, sub
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.engine_table import Histogram
    from base.vocabulary import Distribution, Signal

Identity = tuple[str, frozenset[tuple[str, str]]]
"""Name and labels of a series."""
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_KEPT: Final = 20_000
"""Series whose last value is remembered though they are on no page: more than any page of one server changes."""


@dataclass(frozen=True, slots=True)
class Increase:
    """What a histogram gained since the last page.

    ``bounds`` are upper bounds in the signal's unit without +Inf; ``counts`` are per bucket, one more than bounds, and
    add up to ``count``.
    """

    distribution: Distribution
    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    count: int
    total: float


@dataclass(slots=True)
class Counter:
    """The series of one model and rank that make one counter, and what each showed last.

    Attributes:
        signal: What they count.
        source: The newest name that it is read from, by which rules of one signal are told apart.
        slots: Where they stand on the page.
        series: Who they are.
        last: What each showed last; NaN before its first value.
        scale: Factor from the page's unit to ours.
        fell: Whether one of them showed less than before at the last look, and so began anew.
        stayed: Whether one that had counted before went on.
    """

    signal: Signal
    source: str
    slots: tuple[int, ...]
    series: tuple[Identity, ...]
    last: list[float]
    scale: float
    fell: bool = False
    stayed: bool = False

    def fork(self) -> Counter:
        """The same, that goes on for itself."""
        return replace(self, last=list(self.last))

    def look(self, values: Sequence[float]) -> tuple[float, float | None]:
        """Total and increase of a page, in our unit.

        The total is NaN where a series has no value that a counter may have: what is missing is no 0. The increase is
        of those that have one, and None where none was seen before.
        """
        total, gain, known = 0.0, 0.0, False
        last = self.last
        self.fell = self.stayed = False
        for index, slot in enumerate(self.slots):
            value = values[slot]
            if not 0 <= value < inf:  # neither NaN nor the -1 of servers that do not know
                total = nan
                continue  # what it had stays: the next value says what was gained meanwhile
            total += value
            before = last[index]
            last[index] = value
            if value >= before:
                gain += value - before
                known = True
                self.stayed = self.stayed or before > 0
            elif value < before:
                # It began again at 0: what it shows is what it gained since.
                gain += value
                known = self.fell = True
        return total * self.scale, gain * self.scale if known else None


@dataclass(slots=True)
class Part:
    """One series of buckets: where they stand, and what they showed last (None before their first values)."""

    labels: Identity
    bounds: tuple[float, ...]
    slots: tuple[int, ...]
    total: int
    last: Sequence[float] | None = None
    last_total: float = 0.0
    shown: Callable[[Sequence[float]], Sequence[float]] = field(init=False)

    def __post_init__(self) -> None:
        slots = self.slots
        # Of several at once it is a call of C, and of one alone it would give no sequence.
        self.shown = itemgetter(*slots) if len(slots) > 1 else lambda values: [values[slot] for slot in slots]


@dataclass(slots=True)
class Buckets:
    """A histogram of one model and rank: one or several series of buckets, added up over the bounds that all have.

    Cumulative counts at a shared bound add up exactly; between shared bounds nothing is interpolated.
    """

    rule: Histogram
    parts: tuple[Part, ...]
    bounds: tuple[float, ...] = ()
    _common: list[tuple[int, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        shared = set(self.parts[0].bounds).intersection(*(part.bounds for part in self.parts[1:]))
        order = sorted(shared)
        self.bounds = tuple(bound * self.rule.scale for bound in order)
        self._common = [tuple([part.bounds.index(bound) for bound in order]) for part in self.parts]

    def fork(self) -> Buckets:
        """The same, that goes on for itself."""
        return replace(self, parts=tuple([replace(part) for part in self.parts]))

    def look(self, values: Sequence[float]) -> Increase | None:
        """What was gained since the last page; None where nothing was, or nothing was seen before."""
        gains: list[float] | None = None
        summed = 0.0
        for part, common in zip(self.parts, self._common, strict=True):
            # The +Inf bucket has all: as long as it stands, so do the others.
            if part.last is not None and values[part.slots[-1]] == part.last[-1]:
                continue
            now = part.shown(values)
            if not all(map(isfinite, now)):
                continue
            before, before_total, total = part.last, part.last_total, values[part.total]
            part.last, part.last_total = now, total
            if before is None:
                continue
            if now[-1] < before[-1]:
                before, before_total = [0.0] * len(now), 0.0
            gained = list(map(sub, now, before))
            if len(common) < len(now) - 1:
                gained = [*[gained[index] for index in common], gained[-1]]
            gains = gained if gains is None else list(map(add, gains, gained))
            summed += total - before_total
        if gains is None:
            return None
        # A server writes its buckets one by one while requests finish: a negative difference is such a seam, no count.
        counts = tuple(map(round, map(sub, gains, [0.0, *gains[:-1]])))
        if min(counts) < 0:
            counts = tuple([max(0, one) for one in counts])
        summed *= self.rule.scale
        if not any(counts):
            return None
        return Increase(self.rule.distribution, self.bounds, counts, sum(counts), summed if isfinite(summed) else 0.0)


class Memory:
    """The last values of series, over layouts that change.

    A series that is seen for the first time began at 0, unless nothing was seen before it: then nobody knows since
    when it counts. One that went and came again goes on from where it was, or from 0 where it shows less.
    """

    def __init__(self) -> None:
        self._counters: dict[Identity, float] = {}
        self._names: dict[tuple[Signal, str], set[str]] = {}
        self._buckets: dict[tuple[Distribution, Identity], tuple[tuple[float, ...], Sequence[float], float]] = {}
        self._unborn = nan

    def fork(self) -> Memory:
        """The same, that goes on for itself."""
        twin = copy.copy(self)
        twin._counters, twin._buckets = dict(self._counters), dict(self._buckets)  # noqa: SLF001
        twin._names = {read: set(names) for read, names in self._names.items()}  # noqa: SLF001
        return twin

    def keep(self, counters: Sequence[Counter], histograms: Sequence[Buckets]) -> None:
        """Remember what series showed, before they are arranged anew."""
        for counter in counters:
            for identity, value in zip(counter.series, counter.last, strict=True):
                # Moved to the end: the oldest are given up first.
                self._counters.pop(identity, None)
                self._counters[identity] = value
                self._names.setdefault((counter.signal, counter.source), set()).add(identity[0])
        for one in histograms:
            for part in one.parts:
                if part.last is not None:
                    self._buckets.pop((one.rule.distribution, part.labels), None)
                    self._buckets[one.rule.distribution, part.labels] = (part.bounds, part.last, part.last_total)
        _trim(self._counters)
        _trim(self._buckets)

    def last(self, signal: Signal, source: str, identity: Identity) -> float:
        """What a series showed last; NaN where nobody knows.

        A signal that is read from a metric of another name than before knows nothing of that metric's past.
        """
        names = self._names.get((signal, source))
        renamed = names is not None and identity[0] not in names
        return self._counters.get(identity, nan if renamed else self._unborn)

    def recall(self, distribution: Distribution, part: Part) -> None:
        """Give a series of buckets what it showed last."""
        bounds, last, total = self._buckets.get((distribution, part.labels), ((), None, 0.0))
        if last is not None and bounds == part.bounds:
            part.last, part.last_total = last, total
        elif last is None and self._unborn == 0:
            part.last = [0.0] * len(part.slots)

    def begin(self) -> None:
        """From here on, what is new began at 0."""
        self._unborn = 0.0

    def forget(self) -> None:
        """Give up all that was seen: a new process counts from 0."""
        self._counters.clear()
        self._names.clear()
        self._buckets.clear()

    def forget_gone(self, there: set[Identity], parts: set[Identity]) -> None:
        """Give up the series that are on no page any more: they begin at 0 when they come again."""
        self._counters = {key: value for key, value in self._counters.items() if key in there}
        self._buckets = {key: value for key, value in self._buckets.items() if key[1] in parts}


def _trim(kept: dict[_Key, _Value]) -> None:
    for key in list(kept)[: max(0, len(kept) - _KEPT)]:
        del kept[key]
