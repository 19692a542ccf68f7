"""Why requests at an incident's place are slow: the causes, asked beside the rules and never before a page.

An account of requests takes long where there are many, and a store that is in trouble takes longer. So a task of its
own has it worked out (`alerts.incidents.account`): ahead, while an alert is pending or comes near, so that the page can
carry it; and after the incident opened, again where nothing stood out yet, for its timeline. A page that is due before
goes without.
"""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from alerts.incidents.history import CAUSES
from alerts.incidents.incident import Incident, Moment
from alerts.text import plain
from base.errors import ServescopeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from alerts.incidents.account import Place
    from alerts.incidents.register import Register
    from alerts.journal import Journal

log = structlog.get_logger()

WINDOW_SECONDS: Final = 600.0
"""Span before the moment of asking, and before the opening, whose requests are accounted for."""
TRIES_SECONDS: Final = (0.0, 20.0, 60.0, 240.0)
"""When, after it opened, an incident's causes are asked for, until some stand out, also where it is over by then: what
waits when it opens has no row yet."""
GIVE_UP_SECONDS: Final = 900.0
"""An incident older than this gets no causes any more."""
FRESH_SECONDS: Final = 90.0
"""What was found ahead goes with a page while it is no older."""
AGAIN_SECONDS: Final = 30.0
"""A place of an alert that may fire soon is asked about no more often than that."""
_PLACES_KEPT: Final = 50
_ON_A_PAGE: Final = ("summary", "causes", "chains", "failures", "window")
_NAMES: Final = ("deployment", "instance", "model", "tenant")


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found about a place, and when (Unix seconds); None where it could not be asked or nothing stands out."""

    at: float
    found: dict[str, Any] | None


class Explainer:
    """Finds out why.

    Args:
        journal: Remembers how often was asked.
        register: Where incidents live; what is known goes with its pages.
        clock: Unix seconds.
        ask: Finds the causes of a place in a span of Unix seconds, as `alerts.incidents.account.explain` does; raises
            ServescopeError where they can't be asked.
        pending: Asked for the labels of alerts that may fire soon.
        ready: Whether the store answers and is believed; without, a pass asks nothing.
    """

    def __init__(
        self,
        journal: Journal,
        register: Register,
        clock: Callable[[], float],
        ask: Callable[[Place, float, float], dict[str, Any]],
        *,
        pending: Callable[[], list[dict[str, str]]] = list,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self._journal, self._register, self._clock = journal, register, clock
        self._pending, self._ready, self._ask = pending, ready, ask
        self._guard = threading.Lock()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        register.why = self.known

    def once(self) -> None:
        """One pass: one incident that waits for its causes, then one place of an alert that may fire soon."""
        if not self._ready():
            return
        now = self._clock()
        for incident, tries in self._due(now)[:1]:
            self._tell(incident, tries)
        for place in self._places(now)[:1]:
            self._remember(place, now, self._found(place, now - WINDOW_SECONDS, now))

    def known(self, incident: Incident, now: float) -> dict[str, Any] | None:
        """What was found of an incident's place a moment ago; from memory."""
        for place in (place_of([alert.place for alert in incident.firing]), *map(_alone, incident.firing)):
            if place is None:
                continue
            with self._guard:
                known = self._known.get(_key(place))
            if known is not None and known.found is not None and now - known.at <= FRESH_SECONDS:
                return {name: known.found[name] for name in _ON_A_PAGE if name in known.found}
        return None

    def _due(self, now: float) -> list[tuple[Incident, int]]:
        """Incidents whose next try has come, with the number of tries before it."""
        tried = self._journal.section("why")
        # those that are over too: the requests of a short one are mostly told after it
        lately = self._register.opened_since(now - GIVE_UP_SECONDS)
        found = [(one, int(tried.get(one.id, 0))) for one in lately]
        return [
            (one, tries)
            for one, tries in found
            if tries < len(TRIES_SECONDS) and TRIES_SECONDS[tries] <= now - one.opened_at
        ]

    def _places(self, now: float) -> list[Place]:
        """Places of alerts that may fire soon, that nobody asked about a moment ago."""
        # all of them first: who asks for them waits for a round, and a round for what is known
        places = [place for labels in self._pending() if (place := place_of([labels])) is not None]
        with self._guard:
            return [one for one in places if now - self._asked_at(one) >= AGAIN_SECONDS]

    def _asked_at(self, place: Place) -> float:
        known = self._known.get(_key(place))
        return known.at if known is not None else -math.inf

    def _tell(self, incident: Incident, tries: int) -> None:
        """Ask, and write what was found into the timeline; a last try says also that nothing was."""
        now = self._clock()
        self._count(incident, tries + 1)  # before it is asked: what trips over it is not repeated for ever
        place = place_of([alert.place for alert in incident.firing or incident.alerts.values()])
        end = now if incident.resolved_at is None else min(now, incident.resolved_at)
        if place is None:
            self._count(incident, len(TRIES_SECONDS))
            return
        failed = ""
        try:
            found = self._ask(place, incident.opened_at - WINDOW_SECONDS, end)
        except ServescopeError as error:
            found, failed = {}, f"causes could not be asked: {plain(error.what, 200)}"
            log.warning("causes_unknown", incident=incident.id, error=error.what)
        last = tries + 1 == len(TRIES_SECONDS)
        if not (found.get("causes") or found.get("failures") or last):
            return
        with self._register.guard:
            draft = self._register.draft(self._clock())
            text = {"json": json.dumps(found, default=str)} if found else {}
            draft.moments.append(Moment(now, incident.id, CAUSES, failed or found["summary"], text))
            draft.why[incident.id] = len(TRIES_SECONDS)
            self._register.commit(draft)

    def _count(self, incident: Incident, tries: int) -> None:
        with self._register.guard:
            draft = self._register.draft(self._clock())
            draft.why[incident.id] = tries
            self._register.commit(draft)

    def _found(self, place: Place, start: float, end: float) -> dict[str, Any] | None:
        try:
            found = self._ask(place, start, end)
        except ServescopeError as error:
            log.warning("causes_unknown", error=error.what)
            return None
        return found if found["causes"] or found.get("failures") else None

    def _remember(self, place: Place, now: float, found: dict[str, Any] | None) -> None:
        with self._guard:
            self._known[_key(place)] = _Known(now, found)
            self._known.move_to_end(_key(place))
            while len(self._known) > _PLACES_KEPT:
                self._known.popitem(last=False)


def place_of(places: Sequence[Mapping[str, str]]) -> Place | None:
    """What some alerts agree to be about; None for what is no place of requests, such as a store."""
    if not places or any("component" in place for place in places):
        return None
    return {
        name: tuple(sorted({place[name] for place in places}))
        for name in _NAMES
        if all(place.get(name) for place in places)
    }


def _alone(alert: Any) -> Place | None:
    return place_of([alert.place])


def _key(place: Place) -> str:
    return json.dumps(place, sort_keys=True)
