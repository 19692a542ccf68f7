"""The rules file as a whole: objectives, thresholds beside them, and the plain rules they become.

One file holds ``slos`` (objectives that generate burn-rate rules) and ``rules`` (thresholds beside them). Pure: no
file, no clock, no store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from alerts.rules import blind
from alerts.rules.condition import OneOfItsKind  # noqa: TC001 pydantic reads it at run time
from alerts.rules.rule import Named, Rule, Severity
from alerts.rules.scope import Strict
from alerts.rules.slo import Slo  # noqa: TC001 pydantic reads it at run time
from alerts.state import NoData, Timing
from base.durations import Duration  # noqa: TC001 pydantic reads it at run time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alerts.rules.blind import Blind


class Threshold(Named):
    """A rule that compares a number with a bound.

    Attributes:
        when: The condition.
        for_: How long it must hold (``for`` in the file).
        severity: Of its alerts.
        no_data: What silence means: ``ok``, ``keep`` or ``alert``; by default what it means to the kind of condition.
    """

    when: OneOfItsKind
    for_: Annotated[Duration, Field(alias="for")] = 0.0
    severity: Severity = "critical"
    no_data: NoData | None = None

    def rule(self) -> Rule:
        """The rule as the loop runs it."""
        patience = Timing(max(self.for_, self.when.patience), self.keep_firing_for, self.no_data or self.when.silence)
        return Rule(self.name, self.severity, self.runbook, patience, self.filter, self.when)

    def blind(self) -> Iterator[Blind]:
        """Fields for which it can never page, or always does."""
        yield from blind.longest((("for",), self.for_), (("keep_firing_for",), self.keep_firing_for))
        yield from self.when.blind(self.filter, self.for_)


class RulesFile(Strict):
    """The whole file."""

    version: Literal[1] = 1
    slos: tuple[Slo, ...] = ()
    rules: tuple[Threshold, ...] = ()

    def warnings(self) -> tuple[str, ...]:
        """Everything that is allowed and yet surely not meant."""
        nothing = (
            ()
            if self.slos or self.rules
            else ("no SLO and no rule: only an absent store and a tap that loses requests page",)
        )
        # What looks at servers' samples was refused for it. Rows may come from anybody, under any engine's name.
        strange = (
            f"{entry.name}: {'.'.join(map(str, where))}: {text}"
            for entry in (*self.slos, *self.rules)
            for where, text in blind.strangers(entry.filter)
        )
        return (*nothing, *(text for slo in self.slos for text in slo.warnings()), *strange)

    def blind(self) -> list[Blind]:
        """Every field that keeps a rule from ever firing, or from ever being over."""
        entries: list[tuple[str, int, Slo | Threshold]] = [
            *(("slos", index, slo) for index, slo in enumerate(self.slos)),
            *(("rules", index, rule) for index, rule in enumerate(self.rules)),
        ]
        return [((section, i, *where), text) for section, i, entry in entries for where, text in entry.blind()]


def all_rules(file: RulesFile) -> tuple[Rule, ...]:
    """Every rule of a file, thresholds first (they answer fastest)."""
    return (*(entry.rule() for entry in file.rules), *(rule for slo in file.slos for rule in slo.rules()))
