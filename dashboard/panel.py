"""A panel: one question, one figure, and beneath it what the figure rests on; every state is drawn."""

from __future__ import annotations

import csv
import io
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import streamlit as st
import structlog

from agent.errors import ServescopeError
from dashboard import words
from dashboard.data import ask
from dashboard.figures import CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from analytics.window import Answer, Filter, Window

log = structlog.get_logger()


def panel(
    key: str,
    question: str,
    window: Window,
    filter: Filter,  # noqa: A002 - the questions' own word
    draw: Callable[[Any], Any],
    *,
    missing: str,
    has_data: Callable[[Any], bool] | None = None,
    select: bool = False,
    about: str = "",
    **options: Any,
) -> Any:
    """Ask and draw.

    Args:
        key: Unique on the page.
        question: ``module.function`` of analytics.
        window: Window of the page.
        filter: Filter of the page.
        draw: From the answer's result to a figure.
        missing: What is missing when there is nothing to draw, and the one command or setting that brings it.
        has_data: Whether a result can be drawn; by default the answer must have rows.
        select: Whether a box can be selected; the selection is returned.
        about: Plain sentence about what the panel shows and how far to trust it, behind a help mark.
        options: For the question.

    Returns:
        The selection when ``select``, else None.
    """
    kept = f"kept:{key}"
    with st.container(border=True, key=f"panel-{key}"):
        try:
            answer = ask(question, window, filter, **options)
        except ServescopeError as error:
            _failed(error, key, kept)
            return None
        drawable = has_data(answer.result) if has_data else bool(answer.rows)
        if not drawable:
            empty(answer.state, missing)
            foot(key, answer, about)
            return None
        figure = draw(answer.result)
        st.session_state[kept] = (datetime.now(UTC), figure)
        state = st.plotly_chart(
            figure, key=f"chart-{key}", config=CONFIG, theme=None,
            on_select="rerun" if select else "ignore", selection_mode=("box",) if select else ("points",),
            alt=about or question.replace(".", " "),
        )  # fmt: skip
        foot(key, answer, about)
        return state if select else None


def guarded(key: str, body: Callable[[], None]) -> None:
    """Run a part of a page that is not a single figure; an error becomes a box that says what and how to mend it."""
    try:
        body()
    except ServescopeError as error:
        with st.container(border=True, key=f"failed-{key}"):
            _failed(error, key, "")


def empty(state: str, missing: str) -> None:
    """Nothing to draw: *no traffic* is a value, *no data* says what brings it."""
    if state == "no_traffic":
        st.markdown("**No traffic** in this window. :gray[The servers report, and nobody asked anything of them.]")
    else:
        st.markdown(f"**No data** in this window. :gray[{missing}]")


def foot(key: str, answer: Answer[Any], about: str = "") -> None:
    """Exact or derived · sample size · freshness · SQL · CSV."""
    basis = {"exact": "exact", "derived": "derived from histograms", "means": "means only, from sums"}[answer.exactness]
    unit = "request" if answer.level == "rows" else "sample"
    facts = [basis, words.plural(answer.rows, unit), words.ago(answer.freshness)]
    if answer.recordings:
        facts.append(f"recording: {', '.join(answer.recordings)}")
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"foot-{key}"):
        st.caption(" · ".join(facts), help="\n\n".join([about, *answer.notes]).strip() or None)
        with st.popover("SQL", type="tertiary", key=f"sql-{key}"):
            for statement in answer.sql:
                st.code(statement, language="sql", wrap_lines=True)
        with st.popover("CSV", type="tertiary", key=f"csv-{key}"):
            st.download_button(
                "Download what is drawn", _as_csv(answer.result), file_name=f"{key}.csv", mime="text/csv",
                key=f"download-{key}", on_click="ignore",
            )  # fmt: skip


def _failed(error: ServescopeError, key: str, kept: str) -> None:
    log.warning("panel_failed", panel=key, what=error.what)
    last: tuple[datetime, Any] | None = st.session_state.get(kept) if kept else None
    st.markdown(f":material/error: **{error.what}**" + (f"  \n{error.fix}" if error.fix else ""))
    if last is not None:
        taken, figure = last
        figure.update_layout(paper_bgcolor="rgba(128,128,128,0.12)")
        st.caption(f"Last good picture, {words.ago(taken)}")
        st.plotly_chart(figure, key=f"stale-{key}", config=CONFIG, theme=None)


def _as_csv(result: Any) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    times: Sequence[Any] = getattr(result, "times", [])
    if times:
        columns = [(name, values) for name, values in _columns("", result) if len(values) == len(times)]
        columns = [(name, values) for name, values in columns if name != "times"]
        writer.writerow(["time", *(name for name, _ in columns)])
        for index, moment in enumerate(times):
            writer.writerow([moment.isoformat(), *(values[index] for _, values in columns)])
    else:
        for name, values in _columns("", result):
            writer.writerow([name, *values])
    return out.getvalue()


def _columns(prefix: str, value: Any) -> Iterator[tuple[str, Sequence[Any]]]:
    if is_dataclass(value) and not isinstance(value, type):
        own = next((getattr(value, word) for word in ("name", "phase", "instance") if getattr(value, word, "")), "")
        for item in fields(value):
            yield from _columns(" ".join(part for part in (prefix, own, item.name) if part), getattr(value, item.name))
    elif isinstance(value, list | tuple) and value:
        if is_dataclass(value[0]):
            for item in value:
                yield from _columns(prefix, item)
        else:
            yield prefix, value
