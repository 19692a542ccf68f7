"""Turns what alerts and people did into one transaction: incidents, timeline, messages and their mirror rows."""

from __future__ import annotations

import hashlib
import secrets
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import structlog

from alerts.deliver.message import Message
from alerts.deliver.outbox import SECTION as OUTBOX
from alerts.deliver.outbox import Entry, Outbox, entry_changes, moment_row
from alerts.deliver.route import Route, receivers
from alerts.incidents.incident import (
    TITLE_LIMIT,
    Action,
    Alert,
    Change,
    Incident,
    IncidentState,
    Moment,
    acknowledge,
    clear,
    fire,
    rank,
)
from alerts.state import AlertState, Phase
from alerts.text import plain, subject, within
from base.formats import spell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from alerts.journal import Journal, Row

log = structlog.get_logger()

RUNBOOKS: Final = "docs/runbooks"
"""Folder of the pages that causes name."""
KEPT_SECONDS: Final = 86_400.0
KEPT_RESOLVED: Final = 500
"""Resolved incidents that the journal keeps; all of them are in the store."""


def new_incident_id() -> str:
    """An id that sorts by time: ``20261124-231746-9f3a1c``."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


@dataclass(slots=True)
class Draft:
    """One round's transaction while it grows."""

    now: float
    alerts: dict[str, Any] = field(default_factory=dict)
    incidents: dict[str, Incident] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)
    acks: dict[str, float] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    actions: dict[str, list[Action]] = field(default_factory=dict)
    evidence: dict[str, bool] = field(default_factory=dict)
    why: dict[str, int] = field(default_factory=dict)
    recorded: dict[str, str] = field(default_factory=dict)


class Register:
    """All incidents that are not over, and how changes to them are written.

    Args:
        journal: Where everything lives.
        outbox: Where messages go.
        routes: Who hears of what.
        dashboard_url: Asked for the base of the link to an incident's page.
        runbook_url: Prefix of relative runbook paths.
        new_id: Makes incident ids.

    Attributes:
        why: Asked for what is known already of why an incident's requests are slow; answers from memory, at once.
        guard: Held while a draft is filled and committed; never while the store is asked.
    """

    def __init__(
        self,
        journal: Journal,
        outbox: Outbox,
        *,
        routes: Sequence[Route] = (),
        dashboard_url: Callable[[], str] = lambda: "",
        runbook_url: str = "",
        new_id: Callable[[], str] = new_incident_id,
    ) -> None:
        self._journal, self._outbox, self._routes, self._new_id = journal, outbox, routes, new_id
        self._dashboard_url, self._runbook_url = dashboard_url, runbook_url
        self.guard = threading.RLock()
        self.why: Callable[[Incident, float], Mapping[str, Any] | None] = lambda _incident, _now: None
        self.reload()

    def reload(self) -> None:
        """Read the incidents from the journal."""
        found = (Incident.from_dict(stored) for stored in self._journal.section("incidents").values())
        self._open = {one.id: one for one in found if one.state is not IncidentState.RESOLVED}

    @staticmethod
    def draft(now: float) -> Draft:
        """A transaction to fill and commit, both under `guard`."""
        return Draft(now)

    @property
    def open(self) -> list[Incident]:
        """Incidents that are not resolved, oldest first."""
        with self.guard:
            return sorted(self._open.values(), key=lambda one: one.id)

    def opened_since(self, when: float) -> list[Incident]:
        """Incidents that opened at this time (Unix seconds) or later, those that are over among them, oldest first."""
        with self.guard:
            stored = [one for one in self._journal.section("incidents").values() if one["opened_at"] >= when]
        return sorted(map(Incident.from_dict, stored), key=lambda one: one.id)

    def current(self, draft: Draft) -> list[Incident]:
        """Incidents that are not resolved, as the draft has them."""
        merged = {**self._open, **draft.incidents}
        return [one for one in merged.values() if one.state is not IncidentState.RESOLVED]

    def transition(self, draft: Draft, alert: Alert, state: AlertState, entered: Phase, reason: str) -> None:
        """An alert changed its phase: note it, and let its incident know."""
        identifier = ""
        if entered is Phase.FIRING:
            identifier = self._take(draft, fire(self.current(draft), alert, draft.now, self._new_id))
        elif entered is Phase.RESOLVED:
            for incident in self.current(draft):
                member = incident.alerts.get(alert.key)
                if member is not None and member.resolved_at is None:
                    # two, where one was paged before the store could tell of the other
                    identifier = self._take(draft, clear(incident, alert.key, draft.now, reason))
        keep = entered is not Phase.RESOLVED
        draft.alerts[alert.key] = stored_alert(alert.rule, alert.labels, alert.context, state) if keep else None
        row = {
            "time": draft.now,
            "rule": alert.rule,
            "alert_key": hashlib.sha256(alert.key.encode()).hexdigest()[:32],
            "labels": {name: plain(value) for name, value in alert.place.items()},
            "state": entered.value,
            "value": alert.value,
            "threshold": alert.threshold,
            "reason": plain(alert.reason if keep else reason, 1000),
            "incident_id": identifier,
        }
        draft.rows.append(("alert_transitions", row))

    def acknowledge(self, draft: Draft, incident_id: str, who: str, note: str) -> None:
        """A person took an incident; unknown and resolved ones are left alone."""
        for incident in self.current(draft):
            if incident.id == incident_id:
                self._take(draft, acknowledge(incident, who, note, draft.now))

    def _take(self, draft: Draft, change: Change) -> str:
        incident = change.incident
        draft.incidents[incident.id] = incident
        draft.moments += change.moments
        if change.action is not None:
            actions = draft.actions.setdefault(incident.id, [])
            if change.action not in actions:
                actions.append(change.action)
        return incident.id

    def commit(self, draft: Draft) -> None:
        """Write the draft whole, then wake the senders.

        Raises:
            OSError: The disk is full or gone; nothing of the draft happened then.
        """
        entries: list[Entry] = []
        for identifier, actions in draft.actions.items():
            incident = draft.incidents[identifier]
            for action in actions:
                for key in incident.keys[-1:] if action == "trigger" else incident.keys:
                    message = self.message(incident, action, draft.now, key)
                    entries += self._outbox.queue(message, self._names(incident, action, key, entries))
        values, rows = entry_changes(entries)
        draft.rows += [incident_row(one) for one in draft.incidents.values()]
        draft.rows += [moment_row(one) for one in draft.moments]
        draft.rows += rows
        changes = {
            "alerts": draft.alerts,
            "incidents": {one.id: one.as_dict() for one in draft.incidents.values()},
            "seen": draft.seen,
            "acks": draft.acks,
            "evidence": draft.evidence,
            "why": draft.why,
            "recorded": draft.recorded,
            OUTBOX: values,
        }
        self._journal.write(changes, draft.rows)
        for one in draft.incidents.values():
            self._open[one.id] = one
            if one.state is IncidentState.RESOLVED:
                del self._open[one.id]
        if entries:
            self._outbox.wake()

    def _names(self, incident: Incident, action: Action, key: str, entries: Sequence[Entry]) -> tuple[str, ...]:
        """Who is told: of a trigger whom the routes name, of the rest whom a trigger with this key was sent to."""
        if action == "trigger":
            return receivers(incident, self._routes, self._outbox.names)
        told = self._outbox.told(key) | {e.notifier for e in entries if e.dedup_key == key and e.action == "trigger"}
        return tuple(name for name in self._outbox.names if name in told)

    def message(self, incident: Incident, action: Action, now: float, key: str) -> Message:
        """The message about an incident as it is now; a further page is about what is new in it."""
        alerts = incident.firing or sorted(incident.alerts.values(), key=lambda a: a.fired_at)
        further = action == "trigger" and incident.pages > 1
        fresh = [one for one in alerts if one.fired_at == now] if further else []
        lead = max(fresh or alerts, key=lambda a: (rank(a.severity), -a.fired_at))
        runbooks = dict.fromkeys(a.runbook for a in alerts if a.runbook)
        links = [("Incident in Servescope", f"{self._dashboard_url().rstrip('/')}/incidents?id={incident.id}")]
        links += [(f"Runbook: {book.rsplit('/', 1)[-1]}", self._runbook_link(book)) for book in runbooks]
        details: dict[str, Any] = {
            "summary": incident.summary,
            "rule": lead.rule,
            "value": round(lead.value, 6),
            "threshold": lead.threshold,
            "window": spell(lead.window_seconds) if lead.window_seconds else "now",
            "alerts": [
                {"rule": a.rule, "labels": {n: plain(v) for n, v in a.labels.items()}, "reason": a.reason}
                for a in alerts[:20]
            ],
            "labels": incident.labels,
            "incident": incident.id,
            "runbook": ", ".join(runbooks),
        }
        if action == "trigger" and (known := self._known_why(incident, now)):
            details["why"] = known
            books = (f"{RUNBOOKS}/{cause['runbook']}" for cause in known["causes"][:1])
            links += [
                (f"Runbook: {book.rsplit('/', 1)[-1]}", self._runbook_link(book))
                for book in books
                if book not in runbooks
            ]
        first = plain(lead.reason, TITLE_LIMIT) if fresh else incident.title
        title = first if len(alerts) == 1 else within(f"{first} (+{len(alerts) - 1} more)", 1024)
        return Message(
            action=action,
            incident_id=incident.id,
            dedup_key=key,
            at=now,
            severity=lead.severity if fresh else incident.severity,
            title=title,
            source=subject(lead.place),
            group=plain(lead.place.get("deployment", "")),
            kind=lead.rule,
            details=details,
            links=tuple(links),
        )

    def _known_why(self, incident: Incident, now: float) -> dict[str, Any]:
        """What is known of the causes; nothing that goes wrong with it may keep a page from going out."""
        try:
            return dict(self.why(incident, now) or {})
        except Exception:
            log.exception("page_without_causes", incident=incident.id)
            return {}

    def _runbook_link(self, runbook: str) -> str:
        return runbook if "://" in runbook or not self._runbook_url else f"{self._runbook_url.rstrip('/')}/{runbook}"

    def prune(self, now: float) -> None:
        """Forget resolved incidents that are old, or too many, and whose messages all reached their end."""
        stored = self._journal.section("incidents")
        over = sorted((v["resolved_at"], key) for key, v in stored.items() if v["state"] == IncidentState.RESOLVED)
        surplus = {key for _, key in over[: max(0, len(over) - KEPT_RESOLVED)]}
        entries = self._outbox.entries()
        busy = {entry.incident_id for entry in entries if not entry.final}
        gone = {key for at, key in over if (now - at > KEPT_SECONDS or key in surplus) and key not in busy}
        if gone:
            self._journal.write(
                {
                    "incidents": dict.fromkeys(gone),
                    "seen": dict.fromkeys(gone),
                    "acks": dict.fromkeys(gone),
                    "evidence": dict.fromkeys(gone),
                    "why": dict.fromkeys(gone),
                    "recorded": dict.fromkeys(gone),
                    OUTBOX: {entry.id: None for entry in entries if entry.incident_id in gone},
                }
            )


def stored_alert(rule: str, labels: Mapping[str, str], context: Mapping[str, str], state: AlertState) -> dict[str, Any]:
    """An alert as the journal keeps it."""
    return {"rule": rule, "labels": dict(labels), "context": dict(context), "state": state.as_dict()}


def incident_row(incident: Incident) -> Row:
    """An incident's row of the table ``incidents``; times stay Unix seconds."""
    names = (
        "id",
        "opened_at",
        "updated_at",
        "resolved_at",
        "title",
        "summary",
        "labels",
        "owner",
        "version",
        "severity",
    )
    return "incidents", {**{name: getattr(incident, name) for name in names}, "state": incident.state.value}
