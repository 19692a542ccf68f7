"""Service level objectives: what a file states, and the burn-rate rules that it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from alerts.measure.measured import Counted
from alerts.measure.needs import Needs
from alerts.measure.signals import DIMENSIONS  # noqa: TC001 pydantic reads it at run time
from alerts.rules import blind
from alerts.rules.burn import SHORTEST_PERIOD_SECONDS, BurnWindow, highest_burn_rate, judge, windows_for
from alerts.rules.reading import Reading
from alerts.rules.rule import Named, Rule, Severity
from alerts.rules.scope import Positive, Strict
from alerts.rules.shares import Share  # noqa: TC001 pydantic reads it at run time
from alerts.rules.sli import Sli, blind_of, missed, sums_by
from alerts.state import Observation, Timing
from alerts.text import number, subject
from base.durations import PositiveDuration  # noqa: TC001 pydantic reads it at run time
from base.formats import spell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alerts.measure.measured import Measured
    from alerts.rules.blind import Blind
    from alerts.rules.scope import Scope


class WindowSpec(Strict):
    """One pair of burn-rate windows, in place of the workbook's."""

    long: PositiveDuration
    short: PositiveDuration
    factor: Positive
    severity: Severity | None = None

    @model_validator(mode="after")
    def _ordered(self) -> WindowSpec:
        if self.short > self.long:
            raise ValueError(f"the short window ({spell(self.short)}) is longer than the long one ({spell(self.long)})")
        return self


class Slo(Named):
    """A service level objective.

    Attributes:
        sli: What makes a request good.
        target: Share of good requests over `period`, as a ratio (0.999).
        period: The window of the error budget.
        severity: Severity of its fast windows; the slow ones are ``warning`` unless `windows` says otherwise.
        windows: Burn-rate windows in place of the workbook's.
        min_requests: Low-traffic guard: valid requests needed in the long window.
        by: Labels by which the objective is judged apart; empty: as one.
    """

    sli: Sli
    target: Share
    period: PositiveDuration = 30 * 86400.0
    severity: Severity = "critical"
    windows: tuple[WindowSpec, ...] = ()
    min_requests: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 10
    by: tuple[Literal[DIMENSIONS], ...] = ()  # type: ignore[valid-type]

    def burn_windows(self) -> tuple[BurnWindow, ...]:
        """The windows with their factors and severities; of the workbook's those that its target lets fire."""
        if self.windows:
            return tuple(BurnWindow(w.long, w.short, w.factor, w.severity or self.severity) for w in self.windows)
        return tuple(window for window in self._default_windows() if self._within_reach(window.factor))

    def _default_windows(self) -> tuple[BurnWindow, ...]:
        return tuple(
            BurnWindow(
                w.long_seconds, w.short_seconds, w.factor, self.severity if w.severity == "critical" else "warning"
            )
            for w in windows_for(self.period)
        )

    def _within_reach(self, factor: float) -> bool:
        """Whether any share of bad requests burns faster."""
        return factor < highest_burn_rate(self.target) * (1 - 1e-9)

    def rules(self) -> tuple[Rule, ...]:
        """The rules that it generates, one per severity of its windows.

        The first is ``<slo>-burn``, where it has the objective's own severity; the severity stands behind the others'.
        """
        made = []
        for severity in dict.fromkeys(window.severity for window in self.burn_windows()):
            windows = tuple(window for window in self.burn_windows() if window.severity == severity)
            name = f"{self.name}-burn" if severity == self.severity else f"{self.name}-burn-{severity}"
            # burn rates have their patience in the windows; no traffic spends no budget
            timing = Timing(0.0, self.keep_firing_for, "ok")
            made.append(Rule(name, severity, self.runbook, timing, self.filter, Burn(self, windows)))
        return tuple(made)

    def warnings(self) -> tuple[str, ...]:
        """What is allowed and yet perhaps not meant: windows that its target leaves out."""
        out = [w for w in self._default_windows() if not self._within_reach(w.factor)] if not self.windows else []
        if not out:
            return ()
        pairs = ", ".join(f"{spell(w.long_seconds)}/{spell(w.short_seconds)} above {w.factor:g}x" for w in out)
        left = {window.severity for window in self.burn_windows()}
        gone = [severity for severity in dict.fromkeys(w.severity for w in out) if severity not in left]
        nobody = f"; nothing of it pages as {gone[0]}: give windows with lower factors" if gone else ""
        most = f"with a target of {self.target:g} the highest burn rate is {number(highest_burn_rate(self.target))}"
        return (f"SLO {self.name}: left out {pairs}, for {most}{nobody}",)

    def blind(self) -> Iterator[Blind]:
        """Fields for which it can never page."""
        yield from blind_of(self.sli, ("sli",), self.filter, self.by, ("by",))
        yield from blind.longest((("keep_firing_for",), self.keep_firing_for))
        longest = max((window.long_seconds for window in self.burn_windows()), default=self.period)
        yield from blind.weight(("min_requests",), self.min_requests, longest)
        most = number(highest_burn_rate(self.target))
        if not self.windows and not self._default_windows():
            told = (
                f"no burn-rate windows fit a period of {spell(self.period)}: make it "
                f"{spell(SHORTEST_PERIOD_SECONDS)} or longer, or give windows"
            )
            yield ("period",), told
        for position, window in enumerate(self.windows):
            place = ("windows", position)
            if not self._within_reach(window.factor):
                told = (
                    f"{window.factor:g} can never be exceeded: with a target of {self.target:g} "
                    f"the highest burn rate is {most}"
                )
                yield (*place, "factor"), told
            yield from blind.spans(((*place, "short"), window.short), ((*place, "long"), window.long))
        if self._default_windows() and not self.burn_windows():
            told = (
                f"the highest burn rate with it is {most}, below every factor: raise it, or give windows with "
                "lower factors"
            )
            yield ("target",), told


@dataclass(frozen=True, slots=True)
class Burn:
    """All windows of one severity of one objective: one alert per set of labels."""

    slo: Slo
    windows: tuple[BurnWindow, ...]

    def needs(self, scope: Scope) -> Needs:
        """Counts in all its windows."""
        windows = tuple(seconds for w in self.windows for seconds in (w.long_seconds, w.short_seconds))
        dimensions = frozenset((*scope.dimensions(), *self.slo.by))
        return Needs((self.slo.sli.measure(),), windows, dimensions, replays=scope.replays)

    def identity(self) -> tuple[str, ...]:
        """What the objective is judged by."""
        return tuple(self.slo.by)

    def judge(self, scope: Scope, measured: Measured, now: float) -> list[Reading]:
        """A reading for each set of labels: of the pair of windows that burns worst."""
        slo, measure, none = self.slo, self.slo.sli.measure(), Counted(0, 0)
        sums = {
            seconds: sums_by(measured.counts.get(seconds, ()), measure, scope, slo.by)
            for window in self.windows
            for seconds in (window.long_seconds, window.short_seconds)
        }
        readings = []
        for key in sorted({key for found in sums.values() for key in found}):
            labels = dict(zip(slo.by, key, strict=True))
            long = {w: sums[w.long_seconds].get(key, none) for w in self.windows}
            short = {w: sums[w.short_seconds].get(key, none) for w in self.windows}
            judged = [(w, judge(w, long[w], short[w], slo.target, slo.min_requests)) for w in self.windows]
            window, worst = max(judged, key=lambda pair: (pair[1].breached, pair[1].long_rate / pair[0].factor))
            fixed = scope.fixed()
            reason = (
                f"{missed(slo.sli, long[window], subject({**fixed, **labels}))}: the error budget of {slo.name} burns "
                f"{number(worst.long_rate)}x over {spell(window.long_seconds)} and {number(worst.short_rate)}x over "
                f"{spell(window.short_seconds)}, limit {number(window.factor)}x"
            )
            seen = Observation(worst.breached, now, worst.long_rate)
            told = any(counted.total for counted in short.values())
            near = any(verdict.near for _, verdict in judged)
            reading = Reading(labels, seen, reason, window.factor, window.long_seconds, fixed, data=told, near=near)
            readings.append(reading)
        return readings
