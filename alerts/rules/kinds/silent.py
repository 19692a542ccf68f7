"""No engine sample of a known instance for `after`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from alerts.measure.needs import Needs
from alerts.measure.signals import OF_INSTANCES
from alerts.rules import blind
from alerts.rules.condition import Condition
from alerts.rules.reading import Reading, split
from alerts.state import NoData, Observation
from alerts.text import subject
from base.durations import PositiveDuration  # noqa: TC001 pydantic reads it at run time
from base.formats import rounded, spell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alerts.measure.measured import Measured
    from alerts.rules.blind import Blind
    from alerts.rules.scope import Scope


class When(Condition):
    """No engine sample of a known instance for `after`; an instance unseen for `remember` is forgotten."""

    silence: ClassVar[NoData] = "ok"
    kind: Literal["silent"]
    after: PositiveDuration = 30.0
    remember: PositiveDuration = 3600.0

    def needs(self, scope: Scope) -> Needs:
        """When each instance was heard of."""
        return Needs(remember=self.remember, replays=scope.replays)

    def identity(self) -> tuple[str, ...]:
        """The instance; one that sends nothing shows no model."""
        return ("instance",)

    def judge(self, scope: Scope, measured: Measured, now: float) -> list[Reading]:
        """A reading for each instance that is remembered."""
        readings = []
        for known, at in measured.last_seen:
            if not scope.holds(known) or now - at > self.remember:
                continue
            labels, context = split(known, self.identity())
            age = max(0.0, now - at)
            reason = f"no sample of {subject(labels)} for {rounded(round(age))}, limit {spell(self.after)}"
            seen = Observation(age > self.after, now, age, now if age > self.after else None)
            readings.append(Reading(labels, seen, reason, self.after, self.after, context))
        return readings

    def blind(self, scope: Scope, held: float) -> Iterator[Blind]:
        """Labels that a silent instance has not, and instances forgotten before they are silent for long enough."""
        yield from blind.labels(scope, OF_INSTANCES, "instances that send nothing")
        yield from blind.spans((("when", "after"), self.after))
        if self.after + held >= self.remember:
            yield (
                ("when", "after"),
                (
                    f"an instance is forgotten after {spell(self.remember)}, before it has been silent for "
                    f"{spell(self.after + held)}: raise remember, or lower after or for"
                ),
            )
