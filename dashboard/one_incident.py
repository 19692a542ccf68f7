"""One incident: why it opened, its timeline, the numbers frozen then, its pages, and the way to its window."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import streamlit as st

from alerts.deliver.notifier import reached
from alerts.incidents.history import acknowledge, story
from alerts.incidents.why import GIVE_UP_SECONDS
from analytics.selection import Filter, Selection
from analytics.window import Window
from base.errors import ServescopeError
from dashboard import escape, words
from dashboard.causes_in_words import as_markdown, charged, failed, led
from dashboard.data import ask, now, owner, store
from dashboard.links import link
from dashboard.panel import guarded, problem
from dashboard.tables import milliseconds, numbers, percent, table
from dashboard.tiles import Tile
from dashboard.tiles import row as tile_row
from dashboard.viewer import clock, colours, zone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import tzinfo

    from alerts.incidents.history import AlertRow, IncidentRow, IncidentStory, NotificationRow

_AROUND: Final = timedelta(minutes=3)
_MOST_INSTANCES: Final = 10
_REFRESH_SECONDS: Final = 5
_KINDS: Final = {
    "notification_sent": "page sent",
    "notification_failed": "page failed",
}


def tell() -> None:
    """The page of the incident that the URL names."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="bar"):
        st.markdown("# What happened in this incident?", width="stretch")
        if st.button("All incidents", type="tertiary", key="back"):
            st.query_params.pop("incident", None)
            st.rerun()
    guarded(None, "incident", _incident)


def _incident() -> None:
    told = story(store(), st.query_params.get("incident", ""))
    changes = told.incident.state != "resolved" or _is_young(told.incident)

    @st.fragment(run_every=_REFRESH_SECONDS if changes else None)
    def drawn() -> None:
        guarded(None, "incident", lambda: _story(story(store(), told.incident.id)))

    drawn()


def _story(told: IncidentStory) -> None:
    row = told.incident
    st.markdown(f"## {escape.markdown(row.title)}")
    reasons = [reason.strip() for reason in row.summary.split("; ") if reason.strip() and reason.strip() != row.title]
    if reasons:
        st.markdown("\n".join(f"- {escape.markdown(reason)}" for reason in reasons))
    st.html(tile_row(_tiles(row), colours()))
    st.markdown(links(row, told.alerts, recorded=_recorded))
    _take(row)
    because(told)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        st.markdown("## Timeline")
        _timeline(told)
        st.markdown("## Pages")
        _messages(told.notifications)
    with right:
        st.markdown("## Evidence, frozen when it opened")
        evidence(told.evidence)
        st.markdown("## Alerts")
        alerts_table(told.alerts, "transitions")


def _tiles(row: IncidentRow) -> list[Tile]:
    lasts = row.state != "resolved"
    note = f"by {row.owner}" if row.owner else "nobody has it" if lasts else ""
    return [
        Tile("State", row.state, note, judged="broken" if row.state == "open" else "risk" if lasts else ""),
        Tile("Severity", row.severity),
        Tile("Opened", clock(row.opened_at), "UTC" if zone().key == "UTC" else f"{row.opened_at:%H:%M:%S} UTC"),
        Tile("Lasts" if lasts else "Lasted", words.seconds(round(row.seconds))),
        Tile("Where", ", ".join(row.labels.values()) or words.NOTHING, ", ".join(row.labels)),
    ]


def links(
    row: IncidentRow, alerts: Sequence[AlertRow] = (), *, recorded: Callable[[Selection], bool] = lambda _: False
) -> str:
    """Links to the other pages at the incident's time and place; those of a recorded server show recordings alone.

    What all alerts have in common narrows. Where that is no instance, those do that some alerts name: pages know no
    deployment, and one alert of it mostly says which server it is.
    """
    end = (row.resolved_at or now()) + _AROUND
    window = Window(row.opened_at - _AROUND, end)
    narrowed: dict[str, tuple[str, ...]] = {
        name: (row.labels[name],) for name in ("model", "tenant", "instance") if row.labels.get(name)
    }
    named = tuple(sorted({alert.labels["instance"] for alert in alerts if alert.labels.get("instance")}))
    if "instance" not in narrowed and 0 < len(named) <= _MOST_INSTANCES:
        narrowed["instance"] = named
    place = Filter(recording="exclude").narrowed(**narrowed)
    if "instance" in narrowed and recorded(Selection(window, Filter(instance=narrowed["instance"]))):
        place = replace(place, recording="only")
    pages = (
        ("Overview then", "./"), ("Latency then", "latency"), ("Queue then", "queue"),
        ("KV cache then", "kv-cache"), ("Requests then", "requests"),
    )  # fmt: skip
    return " · ".join(f"[{title}]({link(path, Selection(window, place))})" for title, path in pages)


def _recorded(selection: Selection) -> bool:
    """Whether all servers of a selection are recorded ones."""
    try:
        found = ask("instances", selection).result.instances
    except ServescopeError:
        return False  # the story above came from the same store: the page is read in the meantime
    return bool(found) and all(one.recording for one in found)


def _is_young(row: IncidentRow) -> bool:
    """Whether its causes may still be worked out."""
    return (now() - row.opened_at).total_seconds() < GIVE_UP_SECONDS


def because(told: IncidentStory) -> None:
    """Why requests at its place were slow, as it was worked out when it opened, with the ways to what shows it."""
    st.markdown("## Why")
    found = told.why
    if not found:
        st.markdown(
            ":gray[Causes are worked out within minutes of the opening, of requests that are over by then.]"
            if _is_young(told.incident)
            else ":gray[No causes were worked out.]"
        )
        return
    causes, failures = found.get("causes", []), found.get("failures", [])
    selection = _accounted(found) if causes or failures else None
    if selection is None or not causes:
        said = str(found.get("summary", ""))
        st.markdown(escape.markdown(f"{said[:1].upper()}{said[1:]}."))
    if selection is None:
        return
    for failure in failures:
        st.markdown(failed(failure, selection, zone()))
    if not causes:
        return
    excess = float(found.get("excess_seconds") or 0.0)
    whole = words.seconds(excess)
    span = words.span(selection.window.start, selection.window.end, zone())
    st.markdown(f"Of the [{whole}]({link('requests', selection)}) that requests took above the usual from {span}:")
    for chain in found.get("chains", []):
        st.markdown(as_markdown(led(chain, datetime.fromisoformat(str(chain["since"])), selection, zone())))
    for cause in causes:
        st.markdown(charged(cause, selection, excess))


def _accounted(found: Mapping[str, Any]) -> Selection:
    """What the causes were asked about."""
    start, end = (datetime.fromisoformat(str(found["window"][name])) for name in ("start", "end"))
    narrowed = {name: tuple(map(str, values)) for name, values in found.get("place", {}).items()}
    return Selection(Window(start, end), Filter(recording="exclude").narrowed(**narrowed))


def _take(row: IncidentRow) -> None:
    """A button that takes an open incident; only where this dashboard can read the owner's key of its data folder."""
    if row.state != "open" or not _may_write():
        return
    with st.form("take", border=False), st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        who = st.text_input(
            "Your name", key="who", width=220, placeholder="Your name", max_chars=80, label_visibility="collapsed"
        )
        note = st.text_input(
            "Note",
            key="note",
            width=360,
            placeholder="What you know already",
            max_chars=500,
            label_visibility="collapsed",
        )
        pressed = st.form_submit_button("Acknowledge", type="primary")
    if not pressed:
        return
    if not who.strip():
        st.caption("A name is needed: it tells the others who has it.")
        return
    try:
        with owner() as writer:
            acknowledge(writer, row.id, who.strip(), note.strip())
    except ServescopeError as error:
        problem(error)
        return
    st.success(f"{escape.markdown(who.strip())} takes it. The pager notes it within seconds and tells PagerDuty.")


def _may_write() -> bool:
    data = os.environ.get("SERVESCOPE_DATA")
    return bool(data) and os.access(Path(str(data)) / "keys" / "store_owner", os.R_OK)


def _timeline(told: IncidentStory) -> None:
    opened = told.incident.opened_at
    frame = pd.DataFrame([
        {
            "Time": clock(entry.time),
            "From opening": after((entry.time - opened).total_seconds()),
            "Kind": _KINDS.get(entry.kind, entry.kind.replace("_", " ")),
            "What": entry.message,
        }
        for entry in told.timeline
    ])  # fmt: skip
    st.dataframe(
        escape.frame(frame), hide_index=True, placeholder=words.NOTHING, key="timeline", height="content",
        alt="Timeline",
        column_config=numbers(
            frame, What=st.column_config.TextColumn(width="large"),
            Time=st.column_config.TextColumn(help=f"In {zone().key}"),
        ),
    )  # fmt: skip


def after(seconds: float) -> str:
    """A moment as seen from the opening: ``11 min 33 s before``, ``6 s after``."""
    if abs(seconds) < 1:
        return "at once"
    return f"{words.seconds(round(abs(seconds)))} {'after' if seconds > 0 else 'before'}"


def _messages(messages: list[NotificationRow]) -> None:
    if not messages:
        st.caption("No page was sent about it.")
    for message in messages:
        when = clock(message.sent_at) if message.sent_at else "not yet"
        why = f": {message.last_error}" if message.last_error and message.status != "sent" else ""
        tries = words.plural(message.attempts, "attempt")
        whom = reached(message.notifier, message.destination)
        with st.expander(escape.markdown(f"{whom}: {message.action}, {message.status}{why}, {when}, {tries}")):
            st.caption(escape.markdown(f"To {message.destination}, dedup key {message.dedup_key}"))
            st.json(message.payload, expanded=2)


def evidence(found: Mapping[str, Any]) -> None:
    """The frozen numbers as tables (see ``alerts.incidents.evidence.freeze``)."""
    if not found:
        st.caption("None was taken.")
        return
    span = words.seconds(float(found.get("window_seconds", 0)))
    st.caption(
        f"The {span} before it opened: the requests that ended in them, and the engines"
        f"{latencies_of(found.get('latency_window') or {}, zone())}"
    )
    figures = [
        ("Requests", words.per_second(found.get("requests_per_second"))),
        ("Failed", words.ratio(found.get("error_share"))),
        ("TTFT p50", words.seconds(found.get("ttft_p50_seconds"))),
        ("TTFT p99", words.seconds(found.get("ttft_p99_seconds"))),
        ("E2E p99", words.seconds(found.get("e2e_p99_seconds"))),
    ]
    st.html(tile_row([Tile(name, value) for name, value in figures], colours()))
    if found.get("instances"):
        table(pd.DataFrame([_instance(item) for item in found["instances"]]), "evidence-instances")
    if found.get("tenants"):
        table(pd.DataFrame([_tenant(item) for item in found["tenants"]]), "evidence-tenants")
    for missing in found.get("missing", []):
        st.caption(f"Could not be asked: {escape.markdown(str(missing))}")


def latencies_of(shown: Mapping[str, Any], at: tzinfo) -> str:
    """Which requests the evidence's latencies are of, in the viewer's zone; nothing where none were taken."""
    try:
        start, end = (datetime.fromisoformat(str(shown[name])) for name in ("start", "end"))
    except (KeyError, ValueError):
        return ""
    return f"; latencies of those that arrived {words.span(start, end, at)}"


def _instance(item: Mapping[str, Any]) -> dict[str, Any]:
    up = item.get("up_min")
    return {
        "Instance": item.get("instance"),
        "Version": item.get("version") or words.NOTHING,
        "Waiting, peak": item.get("waiting_max"),
        "Running, peak": item.get("running_max"),
        "KV, peak %": percent(item.get("kv_cache_usage_ratio_max")),
        "Preemptions": item.get("preemptions"),
        "Up": words.NOTHING if up is None else "all the time" if up else "not all the time",
    }


def _tenant(item: Mapping[str, Any]) -> dict[str, Any]:
    requests = item.get("requests") or 0
    return {
        "Tenant": item.get("tenant") or words.NOTHING,
        "Requests": requests,
        "Time taken, s": item.get("seconds"),
        "Mean ms": milliseconds(item["seconds"] / requests) if requests and item.get("seconds") is not None else None,
        "Tokens": item.get("tokens") or None,
    }


def alerts_table(alerts: list[AlertRow], key: str) -> None:
    """Alerts or their transitions."""
    if not alerts:
        st.caption("None.")
        return
    frame = pd.DataFrame([
        {
            "State": alert.state,
            "Rule": alert.rule,
            "Since": clock(alert.since),
            "Value": alert.value,
            "Limit": alert.threshold,
            "Where": ", ".join(alert.labels.values()) or words.NOTHING,
            "Why": alert.reason,
        }
        for alert in alerts
    ])  # fmt: skip
    table(frame, key)
