"""What is different about some requests and why they were slow: the steps after their list, each with an address."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final

import streamlit as st

from analytics.traits import Trait
from base.formats import three
from dashboard import words
from dashboard.causes_in_words import chained, charged
from dashboard.data import ask, soon
from dashboard.linked_table import Cell, Head, linked
from dashboard.links import link
from dashboard.panel import empty, foot, guarded, worked_out
from dashboard.verdict import asked_about
from dashboard.viewer import zone

if TYPE_CHECKING:
    from analytics.answer import Answer
    from analytics.over_represented import Finding
    from analytics.questions.causes import Causes
    from analytics.questions.difference import Difference
    from analytics.selection import Selection
    from dashboard.page_context import PageContext

DIFFERENT: Final = "What is different"
WHY: Final = "Why slow"
_PATIENCE: Final = {True: 3.0, False: 15.0}
"""Seconds that a page waits for causes: one that is live comes again."""
_IN_ADDRESSES: Final = ("model", "tenant", "instance")
"""Columns of a filter that an address names."""
_HEADS: Final = (
    Head("More often here", "A value, or a range of numbers", words=True),
    Head("Here %", "Of these requests"),
    Head("Usual %", "Of those that they are compared with"),
    Head("Requests", "Of these requests, how many have it"),
    Head("Only", "Only requests that have it", words=True),
    Head("Not this", "Only requests that do not have it", words=True),
    Head("The same requests", "Other values that these very requests have", words=True),
)
_ABOUT_WHY: Final = (
    "What these requests took less what such requests take when all is well, charged to causes that stand out among "
    "all requests of the window. No second is charged twice; what nothing explains keeps its sign."
)


def difference(context: PageContext, selection: Selection) -> None:
    """Values that the selected requests have more often than the rest of the window, or than the window before."""
    guarded(context, "difference", lambda: _difference(context, selection))


def why(context: PageContext, selection: Selection) -> None:
    """Causes of what the selected requests took above the usual."""
    guarded(context, "why-these", lambda: _why(context, selection))


def _difference(context: PageContext, selection: Selection) -> None:
    baseline = "rest" if selection.chosen() else "previous"
    answer: Answer[Difference] = ask("difference", selection, baseline=baseline)
    told = answer.result
    if not told.selected_requests:
        empty(answer.state, "Choose other bounds, or a wider range.")
        foot("difference", answer)
        return
    against = "the rest of the window" if baseline == "rest" else "the window before"
    st.caption(
        f"{words.plural(told.selected_requests, 'request')} beside {words.count(told.baseline_requests)} of {against}."
    )
    if not told.findings:
        st.markdown(none_in_words(told.baseline_requests))
    else:
        rows = [_row(one, selection) for one in told.findings]
        st.html(linked(_HEADS, rows, context.colours, called="What these requests have more often"))
    foot("difference", answer, "Values with the largest difference first, by the lower end of its 95 % interval.")


def none_in_words(baseline_requests: int) -> str:
    """Markdown of no finding: nothing stands out, or there was nothing to compare with."""
    if not baseline_requests:
        return "**Nothing to compare with.** :gray[Choose some of the requests, or a range with requests before it.]"
    return "**Nothing stands out.** :gray[They have no value noticeably more often than the others.]"


def _row(one: Finding, selection: Selection) -> list[Cell]:
    only, others = ways(one, selection)
    return [
        Cell(finding_in_words(one)),
        Cell(three(one.share * 100), share=one.share),
        Cell(three(one.usual_share * 100), share=one.usual_share),
        Cell(f"{one.selected:,}"),
        Cell("only", only) if only else Cell(words.NOTHING, quiet=True),
        Cell("not this", others) if others else Cell(words.NOTHING, quiet=True),
        Cell(", ".join(f"{column} {value or 'none'}" for column, value in one.also.items()), quiet=True),
    ]


def finding_in_words(one: Finding) -> str:
    """``tenant hooli``, ``prompt tokens from 900``."""
    column = one.column.replace("_", " ")
    if one.value is not None:
        return f"{column} {one.value or 'none'}"
    low = f" from {words.count(one.at_least)}" if one.at_least is not None else ""
    high = f" below {words.count(one.below)}" if one.below is not None else ""
    return f"{column}{low}{high}"


def ways(one: Finding, selection: Selection) -> tuple[str, str]:
    """Addresses of the requests that have it, and of all others; a value that is untold leads nowhere."""
    if one.value == "":
        return "", ""
    has = Trait(one.column, one.value or "", one.at_least, one.below)
    others = _with(selection, replace(has, lacking=True))
    if one.value and one.column in _IN_ADDRESSES:  # it has a box of its own on every page
        return _address(selection.but(filter=selection.filter.narrowed(**{one.column: (one.value,)}))), others
    if one.value and one.column == "outcome":
        return _address(selection.but(outcome=(one.value,))), others
    return _with(selection, has), others


def _with(selection: Selection, trait: Trait) -> str:
    return _address(selection.but(traits=tuple(dict.fromkeys([*selection.traits, trait]))))


def _address(selection: Selection) -> str:
    return link("requests", selection)


def _why(context: PageContext, selection: Selection) -> None:
    if context.live:
        selection = asked_about(replace(context, selection=selection))
    place = st.empty()
    place.markdown(":gray[Why is being looked into.]")
    answer: Answer[Causes] | None = soon("causes", selection, seconds=_PATIENCE[context.live])
    if answer is None:
        return
    place.empty()
    told = answer.result
    if not told.requests:
        st.markdown("**No account.** :gray[Too few requests to say what such requests take when all is well.]")
        foot("why-these", answer, _ABOUT_WHY, worked_out(answer))
        return
    took = told.reference_seconds + told.excess_seconds
    st.markdown(
        f"**{words.plural(told.requests, 'request')}** took {words.seconds(took)} in sum, "
        f"**{words.signed(told.excess_seconds)}** against what such requests take when all is well. "
        + (
            f"{words.signed(told.unexplained_seconds)} of that is unexplained."
            if told.causes
            else "No cause stands out."
        )
    )
    if began := chained(told, selection, zone()):
        st.markdown(began)
    for cause in told.causes:
        st.markdown(charged(asdict(cause), selection, told.excess_seconds))
    foot("why-these", answer, _ABOUT_WHY, worked_out(answer))
