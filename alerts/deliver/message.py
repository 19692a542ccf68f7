"""What a pager is told: one message about one incident."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alerts.incidents.incident import Action
    from alerts.rules.rule import Severity


@dataclass(frozen=True, slots=True)
class Message:
    """One message about one incident.

    Attributes:
        action: trigger, acknowledge or resolve.
        incident_id: The incident.
        dedup_key: The same for all messages about one incident.
        at: Unix seconds.
        severity: Of the incident.
        title: One sentence with the reason.
        source: What is affected.
        group: Deployment, may be empty.
        kind: Rule that opened the incident.
        details: Evidence: names and values, nested at will, JSON-ready.
        links: (text, URL) pairs; only http and https ones are sent as links.
    """

    action: Action
    incident_id: str
    dedup_key: str
    at: float
    severity: Severity
    title: str
    source: str
    group: str = ""
    kind: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    links: tuple[tuple[str, str], ...] = ()
