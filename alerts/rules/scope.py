"""Which requests or samples a rule looks at, and the strictness of everything that a rules file states.

Models refuse unknown fields, so that a misspelt one is an error and not a rule that never pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from alerts.measure.signals import DIMENSIONS
from analytics.patterns import is_pattern, matches

if TYPE_CHECKING:
    from collections.abc import Mapping


class Strict(BaseModel):
    """A part of the file: no field but its own, and nothing changes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _patterns(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_patterns)]


class Scope(Strict):
    """Which requests or samples a rule looks at. Each field is a pattern or a list of them (``*`` and ``?``)."""

    model: Patterns = ()
    tenant: Patterns = ()
    instance: Patterns = ()
    deployment: Patterns = ()
    engine: Patterns = ()
    region: Patterns = ()
    version: Patterns = ()
    recordings: Literal["exclude", "include"] = "exclude"

    @property
    def replays(self) -> bool:
        """Whether replayed rows count."""
        return self.recordings == "include"

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether what was measured lies inside; what was replayed does only where the scope says so."""
        return (self.replays or labels.get("replayed") != "1") and self.matches(labels)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels lie inside; a missing label is an empty one."""
        for name in DIMENSIONS:
            patterns: tuple[str, ...] = getattr(self, name)
            if patterns and not matches(labels.get(name, ""), patterns):
                return False
        return True

    def dimensions(self) -> tuple[str, ...]:
        """The labels that it narrows."""
        return tuple(name for name in DIMENSIONS if getattr(self, name))

    def fixed(self) -> dict[str, str]:
        """Labels that it pins to one exact value, which an alert of the whole scope may carry."""
        return {
            name: patterns[0]
            for name in DIMENSIONS
            if len(patterns := getattr(self, name)) == 1 and not is_pattern(patterns[0])
        }
