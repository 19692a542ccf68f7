"""Incidents: what is wrong now, what was, and the page at which one of them is told."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import streamlit as st

from alerts.incidents.history import AlertRow, OpenCounts, active_alerts, incidents, open_counts, pages
from dashboard import escape, words
from dashboard.data import store
from dashboard.one_incident import alerts_table, tell
from dashboard.panel import guarded, tiles
from dashboard.shell import page
from dashboard.tables import numbers, table
from dashboard.tiles import Tile
from dashboard.viewer import clock, zone

if TYPE_CHECKING:
    from alerts.incidents.history import IncidentRow
    from dashboard.page_context import PageContext
    from dashboard.tiles import Judgement

_SHOWN: Final = 50

TITLE: Final = "Incidents"
"""In the navigation."""
PLACE: Final = 60
"""Order in the navigation, the front page first."""
QUESTION: Final = "What is wrong?"
"""Over the page."""


def alone() -> bool:
    """Whether the page shows one incident, which needs no filters (``incident``; links in pages say ``id``)."""
    if "id" in st.query_params:
        st.query_params["incident"] = st.query_params["id"]
        del st.query_params["id"]
    return bool(st.query_params.get("incident"))


def draw() -> None:
    """The list, or one incident when the URL names it."""
    if alone():
        tell()
    else:
        page(_body, marks=False, recorded=False)


def _body(context: PageContext) -> None:
    guarded(context, "incidents", lambda: _list(context))
    guarded(context, "pages", lambda: _pages(context))


def _list(context: PageContext) -> None:
    found, lasting, alerts = _found(context)
    tiles(context, "tiles", lambda: _tiles(found, lasting, alerts))
    if not found:
        st.markdown("**Nothing was wrong** in this window. :gray[Alerts open incidents here, and page.]")
    else:
        frame = pd.DataFrame([
            {
                "State": row.state,
                "Severity": row.severity,
                "What": row.title,
                "Opened": clock(row.opened_at),
                "Lasted": words.seconds(round(row.seconds)),
                "Where": ", ".join(row.labels.values()) or words.NOTHING,
                "Owner": row.owner or words.NOTHING,
                "Id": row.id,
            }
            for row in found
        ])  # fmt: skip
        state: Any = st.dataframe(
            escape.frame(frame), hide_index=True, placeholder=words.NOTHING, key="incidents", on_select="rerun",
            selection_mode=["single-row", "single-cell"], height="content", alt="Incidents of the window",
            column_config=numbers(
                frame, What=st.column_config.TextColumn(width="large"),
                Opened=st.column_config.TextColumn(help=f"In {zone().key}"),
            ),
        )  # fmt: skip
        st.caption("A click on a row tells what happened.")
        chosen = [*state.selection.rows, *(cell[0] for cell in state.selection.cells)]
        if chosen and chosen[0] < len(found):
            st.query_params["incident"] = found[chosen[0]].id
            st.rerun(scope="app")
    if alerts:
        st.markdown("## Alerts now")
        alerts_table(alerts, "alerts")


def _tiles(found: list[IncidentRow], lasting: OpenCounts, alerts: list[AlertRow]) -> list[Tile]:
    firing = sum(alert.state == "firing" for alert in alerts)

    def judged(number: int) -> Judgement:
        return "broken" if number else ""

    return [
        Tile("Open now", str(lasting.open), "nobody has them" if lasting.open else "", judged=judged(lasting.open)),
        Tile("Acknowledged now", str(lasting.acknowledged)),
        Tile("Critical now", str(lasting.critical), judged=judged(lasting.critical)),
        Tile("Alerts firing now", str(firing), judged=judged(firing)),
        Tile("Alerts pending now", str(sum(alert.state == "pending" for alert in alerts))),
        Tile("In this window", str(len(found)), "incidents"),
    ]


def _found(context: PageContext) -> tuple[list[IncidentRow], OpenCounts, list[AlertRow]]:
    return incidents(store(), context.window.start, _end(context)), open_counts(store()), active_alerts(store())


def _end(context: PageContext) -> datetime:
    """Where the window ends; a live one holds still for some seconds, and what happened in them belongs to it."""
    return context.window.end + timedelta(seconds=10 if context.live else 0)


def _pages(context: PageContext) -> None:
    data = os.environ.get("SERVESCOPE_DATA")
    first, last = context.window.start.timestamp(), _end(context).timestamp()
    got = [item for item in pages(Path(data)) if first <= item["at"] <= last] if data else []
    if not got:
        return
    st.markdown("## Pages at the built-in receiver")
    st.caption(
        "No PagerDuty key is set, so pages go to a receiver on this machine that judges them by PagerDuty's documented "
        "limits. Set one: alerts.pagerduty.routing_key_file in servescope.yaml."
    )
    frame = pd.DataFrame([
        {
            "At": clock(datetime.fromtimestamp(item["at"], zone())),
            "Action": item["action"],
            "Summary": str(item["event"].get("payload", {}).get("summary", "")) or words.NOTHING,
            "Severity": str(item["event"].get("payload", {}).get("severity", "")) or words.NOTHING,
            "Dedup key": item["dedup_key"],
        }
        for item in got[:_SHOWN]
    ])  # fmt: skip
    table(frame, "pages")
