"""SLOs and budgets: is what was promised kept, and how fast is the rest being spent."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import streamlit as st

from alerts.rules.file import load
from alerts.rules.objectives import objective_of
from alerts.slo_status import SloStatus, slo_statuses
from base.formats import three
from dashboard import escape, words
from dashboard.data import ask, asker, store
from dashboard.figures import CONFIG, Trace, behind, lines
from dashboard.panel import foot, guarded
from dashboard.shell import page
from dashboard.tables import percent, table
from dashboard.theme import colour_of
from dashboard.tiles import Tile, row
from dashboard.viewer import colours

if TYPE_CHECKING:
    from datetime import datetime

    from alerts.rules.model import RulesFile
    from alerts.rules.slo import Slo
    from analytics.questions.budget import BudgetStatus
    from collector.store.asker import Asker
    from dashboard.page_context import PageContext
    from dashboard.tiles import Judgement

MISSING: Final = (
    "**No SLO is set.** :gray[Name an SLO file: `servescope up --slos slos.yaml`; ten lines make one, see "
    "alerts/slos.example.yaml.]"
)
_STATES: Final = {"ok": "kept", "burning": "burning", "exhausted": "budget spent", "no_traffic": "no traffic"}

TITLE: Final = "SLOs & budgets"
"""In the navigation."""
PLACE: Final = 50
"""Order in the navigation, the front page first."""
QUESTION: Final = "Is the promise kept?"
"""Over the page."""
COMPARE: Final = True
"""Whether the page compares with an earlier period or another version."""


def draw() -> None:
    """The SLO page."""
    page(_body, recorded=False)


def _body(context: PageContext) -> None:
    path = os.environ.get("SERVESCOPE_SLOS")
    if not path:
        st.markdown(MISSING)
        return
    guarded(context, "budgets", lambda: _objectives(context, load(Path(path))))


def _objectives(context: PageContext, file: RulesFile) -> None:
    if not file.slos:
        st.markdown(MISSING)
        return
    found = _statuses(asker(), str(os.environ["SERVESCOPE_SLOS"]), context.window.end.timestamp())
    _table(found)
    for slo in file.slos:
        own = [status for status in found if status.name == slo.name]
        with st.container(border=True, key=f"panel-slo-{slo.name}"):
            _one(context, slo, own)


@st.cache_data(ttl=5, max_entries=20, show_spinner=False)
def _statuses(who: Asker, path: str, at: float) -> list[SloStatus]:
    del at  # part of the key alone: a new moment is a new question
    return slo_statuses(store(who), load(Path(path)))


def _table(found: list[SloStatus]) -> None:
    frame = pd.DataFrame([
        {
            "SLO": status.name,
            "For": ", ".join(status.labels.values()) or "all",
            "State": _STATES[status.state],
            "Target %": percent(status.target),
            "Good %": percent(status.good_ratio),
            "Budget left %": percent(status.budget_ratio),
            "Requests": status.total,
            "Bad": status.bad,
            "Period": words.seconds(status.period_seconds),
            "Burn rate, ×": max(status.burn_rates.values(), default=None) if status.total else None,
        }
        for status in found
    ])  # fmt: skip
    if frame.empty:
        st.markdown("**No traffic** that an SLO speaks of, over its whole period.")
        return
    table(frame, "slos")
    st.caption(
        "A burn rate of 1 spends the budget exactly over the period; the highest of its windows is shown. "
        "Recorded data count where an SLO says so."
    )


def _one(context: PageContext, slo: Slo, found: list[SloStatus]) -> None:
    st.markdown(f"**{escape.markdown(slo.name)}** :gray[{escape.markdown(slo.description)}]")
    for status in found:
        st.html(row(tiles_of(status), colours()))
    counted = replace(context.filter, recording=slo.filter.recordings)  # as the rules that page count
    answer = ask("budget", context.selection.but(filter=counted), objectives=(objective_of(slo),))
    shown: BudgetStatus = answer.result.objectives[0]
    if any(value is not None for value in shown.line):
        figure = _good(shown.times, shown, slo, context)
        if (reference := context.reference) is not None:
            past = ask("budget", reference.but(filter=replace(reference.filter, recording=slo.filter.recordings)),
                       objectives=(objective_of(slo),)).result.objectives[0]  # fmt: skip
            later = context.window.start - reference.window.start
            behind(figure, _good([at + later for at in past.times], past, slo, context), context.style, context.against)
        st.plotly_chart(
            figure, key=f"chart-slo-{slo.name}", config=CONFIG, theme=None,
            alt=f"Share of good requests over time for {slo.name}, against its target",
        )  # fmt: skip
    else:
        st.markdown("**No traffic** for this objective in the window.")
    foot(f"slo-{slo.name}", answer)


def _good(times: list[datetime], shown: BudgetStatus, slo: Slo, context: PageContext) -> Any:
    trace = Trace("", shown.line, colour_of("requests", context.style.colours))
    return lines(
        times, [trace], context.style, title="Good requests", unit="ratio", top=1.02, height=190,
        limit=(slo.target, f"target {words.ratio(slo.target)}"),
    )  # fmt: skip


def tiles_of(status: SloStatus) -> list[Tile]:
    """Tiles of one SLO and group: here tiles judge, for here somebody promised something."""
    name = f", {', '.join(status.labels.values())}" if status.labels else ""
    judged: Judgement = {"burning": "risk", "exhausted": "broken"}.get(status.state, "")  # type: ignore[assignment]
    left = status.budget_ratio
    if left is None:
        spent = Tile(f"Budget left{name}", "no traffic", f"over {words.seconds(status.period_seconds)}")
    elif left <= 0:
        spent = Tile(
            f"Budget left{name}", "none", f"spent {three(1 - left)} times over", judged=judged,
            help="More requests were bad than the target allows in the whole period",
        )  # fmt: skip
    else:
        spent = Tile(f"Budget left{name}", words.ratio(left), _STATES[status.state], judged=judged)
    bad = f"{words.count(status.bad)} of {words.plural(status.total, 'request')} bad"
    return [
        spent,
        Tile(f"Good{name}", words.ratio(status.good_ratio), f"target {words.ratio(status.target)}", help=bad),
        *(
            Tile(
                f"Burn over {words.seconds(seconds)}{name}",
                f"{three(rate)} ×" if status.total else words.NOTHING,
                "1 × spends it just in time",
            )
            for seconds, rate in sorted(status.burn_rates.items())
        ),
    ]
