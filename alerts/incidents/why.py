"""Why requests at an incident's place are slow: the causes, asked beside the rules and never before a page.

An account of requests takes long where there are many, and a store that is in trouble takes longer. So it is worked out
in a thread of its own, of a bounded number of requests and within a bounded time: ahead, while an alert is pending, so
that the page can carry it; and after the incident opened, again where nothing stood out yet, for its timeline. A page
that is due before goes out without.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import structlog

from alerts.incidents.history import CAUSES
from alerts.incidents.incident import Incident, Moment
from alerts.text import number, plain
from analytics.causes.advice import NAMES, SHARED
from analytics.selection import Filter, Selection
from analytics.window import Window, iso
from base.errors import ServescopeError
from base.formats import rounded, spell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from alerts.incidents.register import Register
    from alerts.journal import Journal
    from alerts.measure.store import Rows
    from analytics.causes.evidence import Cause
    from analytics.questions.causes import Causes
    from collector.store.asker import Asker

log = structlog.get_logger()

WINDOW_SECONDS: Final = 600.0
"""Span before the moment of asking, and before the opening, whose requests are accounted for."""
BOUND_SECONDS: Final = 20.0
"""All statements of one account together."""
MOST_REQUESTS: Final = 20_000
"""Requests that one account reads: what they take in memory and time is shared with what pages."""
TRIES_SECONDS: Final = (0.0, 20.0, 60.0, 240.0)
"""When, after it opened, an incident's causes are asked for, until some stand out: what waits when it opens has no row
yet."""
GIVE_UP_SECONDS: Final = 900.0
"""An incident older than this gets no causes any more."""
FRESH_SECONDS: Final = 90.0
"""What was found ahead goes with a page while it is no older."""
AGAIN_SECONDS: Final = 30.0
"""A place of a pending alert is asked about no more often than that."""
_PLACES_KEPT: Final = 50
_TOLD: Final = 3
_NOTABLE: Final = 0.25
"""Share of the reference from which on an excess is told though nothing explains it."""
_NAMES: Final = ("deployment", "instance", "model", "tenant")

Place = dict[str, tuple[str, ...]]
"""Columns of a filter with their values."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found about a place, and when (Unix seconds); None where it could not be asked or nothing stands out."""

    at: float
    found: dict[str, Any] | None


class Explainer:
    """Finds out why.

    Args:
        store: Where to ask; slow answers hold up nobody else.
        journal: Remembers how often was asked.
        register: Where incidents live; what is known goes with its pages.
        clock: Unix seconds.
        pending: Asked for the labels of alerts that may fire soon.
        ready: Whether the store answers and is believed; without, a pass asks nothing.
        ask: Finds the causes of a place in a span of Unix seconds, as `explain` does.
    """

    def __init__(
        self,
        store: Rows,
        journal: Journal,
        register: Register,
        clock: Callable[[], float],
        *,
        pending: Callable[[], list[dict[str, str]]] = list,
        ready: Callable[[], bool] = lambda: True,
        ask: Callable[[Rows, Place, float, float], dict[str, Any]] | None = None,
    ) -> None:
        self.store = store
        self._journal, self._register, self._clock = journal, register, clock
        self._pending, self._ready, self._ask = pending, ready, ask or explain
        self._guard = threading.Lock()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        register.why = self.known

    def once(self) -> None:
        """One pass: one incident that waits for its causes, then one place of a pending alert."""
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
                return {name: known.found[name] for name in ("summary", "causes", "window")}
        return None

    def _due(self, now: float) -> list[tuple[Incident, int]]:
        """Incidents whose next try has come, with the number of tries before it."""
        tried = self._journal.section("why")
        found = [(one, int(tried.get(one.id, 0))) for one in self._register.open]
        return [
            (one, tries)
            for one, tries in found
            if tries < len(TRIES_SECONDS) and TRIES_SECONDS[tries] <= now - one.opened_at < GIVE_UP_SECONDS
        ]

    def _places(self, now: float) -> list[Place]:
        """Places of pending alerts that nobody asked about a moment ago."""
        # all of them first: who asks for what is pending waits for a round, and a round for what is known
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
        place = place_of([alert.place for alert in incident.firing])
        if place is None:
            self._count(incident, len(TRIES_SECONDS))
            return
        failed = ""
        try:
            found = self._ask(self.store, place, incident.opened_at - WINDOW_SECONDS, now)
        except ServescopeError as error:
            found, failed = {}, f"causes could not be asked: {plain(error.what, 200)}"
            log.warning("causes_unknown", incident=incident.id, error=error.what)
        last = tries + 1 == len(TRIES_SECONDS)
        if not (found.get("causes") or last):
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
            found = self._ask(self.store, place, start, end)
        except ServescopeError as error:
            log.warning("causes_unknown", error=error.what)
            return None
        return found if found["causes"] else None

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


def explain(store: Rows, place: Place, start: float, end: float) -> dict[str, Any]:
    """The causes of a place's requests in a span of Unix seconds.

    Returns:
        ``summary`` (a sentence), ``window`` (``start``, ``end``), ``place``, ``requests``, ``excess_seconds``,
        ``unexplained_share`` (None without an excess), ``causes`` (at most three, most seconds first: ``cause``,
        ``name``, ``seconds``, ``share``, ``who``, ``evidence``, ``advice``, ``runbook``; empty where none stands out).

    Raises:
        ServescopeError: The store is away, refuses, or takes longer than `BOUND_SECONDS`.
    """
    from analytics.questions import causes  # noqa: PLC0415 - slow to import, and no page waits for it

    window = Window(datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC))
    selection = Selection(window, Filter(**place, recording="exclude"))
    told = causes.ask(_Bounded(store, BOUND_SECONDS), selection, most=MOST_REQUESTS).result
    return {
        "summary": in_words(told, end - start),
        "window": {"start": iso(window.start), "end": iso(window.end)},
        "place": {name: [plain(value) for value in values] for name, values in place.items()},
        "requests": told.requests,
        "excess_seconds": round(told.excess_seconds, 3),
        "unexplained_share": None if told.unexplained_share is None else round(told.unexplained_share, 4),
        "causes": [_cause(one) for one in told.causes[:_TOLD]],
    }


def in_words(told: Causes, seconds: float) -> str:
    """A sentence: the share of the first cause, where, whose, and what next; quiet is told as quiet.

    Args:
        told: The causes.
        seconds: Length of their window.
    """
    when = f"the last {rounded(seconds) if seconds % 60 else spell(seconds)}"
    requests = f"{told.requests} request{'' if told.requests == 1 else 's'}"
    if not told.requests:
        return f"no request of {when} can be accounted for yet"
    if not told.causes:
        if told.excess_seconds > _NOTABLE * told.reference_seconds:
            return f"{requests} of {when} took {rounded(told.excess_seconds)} more than usual, and no cause stands out"
        return f"nothing stands out from the usual in {requests} of {when}"
    first = told.causes[0]
    held = f"; {_lowered(first.evidence[1])}" if "tenant" in first.who and first.cause in SHARED else ""
    tenant = f" of tenant {plain(first.who['tenant'])}" if "tenant" in first.who and not held else ""
    share = number(min(first.share, 1.0), "ratio") if told.excess_seconds > 0 else rounded(first.seconds)
    of = f"of what requests of {when} took above the usual" if told.excess_seconds > 0 else f"of requests of {when}"
    place = f" on {plain(first.who['instance'])}" if "instance" in first.who else ""
    name = NAMES.get(first.cause, first.cause)
    return plain(f"{share} {of}: {name}{place}{tenant}{held}; next: {_lowered(first.advice)}", 1000)


def _cause(one: Cause) -> dict[str, Any]:
    return {
        "cause": one.cause,
        "name": NAMES.get(one.cause, one.cause),
        "seconds": round(one.seconds, 3),
        "share": round(one.share, 4),
        "who": {name: plain(value) for name, value in one.who.items()},
        "evidence": [plain(sentence, 300) for sentence in one.evidence],
        "advice": one.advice,
        "runbook": one.runbook,
    }


def _lowered(sentence: str) -> str:
    """A sentence as a part of another: its first letter small, without its full stop."""
    return f"{sentence[:1].lower()}{sentence[1:]}".removesuffix(".")


def _alone(alert: Any) -> Place | None:
    return place_of([alert.place])


def _key(place: Place) -> str:
    return json.dumps(place, sort_keys=True)


class _Bounded:
    """A reader all of whose statements together take no longer than a bound."""

    def __init__(self, store: Rows, seconds: float) -> None:
        self._store, self._seconds = store, seconds
        self._until = time.monotonic() + seconds

    @property
    def asker(self) -> Asker:
        return self._store.asker

    def rows(
        self, sql: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        left = self._until - time.monotonic()
        if left <= 0:
            raise ServescopeError(f"it took longer than {self._seconds:.0f} s", "`servescope causes` takes its time")
        return self._store.rows(sql, parameters, {**(settings or {}), "max_execution_time": math.ceil(left)})
