"""Pages → canonical samples: one per model and data-parallel rank, with the increase of every counter.

A :class:`Sampler` compiles an engine's table against a page's layout once; each further page with the same layout
costs one lookup per series that is read. What a page does not show is absent from a sample, never 0.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from math import inf, isfinite, isnan, nan
from typing import TYPE_CHECKING, Final, NamedTuple

from agent.engine_table import config_of
from agent.pages.contract import Contract
from agent.pages.counting import Buckets, Counter, Increase, Memory, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.engine_table import Histogram, Rule, Table
    from agent.pages.contract import Breach
    from agent.pages.counting import Identity
    from agent.pages.page import Layout, Page, Series
    from base.vocabulary import Distribution, Signal

__all__ = ["EngineSample", "Increase", "Key", "Sampler", "Scrape"]

START_TIME: Final = "process_start_time_seconds"
"""Gauge of Prometheus client libraries; a new value is a new process, so every counter began at 0 again."""
_MOST_KEYS: Final = 250
_REST: Final = "other"
_NAME_KEPT: Final = 256


class Key(NamedTuple):
    """Whom a sample is about; ``dp_rank`` is "" where the page knows no ranks."""

    model: str
    dp_rank: str


@dataclass(frozen=True, slots=True)
class EngineSample:
    """What one model on one rank showed at one scrape.

    Args:
        key: Model and rank.
        gauges: Values by signal.
        totals: Counters as the page has them, scaled to our unit.
        deltas: Their increase since the last page, series by series; absent on first sight.
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
        samples: One per model and rank, in page order; of more than 250 the rest are one called ``other``.
        restarted: The process, or all that it counts, began anew since the last page.
        config: The server's configuration, where the page has it.
        layout_changed: Series came or went since the last page.
        breaches: What the page does not keep of what it must have, new since the last page.
    """

    samples: tuple[EngineSample, ...]
    restarted: bool
    config: Mapping[str, str]
    layout_changed: bool
    breaches: tuple[Breach, ...] = ()


class _Gauge(NamedTuple):
    signal: Signal
    slots: tuple[int, ...]
    scale: float
    combine: Callable[[Sequence[float]], float]


@dataclass(slots=True)
class _Group:
    """One model and rank: where its values stand on the page, and what its counters were."""

    key: Key
    gauges: list[_Gauge] = field(default_factory=list)
    counters: list[Counter] = field(default_factory=list)
    buckets: list[Buckets] = field(default_factory=list)


class Sampler:
    """Turns the pages of one server, in order, into samples.

    Args:
        table: The engine's table.
        model: Name for a model that the page does not name.
        version: The server's, where it is known.
        whole: A page has all its series, so that one which is new began at 0 since the last page. Of pages that
            somebody else cut apart or labelled nobody knows that: a series' first value is no increase.
    """

    def __init__(self, table: Table, model: str = "", version: str = "", *, whole: bool = True) -> None:
        self.contract = Contract(table, version)
        self._table = table
        self._model = model
        self._layout: Layout | None = None
        self._groups: dict[Key, _Group] = {}
        self._memory = Memory()
        self._whole = whole
        self._config: Mapping[str, str] = {}
        self._declared: frozenset[str] = frozenset()
        self._start_slots: Mapping[Identity, int] = {}
        self._starts: dict[Identity, float] = {}

    def sample(self, page: Page, at: float | None = None, before: Mapping[int, float] | None = None) -> Scrape:
        """Read the next page.

        Args:
            page: It.
            at: When it was shown, in seconds, where that is known.
            before: What counters and buckets showed before, by their places, where whoever brings the page knows it
                better; NaN is unknown.
        """
        changed = page.layout is not self._layout
        if changed:
            self._compile(page)
        restarted = self._process_began(page.values)
        if restarted:
            self._forget()
        if before:
            self._go_on(before)
        off = self._table.off(page)
        samples = tuple([_read(group, page.values, off) for group in self._groups.values()])
        if self._table.extras is not None and samples and (more := self._table.extras(page)):
            first = samples[0]
            samples = (replace(first, gauges={**first.gauges, **more}), *samples[1:])
        restarted = restarted or self._all_began()
        if samples and self._whole:
            self._memory.begin()
        told = [(one.gauges, one.totals, one.deltas) for one in samples]
        breaches = self.contract.look(told, restarted=restarted, at=at)
        if self.contract.doubts:
            samples = tuple([replace(one, gauges=self.contract.believed(one.gauges)) for one in samples])
        return Scrape(samples, restarted, self._config, changed, tuple(breaches))

    def fork(self) -> Sampler:
        """Another one that has read the same pages; what either reads then is not the other's."""
        twin = copy.copy(self)
        twin.contract, twin._memory = self.contract.fork(), self._memory.fork()  # noqa: SLF001
        twin._groups = {  # noqa: SLF001
            key: _Group(
                key, group.gauges, [one.fork() for one in group.counters], [one.fork() for one in group.buckets]
            )
            for key, group in self._groups.items()
        }
        return twin

    def _process_began(self, values: Sequence[float]) -> bool:
        """Whether every process that tells when it started, and told before, tells another time."""
        found = {one: values[slot] for one, slot in self._start_slots.items() if isfinite(values[slot])}
        common = found.keys() & self._starts.keys()
        began = bool(common) and all(found[one] != self._starts[one] for one in common)
        self._starts = found or self._starts
        return began

    def _all_began(self) -> bool:
        """Whether all that had counted began anew.

        One model or rank that begins again while another goes on was loaded anew, and so was one that came instead of
        one that went; the server was not. Where a start time stands still, those that never counted are witnesses too.
        """
        groups = [group.counters for group in self._groups.values() if group.counters]
        fell = [any(one.fell for one in counters) for counters in groups]
        stayed = any(one.stayed for counters in groups for one in counters)
        return any(fell) and not stayed and (not self._starts or all(fell))

    def _forget(self) -> None:
        """A new process counts from 0, so that all it shows happened since."""
        self._memory.forget()
        for group in self._groups.values():
            for counter in group.counters:
                counter.last = [0.0] * len(counter.last)
            for part in (part for one in group.buckets for part in one.parts):
                part.last, part.last_total = [0.0] * len(part.slots), 0.0

    def _go_on(self, before: Mapping[int, float]) -> None:
        """Take increases from these values, and not from what was seen last."""
        for group in self._groups.values():
            for counter in group.counters:
                counter.last = [before.get(slot, last) for slot, last in zip(counter.slots, counter.last, strict=True)]
            for part in (part for one in group.buckets for part in one.parts):
                if part.total in before and all(slot in before for slot in part.slots):
                    values = [before[slot] for slot in part.slots]
                    part.last, part.last_total = (None if any(map(isnan, values)) else values), before[part.total]

    def _compile(self, page: Page) -> None:
        table, layout, memory = self._table, page.layout, self._memory
        memory.keep(
            [counter for group in self._groups.values() for counter in group.counters],
            [one for group in self._groups.values() for one in group.buckets],
        )
        slots = table.slots(layout)
        groups: dict[Key, _Group] = {}

        def group_of(one: Series, of_server: bool = False) -> _Group:
            model = table.model_of(one.labels, self._model)[:_NAME_KEPT]
            key = Key(model, one.labels.get(table.rank_label, "")[:_NAME_KEPT])
            if of_server and not (key.model and key.dp_rank):
                first = next(iter(groups), key) if not key.model else key
                key = next((one for one in groups if _agree(key, one)), first)
            if key not in groups:
                key = key if len(groups) < _MOST_KEYS else Key(_REST, "")
            return groups.setdefault(key, _Group(key))

        for rule in table.rules:
            if any(name not in slots for name in rule.beside):
                continue
            _arrange(rule, table, slots, layout.series, group_of, memory)
        for histogram in table.histograms:
            late = histogram.beside and histogram.source not in self._declared
            _arrange_buckets(histogram, table, slots, layout.series, group_of, None if late else memory)
        self._declared |= layout.types.keys()
        if table.gone_is_over and page.faults_total == page.repeated:
            counters = [counter for group in groups.values() for counter in group.counters]
            parts = [part for group in groups.values() for one in group.buckets for part in one.parts]
            memory.forget_gone(
                {identity for one in counters for identity in one.series}, {part.labels for part in parts}
            )
        self._groups, self._layout = groups, layout
        self._config = config_of(table, layout)
        arranged: set[Signal | Distribution] = set()
        for group in groups.values():
            arranged |= {one.signal for one in group.gauges}
            arranged |= {one.signal for one in group.counters}
            arranged |= {one.rule.distribution for one in group.buckets}
        self.contract.laid_out(layout, arranged)
        named = (slots.get(START_TIME) or [])[:_MOST_KEYS]
        self._start_slots = {_identity(layout.series[slot]): slot for slot in named}


def _agree(key: Key, other: Key) -> bool:
    """Whether two say nothing that is not the same of both."""
    return key.model in {"", other.model} and key.dp_rank in {"", other.dp_rank}


def _identity(one: Series) -> Identity:
    return one.name, one.identity


def _once(table: Table, slots: Sequence[int], series: Sequence[Series]) -> Sequence[int]:
    """Those of a metric's series that may be added up: neither copies of another nor parts of it."""
    if not (table.copy_labels or table.part_labels):
        return slots
    lowest: dict[frozenset[tuple[str, str]], tuple[list[tuple[int, str]], int]] = {}
    for slot in slots:
        one = series[slot]
        ranks = [one.labels.get(label, "") for label in table.copy_labels]
        # A shorter number is a lower one.
        place = [(len(rank), rank) for rank in ranks], slot
        count = _without(table.copy_labels, one.identity)
        lowest[count] = min(place, lowest.get(count, place))
    wholes = {count: _without(table.part_labels, count) for count in lowest}
    return sorted(lowest[count][1] for count, whole in wholes.items() if whole == count or whole not in lowest)


def _without(labels: Sequence[str], identity: frozenset[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    return frozenset(pair for pair in identity if pair[0] not in labels)


def _arrange(
    rule: Rule,
    table: Table,
    slots: Mapping[str, Sequence[int]],
    series: Sequence[Series],
    group_of: Callable[..., _Group],
    memory: Memory,
) -> None:
    """Find a rule's series on a page and hand them to the groups they belong to."""

    def matching(name: str) -> Sequence[int]:
        where = rule.where if rule.where_old is None or name not in rule.old else rule.where_old
        found = [slot for slot in slots.get(name, ()) if _has(series[slot].labels, where)]
        return _once(table, found, series) if rule.combine == "sum" else found

    groups: dict[Key, tuple[_Group, list[int]]] = {}
    for name in (rule.source, *rule.old):
        # A server may show one model under one name and another model under the other.
        had = frozenset(groups)
        for slot in matching(name):
            group = group_of(series[slot], rule.of_server)
            if group.key not in had:
                groups.setdefault(group.key, (group, []))[1].append(slot)
    added = [matching(name) for name in rule.plus]
    if not groups or not all(added):
        return
    for slot in (slot for found in added for slot in found):
        group = group_of(series[slot])
        groups.setdefault(group.key, (group, []))[1].append(slot)
    for group, found in groups.values():
        if rule.counter:
            who = tuple([_identity(series[slot]) for slot in found])
            last = [memory.last(rule.signal, rule.source, one) for one in who]
            group.counters.append(Counter(rule.signal, rule.source, tuple(found), who, last, rule.scale))
            continue
        before = next((one for one in group.gauges if one.signal == rule.signal), None)
        if before is not None:  # a second rule of a signal adds to the first
            group.gauges.remove(before)
        where = (*(before.slots if before is not None else ()), *found)
        group.gauges.append(_Gauge(rule.signal, where, rule.scale, max if rule.combine == "max" else sum))


def _has(labels: Mapping[str, str], where: Mapping[str, str | frozenset[str]]) -> bool:
    values = ((labels.get(label), value) for label, value in where.items())
    return all(got == value if isinstance(value, str) else got in value for got, value in values)


def _arrange_buckets(
    rule: Histogram,
    table: Table,
    slots: Mapping[str, Sequence[int]],
    series: Sequence[Series],
    group_of: Callable[..., _Group],
    memory: Memory | None,
) -> None:
    """Find a histogram on a page, however many series of buckets it has, and hand it to the groups it belongs to.

    Without a memory nobody knows what it showed before.
    """
    name = next((name for name in rule.names() if f"{name}_bucket" in slots), None)
    if name is None:
        return
    bounds: dict[Identity, dict[float, int]] = {}
    for slot in slots[f"{name}_bucket"]:
        if not _has(series[slot].labels, rule.where):
            continue
        labels = series[slot].identity
        try:
            bound = float(series[slot].labels.get("le", ""))
        except ValueError:
            continue  # a bucket without a bound is no bucket
        bounds.setdefault((name, frozenset(pair for pair in labels if pair[0] != "le")), {}).setdefault(bound, slot)
    totals = {series[slot].identity: slot for slot in _once(table, slots.get(f"{name}_sum", ()), series)}
    parts: dict[Key, tuple[_Group, list[Part]]] = {}
    for who, found in bounds.items():
        total = totals.get(who[1])
        if inf in found and total is not None:
            order = sorted(found)
            part = Part(who, tuple(order[:-1]), tuple([found[bound] for bound in order]), total)
            if memory is not None:
                memory.recall(rule.distribution, part)
            group = group_of(series[total], rule.of_server)
            parts.setdefault(group.key, (group, []))[1].append(part)
    for group, several in parts.values():
        group.buckets.append(Buckets(rule, tuple(several)))


def _read(group: _Group, values: Sequence[float], off: frozenset[Signal]) -> EngineSample:
    gauges: dict[Signal, float] = {}
    totals: dict[Signal, float] = {}
    deltas: dict[Signal, float] = {}
    for one in group.gauges:
        slots = one.slots
        if len(slots) == 1:
            value = values[slots[0]]
        else:
            several = [values[slot] for slot in slots]
            value = one.combine(several) if one.combine is max or min(several) >= 0 else nan
        # No signal is below 0: servers write -1 for what they do not know.
        if isfinite(value) and value >= 0:
            gauges[one.signal] = value * one.scale
    for counter in group.counters:
        total, gain = counter.look(values)
        if counter.signal in off:
            continue
        # a second rule of a signal adds to the first
        if isfinite(total):
            totals[counter.signal] = totals.get(counter.signal, 0.0) + total
        if gain is not None:
            deltas[counter.signal] = deltas.get(counter.signal, 0.0) + gain
    gained = [increase for one in group.buckets if (increase := one.look(values)) is not None]
    return EngineSample(group.key, gauges, totals, deltas, tuple(gained))
