"""Share of bad requests among those that finished in `window`, above a ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from alerts.measure.needs import Needs
from alerts.measure.signals import DIMENSIONS  # noqa: TC001 pydantic reads it at run time
from alerts.rules import blind
from alerts.rules.condition import Condition
from alerts.rules.reading import Reading
from alerts.rules.shares import ShareOrNone  # noqa: TC001 pydantic reads it at run time
from alerts.rules.sli import AvailabilitySli, Sli, blind_of, missed, sums_by
from alerts.state import NoData, Observation
from alerts.text import number, subject
from base.durations import PositiveDuration  # noqa: TC001 pydantic reads it at run time
from base.formats import spell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alerts.measure.measured import Measured
    from alerts.rules.blind import Blind
    from alerts.rules.scope import Scope


class When(Condition):
    """Share of bad requests among those that finished in `window`, above a ratio; no traffic is no fault."""

    silence: ClassVar[NoData] = "ok"
    kind: Literal["share"]
    sli: Sli = AvailabilitySli()
    above: ShareOrNone
    window: PositiveDuration = 30.0
    min_requests: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 20
    by: tuple[Literal[DIMENSIONS], ...] = ("deployment",)  # type: ignore[valid-type]

    def needs(self, scope: Scope) -> Needs:
        """Counts in its window."""
        dimensions = frozenset((*scope.dimensions(), *self.by))
        return Needs((self.sli.measure(),), (self.window,), dimensions, replays=scope.replays)

    def identity(self) -> tuple[str, ...]:
        """What it is judged by."""
        return tuple(self.by)

    def judge(self, scope: Scope, measured: Measured, now: float) -> list[Reading]:
        """A reading for each set of labels that had requests."""
        readings = []
        sums = sums_by(measured.counts.get(self.window, ()), self.sli.measure(), scope, self.by)
        for key, counted in sorted(sums.items()):
            labels = dict(zip(self.by, key, strict=True))
            share = counted.bad / counted.total if counted.total else 0.0
            breached = share > self.above and counted.total >= self.min_requests
            reason = (
                f"{missed(self.sli, counted, subject({**scope.fixed(), **labels}))}: {number(counted.bad)} of "
                f"{number(counted.total)} in {spell(self.window)}, limit {number(self.above, 'ratio')}"
            )
            seen, told = Observation(breached, now, share), counted.total > 0
            near = not breached and share > self.above / 2
            fixed = scope.fixed()
            readings.append(Reading(labels, seen, reason, self.above, self.window, fixed, data=told, near=near))
        return readings

    def blind(self, scope: Scope, held: float) -> Iterator[Blind]:  # noqa: ARG002 the share's span is its window
        """Indicators that count nothing, windows that hold nothing."""
        yield from blind_of(self.sli, ("when", "sli"), scope, self.by, ("when", "by"))
        yield from blind.spans((("when", "window"), self.window))
        yield from blind.weight(("when", "min_requests"), self.min_requests, self.window)
