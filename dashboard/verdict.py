"""The first line of the front page: its question answered in words, each with the way to what shows it.

What it takes long to know is worked out beside the page: why requests are slow is told as soon as it is known, and
never holds up a figure. Quiet is told as quiet.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import streamlit as st
import structlog

from alerts.incidents.history import incidents
from alerts.rules.file import load
from alerts.slo_status import slo_statuses
from analytics.window import Window
from base.errors import ServescopeError
from base.formats import three
from dashboard import words
from dashboard.causes_in_words import Piece, as_html, led, named
from dashboard.data import ask, now, soon, soon_known, store
from dashboard.links import link
from dashboard.shell import TILES
from dashboard.viewer import clock, zone
from dashboard.why import NOTABLE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from streamlit.delta_generator import DeltaGenerator

    from alerts.incidents.history import IncidentRow
    from alerts.slo_status import SloStatus
    from analytics.answer import Answer
    from analytics.questions.causes import Causes
    from analytics.selection import Selection
    from dashboard.page_context import PageContext

log = structlog.get_logger()

LONGEST: Final = timedelta(hours=1)
"""Of a longer window its newest hour is looked at: the question is of the present."""
STEP_SECONDS: Final = 30
"""A live page asks anew why no more often than that."""
_SHOWN: Final = 3
_WORTH: Final = 0.05
"""Share of the excess from which on a further cause is named."""
_UNSAID: Final = 0.2
"""Share of the excess up to which the unexplained needs no word."""
_PATIENCE: Final = {True: 1.5, False: 15.0}
"""Seconds that a page, drawn already, waits for the last of the answer: one that is live comes again."""
_TITLE: Final = 160
_SEVERITIES: Final = ("critical", "error", "warning", "info")
_KEPT: Final = "verdict"
LOOKING: Final = "Why is being looked into."


class Verdict:
    """The line, drawn twice: with what is known at once, and when the page stands; until then as it was a moment ago.

    Args:
        context: What the page looks at.
        place: Where the line is.
    """

    def __init__(self, context: PageContext, place: DeltaGenerator) -> None:
        self._context, self._place = context, place
        self._selection = asked_about(context)
        self._found: list[IncidentRow] | None = None
        self._silent: tuple[str, ...] = ()
        if said := self._kept("drawn", ""):
            self._place.html(said)  # a page that is drawn anew every few seconds must not lose its answer meanwhile

    def first(self) -> None:
        """Say which incidents last, and begin to work out the rest."""
        context = self._context
        try:
            end = now() if context.live else context.window.end
            states = ["open", "acknowledged"] if context.live else []
            found = incidents(store(), context.window.start, end, states=states, limit=20)
            if context.live:
                self._silent = ask(TILES[0], context.selection, **TILES[1]).coverage.instances_down
        except ServescopeError:
            self._place.empty()
            return  # the tiles have met the same trouble and told it
        self._found = sorted(found, key=_gravity)
        if context.live:
            context.told.update(row.id for row in found)
        self._draw(0.0)

    def whole(self) -> None:
        """Say the rest; what is not there by now comes with the next look of a live page."""
        if self._found is not None:
            self._draw(_PATIENCE[self._context.live])

    def _draw(self, seconds: float) -> None:
        assert self._found is not None  # noqa: S101 - the callers asked
        colours = self._context.colours
        because = self._because(seconds)
        lines = [_bold(silent_in_words(self._silent)), self._is_well(seconds, self._found), because]
        edge = colours.broken if self._found or self._silent else colours.grid
        body = "".join(f"<div>{line}</div>" for line in lines if line)
        if body:
            style = f"--edge:{edge};--text:{colours.text};--accent:{colours.accent};--quiet:{colours.quiet}"
            whole = f'<div class="servescope-answer" style="{style}">{body}</div>'
            self._place.html(self._keep("drawn", whole))

    def _is_well(self, seconds: float, found: Sequence[IncidentRow]) -> str:
        if found:
            return _bold(incidents_in_words(found, live=self._context.live))
        if not self._context.live:
            return _bold([("No incident", ""), (" was open in this window.", "")])
        path = os.environ.get("SERVESCOPE_SLOS", "")
        if not path:
            said: list[Piece] = [("No incident", ""), (" lasts, and nobody said what well is: ", "")]
            return _bold([*said, ("no objective is set", "slos"), (".", "")])
        at = math.floor(now().timestamp() / STEP_SECONDS) * STEP_SECONDS
        try:
            statuses = soon_known(("slos", path, at), lambda asked: _statuses(asked, path, at), seconds=seconds)
        except ServescopeError as error:
            log.warning("objectives_unknown", what=error.what)
            return _bold([("No incident", ""), (f" lasts. The objectives could not be asked: {error.what}.", "")])
        if statuses is None:
            return self._kept("well", "") or _bold([("No incident", ""), (" lasts.", "")])
        return self._keep("well", _bold(objectives_in_words(statuses)))

    def _because(self, seconds: float) -> str:
        try:
            answer: Answer[Causes] | None = soon("causes", self._selection, seconds=seconds)
        except ServescopeError as error:
            log.warning("causes_unknown", what=error.what)
            return _quiet(f"Why could not be worked out: {error.what}.")
        if answer is None:
            return self._kept("why", _quiet(LOOKING))
        told = causes_in_words(answer.result, self._selection, self._when())
        told += chain_in_words(answer.result, self._selection, zone())
        return self._keep("why", as_html(told))

    def _when(self) -> str:
        span = words.seconds(self._selection.window.seconds)
        return f"the last {span}" if self._context.live else f"these {span}"

    def _keep(self, part: str, line: str) -> str:
        st.session_state.setdefault(_KEPT, {})[part] = (self._about(), line)
        return line

    def _kept(self, part: str, otherwise: str) -> str:
        """What was said a moment ago of the same, while the new is not there."""
        about, line = st.session_state.get(_KEPT, {}).get(part, (None, ""))
        return line if about == self._about() else otherwise

    def _about(self) -> tuple[Any, ...]:
        moving = self._context.asked.seconds if self._context.live and self._context.asked else self._selection.window
        return (self._context.live, moving, self._context.filter)


def asked_about(context: PageContext) -> Selection:
    """The page's selection, at most its newest hour; of a live page up to the last half minute."""
    window = context.window
    end = window.end
    if context.live:
        end = datetime.fromtimestamp(math.floor(end.timestamp() / STEP_SECONDS) * STEP_SECONDS, UTC)
    start = max(window.start, end - LONGEST)
    if start >= end:
        return context.selection
    if context.live:
        start = min(
            datetime.fromtimestamp(math.floor(start.timestamp() / STEP_SECONDS) * STEP_SECONDS, UTC),
            end - timedelta(seconds=1),
        )
    return context.selection.but(window=Window(start, end))


def silent_in_words(names: Sequence[str]) -> list[Piece]:
    """Which servers are down, whatever incidents say of them; nothing where there are none."""
    if not names:
        return []
    said: list[Piece] = [("Down:", ""), (" ", "")]
    for name in names[:_SHOWN]:
        said += [(words.short(name, _TITLE), f"instances?instance={quote(name, safe='')}"), (", ", "")]
    if len(names) > _SHOWN:
        return [*said, (f"{len(names) - _SHOWN} more", "instances"), (" do not answer.", "")]
    return [*said[:-1], (" does not answer." if len(names) == 1 else " do not answer.", "")]


def incidents_in_words(found: Sequence[IncidentRow], *, live: bool) -> list[Piece]:
    """``No: vision on triton-a is overloaded since 06:54 (critical, open)``; the first piece is the answer."""
    said: list[Piece] = [("No:" if live else "Not at all times:", "")]
    for number, row in enumerate(found[:_SHOWN]):
        until = f" to {clock(row.resolved_at)}" if row.resolved_at else ""
        since = f"{'' if until else 'since '}{clock(row.opened_at)}{until}"
        said += [
            ("; " if number else " ", ""),
            (words.short(row.title, _TITLE), f"incidents?incident={quote(row.id, safe='')}"),
            (f" {since} ({row.severity}, {row.state})", ""),
        ]
    if len(found) > _SHOWN:
        said += [("; ", ""), (f"{len(found) - _SHOWN} more", "incidents")]
    return [*said, (".", "")]


def objectives_in_words(found: Sequence[SloStatus]) -> list[Piece]:
    """Whether all is well by what was promised, and which promise is nearest to its limit."""
    asked = [status for status in found if status.state != "no_traffic"]
    if not asked:
        return [("Nobody asks", ""), (" anything that an objective speaks of, and no incident lasts.", "")]
    nearest = min(asked, key=lambda status: status.budget_ratio if status.budget_ratio is not None else 1.0)
    burning = [status for status in asked if status.state == "burning"]
    if burning:
        worst = max(burning, key=lambda status: max(status.burn_rates.values(), default=0.0))
        rate = three(max(worst.burn_rates.values(), default=0.0))
        return [
            ("Not for long:", ""),
            (" ", ""),
            (_called(worst), "slos"),
            (f" spends its budget {rate} × too fast.", ""),
        ]
    left = nearest.budget_ratio or 0.0
    kept = f" has {words.ratio(left)} of its budget left." if left > 0 else " has spent its budget, and burns no more."
    said: list[Piece] = [("Yes,", ""), (" by ", ""), (words.plural(len(asked), "objective"), "slos")]
    return [*said, ("; nearest to its limit: ", ""), (_called(nearest), "slos"), (kept, "")]


def causes_in_words(told: Causes, selection: Selection, when: str) -> list[Piece]:
    """Why requests were slow: the first causes with their shares, whose, and the ways there.

    Args:
        told: The answer.
        selection: What was asked about.
        when: Its window in words.
    """
    if not told.requests:
        return []
    slowest = link("requests", selection)
    counted = words.plural(told.requests, "request")
    if not told.causes and told.excess_seconds > NOTABLE * told.reference_seconds:
        more = words.seconds(told.excess_seconds)
        return [(counted, slowest), (f" of {when} took {more} more than usual, and no cause of it stands out.", "")]
    if not told.causes:
        return [("Nothing stands out from the usual in ", ""), (counted, slowest), (f" of {when}.", "")]
    if told.excess_seconds > 0:
        said: list[Piece] = [("Of the ", ""), (words.seconds(told.excess_seconds), slowest)]
        said.append((f" that requests of {when} took above the usual, ", ""))
    else:
        said = [("", ""), ("Requests", slowest), (f" of {when} were in sum no slower than usual, but ", "")]
    first = True
    for cause in told.causes[:_SHOWN]:
        if not first and cause.share < _WORTH:
            break
        amount = words.ratio(min(cause.share, 1.0)) if told.excess_seconds > 0 else words.seconds(cause.seconds)
        verb = (" is " if told.excess_seconds > 0 else " went to ") if first else " "
        said += [("" if first else "; ", ""), (f"{amount}{verb}", ""), *named(cause.cause, cause.who, selection)]
        first = False
    rest = told.unexplained_share or 0.0
    return [*said, (f"; {words.ratio(rest)} is unexplained." if rest >= _UNSAID else ".", "")]


def chain_in_words(told: Causes, selection: Selection, zone: tzinfo) -> list[Piece]:
    """How the first chain came about and what to turn first; nothing where there is none."""
    said: list[Piece] = []
    for chain in told.chains[:1]:
        since = selection.window.start + timedelta(seconds=chain.since_seconds)
        said += [(" ", ""), *led(asdict(chain), since, selection, zone)]
        said += [(f" First: {chain.advice}", "")] if chain.advice else []
    return said


def _statuses(asked: Any, path: str, at: float) -> list[SloStatus]:
    return slo_statuses(asked, load(Path(path)), datetime.fromtimestamp(at, UTC))


def _called(status: SloStatus) -> str:
    return ", ".join([status.name, *status.labels.values()])


def _gravity(row: IncidentRow) -> tuple[int, float]:
    """The gravest first, of these the oldest."""
    rank = _SEVERITIES.index(row.severity) if row.severity in _SEVERITIES else len(_SEVERITIES)
    return rank, row.opened_at.timestamp()


def _bold(said: Sequence[Piece]) -> str:
    """The first piece is the answer."""
    return f"<b>{as_html(said[:1])}</b>{as_html(said[1:])}" if said else ""


def _quiet(text: str) -> str:
    return f"<i>{as_html([(text, '')])}</i>"
