"""What a page does not wait for: acknowledgements, the numbers when an incident opened, what happened around it.

All of it is asked of the store, which may be slow or away just when something fails. A page says what is wrong and
where to look, and goes out at once; this follows in a thread of its own and lands in the incident's timeline.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import structlog

from alerts.incidents.evidence import AROUND_SECONDS, asked_acknowledgements, concerns, freeze, happenings
from alerts.incidents.incident import Incident, Moment
from alerts.text import plain
from base.errors import ServescopeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from alerts.config import AlertsConfig
    from alerts.incidents.register import Register
    from alerts.journal import Journal
    from alerts.measure.rows import Rows

log = structlog.get_logger()

MOMENTS_LIMIT: Final = 200
"""Events of the fleet that one incident's timeline takes."""
AT_ONCE: Final = 3
"""Incidents whose numbers one pass asks for, so that acknowledgements are looked at again soon."""
EVIDENCE_SECONDS: Final = 900.0
"""An incident older than this gets no numbers any more: they would not tell how it began."""
EVENTS_SECONDS: Final = 86_400.0


class Illustrator:
    """Fills open incidents with what the store knows.

    Args:
        store: Where to ask; slow answers hold up nobody else.
        journal: Remembers what was asked.
        register: Where incidents live.
        config: Settings.
        clock: Unix seconds.
        ready: Whether the store answers and is believed; without, a pass asks nothing.
    """

    def __init__(
        self,
        store: Rows,
        journal: Journal,
        register: Register,
        config: AlertsConfig,
        clock: Callable[[], float],
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self.store = store
        self._journal, self._register, self._config, self._clock, self._ready = journal, register, config, clock, ready

    def once(self) -> None:
        """One pass: acknowledgements, then numbers of what opened, then events. What can't be asked waits."""
        if not self._ready() or not self._register.open:
            return
        self._acknowledge()
        for incident in self._unnumbered()[:AT_ONCE]:
            self._number(incident)
        self._place_events()

    def _acknowledge(self) -> None:
        try:
            asked = asked_acknowledgements(self.store, [one.id for one in self._register.open])
        except ServescopeError as error:
            log.warning("acknowledgements_unreadable", error=error.what)
            return
        with self._register.guard:
            draft = self._register.draft(self._clock())
            known = self._journal.section("acks")
            for one in asked:
                if one["at"] > max(known.get(one["incident_id"], 0.0), draft.acks.get(one["incident_id"], 0.0)):
                    self._register.acknowledge(draft, one["incident_id"], one["who"], one["note"])
                    draft.acks[one["incident_id"]] = one["at"]
            self._register.commit(draft)

    def _unnumbered(self) -> list[Incident]:
        done, now = self._journal.section("evidence"), self._clock()
        return [one for one in self._register.open if one.id not in done and now - one.opened_at < EVIDENCE_SECONDS]

    def _number(self, incident: Incident) -> None:
        numbers = freeze(
            self.store,
            incident,
            incident.opened_at,
            ingest_delay_seconds=self._config.ingest_delay_seconds,
            longest_request_seconds=self._config.longest_request_seconds,
        )
        with self._register.guard:
            draft = self._register.draft(self._clock())
            said, text = "numbers of the last minute when it opened", json.dumps(numbers, default=str)
            draft.moments.append(Moment(incident.opened_at, incident.id, "evidence", said, {"json": text}))
            draft.evidence[incident.id] = True
            self._register.commit(draft)

    def _place_events(self) -> None:
        current = self._register.open
        if not current:
            return
        now = self._clock()
        oldest = min(one.opened_at for one in current) - AROUND_SECONDS
        try:
            events = happenings(self.store, max(oldest, now - EVENTS_SECONDS), now)
        except ServescopeError as error:
            log.warning("events_unreadable", error=error.what)
            return
        with self._register.guard:
            draft = self._register.draft(now)
            for incident in self._register.open:
                fresh, moments = self._fresh(incident, events)
                if fresh:
                    draft.moments += moments
                    draft.seen[incident.id] = [*(self._journal.get("seen", incident.id) or []), *fresh]
            self._register.commit(draft)

    def _fresh(self, incident: Incident, events: list[dict[str, Any]]) -> tuple[list[str], list[Moment]]:
        """Events that belong to an incident and that its timeline has not yet."""
        known: list[str] = self._journal.get("seen", incident.id) or []
        fresh: list[str] = []
        moments: list[Moment] = []
        for event in sorted(events, key=lambda e: float(e["at"])):
            name = f"{event['at']:.3f} {event['event']} {event['instance']} {plain(event['message'])}"
            early = event["at"] < incident.opened_at - AROUND_SECONDS
            if early or name in known or name in fresh or len(known) + len(fresh) >= MOMENTS_LIMIT:
                continue
            if concerns(incident, event):
                fresh.append(name)
                labels = {n: plain(str(event[n])) for n in ("instance", "deployment", "model", "version") if event[n]}
                kind = plain(str(event["event"]))
                moments.append(Moment(event["at"], incident.id, kind, plain(str(event["message"]), 500), labels))
        return fresh, moments
