"""Incidents: alerts that belong together, a page for each new place, a timeline. Pure: ids and the clock are arguments.

Two alerts belong together when no place contradicts (deployment, region, component) and they share a deployment, an
instance or a model; alerts that name none of these belong together when they name the same. An alert joins an incident
that changed a short while ago, and joins it silently only when its pages name its place already and it is no graver.
Otherwise it pages: in an open incident under a further key, and as an incident of its own where somebody has taken the
one that is there. An incident is over when every alert of it has resolved.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal

from alerts.rules.rule import SEVERITIES, Severity
from alerts.text import plain, within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

TITLE_LIMIT: Final = 300
MEMBERS_LIMIT: Final = 200
"""Alerts of one incident; when so many fire at once, further ones open another."""

GROUP_SECONDS: Final = 1800.0
"""An incident that has not changed for so long takes nothing new: what fires then is news."""

_CONTRADICT: Final = ("component", "region", "deployment")
_SHARED: Final = ("component", "deployment", "instance", "model")
_PLACES: Final = (*_SHARED, "region", "tenant")


class IncidentState(StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Alert:
    """A firing alert as an incident sees it.

    Attributes:
        rule: Name of its rule.
        labels: Its identity beside the rule.
        context: Labels that place it (deployment, engine, region).
        severity: Of its rule.
        reason: Plain English with the numbers.
        value, threshold, window_seconds: The numbers.
        runbook: Path or URL, may be empty.
        fired_at: Unix seconds.
        resolved_at: Unix seconds, None while it fires.
    """

    rule: str
    labels: dict[str, str]
    context: dict[str, str]
    severity: Severity
    reason: str
    value: float
    threshold: float
    window_seconds: float
    runbook: str
    fired_at: float
    resolved_at: float | None = None

    @property
    def key(self) -> str:
        """Rule and labels as one text."""
        return alert_key(self.rule, self.labels)

    @property
    def place(self) -> dict[str, str]:
        """All labels."""
        return {**self.context, **self.labels}


@dataclass(frozen=True, slots=True)
class Incident:
    """Alerts that belong together.

    Attributes:
        id: Sortable by time, unique.
        opened_at, updated_at, resolved_at: Unix seconds; `resolved_at` is None until then.
        state: open, acknowledged or resolved.
        severity: The highest that any of its alerts had.
        title: The first alert's reason.
        summary: All reasons, for the page and the list.
        labels: What its alerts have in common.
        owner: Who acknowledged it.
        version: Grows with every change.
        alerts: By key.
        pages: How many times it paged, each under a key of its own.
        paged_at: When it did last, Unix seconds.
    """

    id: str
    opened_at: float
    updated_at: float
    resolved_at: float | None
    state: IncidentState
    severity: Severity
    title: str
    summary: str
    labels: dict[str, str]
    owner: str
    version: int
    alerts: dict[str, Alert] = field(default_factory=dict)
    pages: int = 1
    paged_at: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Incident:
        """The incident that :meth:`as_dict` wrote."""
        values = dict(stored)
        values["state"] = IncidentState(values["state"])
        values["alerts"] = {key: Alert(**alert) for key, alert in values["alerts"].items()}
        return cls(**values)

    @property
    def keys(self) -> list[str]:
        """The ``dedup_key`` of each of its pages, the newest last."""
        return [f"servescope-{self.id}" + (f"-{number}" if number > 1 else "") for number in range(1, self.pages + 1)]

    @property
    def firing(self) -> list[Alert]:
        """Alerts that still fire, oldest first."""
        return sorted((a for a in self.alerts.values() if a.resolved_at is None), key=lambda a: (a.fired_at, a.key))


@dataclass(frozen=True, slots=True)
class Moment:
    """One entry of an incident's timeline."""

    at: float
    incident_id: str
    kind: str
    message: str
    attributes: dict[str, str] = field(default_factory=dict)


Action = Literal["trigger", "acknowledge", "resolve"]


@dataclass(frozen=True, slots=True)
class Change:
    """What one alert or one person did to an incident.

    Attributes:
        incident: As it is now.
        moments: New entries of the timeline.
        action: What a pager should be told, None for nothing.
        opened: The incident is new.
    """

    incident: Incident
    moments: tuple[Moment, ...] = ()
    action: Action | None = None
    opened: bool = False


def alert_key(rule: str, labels: Mapping[str, str]) -> str:
    """Rule and labels as one text, the same for the same labels in any order."""
    return "\x1f".join([rule, *(f"{name}={labels[name]}" for name in sorted(labels))])


def rank(severity: str) -> int:
    """Severities as ascending numbers."""
    return SEVERITIES.index(severity)


def related(incident: Incident, alert: Alert) -> bool:
    """Whether an alert belongs to an incident: it contradicts no alert that fires and is near to one of all."""
    place = _place(alert)
    members = [_place(member) for member in incident.alerts.values()]
    firing = [_place(member) for member in incident.firing]
    return not any(_contradicts(one, place) for one in firing) and any(_near(one, place) for one in members)


def _place(alert: Alert) -> dict[str, str]:
    return {name: value for name in _PLACES if (value := alert.place.get(name))}


def _contradicts(left: Mapping[str, str], right: Mapping[str, str]) -> bool:
    apart = left.get("component") != right.get("component")
    return apart or any(left.get(n, right.get(n)) != right.get(n, left.get(n)) for n in _CONTRADICT)


def _near(left: Mapping[str, str], right: Mapping[str, str]) -> bool:
    if _contradicts(left, right):
        return False
    if not any(name in left for name in _SHARED) or not any(name in right for name in _SHARED):
        return dict(left) == dict(right)
    return any(name in left and left[name] == right.get(name) for name in _SHARED)


def _told(incident: Incident, alert: Alert) -> bool:
    """Whether the pages of an incident name all places of an alert and none of it is graver than they said."""
    named = {pair for member in incident.alerts.values() for pair in _place(member).items()}
    return rank(alert.severity) <= rank(incident.severity) and set(_place(alert).items()) <= named


def _host(incidents: Iterable[Incident], alert: Alert, now: float) -> Incident | None:
    """The incident that an alert joins: one that told of it before one that nobody has taken, the newest of these."""
    recent = [
        one for one in incidents if one.state is not IncidentState.RESOLVED and now - one.updated_at <= GROUP_SECONDS
    ]
    known = [one for one in recent if alert.key in one.alerts]
    near = known or [one for one in recent if len(one.firing) < MEMBERS_LIMIT and related(one, alert)]
    fit = [one for one in near if _told(one, alert)] or [one for one in near if one.state is IncidentState.OPEN]
    return max(fit, key=lambda one: (one.opened_at, one.id), default=None)


def fire(incidents: Iterable[Incident], alert: Alert, now: float, new_id: Callable[[], str]) -> Change:
    """An alert began to fire: it joins an incident or opens one.

    Args:
        incidents: All that are not resolved.
        alert: The alert.
        now: Unix seconds; the same for all alerts of one round, whose pages become one.
        new_id: Makes the id of a new incident.
    """
    old = _host(incidents, alert, now)
    message = plain(alert.reason, TITLE_LIMIT)
    attributes = {"rule": alert.rule, "severity": alert.severity, **_named(alert)}
    if old is None:
        identifier = new_id()
        incident = Incident(
            identifier,
            now,
            now,
            None,
            IncidentState.OPEN,
            alert.severity,
            message,
            message,
            _named(alert),
            "",
            1,
            {alert.key: alert},
            1,
            now,
        )
        moments: tuple[Moment, ...] = (
            Moment(now, identifier, "opened", message, {"severity": alert.severity}),
            Moment(now, identifier, "alert_firing", message, attributes),
        )
        return Change(incident, moments, "trigger", opened=True)
    news = not _told(old, alert)
    alerts = {**old.alerts, alert.key: alert}
    if len(alerts) > MEMBERS_LIMIT:
        alerts = {key: one for key, one in alerts.items() if one.resolved_at is None}
    raised = rank(alert.severity) > rank(old.severity)
    incident = replace(
        old,
        updated_at=now,
        severity=alert.severity if raised else old.severity,
        summary=_summary(alerts.values()),
        labels=_common(alerts.values()),
        version=old.version + 1,
        alerts=alerts,
        pages=old.pages + (news and old.paged_at != now),
        paged_at=now if news else old.paged_at,
    )
    moments = (Moment(now, old.id, "alert_firing", message, attributes),)
    if raised:
        said = f"severity rose from {old.severity} to {alert.severity}"
        moments += (Moment(now, old.id, "severity_raised", said, {"severity": alert.severity}),)
    return Change(incident, moments, "trigger" if news else None)


def clear(incident: Incident, key: str, now: float, reason: str) -> Change:
    """An alert of this incident resolved; the incident does when it was the last."""
    alert = incident.alerts[key]
    alerts = {**incident.alerts, key: replace(alert, resolved_at=now)}
    over = all(one.resolved_at is not None for one in alerts.values())
    changed = replace(
        incident,
        updated_at=now,
        resolved_at=now if over else None,
        state=IncidentState.RESOLVED if over else incident.state,
        version=incident.version + 1,
        alerts=alerts,
    )
    said = f"{alert.rule} resolved: {reason}"
    moments: tuple[Moment, ...] = (
        Moment(now, incident.id, "alert_resolved", said, {"rule": alert.rule, **_named(alert)}),
    )
    if not over:
        return Change(changed, moments)
    moments += (Moment(now, incident.id, "resolved", "every alert has resolved", {}),)
    return Change(changed, moments, "resolve")


def acknowledge(incident: Incident, who: str, note: str, now: float) -> Change:
    """A person took the incident. Acknowledging again changes the owner and pages nobody."""
    who, note = plain(who), plain(note, 1000)
    first = incident.state is IncidentState.OPEN
    changed = replace(
        incident,
        updated_at=now,
        state=IncidentState.ACKNOWLEDGED if first else incident.state,
        owner=who,
        version=incident.version + 1,
    )
    said = f"acknowledged by {who}" + (f": {note}" if note else "")
    moment = Moment(now, incident.id, "acknowledged", said, {"who": who, "note": note})
    return Change(changed, (moment,), "acknowledge" if first else None)


def _named(alert: Alert) -> dict[str, str]:
    return {name: plain(value) for name, value in alert.place.items() if value}


def _common(alerts: Iterable[Alert]) -> dict[str, str]:
    places = [_named(alert) for alert in alerts]
    return {n: v for n, v in places[0].items() if all(place.get(n) == v for place in places)}


def _summary(alerts: Iterable[Alert]) -> str:
    ordered = sorted(alerts, key=lambda a: (-rank(a.severity), a.fired_at))
    return within("; ".join(plain(alert.reason, TITLE_LIMIT) for alert in ordered), 2000)
