"""An engine sample's signal above or below a number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

from pydantic import model_validator

from alerts.measure.needs import Needs
from alerts.measure.signals import RATES, RATIOS, SAMPLE_SIGNALS, columns_of, sight_of
from alerts.rules import blind
from alerts.rules.condition import Condition
from alerts.rules.reading import Reading, apart, trailing_run
from alerts.text import number, subject
from base.durations import Duration  # noqa: TC001 pydantic reads it at run time
from base.formats import rounded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alerts.measure.measured import Measured, Sample
    from alerts.rules.blind import Blind
    from alerts.rules.scope import Scope

WAS_UP_SECONDS: Final = 3600.0
"""An instance that was not up within this span is being deployed and cannot go down."""
_WORDS: Final = {
    "up": "up",
    "kv_cache_usage_ratio": "KV cache use",
    "scrape_seconds": "scrape time",
    "prefix_cache_hit_ratio": "prefix cache hit share",
}


class When(Condition):
    """An engine sample's signal above or below a number; per instance and model unless `by` is ``[instance]``."""

    kind: Literal["signal"] = "signal"
    signal: Literal[SAMPLE_SIGNALS]  # type: ignore[valid-type]
    above: float | None = None
    below: float | None = None
    over: Duration = 0.0
    by: tuple[Literal["instance", "model"], ...] = ("instance", "model")

    @model_validator(mode="after")
    def _one_bound(self) -> When:
        if (self.above is None) == (self.below is None):
            raise ValueError("give exactly one of above and below")
        if "instance" not in self.by:
            raise ValueError("by must name instance: samples of two instances have no common clock")
        return self

    @property
    def bound(self) -> tuple[Literal["above", "below"], float]:
        """The side on which it holds, and from where on."""
        if self.above is not None:
            return "above", self.above
        assert self.below is not None  # noqa: S101 the model allows exactly one of them
        return "below", self.below

    def needs(self, scope: Scope) -> Needs:
        """The columns that the signal is made of; of ``up`` also who was up before."""
        remember = WAS_UP_SECONDS if self.signal == "up" else 0.0
        span = max(self.over, 1.0)
        return Needs(columns=columns_of(self.signal), look_back=span, remember=remember, replays=scope.replays)

    def identity(self) -> tuple[str, ...]:
        """What it is judged by."""
        return tuple(self.by)

    def judge(self, scope: Scope, measured: Measured, now: float) -> list[Reading]:  # noqa: ARG002 samples have times
        """A reading for each instance and model that shows the signal."""
        side, bound = self.bound
        word = _WORDS.get(self.signal, self.signal.replace("_", " "))
        unit = sight_of(self.signal).unit
        readings = []
        for labels, context, samples in apart(self.by, scope, measured.series):
            values = values_of(self.signal, samples, self.over)
            points = [(at, value > bound if side == "above" else value < bound, value) for at, value in values]
            run = trailing_run(points)
            if run is None:
                continue
            limit = "limit" if side == "above" else "at least"
            told = (
                f"{subject(labels)} {'does not answer' if side == 'below' else 'answers'}"
                if self.signal == "up"
                else f"{word} {number(run.seen.value, unit)} on {subject(labels)}, {limit} {number(bound, unit)}"
            )
            reason = f"{told}, for {rounded(round(run.seconds))}"
            # a server that has not come up yet is being deployed, which is no outage
            opens = self.signal != "up" or labels["instance"] in measured.was_up
            readings.append(Reading(labels, run.seen, reason, bound, self.over, context, opens))
        return readings

    def blind(self, scope: Scope, held: float) -> Iterator[Blind]:  # noqa: ARG002 any span may hold
        """Labels that samples have not, engines that do not show it, bounds outside its range."""
        sight = sight_of(self.signal)
        yield from blind.labels(scope, sight.labels, f"samples of {self.signal}")
        yield from blind.engines(scope, blind.shows(*sight.needs), self.signal)
        yield from self._bounds()
        yield from blind.longest((("when", "over"), self.over))

    def _bounds(self) -> Iterator[Blind]:
        sight, (word, bound) = sight_of(self.signal), self.bound
        if not math.isfinite(bound):
            yield ("when", word), f"nothing is ever {word} {bound}: give a number"
            return
        range_ = f"{self.signal} is never below {sight.low:g}"
        if math.isfinite(sight.high):
            range_ = f"{self.signal} lies between {sight.low:g} and {sight.high:g}"
        never = bound >= sight.high if word == "above" else bound <= sight.low
        always = bound < sight.low if word == "above" else bound > sight.high
        percent = f": it is a share, write {number(bound / 100)} for {bound:g} %" if 1 < bound <= 100 else ""  # noqa: PLR2004 percent
        hint = (percent if sight.unit == "ratio" else "") or ": choose a bound inside"
        if never or always:
            yield ("when", word), f"{range_}, so that {word} {bound:g} {'never' if never else 'always'} holds{hint}"


def values_of(signal: str, samples: Sequence[Sample], over: float) -> list[tuple[float, float]]:
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
