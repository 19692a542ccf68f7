"""What every page shares: title, filters and range in the URL, live refresh, the strip that labels recordings."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import streamlit as st

from analytics.selection import Filter, Selection
from analytics.window import Window
from base.errors import ServescopeError
from dashboard import escape, notes, words
from dashboard.address import kept
from dashboard.data import Question, ahead, ask, now, ready
from dashboard.links import RECORDING_NAMES, RECORDINGS
from dashboard.page_context import COMPARED, VERSION, PageContext
from dashboard.panel import trouble
from dashboard.viewer import colours, zone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamlit.delta_generator import DeltaGenerator

    from analytics.questions.choices import Choices
    from dashboard.page_context import Recordings

HERE: Final = Path(__file__).parent
RANGES: Final[dict[str, int]] = {"5m": 300, "15m": 900, "1h": 3600, "6h": 21600, "24h": 86400, "7d": 604800}
DEFAULT_RANGE: Final = "15m"
TILES: Final[Question] = ("traffic", {"models": False})
"""What the tiles of the front page ask, of its window and of the one it is compared with."""
_SPAN: Final = ("from", "to")
_RECORDED: Final = "recording"
"""In the address, and of the box."""
AGAINST: Final = "Against "
"""Begins the name of a comparison in the address."""
_BREATH: Final = 3.0
"""A page that takes long to draw is refreshed no more often than once in so many times that."""
_PATIENCE_SECONDS: Final = 1.5
_CHOICES_SECONDS: Final = 60
"""Values of the filters are looked up over windows that end on a whole minute, so that pages share the answer."""


def begin() -> None:
    """Settings of the whole app; first call of every run."""
    st.set_page_config(page_title="Servescope", layout="wide", initial_sidebar_state="collapsed")
    st.html(HERE / "style.css")
    own = colours()
    st.html(f"<style>:root {{ --servescope-on-accent: {own.page}; --servescope-quiet: {own.quiet}; }}</style>")
    st.html(f"<script>{(HERE / 'crosshair.js').read_text(encoding='utf-8')}</script>", unsafe_allow_javascript=True)


@dataclass(frozen=True, slots=True)
class Bar:
    """What the viewer chose in the line of a page's title."""

    seconds: int
    absolute: Window | None
    live: bool
    around: Selection
    choices: Choices | None
    filter: Filter
    compare: str


def bar(question: str, *, compare: bool) -> None:
    """A page's question as title and the filters on the same line.

    The entry script draws it and not the page: widgets of the entry script belong to all pages, so that their values
    and their places in the URL go along from page to page.

    Args:
        question: Title.
        compare: Whether the page can compare with an earlier period or another version.
    """
    if st.session_state.get("page") != question:
        st.session_state.update(page=question, selecting=False)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="bar"):
        st.markdown(f"# {question}", width="stretch")
        seconds, absolute = _range()
        live = absolute is None and st.toggle(
            "Live", value=True, key=kept("live", True), bind="query-params", width="content"
        )
        soon = now() + timedelta(seconds=_CHOICES_SECONDS)  # the newest minute counts: a first recording is labelled
        lately = absolute or Window.last(max(seconds, 900), soon, round_to=_CHOICES_SECONDS)
        around = Selection(lately, Filter(recording=_recording()))
        choices = _choices(around)
        filter_ = _filters(choices)
        compared = _compared(choices) if compare else ""
    st.session_state["bar"] = Bar(seconds, absolute, live, around, choices, filter_, compared)


def page(
    body: Callable[[PageContext], None],
    *,
    marks: bool = True,
    recorded: bool = True,
    arriving: bool = False,
    needs: Callable[[], list[Question]] = list,
    compared: Callable[[], list[Question]] = list,
) -> None:
    """Draw a page under its bar, again and again while live.

    Args:
        body: Draws the page for a context.
        marks: Whether charts carry deploys and incidents.
        recorded: Whether the page shows recorded data, where there are any and the filter lets them through.
        arriving: Whether the page has figures by arrival, of which the newest are incomplete.
        needs: Questions that the page will ask; they are worked out side by side, in this order.
        compared: Those of them that are asked of what the viewer compares with, too.
    """
    chosen: Bar = st.session_state["bar"]
    moving = chosen.live and not st.session_state.get("selecting")
    refresh = max(float(os.environ.get("SERVESCOPE_REFRESH", "5")), _BREATH * st.session_state.get("took", 0.0))

    @st.fragment(run_every=refresh if moving else None)
    def drawn() -> None:
        asked = chosen.absolute or _window(chosen.seconds, moving=moving, refresh=refresh)
        selection, begins = Selection(asked, chosen.filter), None
        if marks:
            selection, begins = notes.begun(selection)
        choices = chosen.choices or _known(chosen.around)
        beside = compared()
        context = PageContext(
            selection,
            chosen.live,
            choices,
            chosen.compare,
            marks,
            asked=asked,
            begins=begins,
            compares={name for name, _ in beside},
        )
        more: list[Question] = [("arrivals", {})] if arriving else []
        ahead([*needs(), *more, *([("events", {})] if marks else [])], selection)
        if context.reference is not None:
            ahead(beside, context.reference)
        begun = time.monotonic()
        told = [notes.beginning(context), notes.recorded(context) if recorded else ""]
        told.append(notes.edge(context) if arriving else "")
        line = st.empty()
        _say(line, told)
        top = st.container()
        offered = st.container()
        if recorded:
            _offer_recordings(offered, notes.left_out(context))
        body(context)
        # Now, since tiles need not wait for it, nor for names of recordings, which a first visit may not know before
        if recorded and context.choices is None:
            context.choices = _sought(chosen.around)
            told[1] = notes.recorded(context)
            _offer_recordings(offered, notes.left_out(context))
        _say(line, [*told, notes.shaded(context)])
        trouble(context, top)
        st.session_state["took"] = time.monotonic() - begun

    drawn()


def _say(place: DeltaGenerator, told: Sequence[str]) -> None:
    """Lines under the title, close together; no lines take no room."""
    if text := "  \n".join(line for line in told if line):
        place.caption(text)


def _window(seconds: int, *, moving: bool, refresh: float) -> Window:
    """The window that ends now; the one of a moment ago serves again until the next refresh, or while paused."""
    kept = st.session_state.get("window")
    if kept is not None and kept[1].seconds == seconds and (not moving or time.monotonic() - kept[0] < refresh - 1):
        return cast("Window", kept[1])
    window = Window.last(seconds, round_to=5 if seconds <= RANGES["1h"] else 30)
    st.session_state["window"] = (time.monotonic(), window)
    return window


def _range() -> tuple[int, Window | None]:
    for name in _SPAN:  # a page that is changed to keeps the span of the page before
        if name in st.query_params:
            st.session_state[f"span-{name}"] = st.query_params[name]
        elif f"span-{name}" in st.session_state:
            st.query_params[name] = st.session_state[f"span-{name}"]
    start, end = (st.query_params.get(name) for name in _SPAN)
    if start and end and (window := _absolute(start, end)) is not None:
        st.caption(
            words.span(window.start, window.end, zone()), width="content",
            help=f"{words.clock(window.start)} to {words.clock(window.end)}",
        )  # fmt: skip
        if st.button("Back to now", key="now", type="tertiary"):
            for name in _SPAN:
                st.query_params.pop(name, None)
                st.session_state.pop(f"span-{name}", None)
            st.rerun()
        return int(window.seconds), window
    chosen = st.selectbox(
        "Range", list(RANGES), index=list(RANGES).index(DEFAULT_RANGE), key=kept("range", DEFAULT_RANGE),
        bind="query-params", width=90, label_visibility="collapsed", help="How far back from now",
    )  # fmt: skip
    return RANGES[chosen or DEFAULT_RANGE], None


def _absolute(start: str, end: str) -> Window | None:
    try:
        return Window(moment(start), moment(end))
    except (ValueError, OverflowError, OSError, ServescopeError) as error:
        st.warning(
            f"The link's time range cannot be read: {escape.markdown(str(error))}. Showing the newest data instead."
        )
        return None


def moment(text: str) -> datetime:
    """A time as Unix seconds or ISO 8601, UTC where it names no zone.

    Raises:
        ValueError: It is neither.
    """
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except ValueError:
        found = datetime.fromisoformat(text)
        return found if found.tzinfo else found.replace(tzinfo=UTC)


def _choices(around: Selection) -> Choices | None:
    """Values of the filters: those of now or of a while ago; a first page waits a moment for them, no longer.

    A page that gets none never runs again for their sake: a rerun of ours would swallow a click on another page.
    """
    about, before = cast("tuple[str, Choices | None]", st.session_state.get("choices", ("", None)))
    if about != around.filter.recording:
        before = None  # names of recordings are offered to nobody who looks at what is live
    if not ready("choices", around):
        ahead([("choices", {})], around)
        deadline = time.monotonic() + (0 if before else _PATIENCE_SECONDS)
        while time.monotonic() < deadline and not ready("choices", around):
            time.sleep(0.02)
    return _known(around) or before


def _known(around: Selection) -> Choices | None:
    return _sought(around) if ready("choices", around) else None


def _sought(around: Selection) -> Choices | None:
    """Values of the filters, waited for; None where the store does not answer."""
    try:
        found: Choices = ask("choices", around).result
    except ServescopeError:
        return None  # the panels say what is wrong; the filters keep what was chosen
    st.session_state["choices"] = (around.filter.recording, found)
    return found


def _first_recordings() -> Recordings:
    """What a page begins with, by the setting."""
    return "include" if os.environ.get("SERVESCOPE_RECORDINGS") == "include" else "exclude"


def _recording() -> Recordings:
    """What was chosen, before its box is drawn: the values of the boxes beside it go by it."""
    chosen = st.session_state.get(_RECORDED) or st.query_params.get(_RECORDED)
    return RECORDINGS.get(str(chosen), _first_recordings())


def _offer_recordings(place: DeltaGenerator, told: str) -> None:
    """Beside empty charts: what there is, one click away."""
    if not told:
        return
    with place, st.container(horizontal=True, gap="small", vertical_alignment="center", key="only-recordings"):
        st.markdown(told, width="content")
        if st.button("Show them", key="show-recordings", on_click=_show_recordings):
            st.rerun(scope="app")  # the box in the bar is not of this fragment


def _show_recordings() -> None:
    st.session_state[_RECORDED] = RECORDING_NAMES["include"]


def _filters(choices: Choices | None) -> Filter:
    models = _many("Model", "model", choices.models if choices else [])
    tenants = _many("Tenant", "tenant", choices.tenants if choices else [])
    instances = _many("Instance", "instance", choices.instances if choices else [])
    recording = _recording()
    if (choices and choices.recordings) or _RECORDED in st.query_params or recording != _first_recordings():
        first = RECORDING_NAMES[_first_recordings()]
        chosen = st.selectbox(
            "Recorded data", list(RECORDINGS), key=kept(_RECORDED, first), bind="query-params", width=158,
            index=list(RECORDINGS).index(first), label_visibility="collapsed",
        )  # fmt: skip
        recording = RECORDINGS[chosen] if chosen else recording
    return Filter(model=models, tenant=tenants, instance=instances, recording=recording)


def _many(label: str, key: str, values: list[str]) -> tuple[str, ...]:
    chosen = st.session_state.get(key) or st.query_params.get_all(key)
    picked = st.multiselect(
        label, sorted({*values, *chosen}), key=kept(key, []), bind="query-params", width=150,
        placeholder=f"All {label.lower()}s", label_visibility="collapsed",
    )  # fmt: skip
    return tuple(picked)


def _compared(choices: Choices | None) -> str:
    chosen = str(st.session_state.get("compare") or st.query_params.get("compare") or "").removeprefix(AGAINST)
    versions = choices.versions if choices and len(choices.versions) > 1 else []
    named = dict.fromkeys(f"{VERSION}{version}" for version in versions)
    if chosen.startswith(VERSION):
        named[chosen] = None
    options = [*COMPARED, *named]
    return st.selectbox(
        "Compare", options, key=kept("compare", options[0]), bind="query-params", width=176,
        label_visibility="collapsed",
        format_func=lambda key: COMPARED.get(key) or f"{AGAINST}{key}",
        help="Against a version: what is drawn of all beside what is of that version alone" if named else None,
    ) or ""  # fmt: skip
