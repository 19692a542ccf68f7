"""Why one request took what it took: its account against such requests when all is well, and what it is charged to."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import streamlit as st

from analytics.causes.advice import STAGES
from analytics.selection import Filter, Selection
from analytics.window import Window
from dashboard import words
from dashboard.causes_in_words import as_markdown, chained, charged, named
from dashboard.data import ask, now
from dashboard.panel import foot, guarded, worked_out
from dashboard.tiles import Tile
from dashboard.tiles import row as tile_row
from dashboard.viewer import colours, zone

if TYPE_CHECKING:
    from collections.abc import Callable

    from analytics.answer import Answer
    from analytics.questions.causes import Causes, KindReference
    from analytics.request_row import RequestRow

AROUND: Final = timedelta(seconds=150)
"""Before and after the arrival: a cause is told where it stands out among the requests of a window, not of one."""
NOTABLE: Final = 0.25
"""Share of its reference from which on what a request took above it is worth a word though nothing explains it."""
_AGAIN_SECONDS: Final = 10
_STAGES: Final = {
    "work": ("Work", "more asked for"),
    "rate": ("Rate", "the same, slower"),
    "contention": ("Contention", "others, machine"),
    "failure": ("Failure", "it failed"),
}
_ABOUT: Final = (
    "The account of this request: what it took less what such a request takes when all is well, charged to causes that "
    "stand out among the requests around it. No second is charged twice; what nothing explains keeps its sign."
)
WAITS: Final = (
    "**Not settled yet.** :gray[Requests that arrived before it are still open, and what they took is part of the "
    "account. It is told here as soon as they are over.]"
)


def asked_about(row: RequestRow) -> Selection:
    """The request among those that arrived around it, up to its end; recorded ones among recorded ones."""
    took = timedelta(seconds=row.e2e_seconds or row.engine_e2e_seconds or 0.0)
    end = min(row.time + max(AROUND, took + timedelta(milliseconds=1)), max(now(), row.time + timedelta(seconds=1)))
    place = Filter(recording="only" if row.recording else "exclude")
    return Selection(Window(row.time - AROUND, end), place, key=row.key)


def section(row: RequestRow, known: Callable[[Causes], None] = lambda _: None) -> None:
    """Draw it; while the request is not settled, again and again.

    Args:
        row: The request.
        known: Is told the account as soon as there is one.
    """
    selection = asked_about(row)
    waits = _waits(row, selection)

    @st.fragment(run_every=_AGAIN_SECONDS if waits else None)
    def drawn() -> None:
        st.markdown("## Why")
        with st.container(border=True, key="panel-why"):
            guarded(None, "why", lambda: _account(row, selection, known))

    drawn()


def _waits(row: RequestRow, selection: Selection) -> bool:
    """Whether arrivals of that time may still be open, so that the account leaves them out."""
    edge = ask("arrivals", Selection(selection.window, selection.filter)).result.settled_until
    return edge is not None and row.time >= edge


def _account(row: RequestRow, selection: Selection, known: Callable[[Causes], None]) -> None:
    place = st.empty()
    place.markdown(":gray[The requests around it are being looked at.]")
    try:
        answer: Answer[Causes] | None = None if _waits(row, selection) else ask("causes", selection)
    finally:
        place.empty()
    if answer is None:
        st.markdown(WAITS)
        return
    told = answer.result
    if not told.requests:
        st.markdown(unaccounted(row, told))
        foot("why", answer, _ABOUT, worked_out(answer))
        return
    known(told)
    took = row.e2e_seconds or row.engine_e2e_seconds or 0.0
    st.markdown(lead(took, told, selection.but(key="")))
    st.html(tile_row(tiles_of(took, told, _reference_of(row, told)), colours()))
    if began := chained(told, selection.but(key=""), zone()):
        st.markdown(began)
    for cause in told.causes:
        st.markdown(charged(asdict(cause), selection.but(key=""), told.excess_seconds))
    foot("why", answer, _ABOUT, worked_out(answer))


def unaccounted(row: RequestRow, told: Causes) -> str:
    """Why there is no account of a request."""
    if row.outcome in {"client_abort", "client_error"}:
        ended = "Its client gave it up" if row.outcome == "client_abort" else "It was asked wrongly"
        return f"**No account.** :gray[{ended}: when it ended says nothing of the service, so it has no excess.]"
    if not told.reference:
        return (
            "**No reference.** :gray[Too few requests arrived before it and around it to say what one takes when all "
            "is well.]"
        )
    return (
        "**No reference for its kind.** :gray[Fewer than eight requests of its model and route arrived before it and "
        "around it: too few to say what such a one takes when all is well.]"
    )


def lead(took: float, told: Causes, selection: Selection) -> str:
    """The account in a sentence."""
    usual = took - told.excess_seconds
    against = f"such a request takes {words.seconds(max(usual, 0.0))} when all is well"
    if told.causes:
        first = told.causes[0]
        charged = as_markdown(named(first.cause, first.who, selection))
        most = "Most of that is unexplained; " if told.unexplained_seconds > first.seconds else ""
        share = f"{words.ratio(min(first.share, 1.0))} {'is' if most else 'of that is'} {charged}"
        return (
            f"It took **{words.seconds(took)}**, and {against}: **{words.signed(told.excess_seconds)}**. {most}{share}."
        )
    if told.excess_seconds > NOTABLE * usual:
        return (
            f"It took **{words.seconds(took)}**, and {against}: **{words.signed(told.excess_seconds)}**. "
            "**No cause stands out** from what is usual: the difference is unexplained."
        )
    return f"**Nothing stands out.** It took {words.seconds(took)}, and {against}."


def tiles_of(took: float, told: Causes, reference: KindReference | None) -> list[Tile]:
    """What it took, its reference, and the parts of the difference; they add up."""
    usual = Tile("Such a request", words.seconds(took - told.excess_seconds), "when all is well")
    if reference is not None:
        usual = Tile(
            usual.name, usual.value, f"of {words.plural(reference.requests, 'request')}",
            help=f"Their mean is {words.seconds(reference.e2e_seconds)} ± "
            f"{words.seconds(reference.uncertainty_seconds)}; it is worked out for the tokens of this one where their "
            "number alone is not the matter",
        )  # fmt: skip
    parts = {name: sum(cause.seconds for cause in told.causes if cause.stage == name) for name in STAGES}
    shown = [
        Tile(*_stage(name, seconds)) for name, seconds in parts.items() if seconds or name != "failure"
    ]  # fmt: skip
    rest = told.unexplained_seconds
    return [Tile("Took", words.seconds(took)), usual, *shown, Tile("Unexplained", words.signed(rest), "by no cause")]


def _stage(name: str, seconds: float) -> tuple[str, str, str]:
    title, note = _STAGES[name]
    return title, words.signed(seconds), note


def _reference_of(row: RequestRow, told: Causes) -> KindReference | None:
    kind = (row.deployment, row.model, row.route, row.has_engine)
    return next((one for one in told.reference if (one.deployment, one.model, one.route, one.has_engine) == kind), None)
