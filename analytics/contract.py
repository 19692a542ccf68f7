"""What servers must tell and do not: the one statement about it, for pages, commands and rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from analytics.values import moment
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

SQL: Final = beside(__file__)
"""``breaches`` takes ``broken_from_ms``, ``to_ms``, ``most`` and the fragment ``filter:events``."""
BACK_SECONDS: Final = 30 * 86_400
"""How far back what stands broken is looked for."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One thing that a server must tell and does not, as its agent last said.

    Attributes:
        instance, deployment, engine, version: Whose page.
        recording: Recording that it comes from, empty when live.
        kind: A `base.vocabulary.Breach`, or another word of another agent.
        what: The signal, family or source.
        since: When that was told.
        message: As it was told.
        known: Whether the agent that said so still watches: what it told before it was started again may be over.
    """

    instance: str
    deployment: str
    engine: str
    version: str
    recording: str
    kind: str
    what: str
    since: datetime
    message: str
    known: bool


def standing(row: Mapping[str, Any]) -> Standing:
    """A row of ``breaches``."""
    return Standing(
        instance=str(row["instance"]),
        deployment=str(row["deployment"]),
        engine=str(row["engine"]),
        version=str(row["version"]),
        recording=str(row["recorded"]),
        kind=str(row["kind"]),
        what=str(row["what"]),
        since=moment(row["since_ms"]),
        message=str(row["message"]),
        known=bool(row["known"]),
    )
