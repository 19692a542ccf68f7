"""Messages on their way to people: at least once, in order per incident, whatever fails in between.

An entry lands in the journal in the same transaction as the alert that caused it. A sender per notifier takes the
oldest unsent entry of every page, so that a resolve never overtakes its trigger while other pages go on. A
repeat carries the same ``dedup_key``, so that at-least-once stays one page. What the other side will never take, or
did not take within a day, becomes a dead letter: it stays in sight, and what depended on it is dead with it.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import structlog

from alerts.deliver.notifier import Delivery, reached
from alerts.incidents.incident import Action, Moment
from alerts.text import within
from alerts.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from alerts.deliver.message import Message
    from alerts.deliver.notifier import Notifier
    from alerts.journal import Journal, Row

log = structlog.get_logger()

SECTION: Final = "outbox"
GIVE_UP_SECONDS: Final = 86_400.0
FIRST_WAIT_SECONDS: Final = 1.0
LONGEST_WAIT_SECONDS: Final = 60.0
PER_MINUTE: Final = 100
"""Below PagerDuty's about 120 a minute and integration key, so that one's own bursts are not refused."""

POISON_TRIES: Final = 10
"""Attempts, over some minutes, at a message that a notifier trips over; no matter of the other side."""

Status = Literal["queued", "sent", "failed", "dead"]
"""``failed`` has been tried and will be again; ``dead`` will not."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One message to one notifier. Times are Unix seconds."""

    id: str
    order: int
    incident_id: str
    notifier: str
    action: Action
    dedup_key: str
    destination: str
    payload: dict[str, Any]
    at: float
    next_at: float
    status: Status = "queued"
    attempts: int = 0
    last_error: str = ""
    sent_at: float | None = None
    version: int = 1

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in {"sent", "dead"}

    def row(self) -> Row:
        """Its row of the table ``notifications``; times stay Unix seconds."""
        values = asdict(self)
        del values["order"], values["next_at"]
        values["time"] = values.pop("at")
        return "notifications", values


def wait_before(attempts: int, jitter: float) -> float:
    """Seconds until the next attempt after `attempts` failed ones: 1, 2, 4, … 60, shortened by up to a fifth.

    Args:
        attempts: At least 1.
        jitter: 0–1.
    """
    return min(FIRST_WAIT_SECONDS * 2.0 ** min(attempts - 1, 16), LONGEST_WAIT_SECONDS) * (1 - 0.2 * jitter)


def heads(entries: Iterable[Entry], notifier: str) -> list[Entry]:
    """The oldest unfinished entry of every page (its ``dedup_key``), oldest first."""
    first: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda e: e.order):
        if entry.notifier == notifier and not entry.final:
            first.setdefault(entry.dedup_key, entry)
    return list(first.values())


def settle(entry: Entry, delivery: Delivery, now: float, jitter: float) -> Entry:
    """The entry after one attempt."""
    tried = replace(entry, attempts=entry.attempts + 1, version=entry.version + 1, last_error=delivery.error)
    if delivery.verdict == "sent":
        return replace(tried, status="sent", sent_at=now)
    if delivery.verdict == "refused" or now - entry.at > GIVE_UP_SECONDS:
        return replace(tried, status="dead")
    wait = wait_before(tried.attempts, jitter)
    return replace(tried, status="failed", next_at=now + max(wait, delivery.retry_after or 0.0))


def orphans(dead: Entry, entries: Iterable[Entry]) -> list[Entry]:
    """Entries that make no sense now: later ones of a page whose trigger nobody ever got."""
    same = [e for e in entries if (e.dedup_key, e.notifier) == (dead.dedup_key, dead.notifier)]
    if dead.action != "trigger" or any(e.action == "trigger" and e.status == "sent" for e in same):
        return []
    return [
        replace(e, status="dead", version=e.version + 1, last_error="its trigger was never delivered")
        for e in same
        if e.order > dead.order and not e.final and e.action != "trigger"
    ]


@dataclass(slots=True)
class _Lane:
    """What a sender remembers of its notifier."""

    paused_until: float = 0.0
    sent: deque[float] = field(default_factory=lambda: deque(maxlen=PER_MINUTE))
    tripped: dict[str, int] = field(default_factory=dict)


class Outbox:
    """Queues and delivers.

    Args:
        journal: Where entries live.
        notifiers: Ways to send, by their names.
        clock: Unix seconds.

    Attributes:
        senders: By notifier, the task that sends.
        trips: Attempts in which a notifier raised what it never should.
    """

    def __init__(self, journal: Journal, notifiers: Sequence[Notifier], clock: Callable[[], float]) -> None:
        self._journal = journal
        self._notifiers = {notifier.name: notifier for notifier in notifiers}
        self._clock = clock
        self._lanes = {name: _Lane() for name in self._notifiers}
        self.senders = {name: Worker(f"send-{name}", partial(self.deliver, name)) for name in self._notifiers}
        self._stop = threading.Event()
        self._unreadable: set[str] = set()
        self.trips = 0
        self.reload()

    def reload(self) -> None:
        """Go on numbering after what the journal holds."""
        self._order = max((entry.order for entry in self.entries()), default=0)

    @property
    def names(self) -> tuple[str, ...]:
        """All notifiers."""
        return tuple(self._notifiers)

    def entries(self) -> list[Entry]:
        """Everything that the journal still holds, oldest first."""
        found = [entry for v in self._journal.section(SECTION).values() if (entry := self._read(v)) is not None]
        return sorted(found, key=lambda e: e.order)

    def _read(self, stored: Mapping[str, Any]) -> Entry | None:
        try:
            return Entry(**stored)
        except TypeError as error:
            name = str(stored.get("id", ""))
            if name not in self._unreadable:
                self._unreadable.add(name)
                log.error("message_unreadable", message=name, error=str(error))  # noqa: TRY400 no fault of a place in the code
            return None

    def counts(self) -> dict[str, int]:
        """How many entries have each status."""
        found = dict.fromkeys(("queued", "sent", "failed", "dead"), 0)
        for value in self._journal.section(SECTION).values():
            found[value["status"]] += 1
        return found

    def oldest_unsent(self) -> float | None:
        """Unix time of the oldest message that is on its way, None without any."""
        return min((e.at for e in self.entries() if not e.final), default=None)

    def told(self, dedup_key: str) -> set[str]:
        """Notifiers that a trigger with this key was queued for."""
        return {e.notifier for e in self.entries() if e.dedup_key == dedup_key and e.action == "trigger"}

    def queue(self, message: Message, names: Iterable[str]) -> list[Entry]:
        """New entries for a message; the caller writes them in its own transaction and then calls :meth:`wake`."""
        made = []
        for name in names:
            notifier = self._notifiers[name]
            self._order += 1
            made.append(
                Entry(
                    id=f"{message.incident_id}-{notifier.name}-{self._order}",
                    order=self._order,
                    incident_id=message.incident_id,
                    notifier=notifier.name,
                    action=message.action,
                    dedup_key=message.dedup_key,
                    destination=notifier.destination,
                    payload=self._rendered(notifier, message),
                    at=message.at,
                    next_at=message.at,
                )
            )
        return made

    def _rendered(self, notifier: Notifier, message: Message) -> dict[str, Any]:
        """The payload; where its details can't be rendered, the page goes out without them."""
        try:
            return notifier.render(message)
        except Exception as error:
            self.trips += 1
            log.exception("message_rendered_without_details", notifier=notifier.name, incident=message.incident_id)
            said = {"left_out": f"all details: {type(error).__name__}"}
            return notifier.render(replace(message, details=said, links=()))

    def start(self) -> None:
        """Start a sender per notifier."""
        for sender in self.senders.values():
            sender.ensure()

    def wake(self) -> None:
        """There is something new."""
        for sender in self.senders.values():
            sender.wake()

    def close(self, seconds: float = 10.0) -> None:
        """Stop the senders after the attempt in hand; what is unsent stays in the journal."""
        self._stop.set()
        for sender in self.senders.values():
            sender.stop()
        for sender in self.senders.values():
            sender.join(seconds)
        for notifier in self._notifiers.values():
            notifier.close()

    def deliver(self, name: str) -> float | None:
        """Send everything that is due to one notifier.

        Returns:
            Seconds until the next entry is due, None when nothing waits.
        """
        while not self._stop.is_set():
            now = self._clock()
            lane = self._lanes[name]
            waiting = heads(self.entries(), name)
            if not waiting:
                return None
            wait = max(min(e.next_at for e in waiting), lane.paused_until, self._paced(lane, now)) - now
            if wait > 0:
                return wait
            for entry in [e for e in waiting if e.next_at <= now]:
                now = self._clock()
                if self._stop.is_set() or now < max(lane.paused_until, self._paced(lane, now)):
                    break
                self._attempt(entry, lane)
        return None

    @staticmethod
    def _paced(lane: _Lane, now: float) -> float:
        """When the lane may send again."""
        return lane.sent[0] + 60.0 if len(lane.sent) == PER_MINUTE else now

    def _handed(self, entry: Entry, lane: _Lane) -> Delivery:
        """One attempt. A message that a notifier trips over is set aside after some, so that others go on."""
        try:
            delivery = self._notifiers[entry.notifier].send(entry.payload)
        except Exception as error:
            lane.tripped[entry.id] = tries = lane.tripped.get(entry.id, 0) + 1
            self.trips += 1
            log.exception("notifier_tripped", notifier=entry.notifier, incident=entry.incident_id, tries=tries)
            said = within(f"{type(error).__name__} on sending it", 500)
            if tries < POISON_TRIES:
                return Delivery("retry", said)
            delivery = Delivery("refused", f"{said}, {tries} times")
        lane.tripped.pop(entry.id, None)
        return delivery

    def _attempt(self, entry: Entry, lane: _Lane) -> None:
        lane.sent.append(self._clock())
        delivery = self._handed(entry, lane)
        now = self._clock()
        after = settle(entry, delivery, now, random.random())  # noqa: S311 spreads retries, guards nothing
        if delivery.retry_after is not None:
            lane.paused_until = now + delivery.retry_after
        changed, moments = [after], []
        known = {"notifier": entry.notifier, "action": entry.action, "attempts": str(after.attempts)}
        whom = reached(entry.notifier, entry.destination)
        if after.status == "sent":
            said = f"{entry.action} sent to {whom}"
            moments.append(Moment(now, entry.incident_id, "notification_sent", said, known))
            log.info("notification_sent", incident=entry.incident_id, **known)
        elif after.status == "dead":
            changed += orphans(after, self.entries())
            said = f"{entry.action} given up for {whom}: {after.last_error}"
            moments.append(Moment(now, entry.incident_id, "notification_dead", said, known))
            log.error("notification_dead", incident=entry.incident_id, error=after.last_error, **known)
        elif after.attempts == 1:
            said = f"{entry.action} not delivered to {whom} yet: {after.last_error}"
            moments.append(Moment(now, entry.incident_id, "notification_failed", said, known))
            log.warning("notification_failed", incident=entry.incident_id, error=after.last_error, **known)
        rows = [*(e.row() for e in changed), *(moment_row(m) for m in moments)]
        self._journal.write({SECTION: {e.id: asdict(e) for e in changed}}, rows)


def moment_row(moment: Moment) -> Row:
    """A timeline entry's row of ``incident_events``; the time stays Unix seconds."""
    return "incident_events", {
        "time": moment.at,
        "incident_id": moment.incident_id,
        "kind": moment.kind,
        "message": moment.message,
        "attributes": dict(moment.attributes),
    }


def entry_changes(entries: Iterable[Entry]) -> tuple[Mapping[str, Any], list[Row]]:
    """Journal values and mirror rows of entries."""
    listed = list(entries)
    return {entry.id: asdict(entry) for entry in listed}, [entry.row() for entry in listed]
