"""From what was measured to what each rule sees. Pure: no store, no clock.

A reading is one rule on one set of labels: whether its condition holds, since when by the data's own time, and the
sentence that a person will read at night.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from alerts.measure.store import PROGRESS, Group, Measured, Sample, Series
from alerts.rules.burn import Counted, Verdict, judge
from alerts.rules.model import (
    RATES,
    RATIOS,
    BurnRule,
    Measure,
    Rule,
    Scope,
    ShareCondition,
    SignalCondition,
    SilentCondition,
    Sli,
    Threshold,
    WedgedCondition,
    title,
)
from alerts.state import Observation, Timing
from alerts.text import number, subject
from base.durations import spell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

WORDS: Final = {
    "up": "up",
    "kv_cache_usage_ratio": "KV cache use",
    "scrape_seconds": "scrape time",
    "prefix_cache_hit_ratio": "prefix cache hit share",
}
_UNITS: Final = {"kv_cache_usage_ratio": "ratio", "prefix_cache_hit_ratio": "ratio", "scrape_seconds": "s"}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a rule sees of one set of labels.

    Attributes:
        labels: The alert's identity beside the rule's name.
        seen: For the state machine.
        reason: Plain English, for a condition that holds.
        threshold: The bound that `seen.value` is compared with.
        window_seconds: Span that the value rests on; 0 for an instant.
        context: Labels that belong to the subject without being its identity (deployment, engine, region).
        opens: Whether it may begin an alert; one that is under way goes on without.
        data: Whether it rests on any: a window without requests is judged and yet tells nothing.
    """

    labels: Mapping[str, str]
    seen: Observation
    reason: str
    threshold: float
    window_seconds: float = 0.0
    context: Mapping[str, str] = field(default_factory=dict)
    opens: bool = True
    data: bool = True


def timing_of(rule: Rule) -> Timing:
    """A rule's patience; a condition with a span of its own (wedged) waits that long at least."""
    timing = rule.timing()
    if isinstance(rule, Threshold) and isinstance(rule.when, WedgedCondition):
        return Timing(
            max(timing.for_seconds, rule.when.after),
            timing.keep_firing_seconds,
            timing.no_data,
            timing.stale_after_seconds,
        )
    return timing


def evaluate(rule: Rule, measured: Measured, now: float) -> list[Reading]:
    """All readings of one rule.

    Args:
        rule: The rule.
        measured: What the round knows.
        now: Unix seconds.
    """
    match rule:
        case BurnRule():
            return _burn(rule, measured, now)
        case Threshold(when=ShareCondition() as share):
            return _share(share, rule.filter, measured, now)
        case Threshold(when=SignalCondition() as signal):
            return _signal(signal, rule.filter, measured)
        case Threshold(when=WedgedCondition()):
            return _wedged(rule.filter, measured)
        case Threshold(when=SilentCondition() as silent):
            return _silent(silent, rule.filter, measured, now)
    raise AssertionError(rule)


# ---- requests


def _inside(scope: Scope, labels: Mapping[str, str]) -> bool:
    replayed = labels.get("replayed") == "1"
    return (scope.recordings == "include" or not replayed) and scope.matches(labels)


def sums_by(
    groups: Iterable[Group], measure: Measure, scope: Scope, by: Sequence[str]
) -> dict[tuple[str, ...], Counted]:
    """Counts inside a scope, added up by labels; one empty key for `by` without labels, even without traffic."""
    sums: dict[tuple[str, ...], Counted] = {} if by else {(): Counted(0, 0)}
    for group in groups:
        if _inside(scope, group.labels):
            key = tuple(group.labels.get(name, "") for name in by)
            known, more = sums.get(key, Counted(0, 0)), group.counts.get(measure, Counted(0, 0))
            sums[key] = Counted(known.total + more.total, known.bad + more.bad)
    return sums


def _burn(rule: BurnRule, measured: Measured, now: float) -> list[Reading]:
    slo, measure, none = rule.slo, rule.slo.sli.measure(), Counted(0, 0)
    sums = {
        seconds: sums_by(measured.counts.get(seconds, ()), measure, slo.filter, slo.by)
        for window in rule.windows
        for seconds in (window.long_seconds, window.short_seconds)
    }
    readings = []
    for key in sorted({key for found in sums.values() for key in found}):
        labels = dict(zip(slo.by, key, strict=True))
        judged = [
            (
                w,
                judge(
                    w,
                    sums[w.long_seconds].get(key, none),
                    sums[w.short_seconds].get(key, none),
                    slo.target,
                    slo.min_requests,
                ),
            )
            for w in rule.windows
        ]
        window, worst = max(judged, key=lambda pair: (pair[1].breached, pair[1].long_rate / pair[0].factor))
        everything = {**slo.filter.fixed(), **labels}
        reason = (
            f"{_missed(slo.sli, worst, subject(everything))}: the error budget of {slo.name} burns "
            f"{number(worst.long_rate)}x over {spell(window.long_seconds)} and {number(worst.short_rate)}x over "
            f"{spell(window.short_seconds)}, limit {number(window.factor)}x"
        )
        seen = Observation(worst.breached, now, worst.long_rate)
        told = any(sums[w.short_seconds].get(key, none).total for w in rule.windows)
        fixed = slo.filter.fixed()
        readings.append(Reading(labels, seen, reason, window.factor, window.long_seconds, fixed, data=told))
    return readings


def _missed(sli: Sli, verdict: Verdict, about: str) -> str:
    share = number(verdict.bad / verdict.total if verdict.total else 0.0, "ratio")
    measure = sli.measure()
    limits = " or ".join(f"exceeded {spell(seconds)} ({title(signal)})" for signal, seconds in measure.limits)
    verbs = [*(["failed"] if measure.bad or not limits else []), *([limits] if limits else [])]
    return f"{share} of {'requests of ' if about != 'all requests' else ''}{about} {' or '.join(verbs)}"


def _share(rule: ShareCondition, scope: Scope, measured: Measured, now: float) -> list[Reading]:
    readings = []
    measure = rule.sli.measure()
    for key, counted in sorted(sums_by(measured.counts.get(rule.window, ()), measure, scope, rule.by).items()):
        labels = dict(zip(rule.by, key, strict=True))
        share = counted.bad / counted.total if counted.total else 0.0
        breached = share > rule.above and counted.total >= rule.min_requests
        verdict = Verdict(breached, share, share, counted.total, counted.bad, guarded=False)
        reason = (
            f"{_missed(rule.sli, verdict, subject({**scope.fixed(), **labels}))}: {number(counted.bad)} of "
            f"{number(counted.total)} in {spell(rule.window)}, limit {number(rule.above, 'ratio')}"
        )
        seen = Observation(breached, now, share)
        told = counted.total > 0
        readings.append(Reading(labels, seen, reason, rule.above, rule.window, scope.fixed(), data=told))
    return readings


# ---- samples


@dataclass(frozen=True, slots=True)
class _Run:
    seen: Observation
    seconds: float


def trailing_run(points: Sequence[tuple[float, bool, float]]) -> _Run | None:
    """The run of equal verdicts at the end of (Unix seconds, holds, value) points, oldest first; None without any."""
    if not points:
        return None
    at, holds, value = points[-1]
    since, unbroken, last_breach = at, True, None
    for time, held, _ in reversed(points):
        if held and last_breach is None:
            last_breach = time
        if not held:
            unbroken = False
            if holds or last_breach is not None:
                break
        if holds:
            since = time
    return _Run(
        Observation(holds, at, value, since if holds else None, unbroken, last_breach), at - since if holds else 0.0
    )


def _signal(rule: SignalCondition, scope: Scope, measured: Measured) -> list[Reading]:
    bound = rule.above if rule.above is not None else rule.below
    assert bound is not None  # noqa: S101 the model allows exactly one of them
    word = WORDS.get(rule.signal, rule.signal.replace("_", " "))
    unit = _UNITS.get(rule.signal, "")
    readings = []
    for labels, context, samples in _by(rule.by, scope, measured.series):
        values = _values(rule.signal, samples, rule.over)
        points = [(at, value > bound if rule.above is not None else value < bound, value) for at, value in values]
        run = trailing_run(points)
        if run is None:
            continue
        side = "limit" if rule.above is not None else "at least"
        told = (
            f"{subject(labels)} does not answer"
            if rule.signal == "up"
            else f"{word} {number(run.seen.value, unit)} on {subject(labels)}, {side} {number(bound, unit)}"
        )
        reason = f"{told}, for {spell(round(run.seconds))}"
        # a server that has not come up yet is being deployed, which is no outage
        opens = rule.signal != "up" or labels["instance"] in measured.was_up
        readings.append(Reading(labels, run.seen, reason, bound, rule.over, context, opens))
    return readings


def _wedged(scope: Scope, measured: Measured) -> list[Reading]:
    readings = []
    for labels, context, samples in _by(("instance", "model"), scope, measured.series):
        points = []
        for sample in samples:
            progress = [sample.values[name] for name in PROGRESS if name in sample.values]
            work = sample.values.get("running", 0.0) + sample.values.get("waiting", 0.0)
            if progress:
                points.append((sample.at, work > 0 and not any(progress), work))
        run = trailing_run(points)
        if run is None:
            continue
        stuck = spell(round(run.seconds))
        reason = f"{subject(labels)} has {number(run.seen.value)} requests and made no progress for {stuck}"
        readings.append(Reading(labels, run.seen, reason, 0.0, 0.0, context))
    return readings


def _silent(rule: SilentCondition, scope: Scope, measured: Measured, now: float) -> list[Reading]:
    readings = []
    for known, at in measured.last_seen:
        if not _inside(scope, known) or now - at > rule.remember:
            continue
        labels, context = _split(known, ("instance",))
        age = max(0.0, now - at)
        reason = f"no sample of {subject(labels)} for {spell(round(age))}, limit {spell(rule.after)}"
        seen = Observation(age > rule.after, now, age, now if age > rule.after else None)
        readings.append(Reading(labels, seen, reason, rule.after, rule.after, context))
    return readings


def _by(
    by: Sequence[str], scope: Scope, series: Iterable[Series]
) -> Iterable[tuple[dict[str, str], dict[str, str], list[Sample]]]:
    """Series inside a scope, joined over the models of an instance where `by` is the instance alone."""
    found: dict[tuple[str, ...], list[Series]] = defaultdict(list)
    for one in series:
        if _inside(scope, one.labels):
            found[tuple(one.labels[name] for name in by)].append(one)
    for key in sorted(found):
        members = found[key]
        labels, context = _split(members[0].labels, by)
        yield labels, context, members[0].samples if len(members) == 1 else _join(members)


def _join(members: Sequence[Series]) -> list[Sample]:
    at: dict[float, list[Sample]] = defaultdict(list)
    for member in members:
        for sample in member.samples:
            at[sample.at].append(sample)
    joined = []
    for time in sorted(at):
        values: dict[str, float] = {}
        for sample in at[time]:
            for name, value in sample.values.items():
                values[name] = value if name not in values else _JOINS.get(name, _add)(values[name], value)
        joined.append(Sample(time, values))
    return joined


def _add(left: float, right: float) -> float:
    return left + right


_JOINS: Final[Mapping[str, Callable[[float, float], float]]] = {
    "up": min,
    "kv_cache_usage_ratio": max,
    "scrape_seconds": max,
    "interval_seconds": max,
}


def _split(labels: Mapping[str, str], by: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    names = {name: labels.get(name, "") for name in by}
    rest = {n: v for n, v in labels.items() if n not in names and n not in {"replayed", "model"} and v}
    return names, rest


def _values(signal: str, samples: Sequence[Sample], over: float) -> list[tuple[float, float]]:
    """(Unix seconds, value) of a signal: as it is, or over a trailing span of `over` seconds."""
    if signal in RATES:
        top = [
            (s.at, s.values[RATES[signal]], s.values.get("interval_seconds", 1.0))
            for s in samples
            if RATES[signal] in s.values
        ]
    elif signal in RATIOS:
        hits, asked = RATIOS[signal]
        top = [(s.at, s.values[hits], s.values[asked]) for s in samples if hits in s.values and asked in s.values]
    else:
        top = [(s.at, s.values[signal], 1.0) for s in samples if signal in s.values]
    found, first, above, below = [], 0, 0.0, 0.0
    for at, upper, lower in top:
        above, below = above + upper, below + lower
        while top[first][0] <= at - over and top[first][0] < at:
            above, below, first = above - top[first][1], below - top[first][2], first + 1
        if below > 0 and math.isfinite(above):
            found.append((at, above / below))
    return found
