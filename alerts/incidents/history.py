"""Incidents as dashboard and command line see them: lists, one with its timeline, counts.

Every function takes a store (``collector.store.client.Store``) and returns frozen dataclasses; ``as_plain`` of
``analytics.window`` makes JSON of them. All raise ``StoreError`` or ``StoreUnavailable``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alerts.deliver.receiver import read_pages
from alerts.text import plain
from base.errors import ServescopeError
from base.named_sql import statements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from alerts.history_writer import Sink
    from alerts.measure.rows import Rows

_SQL: Final = Path(__file__).with_name("history.sql")
CAUSES: Final = "causes"
"""Kind of the timeline's entry that tells the causes."""
RECORDED: Final = "recording_kept"
"""Kind of the entry that names the recording of the time around the opening."""


class UnknownIncidentError(ServescopeError):
    """No incident has this id."""


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """An incident in a list.

    Attributes:
        id: Its id.
        opened_at, updated_at, resolved_at: Aware UTC; `resolved_at` is None while it lasts.
        state: open, acknowledged or resolved.
        severity: critical, error, warning or info.
        title: One sentence with the reason.
        summary: All reasons.
        labels: What its alerts have in common.
        owner: Who acknowledged it, empty when nobody did.
        seconds: How long it has lasted or did last.
    """

    id: str
    opened_at: datetime
    updated_at: datetime
    resolved_at: datetime | None
    state: str
    severity: str
    title: str
    summary: str
    labels: dict[str, str]
    owner: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One entry of a timeline; `kind` is opened, alert_firing, notification_sent, deploy and the like."""

    time: datetime
    kind: str
    message: str
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class AlertRow:
    """An alert's newest phase, or one of its transitions."""

    rule: str
    labels: dict[str, str]
    state: str
    since: datetime
    value: float
    threshold: float
    reason: str
    incident_id: str


@dataclass(frozen=True, slots=True)
class NotificationRow:
    """One message about an incident; `payload` as it was sent, without credentials."""

    id: str
    time: datetime
    notifier: str
    action: str
    dedup_key: str
    status: str
    attempts: int
    last_error: str
    destination: str
    payload: dict[str, Any]
    sent_at: datetime | None


@dataclass(frozen=True, slots=True)
class IncidentStory:
    """Everything about one incident.

    Attributes:
        incident: Its row.
        timeline: Oldest first.
        alerts: Transitions of its alerts, oldest first.
        notifications: Messages about it, oldest first.
        evidence: Numbers frozen when it opened (see ``alerts.incidents.evidence.freeze``); empty when there are none.
        why: The causes of its slow requests (see ``alerts.incidents.account.explain``); empty while nobody knows.
    """

    incident: IncidentRow
    timeline: list[TimelineEntry]
    alerts: list[AlertRow]
    notifications: list[NotificationRow]
    evidence: dict[str, Any] = field(default_factory=dict)
    why: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenCounts:
    """Incidents that last: nobody has them, somebody has, and how many are critical."""

    open: int
    acknowledged: int
    critical: int


def incidents(
    store: Rows, start: datetime, end: datetime, *, states: Sequence[str] = (), limit: int = 200
) -> list[IncidentRow]:
    """Incidents that lasted at some time of a window, newest first.

    Args:
        store: Where to read.
        start: Aware time.
        end: Aware time.
        states: open, acknowledged, resolved; empty: all.
        limit: At most so many.
    """
    parameters = {"from": _ms(start), "to": _ms(end), "states": list(states), "limit": limit}
    return [_incident(row) for row in store.rows(statements(_SQL)["incidents"], parameters)]


def story(store: Rows, incident_id: str) -> IncidentStory:
    """One incident with its timeline, alerts, messages and evidence.

    Raises:
        UnknownIncidentError: No incident has this id.
    """
    parameters = {"id": incident_id}
    found = store.rows(statements(_SQL)["incident"], parameters)
    if not found:
        raise UnknownIncidentError(
            f"No incident has the id {plain(incident_id)}", "`servescope incidents list` shows those there are"
        )
    timeline = [
        TimelineEntry(row["time"], str(row["kind"]), str(row["message"]), dict(row["attributes"]))
        for row in store.rows(statements(_SQL)["timeline"], parameters)
    ]
    alerts = [
        _alert({**row, "since": row["time"], "incident_id": incident_id})
        for row in store.rows(statements(_SQL)["transitions"], parameters)
    ]
    messages = [_notification(row) for row in store.rows(statements(_SQL)["notifications"], parameters)]
    frozen = next((entry.attributes.get("json", "") for entry in timeline if entry.kind == "evidence"), "")
    told = [entry.attributes.get("json", "") for entry in timeline if entry.kind == CAUSES]
    shown = [
        replace(entry, attributes={}) if entry.kind == CAUSES else entry
        for entry in timeline
        if entry.kind not in {"evidence", "acknowledge_asked"}
    ]
    shown.sort(key=lambda entry: (entry.time, entry.kind == "resolved"))  # after the last alert's end, of one instant
    why = next((text for text in reversed(told) if text), "")
    return IncidentStory(
        _incident(found[0]),
        shown,
        alerts,
        messages,
        json.loads(frozen) if frozen else {},
        json.loads(why) if why else {},
    )


def open_counts(store: Rows) -> OpenCounts:
    """How many incidents last."""
    row = store.rows(statements(_SQL)["counts"])[0]
    return OpenCounts(int(row["open"]), int(row["acknowledged"]), int(row["critical"]))


def active_alerts(store: Rows) -> list[AlertRow]:
    """Alerts that are pending or firing, firing ones first."""
    return [_alert(row) for row in store.rows(statements(_SQL)["active_alerts"])]


def undelivered(store: Rows, since: datetime) -> list[dict[str, Any]]:
    """Messages that failed and will be tried again (``failed``) and dead letters (``dead``), newest first.

    Returns:
        ``{"id", "time", "incident_id", "notifier", "action", "status", "attempts", "last_error", "destination"}``.
    """
    return store.rows(statements(_SQL)["undelivered"], {"from": _ms(since)})


def acknowledge(store: Sink, incident_id: str, who: str, note: str = "", at: datetime | None = None) -> None:
    """Take an incident. The pager notes it within a round, tells PagerDuty and names the owner.

    Args:
        store: Opened as owner, for it writes.
        incident_id: The incident.
        who: Name of the person.
        note: What they know already.
        at: Aware time; now by default.
    """
    row = {
        "time": at or datetime.now(UTC),
        "incident_id": incident_id,
        "kind": "acknowledge_asked",
        "message": f"{plain(who)} takes it",
        "attributes": {"who": plain(who), "note": plain(note, 1000)},
    }
    store.insert("incident_events", [row])


def pages(data: Path) -> list[dict[str, Any]]:
    """Pages that the built-in receiver of a data folder got, newest first.

    Returns:
        ``{"at": Unix seconds, "action", "dedup_key", "event": the event as PagerDuty would get it, without its key}``.
    """
    return list(reversed(read_pages(data / "alerts" / "pages.json")))


def _incident(row: Mapping[str, Any]) -> IncidentRow:
    until = row["resolved_at"] or datetime.now(UTC)
    return IncidentRow(
        str(row["id"]),
        row["opened_at"],
        row["updated_at"],
        row["resolved_at"],
        str(row["state"]),
        str(row["severity"]),
        str(row["title"]),
        str(row["summary"]),
        dict(row["labels"]),
        str(row["owner"]),
        max(0.0, (until - row["opened_at"]).total_seconds()),
    )


def _alert(row: Mapping[str, Any]) -> AlertRow:
    value = float(row["value"])
    return AlertRow(
        str(row["rule"]),
        dict(row["labels"]),
        str(row["state"]),
        row["since"],
        value if math.isfinite(value) else 0.0,
        float(row["threshold"]),
        str(row["reason"]),
        str(row["incident_id"]),
    )


def _notification(row: Mapping[str, Any]) -> NotificationRow:
    return NotificationRow(
        str(row["id"]),
        row["time"],
        str(row["notifier"]),
        str(row["action"]),
        str(row["dedup_key"]),
        str(row["status"]),
        int(row["attempts"]),
        str(row["last_error"]),
        str(row["destination"]),
        json.loads(row["payload"]) if row["payload"] else {},
        row["sent_at"],
    )


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
