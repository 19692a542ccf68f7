"""What every page shares: title, filters and range in the URL, live refresh, the strip that labels recordings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

from agent.errors import ServescopeError
from analytics.window import Filter, Window
from dashboard import theme, words
from dashboard.data import ask, explain
from dashboard.figures import Style

if TYPE_CHECKING:
    from collections.abc import Callable

    from analytics.traffic import Choices

RANGES: Final[dict[str, int]] = {
    "5m": 300,
    "15m": 900,
    "1h": 3600,
    "6h": 21600,
    "24h": 86400,
    "7d": 604800,
}
DEFAULT_RANGE: Final = "15m"
_RECORDINGS: Final = {"include": "Live and recorded", "exclude": "Live only", "only": "Recorded only"}
_CSS: Final = """
<style>
.stMainBlockContainer { padding: 4.2rem 1.4rem 2rem 1.4rem; max-width: 1900px; }
[data-testid="stMetricValue"] { font-variant-numeric: tabular-nums; }
[data-testid="stMetric"] { padding: 0.55rem 0.8rem; }
[data-testid="stLayoutWrapper"]:has(> [class*="st-key-tile-"]) {
  flex: 1 1 136px !important; min-width: 136px !important; align-self: stretch;
}
[data-testid="stLayoutWrapper"]:has(> [class*="st-key-tile-"]) [data-testid="stElementContainer"] { flex: 1 1 auto; }
[data-testid="stHorizontalBlock"][class*="st-key-tiles"] { align-items: stretch; }
[class*="st-key-tile-"] { min-width: 0; height: 100%; }
[class*="st-key-tile-"] [data-testid="stMetric"] { height: 100%; }
[data-testid="stLayoutWrapper"]:has(> [class*="st-key-half-"]) {
  flex: 1 1 46% !important; min-width: 420px !important;
}
[class*="st-key-foot-"] { margin-top: -0.5rem; min-height: 1.6rem; flex-wrap: nowrap; }
[class*="st-key-foot-"] > :first-child { min-width: 0; flex: 1 1 auto; overflow: hidden; }
[class*="st-key-foot-"] > :not(:first-child) { flex: 0 0 auto; width: auto; }
[class*="st-key-foot-"] button { min-height: 1.2rem; padding: 0 0.3rem; font-size: 0.8rem; }
[class*="st-key-panel-"] { padding: 0.5rem 0.7rem 0.3rem 0.7rem; }
h2 { padding: 0 !important; }
</style>
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What the viewer looks at.

    Attributes:
        window: The window of all charts.
        filter: The filter of all questions.
        style: For figures.
        live: Whether the window ends now and moves on.
        choices: Values of the filters that occur.
    """

    window: Window
    filter: Filter
    style: Style
    live: bool
    choices: Choices | None


def begin() -> None:
    """Settings of the whole app; first call of every run."""
    st.set_page_config(page_title="Servescope", layout="wide", initial_sidebar_state="collapsed")
    st.html(_CSS)


def page(question: str, body: Callable[[Look], None], *, marks: bool = True) -> None:
    """Draw a page: its question as title, the filters on the same line, then ``body``, again and again while live.

    Args:
        question: Title.
        body: Draws the page for a look.
        marks: Whether charts carry deploys and incidents.
    """
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="bar"):
        st.markdown(f"## {question}", width="stretch")
        seconds, absolute = _range()
        choices = _choices(seconds, absolute)
        filter_ = _filters(choices)
    refresh = float(os.environ.get("SERVESCOPE_REFRESH", "5"))
    live = absolute is None and not st.session_state.get("pause", False)

    @st.fragment(run_every=refresh if live else None)
    def drawn() -> None:
        window = absolute or Window.last(seconds, round_to=_round(seconds))
        look = Look(window, filter_, _style(window, filter_, marks=marks), live, choices)
        _strip(look)
        body(look)

    drawn()


def tile(key: str, label: str, value: str, **options: object) -> None:
    """A tile that keeps its width and wraps with its neighbours."""
    with st.container(key=f"tile-{key}"):
        st.metric(label, value, border=True, delta_color="off", **options)  # type: ignore[arg-type]


def zone() -> ZoneInfo:
    """The viewer's time zone, UTC when the browser does not say."""
    try:
        return ZoneInfo(st.context.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def colours() -> theme.Palette:
    """Palette of the viewer's mode."""
    return theme.palette(st.context.theme.type)


def _range() -> tuple[int, Window | None]:
    start, end = st.query_params.get("from"), st.query_params.get("to")
    if start and end:
        window = _absolute(start, end)
        if window is not None:
            st.caption(f"{words.clock(window.start)} to {words.clock(window.end)}", width="content")
            if st.button("Back to now", key="now", type="tertiary"):
                for name in ("from", "to"):
                    st.query_params.pop(name, None)
                st.rerun()
            return int(window.seconds), window
    chosen = st.selectbox(
        "Range", list(RANGES), index=list(RANGES).index(DEFAULT_RANGE), key="range", bind="query-params", width=92,
        format_func=lambda name: f"Last {name}", label_visibility="collapsed",
    )  # fmt: skip
    return RANGES[chosen or DEFAULT_RANGE], None


def _absolute(start: str, end: str) -> Window | None:
    try:
        return Window(_moment(start), _moment(end))
    except (ValueError, ServescopeError) as error:
        st.warning(f"The link's time range cannot be read: {error}. Showing the newest data instead.")
        return None


def _moment(text: str) -> datetime:
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _choices(seconds: int, absolute: Window | None) -> Choices | None:
    window = absolute or Window.last(max(seconds, 900), round_to=60)
    try:
        return ask("traffic.choices", window, Filter()).result  # type: ignore[no-any-return]
    except ServescopeError:
        return None  # the panels say what is wrong; the filters keep what was chosen


def _filters(choices: Choices | None) -> Filter:
    models = _many("Model", "model", choices.models if choices else [])
    tenants = _many("Tenant", "tenant", choices.tenants if choices else [])
    instances = _many("Instance", "instance", choices.instances if choices else [])
    recording: Literal["include", "exclude", "only"] = "include"
    if choices and choices.recordings:
        recording = st.selectbox(
            "Recorded data", list(_RECORDINGS), key="recording", bind="query-params", width=150,
            format_func=_RECORDINGS.__getitem__, label_visibility="collapsed",
        ) or "include"  # type: ignore[assignment]  # fmt: skip
    return Filter(model=models, tenant=tenants, instance=instances, recording=recording)


def _many(label: str, key: str, values: list[str]) -> tuple[str, ...]:
    chosen = st.session_state.get(key) or st.query_params.get_all(key)
    options = sorted({*values, *chosen})
    picked = st.multiselect(
        label, options, key=key, bind="query-params", placeholder=f"All {label.lower()}s", width=170,
        label_visibility="collapsed",
    )  # fmt: skip
    return tuple(picked)


def _style(window: Window, filter_: Filter, *, marks: bool) -> Style:
    shown: list[tuple[datetime, str]] = []
    bands: list[tuple[datetime, datetime, str]] = []
    if marks:
        try:
            timeline = ask("events.timeline", window, filter_).result
        except ServescopeError:
            timeline = None  # the panels themselves say that the store does not answer
        if timeline is not None:
            telling = {"deploy", "instance_restarted", "version_changed", "instance_down"}
            shown = [(mark.time, mark.event.replace("_", " ")) for mark in timeline.marks if mark.event in telling][
                -12:
            ]
            bands = [(band.start, band.end or window.end, band.title[:40]) for band in timeline.bands][-12:]
    return Style(colours(), zone(), (window.start, window.end), shown, bands)


def _strip(look: Look) -> None:
    names = look.choices.recordings if look.choices else []
    if names and look.filter.recording != "exclude":
        st.caption(
            f":material/history: Recorded data is on this page: {', '.join(names)}. It is a real server's past, played "
            "again; it pages nobody."
        )


def store_problem(error: ServescopeError) -> None:
    """A box that says why the store does not answer and what mends it."""
    what, fix = explain(error)
    st.markdown(f":material/error: **{what}**" + (f"  \n{fix}" if fix else ""))


def _round(seconds: int) -> int:
    return 5 if seconds <= timedelta(hours=1).total_seconds() else 30
