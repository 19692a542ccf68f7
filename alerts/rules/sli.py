"""What makes a request good: the indicators that objectives and shares rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from alerts.measure.measured import Counted
from alerts.measure.signals import METRIC_SIGNALS, OF_SAMPLES, REQUEST_SIGNALS, title
from alerts.rules import blind
from alerts.rules.scope import Positive, Scope, Strict
from alerts.text import number
from analytics.counters import only_once
from analytics.slo import BAD, Measure, Source
from base.formats import spell
from base.vocabulary import Outcome, Signal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from alerts.measure.measured import Group
    from alerts.rules.blind import Blind, Location

BAD_OUTCOMES: Final = tuple(Outcome(name) for name in BAD)
"""What spends the budget; a client's own error or abort is a request and not a bad one."""


class AvailabilitySli(Strict):
    """Share of requests that the service answered: good are all but those with an outcome in `bad`.

    With ``source: metrics`` it is what the servers count as failed, which leaves out what never reached them.
    """

    kind: Literal["availability"] = "availability"
    bad: tuple[Outcome, ...] = BAD_OUTCOMES
    source: Source = "rows"

    def measure(self) -> Measure:
        """What to count."""
        return Measure(bad=tuple(o.value for o in self.bad), source=self.source)


class LatencySli(Strict):
    """Share of the requests that have `signal` in which it is at most `threshold_seconds`.

    With ``source: metrics`` it is read out of the servers' histograms: a request counts as good when its whole bucket
    lies at or below the threshold.
    """

    kind: Literal["latency"]
    signal: Literal[tuple(REQUEST_SIGNALS)] = "ttft_seconds"  # type: ignore[valid-type]
    threshold_seconds: Positive
    source: Source = "rows"

    @model_validator(mode="after")
    def _shown(self) -> LatencySli:
        if self.source == "metrics" and self.signal not in METRIC_SIGNALS:
            raise ValueError(f"no server shows {self.signal} as a histogram; use one of {', '.join(METRIC_SIGNALS)}")
        return self

    def measure(self) -> Measure:
        """What to count."""
        return Measure((), ((self.signal, self.threshold_seconds),), latency_only=True, source=self.source)


class GoodputSli(Strict):
    """Share of requests that were answered *and* kept every limit in `limits` (signal: seconds)."""

    kind: Literal["goodput"]
    limits: Annotated[dict[Literal[tuple(REQUEST_SIGNALS)], Positive], Field(min_length=1)]  # type: ignore[valid-type]

    def measure(self) -> Measure:
        """What to count."""
        return Measure(tuple(o.value for o in BAD_OUTCOMES), tuple(sorted(self.limits.items())))


def _short_form(value: object) -> object:
    return {"kind": value} if value == "availability" else value


Sli = Annotated[AvailabilitySli | LatencySli | GoodputSli, Field(discriminator="kind"), BeforeValidator(_short_form)]
"""One of them; the word ``availability`` is that one with its defaults."""


def sums_by(
    groups: Iterable[Group], measure: Measure, scope: Scope, by: Sequence[str]
) -> dict[tuple[str, ...], Counted]:
    """Counts inside a scope, added up by labels; one empty key for `by` without labels, even without traffic.

    What is judged apart may be a router; of what is added up, a router's requests are its servers'.
    """
    sums: dict[tuple[str, ...], Counted] = {} if by else {(): Counted(0, 0)}

    def key_of(group: Group) -> tuple[str, ...]:
        return tuple(group.labels.get(name, "") for name in by)

    for group in only_once((group for group in groups if scope.holds(group.labels)), key_of):
        if group.served:
            continue
        key = key_of(group)
        known, more = sums.get(key, Counted(0, 0)), group.counts.get(measure, Counted(0, 0))
        sums[key] = Counted(known.total + more.total, known.bad + more.bad)
    return sums


def missed(sli: Sli, counted: Counted, about: str) -> str:
    """How many requests were bad, and in which way: ``3 % of requests of model m failed``."""
    share = number(counted.bad / counted.total if counted.total else 0.0, "ratio")
    measure = sli.measure()
    limits = " or ".join(f"exceeded {spell(seconds)} ({title(signal)})" for signal, seconds in measure.limits)
    verbs = [*(["failed"] if measure.bad or not limits else []), *([limits] if limits else [])]
    return f"{share} of {'requests of ' if about != 'all requests' else ''}{about} {' or '.join(verbs)}"


def blind_of(sli: Sli, at: Location, scope: Scope, by: Sequence[str], by_at: Location) -> Iterator[Blind]:
    """Why an indicator counts nothing, or nothing as bad.

    Args:
        sli: The indicator.
        at: Where it stands.
        scope: The filter of its entry.
        by: Labels by which it is judged apart.
        by_at: Where they stand.
    """
    if isinstance(sli, AvailabilitySli) and not sli.bad:
        yield (*at, "bad"), "without any outcome nothing is ever bad: name some, or leave the field out"
    if isinstance(sli, AvailabilitySli) and Outcome.OK in sli.bad:
        yield (*at, "bad"), "with ok every answer is bad, so that it always holds: leave ok out"
    if isinstance(sli, LatencySli):
        yield from blind.longest(((*at, "threshold_seconds"), sli.threshold_seconds))
    if isinstance(sli, GoodputSli):
        yield from blind.longest(*(((*at, "limits", signal), limit) for signal, limit in sli.limits.items()))
    if sli.measure().source == "rows":
        return
    yield from blind.labels(scope, OF_SAMPLES, "the servers' own metrics")
    if "tenant" in by:
        yield by_at, "the servers' own metrics know no tenant: leave tenant out, or count rows (no source)"
    if isinstance(sli, AvailabilitySli) and "bad" in sli.model_fields_set:
        yield (*at, "bad"), "the servers' own metrics tell no outcomes: leave it out, or count rows (no source)"
    if isinstance(sli, LatencySli):
        wanted = METRIC_SIGNALS[sli.signal]
        yield from blind.engines(scope, lambda t: any(h.distribution == wanted for h in t.histograms), sli.signal)
    elif isinstance(sli, AvailabilitySli):
        yield from blind.engines(scope, blind.shows(Signal.REQUESTS_FAILED_TOTAL), "failed requests")
