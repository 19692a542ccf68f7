"""Pages → canonical samples: one per model and data-parallel rank, with the increase of every counter.

A :class:`Sampler` compiles an engine's table against a page's layout once; each further page with the same layout
costs one lookup per signal. What a page does not show is absent from a sample, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, isfinite
from typing import TYPE_CHECKING, Final, NamedTuple

from agent.engines.table import config_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.engines.table import Histogram, Rule, Table
    from agent.page import Layout, Page, Series
    from agent.vocabulary import Distribution, Signal

START_TIME: Final = "process_start_time_seconds"
"""Gauge of Prometheus client libraries; a new value is a new process, so every counter began at 0 again."""


class Key(NamedTuple):
    """Whom a sample is about; ``dp_rank`` is "" where the page knows no ranks."""

    model: str
    dp_rank: str


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


@dataclass(frozen=True, slots=True)
class EngineSample:
    """What one model on one rank showed at one scrape.

    Args:
        key: Model and rank.
        gauges: Values by signal.
        totals: Counters as the page has them, scaled to our unit.
        deltas: Their increase since the last page; absent on first sight.
        histograms: Increases, only of those that gained something.
    """

    key: Key
    gauges: Mapping[Signal, float]
    totals: Mapping[Signal, float]
    deltas: Mapping[Signal, float]
    histograms: tuple[Increase, ...] = ()

    def signals(self) -> dict[Signal, float]:
        """Gauges and counters together."""
        return {**self.gauges, **self.totals}


@dataclass(frozen=True, slots=True)
class Scrape:
    """All that one page says.

    Args:
        samples: One per model and rank, in page order.
        restarted: The process or its counters began anew since the last page.
        config: The server's configuration, where the page has it.
        layout_changed: Series came or went since the last page.
    """

    samples: tuple[EngineSample, ...]
    restarted: bool
    config: Mapping[str, str]
    layout_changed: bool


class _Reading(NamedTuple):
    signal: Signal
    slots: tuple[int, ...]
    scale: float
    combine: Callable[[Sequence[float]], float]


@dataclass(frozen=True, slots=True)
class _Buckets:
    rule: Histogram
    bounds: tuple[float, ...]
    slots: tuple[int, ...]
    count: int
    total: int


class _Seen(NamedTuple):
    bounds: tuple[float, ...]
    cumulative: list[float]
    total: float


@dataclass(slots=True)
class _Group:
    """One model and rank: where its values stand on the page, and what they were."""

    key: Key
    gauges: list[_Reading] = field(default_factory=list)
    counters: list[_Reading] = field(default_factory=list)
    buckets: list[_Buckets] = field(default_factory=list)
    totals: dict[Signal, float] = field(default_factory=dict)
    seen: dict[Distribution, _Seen] = field(default_factory=dict)


class Sampler:
    """Turns the pages of one server, in order, into samples.

    Args:
        table: The engine's table.
        model: Name for a model that the page does not name.
    """

    def __init__(self, table: Table, model: str = "") -> None:
        self._table = table
        self._model = model
        self._layout: Layout | None = None
        self._groups: dict[Key, _Group] = {}
        self._config: Mapping[str, str] = {}
        self._start_slot: int | None = None
        self._start: float | None = None

    def sample(self, page: Page) -> Scrape:
        """Read the next page."""
        changed = page.layout is not self._layout
        if changed:
            self._compile(page.layout)
        values = page.values
        started = values[self._start_slot] if self._start_slot is not None else None
        restarted = self._start is not None and started is not None and started != self._start
        self._start = started if started is not None else self._start
        if restarted:
            self._forget()
        samples, fallen, stayed = [], False, False
        for group in self._groups.values():
            busy = any(group.totals.values())
            sample, fell = _read(group, values, from_zero=restarted)
            fallen, stayed = fallen or fell, stayed or (busy and not fell)
            samples.append(sample)
        # One model that begins again while another goes on was loaded anew; the server was not.
        restarted = restarted or (fallen and not stayed)
        return Scrape(tuple(samples), restarted, self._config, changed)

    def _forget(self) -> None:
        """A new process counts from 0, so that all it shows happened since."""
        for group in self._groups.values():
            group.totals = dict.fromkeys(group.totals, 0.0)
            group.seen = {
                distribution: _Seen(seen.bounds, [0.0] * len(seen.cumulative), 0.0)
                for distribution, seen in group.seen.items()
            }

    def _compile(self, layout: Layout) -> None:
        table, old = self._table, self._groups
        slots: dict[str, list[int]] = {}
        for slot, one in enumerate(layout.series):
            slots.setdefault(one.name, []).append(slot)
        groups: dict[Key, _Group] = {}

        def group_of(one: Series) -> _Group:
            key = Key(one.labels.get(table.model_label, self._model), one.labels.get(table.rank_label, ""))
            if key not in groups:
                before = old.get(key)
                groups[key] = _Group(key, totals=before.totals, seen=before.seen) if before else _Group(key)
            return groups[key]

        for rule in table.rules:
            for key, reading in _readings(rule, slots, layout.series, group_of).items():
                (groups[key].counters if rule.counter else groups[key].gauges).append(reading)
        for histogram in table.histograms:
            for group, buckets in _find_buckets(histogram, slots, layout.series, group_of):
                group.buckets.append(buckets)
        self._groups, self._layout = groups, layout
        self._config = config_of(table, layout)
        self._start_slot = slots[START_TIME][0] if START_TIME in slots else None


def _readings(
    rule: Rule, slots: Mapping[str, list[int]], series: Sequence[Series], group_of: Callable[[Series], _Group]
) -> dict[Key, _Reading]:
    def matching(name: str) -> list[int]:
        return [slot for slot in slots.get(name, ()) if rule.where.items() <= series[slot].labels.items()]

    main = next((found for name in (rule.source, *rule.old) if (found := matching(name))), [])
    added = [matching(name) for name in rule.plus]
    if not main or not all(added):
        return {}
    by_key: dict[Key, list[int]] = {}
    for slot in (*main, *(slot for found in added for slot in found)):
        by_key.setdefault(group_of(series[slot]).key, []).append(slot)
    combine = max if rule.combine == "max" else sum
    return {key: _Reading(rule.signal, tuple(found), rule.scale, combine) for key, found in by_key.items()}


def _find_buckets(
    rule: Histogram, slots: Mapping[str, list[int]], series: Sequence[Series], group_of: Callable[[Series], _Group]
) -> list[tuple[_Group, _Buckets]]:
    name = next((name for name in rule.names() if f"{name}_bucket" in slots), None)
    if name is None:
        return []
    parts: dict[Key, tuple[_Group, dict[float, int], list[int], list[int]]] = {}
    for suffix in ("_bucket", "_count", "_sum"):
        for slot in slots.get(f"{name}{suffix}", ()):
            group = group_of(series[slot])
            _, buckets, counts, totals = parts.setdefault(group.key, (group, {}, [], []))
            if suffix == "_bucket":
                try:
                    buckets[float(series[slot].labels.get("le", ""))] = slot
                except ValueError:
                    continue  # a bucket without a bound is no bucket
            else:
                (counts if suffix == "_count" else totals).append(slot)
    found = []
    for group, buckets, counts, totals in parts.values():
        # Several series of one model and rank (further labels) are no histogram that could be read bucket by bucket.
        if inf in buckets and len(counts) == 1 and len(totals) == 1:
            order = sorted(buckets)
            bounds = tuple(bound * rule.scale for bound in order[:-1])
            found.append(
                (group, _Buckets(rule, bounds, tuple(buckets[bound] for bound in order), counts[0], totals[0]))
            )
    return found


def _value(reading: _Reading, values: Sequence[float]) -> float:
    slots = reading.slots
    value = values[slots[0]] if len(slots) == 1 else reading.combine([values[slot] for slot in slots])
    return value * reading.scale


def _read(group: _Group, values: Sequence[float], *, from_zero: bool) -> tuple[EngineSample, bool]:
    gauges = {one.signal: value for one in group.gauges if isfinite(value := _value(one, values))}
    totals = {one.signal: value for one in group.counters if isfinite(value := _value(one, values))}
    before = group.totals
    deltas, fell = {}, False
    for signal, value in totals.items():
        last = before.get(signal)
        if last is None:
            continue
        if value >= last:
            deltas[signal] = value - last
        else:
            # The counter began again at 0: what it shows is what it gained since.
            deltas[signal] = value
            fell = True
    group.totals = {**before, **totals} if len(totals) < len(before) else totals
    gained = []
    for buckets in group.buckets:
        seen = group.seen.get(buckets.rule.distribution)
        if seen is None or seen.bounds != buckets.bounds or values[buckets.count] != seen.cumulative[-1] or from_zero:
            cumulative = [values[slot] for slot in buckets.slots]
            if not all(map(isfinite, cumulative)):
                continue
            total = values[buckets.total]
            if seen is not None and seen.bounds == buckets.bounds:
                increase = _increase(buckets, seen, cumulative, total)
                if increase.count:
                    gained.append(increase)
            group.seen[buckets.rule.distribution] = _Seen(buckets.bounds, cumulative, total)
    return EngineSample(group.key, gauges, totals, deltas, tuple(gained)), fell


def _increase(buckets: _Buckets, seen: _Seen, cumulative: Sequence[float], total: float) -> Increase:
    last, last_total = seen.cumulative, seen.total
    if cumulative[-1] < last[-1]:
        last, last_total = [0.0] * len(cumulative), 0.0
    gains = [now - then for now, then in zip(cumulative, last, strict=True)]
    # A server writes its buckets one by one while requests finish: a negative difference is such a seam, not a count.
    counts = tuple([max(0, round(high - low)) for high, low in zip(gains, [0.0, *gains], strict=False)])
    summed = (total - last_total) * buckets.rule.scale
    return Increase(buckets.rule.distribution, buckets.bounds, counts, sum(counts), summed if isfinite(summed) else 0.0)
