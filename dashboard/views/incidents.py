"""Incidents: what is wrong now, what was, and one incident's timeline with its evidence."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pandas as pd
import streamlit as st

from alerts.history import AlertRow, IncidentRow, IncidentStory, active_alerts, incidents, pages, story
from analytics.window import as_plain
from dashboard import words
from dashboard.data import store
from dashboard.panel import guarded
from dashboard.shell import Look, page, tile, zone
from dashboard.tables import numbers, table

_KINDS: Final = {
    "opened": "opened",
    "alert_firing": "alert firing",
    "alert_resolved": "alert resolved",
    "notification_sent": "page sent",
    "notification_failed": "page failed",
    "acknowledged": "acknowledged",
    "resolved": "resolved",
}


def draw() -> None:
    """The list, or one incident when the URL names it."""
    if st.query_params.get("incident"):
        _one()
    else:
        page("What is wrong?", _body, marks=False)


def _body(look: Look) -> None:
    guarded("incidents", lambda: _list(look))
    guarded("pages", _pages)


def _list(look: Look) -> None:
    found, alerts = _found(look.window.start.timestamp(), look.window.end.timestamp())
    lasting = [row for row in found if row.state != "resolved"]
    with st.container(horizontal=True, gap="small", key="tiles"):
        tile("open", "Open", str(sum(row.state == "open" for row in lasting)))
        tile("acknowledged", "Acknowledged", str(sum(row.state == "acknowledged" for row in lasting)))
        tile("critical", "Critical", str(sum(row.severity == "critical" for row in lasting)))
        tile("firing", "Alerts firing", str(sum(alert.state == "firing" for alert in alerts)))
        tile("pending", "Alerts pending", str(sum(alert.state == "pending" for alert in alerts)))
    if not found:
        st.markdown("**Nothing was wrong** in this window. :gray[Alerts open incidents here, and page.]")
    else:
        frame = pd.DataFrame([
            {
                "State": row.state,
                "Severity": row.severity,
                "What": row.title,
                "Opened": _clock(row.opened_at),
                "Lasted": words.seconds(round(row.seconds)),
                "Where": ", ".join(row.labels.values()) or words.NOTHING,
                "Owner": row.owner or words.NOTHING,
                "Id": row.id,
            }
            for row in found
        ])  # fmt: skip
        state: Any = st.dataframe(
            frame, hide_index=True, placeholder=words.NOTHING, key="incidents", on_select="rerun",
            selection_mode="single-row", column_config=numbers(frame, What=st.column_config.TextColumn(width="large")),
            height="content",
        )  # fmt: skip
        if state.selection.rows:
            st.query_params["incident"] = found[state.selection.rows[0]].id
            st.rerun(scope="app")
    if alerts:
        st.markdown("#### Alerts now")
        _alerts(alerts, "alerts")


def _found(start: float, end: float) -> tuple[list[IncidentRow], list[AlertRow]]:
    zone_ = zone()
    first, last = datetime.fromtimestamp(start, zone_), datetime.fromtimestamp(end, zone_) + timedelta(seconds=10)
    return incidents(store(), first, last), active_alerts(store())


def _alerts(alerts: list[AlertRow], key: str) -> None:
    frame = pd.DataFrame([
        {
            "State": alert.state,
            "Rule": alert.rule,
            "Why": alert.reason,
            "Since": _clock(alert.since),
            "Value": alert.value,
            "Limit": alert.threshold,
            "Where": ", ".join(alert.labels.values()) or words.NOTHING,
        }
        for alert in alerts
    ])  # fmt: skip
    table(frame, key)


def _pages() -> None:
    data = os.environ.get("SERVESCOPE_DATA")
    got = pages(Path(data)) if data else []
    if not got:
        return
    st.markdown("#### Pages at the built-in receiver")
    st.caption(
        "No PagerDuty key is set, so pages go to a receiver on this machine that judges them by PagerDuty's documented "
        "limits. Set one: alerts.pagerduty.routing_key_file in servescope.yaml."
    )
    frame = pd.DataFrame([
        {
            "At": _clock(datetime.fromtimestamp(item["at"], zone())),
            "Action": item["action"],
            "Summary": str(item["event"].get("payload", {}).get("summary", "")),
            "Severity": str(item["event"].get("payload", {}).get("severity", "")),
            "Dedup key": words.short(str(item["dedup_key"]), 24),
        }
        for item in got[:50]
    ])  # fmt: skip
    table(frame, "pages")


def _one() -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.markdown("## What happened in this incident?", width="stretch")
        if st.button("All incidents", type="tertiary", key="back"):
            st.query_params.pop("incident", None)
            st.rerun()

    @st.fragment(run_every=10)
    def drawn() -> None:
        guarded("incident", lambda: _story(story(store(), st.query_params.get("incident", ""))))

    drawn()


def _story(told: IncidentStory) -> None:
    row = told.incident
    st.markdown(f"### {row.title}")
    if row.summary and row.summary != row.title:
        st.markdown(row.summary)
    with st.container(horizontal=True, gap="small", key="tiles"):
        tile("state", "State", row.state)
        tile("severity", "Severity", row.severity)
        tile("opened", "Opened", _clock(row.opened_at))
        tile("lasted", "Lasted", words.seconds(round(row.seconds)))
        tile("owner", "Owner", row.owner or words.NOTHING)
        tile("where", "Where", ", ".join(row.labels.values()) or words.NOTHING)
    st.markdown(_links(row))
    left, right = st.columns([3, 2], gap="medium")
    with left:
        st.markdown("#### Timeline")
        frame = pd.DataFrame([
            {
                "Time": _clock(entry.time),
                "After": words.seconds(max((entry.time - row.opened_at).total_seconds(), 0)),
                "Kind": _KINDS.get(entry.kind, entry.kind.replace("_", " ")),
                "What": entry.message,
            }
            for entry in told.timeline
        ])  # fmt: skip
        table(frame, "timeline")
        st.markdown("#### Pages")
        if not told.notifications:
            st.caption("No page was sent about it.")
        for message in told.notifications:
            sent = _clock(message.sent_at) if message.sent_at else "not yet"
            why = f": {message.last_error}" if message.last_error and message.status != "sent" else ""
            label = f"{message.notifier}: {message.action}, {message.status}{why}, {sent}, {message.attempts} attempts"
            with st.expander(label):
                st.caption(f"To {message.destination}, dedup key {message.dedup_key}")
                st.json(message.payload, expanded=2)
    with right:
        st.markdown("#### Evidence, frozen when it opened")
        if told.evidence:
            st.json(as_plain(told.evidence), expanded=2)
        else:
            st.caption("None was taken.")
        st.markdown("#### Alerts")
        _alerts(told.alerts, "transitions")


def _links(row: IncidentRow) -> str:
    start = (row.opened_at - timedelta(minutes=3)).timestamp()
    end = ((row.resolved_at or row.updated_at) + timedelta(minutes=3)).timestamp()
    query = f"from={start:.0f}&to={end:.0f}"
    narrowed = "".join(f"&{name}={row.labels[name]}" for name in ("model", "tenant", "instance") if name in row.labels)
    return " · ".join(
        f"[{title}]({path}?{query}{narrowed})"
        for title, path in (
            ("Overview then", "./"),
            ("Latency then", "latency"),
            ("Queue then", "waiting"),
            ("Requests then", "requests_list"),
        )
    )


def _clock(moment: datetime) -> str:
    local = moment.astimezone(zone())
    today = datetime.now(zone()).date()
    return f"{local:%H:%M:%S}" if local.date() == today else f"{local:%d %b %H:%M:%S}"
