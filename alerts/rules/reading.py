"""What a rule sees of one set of labels, and how it is read out of samples. Pure: no store, no clock."""

from __future__ import annotations

import operator
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from alerts.measure.measured import Sample
from alerts.measure.signals import JOINED
from alerts.state import Observation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from alerts.measure.measured import Series
    from alerts.rules.scope import Scope

_JOINS: Final[Mapping[str, Callable[[float, float], float]]] = {"min": min, "max": max, "sum": operator.add}


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
        near: Does not hold, and has come half the way: where an alert has no time of pending, this is the time in which
            what its page shall carry can be asked for.
    """

    labels: Mapping[str, str]
    seen: Observation
    reason: str
    threshold: float
    window_seconds: float = 0.0
    context: Mapping[str, str] = field(default_factory=dict)
    opens: bool = True
    data: bool = True
    near: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """A run of equal verdicts, and how many seconds it has lasted while the condition holds."""

    seen: Observation
    seconds: float


def trailing_run(points: Sequence[tuple[float, bool, float]]) -> Run | None:
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
    seen = Observation(holds, at, value, since if holds else None, unbroken, last_breach)
    return Run(seen, at - since if holds else 0.0)


def apart(
    by: Sequence[str], scope: Scope, series: Iterable[Series]
) -> Iterable[tuple[dict[str, str], dict[str, str], list[Sample]]]:
    """Series inside a scope as labels, context and samples; joined over what `by` does not tell apart."""
    found: dict[tuple[str, ...], list[Series]] = defaultdict(list)
    for one in series:
        if scope.holds(one.labels):
            found[tuple(one.labels[name] for name in by)].append(one)
    for key in sorted(found):
        members = found[key]
        labels, context = split(members[0].labels, by)
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
                values[name] = _JOINS[JOINED.get(name, "sum")](values[name], value) if name in values else value
        joined.append(Sample(time, values))
    return joined


def split(labels: Mapping[str, str], by: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Labels that tell alerts apart, and those that only place one."""
    names = {name: labels.get(name, "") for name in by}
    rest = {n: v for n, v in labels.items() if n not in names and n not in {"replayed", "model"} and v}
    return names, rest
