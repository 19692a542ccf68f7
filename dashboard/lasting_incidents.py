"""The line on the front page that says which incidents last, with the way to each."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import streamlit as st

from alerts.incidents.history import incidents
from base.errors import ServescopeError
from dashboard import words
from dashboard.data import now, store
from dashboard.escape import page as escape

if TYPE_CHECKING:
    from dashboard.page_context import PageContext

_SHOWN = 3


def lasting_incidents(context: PageContext) -> None:
    """Incidents that last, worst first; nothing when all is well or the window lies in the past."""
    if not context.live:
        return
    try:
        lasting = incidents(store(), context.window.start, now(), states=["open", "acknowledged"], limit=20)
    except ServescopeError:
        return  # the tiles above have met the same trouble and told it
    if not lasting:
        return
    order = ("critical", "error", "warning", "info")
    lasting.sort(key=lambda row: (order.index(row.severity) if row.severity in order else 9, -row.seconds))
    context.told.update(row.id for row in lasting)
    colours = context.colours
    lines = "".join(
        f"<div>{escape(row.severity.capitalize())}, {escape(row.state)} for {words.seconds(round(row.seconds))}: "
        f'<a href="incidents?incident={quote(row.id, safe="")}" target="_self" style="color:{colours.accent}">'
        f"{escape(row.title)}</a></div>"
        for row in lasting[:_SHOWN]
    )
    more = (
        f'<div><a href="incidents" target="_self" style="color:{colours.accent}">{len(lasting) - _SHOWN} more</a></div>'
        if len(lasting) > _SHOWN
        else ""
    )
    st.html(
        f'<div class="servescope-trouble" style="--broken:{colours.broken};--text:{colours.text}">{lines}{more}</div>'
    )
