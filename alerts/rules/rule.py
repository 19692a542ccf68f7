"""One rule as the loop runs it: what it asks for, how it judges, how long it is patient and whom its alerts concern."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

from pydantic import field_validator

from alerts.rules.scope import Scope, Strict
from base.durations import Duration  # noqa: TC001 pydantic reads it at run time

if TYPE_CHECKING:
    from alerts.measure.measured import Measured
    from alerts.measure.needs import Needs
    from alerts.rules.reading import Reading
    from alerts.state import Timing

Severity = Literal["critical", "error", "warning", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "error", "critical")
"""Ascending; the words are PagerDuty's."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Judge(Protocol):
    """What makes a rule: what it must know, what it sees in it, and which labels tell its alerts apart."""

    def needs(self, scope: Scope) -> Needs:
        """What it must know of what lies in a scope."""
        ...

    def identity(self) -> tuple[str, ...]:
        """Labels that tell its alerts apart."""
        ...

    def judge(self, scope: Scope, measured: Measured, now: float) -> list[Reading]:
        """What it sees of each set of labels; pure."""
        ...


@dataclass(frozen=True, slots=True)
class About:
    """What is said of a rule's alerts.

    Attributes:
        name: Of the rule.
        severity: Of its alerts.
        runbook: Path or URL, may be empty.
        timing: Its patience.
    """

    name: str
    severity: Severity
    runbook: str
    timing: Timing


@dataclass(frozen=True, slots=True)
class Rule(About):
    """A rule of the file, or one that an objective generates.

    Attributes:
        filter: What it looks at.
        when: Its condition.
    """

    filter: Scope
    when: Judge

    def needs(self) -> Needs:
        """What it must know."""
        return self.when.needs(self.filter)

    def judge(self, measured: Measured, now: float) -> list[Reading]:
        """All its readings.

        Args:
            measured: What the round knows.
            now: Unix seconds.
        """
        return self.when.judge(self.filter, measured, now)


class Named(Strict):
    """What every entry of the file says."""

    name: str
    description: str = ""
    filter: Scope = Scope()
    runbook: str = ""
    keep_firing_for: Duration = 15.0

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("use lower-case letters, digits, dots, dashes and underscores, at most 63")
        return name
