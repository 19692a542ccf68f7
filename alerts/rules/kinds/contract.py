"""A server does not tell what its version must: families that are absent, renamed, frozen, or of another unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Literal

from pydantic import Field

from alerts.measure.needs import Needs
from alerts.measure.signals import OF_INSTANCES
from alerts.rules import blind
from alerts.rules.condition import Condition
from alerts.rules.reading import Reading, split
from alerts.state import NoData, Observation
from alerts.text import plain, subject
from analytics.contract import BACK_SECONDS
from base.vocabulary import NO_LOSS, Breach

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alerts.measure import measured
    from alerts.measure.measured import Measured
    from alerts.rules.blind import Blind
    from alerts.rules.scope import Scope

_FRESH_SECONDS: Final = 60.0
"""Of an instance that sends no sample for so long nobody knows what its page has."""
_NAMED: Final = 8
_WORDS: Final = {
    Breach.ABSENT: "absent",
    Breach.GONE: "gone or renamed",
    Breach.UNKNOWN: "unknown here",
    Breach.DOUBLED: "under two names",
    Breach.UNIT: "in another unit",
    Breach.FROZEN: "frozen",
    Breach.SILENT: "configured but silent",
}


class When(Condition):
    """What a server must tell stands broken: as its agent last said, and nobody told that it is mended."""

    silence: ClassVar[NoData] = "keep"
    kind: Literal["contract"]
    breaches: tuple[Breach, ...] = Field(default=tuple(one for one in Breach if one not in NO_LOSS), min_length=1)

    def needs(self, scope: Scope) -> Needs:
        """What stands broken, and which instances still send samples."""
        return Needs(remember=_FRESH_SECONDS, breaches=BACK_SECONDS, replays=scope.replays)

    def identity(self) -> tuple[str, ...]:
        """The instance: one page, one alert, however many families."""
        return ("instance",)

    def judge(self, scope: Scope, measured: Measured, now: float) -> list[Reading]:
        """A reading for each instance that sends samples and of which it is known."""
        readings = []
        for known, at in measured.last_seen:
            if not scope.holds(known) or now - at > _FRESH_SECONDS:
                continue
            labels, context = split(known, self.identity())
            told = [one for one in measured.breaches.get(labels["instance"], ()) if one.kind in self.breaches]
            broken = [one for one in told if one.known]
            if told and not broken:
                continue
            since = min((one.at for one in broken), default=None)
            seen = Observation(bool(broken), at, float(len(broken)), since)
            reason = f"{subject(labels)} does not tell what it must: {_list(broken)}"
            readings.append(Reading(labels, seen, reason, 0.0, 0.0, context))
        return readings

    def blind(self, scope: Scope, held: float) -> Iterator[Blind]:  # noqa: ARG002 any span may hold
        """Labels that an instance's page has not, engines of which nothing is promised."""
        yield from blind.labels(scope, OF_INSTANCES, "servers' pages")
        if set(self.breaches) == {Breach.ABSENT}:
            yield from blind.engines(scope, lambda table: bool(table.since), "contract by version")


def _list(broken: Sequence[measured.Breach]) -> str:
    named = [f"{plain(one.what)} ({_WORDS[Breach(one.kind)]})" for one in broken[:_NAMED]]
    more = len(broken) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
