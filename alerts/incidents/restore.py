"""A pager that lost its journal takes up from the store what it had paged, so that nobody is paged twice."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from alerts.deliver.outbox import SECTION as OUTBOX
from alerts.deliver.outbox import Entry
from alerts.incidents.incident import Alert, Incident, IncidentState
from alerts.journal import META, TAKEN_UP
from alerts.state import AlertState, Phase
from base.named_sql import statements

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alerts.journal import Journal
    from alerts.measure.rows import Rows

log = structlog.get_logger()
_SQL: Final = Path(__file__).with_name("restore.sql")


def restore(store: Rows, journal: Journal, identities: Mapping[str, tuple[str, ...]]) -> int:
    """Fill an empty journal with the open incidents of the store, their firing alerts and their messages.

    Args:
        store: Where to read.
        journal: An empty one.
        identities: By rule name, the labels that tell its alerts apart.

    Returns:
        How many incidents were taken up.

    Raises:
        ServescopeError: The store is away or refuses; nothing was written then.
    """
    alerts = store.rows(statements(_SQL)["alerts"])
    incidents = {str(row["id"]): row for row in store.rows(statements(_SQL)["incidents"])}
    messages = store.rows(statements(_SQL)["notifications"], {"incidents": list(incidents)})
    members: dict[str, dict[str, Alert]] = {identifier: {} for identifier in incidents}
    states: dict[str, Any] = {}
    for row in alerts:
        if row["last_state"] != Phase.FIRING.value or row["incident_id"] not in incidents:
            continue
        rule, place = str(row["rule"]), dict(row["labels"])
        labels = {name: place.get(name, "") for name in identities.get(rule, tuple(place))}
        context = {name: value for name, value in place.items() if name not in labels}
        incident = incidents[row["incident_id"]]
        at = row["at"] / 1000
        alert = Alert(
            rule, labels, context, incident["severity"], str(row["reason"]), row["value"], row["threshold"], 0.0, "", at
        )
        members[str(row["incident_id"])][alert.key] = alert
        state = AlertState(Phase.FIRING, at, at, at, at, float(row["value"]))
        states[alert.key] = {"rule": rule, "labels": labels, "context": context, "state": state.as_dict()}
    kept = {}
    for identifier, row in incidents.items():
        if not members[identifier]:
            continue
        kept[identifier] = Incident(
            identifier,
            row["opened"] / 1000,
            row["updated"] / 1000,
            None,
            IncidentState(row["state"]),
            row["severity"],
            str(row["title"]),
            str(row["summary"]),
            dict(row["labels"]),
            str(row["owner"]),
            int(row["version"]),
            members[identifier],
            max(1, len({m["dedup_key"] for m in messages if m["incident_id"] == identifier})),
            row["updated"] / 1000,
        ).as_dict()
    entries = [_entry(order, row) for order, row in enumerate(messages, 1) if row["incident_id"] in kept]
    taken = {"alerts": states, "incidents": kept, OUTBOX: {entry.id: asdict(entry) for entry in entries}}
    journal.write({**taken, META: {TAKEN_UP: True}})
    log.info("alerts_restored_from_store", incidents=len(kept), alerts=len(states), messages=len(entries))
    return len(kept)


def _entry(order: int, row: Mapping[str, Any]) -> Entry:
    return Entry(
        id=str(row["id"]),
        order=order,
        incident_id=str(row["incident_id"]),
        notifier=str(row["notifier"]),
        action=row["action"],
        dedup_key=str(row["dedup_key"]),
        destination=str(row["destination"]),
        payload=json.loads(row["payload"]),
        at=row["at"] / 1000,
        next_at=row["at"] / 1000,
        status=row["status"],
        attempts=int(row["attempts"]),
        last_error=str(row["last_error"]),
        sent_at=row["sent"] / 1000 if row["sent"] is not None else None,
        version=int(row["version"]),
    )
