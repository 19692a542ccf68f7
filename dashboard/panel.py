"""A panel: one question, one figure, and beneath it what the figure rests on; every state is drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import streamlit as st
import structlog

from base.errors import ServescopeError
from dashboard import escape, words
from dashboard.data import ask, explain, now
from dashboard.export import as_csv
from dashboard.figures import CONFIG, behind, beneath, has_lines
from dashboard.tiles import Tile, row
from dashboard.viewer import colours

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from analytics.answer import Answer, Coverage
    from dashboard.page_context import PageContext

log = structlog.get_logger()
_NOTE: Final = 1000
"""Letters of a note, which may name many instances."""
_NAMED: Final = 3
"""Servers that are named where they do not answer."""


def panel(
    key: str,
    question: str,
    context: PageContext,
    draw: Callable[[Any], Any],
    *,
    missing: str,
    title: str = "",
    has_data: Callable[[Any], bool] | None = None,
    select: bool = False,
    about: str = "",
    basis: Callable[[Any], str] | None = None,
    **options: Any,
) -> Any:
    """Ask and draw.

    Args:
        key: Unique on the page.
        question: Its name.
        context: What the page looks at.
        draw: From the answer's result to a figure.
        missing: What is missing when there is nothing to draw, and the one command or setting that brings it.
        title: Of the figure, for when there is none to bear it.
        has_data: Whether a result can be drawn; by default the answer must have rows.
        select: Whether a box can be selected; the selection is returned.
        about: Plain sentence about what the panel shows and how far to trust it, behind a help mark.
        basis: What a result rests on, in words, where exactness alone does not say it.
        options: For the question.

    Returns:
        The selection when ``select``, else None.
    """
    kept = f"kept:{key}"
    with st.container(border=True, key=f"panel-{key}"):
        try:
            answer = ask(question, context.selection, **options)
        except ServescopeError as error:
            _failed(context, error, key, title)
            return None
        drawable = has_data(answer.result) if has_data else bool(answer.rows)
        if not drawable:
            _entitle(title)
            empty(answer.state, missing, answer.coverage)
            foot(key, answer, about)
            return None
        figure, other = draw(answer.result), None
        if question in context.compares:
            other = _beside(figure, key, question, context, draw, has_data, options)
        st.session_state[kept] = (now(), context.filter, figure)
        state = st.plotly_chart(
            figure, key=f"chart-{key}", config=CONFIG, theme=None,
            on_select="rerun" if select else "ignore", selection_mode=("box",) if select else ("points",),
            alt=about or question,
        )  # fmt: skip
        if other is not None:
            st.plotly_chart(other, key=f"other-{key}", config=CONFIG, theme=None, alt=f"The same of {context.against}")
        foot(key, answer, about, basis(answer.result) if basis else "")
        return state if select else None


def _beside(
    figure: Any,
    key: str,
    question: str,
    context: PageContext,
    draw: Callable[[Any], Any],
    has_data: Callable[[Any], bool] | None,
    options: dict[str, Any],
) -> Any:
    """Put the same figure of what the page compares with behind, or return it where it is put beneath.

    Without an answer to it there is none.
    """
    reference = context.reference
    if reference is None:
        return None
    try:
        answer = ask(question, reference, **options)
    except ServescopeError as error:
        _note(context, error, key)
        return None
    then = None
    if has_data(answer.result) if has_data else answer.rows:
        result, later = answer.result, context.window.start - reference.window.start
        if hasattr(result, "times"):
            result = replace(result, times=[at + later for at in result.times])
        then = draw(result)
    if not has_lines(figure):
        return beneath(figure, then, context.style, context.against)
    behind(figure, then, context.style, context.against)
    return None


def tiles(context: PageContext, key: str, made: Callable[[], Sequence[Tile]]) -> None:
    """A row of tiles; when the store does not answer, the last good ones in grey."""
    kept = f"kept:{key}"
    try:
        shown = made()
    except ServescopeError as error:
        _note(context, error, key)
        taken, old = _kept(kept, context)
        if old is not None:
            st.caption(f"Last good figures, {words.ago(taken)}")
            st.html(row(old, context.colours, old=True))
        return
    st.session_state[kept] = (now(), context.filter, shown)
    st.html(row(shown, context.colours))


def guarded(context: PageContext | None, key: str, body: Callable[[], None]) -> None:
    """Run a part of a page that is not a single figure; an error becomes a box that says what and how to mend it."""
    try:
        body()
    except ServescopeError as error:
        if context is not None:
            _note(context, error, key)
            return
        log.warning("part_failed", part=key, what=error.what)
        problem(error)


def problem(error: ServescopeError) -> None:
    """A box that says what is wrong and what mends it."""
    what, fix = explain(error)
    told = f"<b>{escape.prose(what)}</b>{escape.prose(fix)}"
    st.html(f'<div class="servescope-trouble" role="alert" style="{_shades()}">{told}</div>')


def trouble(context: PageContext, top: Any) -> None:
    """Say each trouble of the page once, at its top, however many panels met it."""
    told: dict[str, ServescopeError] = {error.what: error for error in context.troubles}
    with top:
        for error in told.values():
            problem(error)


def empty(state: str, missing: str, cover: Coverage | None = None) -> None:
    """Nothing to draw: *no traffic* is a value, *no data* says what brings it.

    Args:
        state: Of the answer; ``value`` when it told something else than what is to be drawn.
        missing: Where such figures come from.
        cover: What the store holds of the selection: servers that are down are named.
    """
    down = silent(cover.instances_down) if cover else ""
    if state == "value" and cover and down and not cover.instances_up:
        state = "no_data"
    if state == "no_traffic" and down:
        told = f"{down}; the other servers report, and nobody asked anything of them."
        st.markdown(f"**No traffic** in this window. :gray[{told}]")
    elif state == "no_traffic":
        st.markdown("**No traffic** in this window. :gray[The servers report, and nobody asked anything of them.]")
    elif state == "no_data" and down:
        st.markdown(f"**No data** in this window. :gray[{down}.] [Instances](instances)")
    elif state == "value":
        st.markdown(f"**Not shown** by the servers of this window. :gray[{missing}]")
    else:
        st.markdown(f"**No data** in this window. :gray[{missing}]")


def silent(names: Sequence[str]) -> str:
    """Which servers do not answer, in Markdown; empty where there are none."""
    if not names:
        return ""
    shown = ", ".join(escape.markdown(name) for name in names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{shown}{more} {'does' if len(names) == 1 else 'do'} not answer"


def foot(key: str, answer: Answer[Any], about: str = "", basis: str = "", *, rows: Sequence[Any] | None = None) -> None:
    """Exact or derived, or another basis · sample size · freshness · recording · SQL · CSV, of ``rows`` if given."""
    written = answer.result if rows is None else list(rows)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"foot-{key}"):
        st.caption(" · ".join(facts(answer, basis)), help=_helps(about, answer.notes))
        with st.popover("SQL", type="tertiary", key=f"sql-{key}"):
            for statement in answer.sql:
                st.code(statement, language="sql", wrap_lines=True)
        st.download_button(
            "CSV", lambda: as_csv(written, answer.selection), file_name=f"{key}.csv", mime="text/csv", type="tertiary",
            key=f"download-{key}", on_click="ignore", help="Download what is drawn",
        )  # fmt: skip


def worked_out(answer: Answer[Any]) -> str:
    """What an account was made from, in words."""
    return "worked out from " + {"metrics": "metrics pages", "steps": "rows and engine steps"}.get(answer.level, "rows")


def facts(answer: Answer[Any], basis: str = "") -> list[str]:
    """What a figure rests on, in words."""
    known = {"exact": "exact", "derived": "derived from histograms", "means": "means only, from sums"}
    basis = basis or known[answer.exactness]
    unit = "request" if answer.of_requests else {"metrics": "sample"}.get(answer.level, "engine step")
    found = [basis, words.plural(answer.rows, unit), words.ago(answer.freshness)]
    if answer.recordings:
        found.append(f"with the recording {escape.markdown(', '.join(answer.recordings))}")
    return found


def _helps(about: str, notes: Sequence[str]) -> str | None:
    return "\n\n".join([about, *(escape.markdown(note, _NOTE) for note in notes)]).strip() or None


def _note(context: PageContext, error: ServescopeError, key: str) -> None:
    log.warning("panel_failed", panel=key, what=error.what)
    context.troubles.append(error)


def _entitle(title: str) -> None:
    if title:
        st.markdown(f"**{escape.markdown(title)}**")


def _failed(context: PageContext, error: ServescopeError, key: str, title: str) -> None:
    _note(context, error, key)
    taken, figure = _kept(f"kept:{key}", context)
    if figure is None:
        _entitle(title)
        st.markdown("**No picture yet.** :gray[The question could not be asked; see the top of the page.]")
        return
    with st.container(key=f"stale-{key}"):
        st.caption(f"Last good picture, {words.ago(taken)}")
        st.plotly_chart(figure, key=f"old-{key}", config=CONFIG, theme=None, alt="The last good picture")


def _kept(key: str, context: PageContext) -> tuple[datetime | None, Any]:
    """The last good ones and when they were taken; those of other choices, as of recordings, are none of this page."""
    taken, of, kept = st.session_state.get(key, (None, None, None))
    return (taken, kept) if of == context.filter else (None, None)


def _shades() -> str:
    shown = colours()
    return f"--broken:{shown.broken};--text:{shown.text}"
