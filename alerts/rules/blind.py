"""What a rule can see: unit, range and labels of every signal; and what is wrong with rules that see nothing.

A rule that can never fire looks like a fleet that is well. This is the one place that knows which those are; what it
finds is told by line and field, with what mends it. Pure: no file, no clock, no store.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from agent.engine_table import Table, tables
from alerts.rules.burn import SHORTEST_PERIOD_SECONDS, highest_burn_rate
from alerts.rules.model import (
    DIMENSIONS,
    METRIC_SIGNALS,
    RATES,
    RATIOS,
    AvailabilitySli,
    LatencySli,
    Scope,
    ShareCondition,
    SignalCondition,
    SilentCondition,
    Sli,
    WedgedCondition,
)
from alerts.text import number
from base.durations import spell
from base.vocabulary import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from alerts.rules.model import RulesFile, Slo, Threshold

Location = tuple[int | str, ...]
"""Keys and indices that lead to a field of the file."""
Blind = tuple[Location, str]
"""A field, and why the rule can never fire, or always does, with what mends it."""

OF_REQUESTS: Final = DIMENSIONS
OF_SAMPLES: Final = tuple(name for name in DIMENSIONS if name != "tenant")
OF_INSTANCES: Final = tuple(name for name in OF_SAMPLES if name != "model")
"""Labels of a request, of a server's sample, and of an instance that sends nothing."""

KEPT_SECONDS: Final = 30 * 86_400.0
"""Samples and requests are kept so long by default; nothing can hold, or be looked at, for longer."""
SHORTEST_SECONDS: Final = 1.0
"""Samples come once a second: a window below holds none."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What there is to see of a signal.

    Attributes:
        unit: ``ratio``, ``s``, or empty for a count or a rate.
        low, high: Every value lies between them, both included.
        needs: Signals of an engine's page that it is made of; empty: the agent's own.
        labels: By which it can be filtered.
    """

    unit: str
    low: float
    high: float
    needs: tuple[Signal, ...]
    labels: tuple[str, ...] = OF_SAMPLES


def sight_of(signal: str) -> Sight:
    """What there is to see of a signal of ``SAMPLE_SIGNALS``."""
    if signal in RATES:
        return Sight("", 0.0, math.inf, (Signal(RATES[signal].removesuffix("_delta") + "_total"),))
    if signal in RATIOS:
        return Sight("ratio", 0.0, 1.0, tuple(Signal(c.removesuffix("_delta") + "_total") for c in RATIOS[signal]))
    if signal == "up":
        return Sight("", 0.0, 1.0, ())
    if signal == "scrape_seconds":
        return Sight("s", 0.0, math.inf, ())
    return Sight(*(("ratio", 0.0, 1.0) if signal.endswith("_ratio") else ("", 0.0, math.inf)), (Signal(signal),))


def blind(file: RulesFile) -> list[Blind]:
    """Every field that keeps a rule of the file from ever firing, or from ever being over."""
    found: list[Blind] = []
    for index, slo in enumerate(file.slos):
        found += [(("slos", index, *location), text) for location, text in _of_slo(slo)]
    for index, rule in enumerate(file.rules):
        found += [(("rules", index, *location), text) for location, text in _of_rule(rule)]
    return found


# ---- objectives


def _of_slo(slo: Slo) -> Iterator[Blind]:
    yield from _of_sli(slo.sli, slo.filter, ("sli",), ("filter",), slo.by, ("by",))
    windows, most = slo.burn_windows(), highest_burn_rate(slo.target)
    out_of_reach = most * (1 - 1e-9)
    if not windows:
        yield (
            ("period",),
            (
                f"no burn-rate windows fit a period of {spell(slo.period)}: make it "
                f"{spell(SHORTEST_PERIOD_SECONDS)} or longer, or give windows"
            ),
        )
    for position, window in enumerate(slo.windows):
        place = ("windows", position)
        if window.factor >= out_of_reach:
            yield (
                (*place, "factor"),
                (
                    f"{window.factor:g} can never be exceeded: with a target of {slo.target:g} "
                    f"the highest burn rate is {number(most)}"
                ),
            )
        yield from _spans(((*place, "short"), window.short), ((*place, "long"), window.long))
    if windows and not slo.windows and all(w.factor >= out_of_reach for w in windows):
        yield (
            ("target",),
            (
                f"the highest burn rate with it is {number(most)}, below every factor: raise it, or give windows with "
                "lower factors"
            ),
        )


def _of_sli(
    sli: Sli, scope: Scope, at: Location, filter_at: Location, by: Sequence[str], by_at: Location
) -> Iterator[Blind]:
    if isinstance(sli, AvailabilitySli) and not sli.bad:
        yield (*at, "bad"), "without any outcome nothing is ever bad: name some, or leave the field out"
    measure = sli.measure()
    if measure.source == "rows":
        return
    yield from _labels(scope, OF_SAMPLES, "the servers' own metrics", filter_at)
    if "tenant" in by:
        yield by_at, "the servers' own metrics know no tenant: leave tenant out, or count rows (no source)"
    if isinstance(sli, AvailabilitySli) and "bad" in sli.model_fields_set:
        yield (*at, "bad"), "the servers' own metrics tell no outcomes: leave it out, or count rows (no source)"
    if isinstance(sli, LatencySli):
        wanted = METRIC_SIGNALS[sli.signal]
        yield from _engines(scope, lambda t: any(h.distribution == wanted for h in t.histograms), sli.signal, filter_at)
    elif isinstance(sli, AvailabilitySli):
        yield from _engines(scope, _shows(Signal.REQUESTS_FAILED_TOTAL), "failed requests", filter_at)


# ---- thresholds


def _of_rule(rule: Threshold) -> Iterator[Blind]:
    when, scope = rule.when, ("filter",)
    yield from _longest((("for",), rule.for_))
    match when:
        case SignalCondition():
            sight = sight_of(when.signal)
            yield from _labels(rule.filter, sight.labels, f"samples of {when.signal}", scope)
            yield from _engines(rule.filter, _shows(*sight.needs), when.signal, scope)
            yield from _bounds(when, sight)
            yield from _longest((("when", "over"), when.over))
        case WedgedCondition():
            yield from _labels(rule.filter, OF_SAMPLES, "samples of a server", scope)
            yield from _longest((("when", "after"), when.after))
        case SilentCondition():
            yield from _labels(rule.filter, OF_INSTANCES, "an instance that sends nothing", scope)
            if when.after + rule.for_ >= when.remember:
                yield (
                    ("when", "after"),
                    (
                        f"an instance is forgotten after {spell(when.remember)}, before it has been silent for "
                        f"{spell(when.after + rule.for_)}: raise remember, or lower after or for"
                    ),
                )
        case ShareCondition():
            yield from _of_sli(when.sli, rule.filter, ("when", "sli"), scope, when.by, ("when", "by"))
            yield from _spans((("when", "window"), when.window))


def _bounds(when: SignalCondition, sight: Sight) -> Iterator[Blind]:
    word, bound = ("above", when.above) if when.above is not None else ("below", when.below)
    if bound is None:
        return
    if not math.isfinite(bound):
        yield ("when", word), f"nothing is ever {word} {bound}: give a number"
        return
    range_ = f"{when.signal} is never below {sight.low:g}"
    if math.isfinite(sight.high):
        range_ = f"{when.signal} lies between {sight.low:g} and {sight.high:g}"
    never = bound >= sight.high if word == "above" else bound <= sight.low
    always = bound < sight.low if word == "above" else bound > sight.high
    percent = f": it is a share, write {number(bound / 100)} for {bound:g} %" if 1 < bound <= 100 else ""  # noqa: PLR2004 percent
    hint = percent if sight.unit == "ratio" else ""
    if never:
        yield ("when", word), f"{range_}, so that {word} {bound:g} never holds{hint or ': choose a bound inside'}"
    elif always:
        yield ("when", word), f"{range_}, so that {word} {bound:g} always holds{hint or ': choose a bound inside'}"


# ---- parts


def _labels(scope: Scope, seen: Sequence[str], what: str, at: Location) -> Iterator[Blind]:
    for name in scope.dimensions():
        if name not in seen:
            yield (*at, name), f"{what} have no {name}, so that nothing matches: leave it out; there is {_list(seen)}"


def _engines(scope: Scope, shows: Callable[[Table], bool], what: str, at: Location) -> Iterator[Blind]:
    """An engine filter that leaves only engines whose pages do not have what the rule looks at."""
    left = [t for t in tables().values() if any(fnmatchcase(t.engine, pattern) for pattern in scope.engine)]
    if left and not any(shows(table) for table in left):
        there = [table.engine for table in tables().values() if shows(table)]
        names = _list([table.engine for table in left])
        yield (*at, "engine"), f"{names} shows no {what}: {f'use {_list(there)}' if there else 'no engine does'}"


def _shows(*needs: Signal) -> Callable[[Table], bool]:
    return lambda table: {rule.signal for rule in table.rules} >= set(needs)


def _spans(*spans: tuple[Location, float]) -> Iterator[Blind]:
    for location, seconds in spans:
        if seconds < SHORTEST_SECONDS:
            yield location, f"shorter than {spell(SHORTEST_SECONDS)}, in which nothing is measured: make it longer"
    yield from _longest(*spans)


def _longest(*spans: tuple[Location, float]) -> Iterator[Blind]:
    for location, seconds in spans:
        if seconds > KEPT_SECONDS:
            yield location, f"longer than the {spell(KEPT_SECONDS)} for which anything is kept: make it shorter"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
