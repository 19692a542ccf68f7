"""SLOs and budgets: is what was promised kept, and how fast is the rest being spent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pandas as pd
import streamlit as st

from alerts.history import SloStatus, slo_statuses
from alerts.rules import LatencySli, RulesFile, Slo
from alerts.rulesfile import load
from analytics.budget import Objective
from analytics.window import Filter
from dashboard import words
from dashboard.data import ask, store
from dashboard.figures import CONFIG, Trace, lines
from dashboard.panel import foot, guarded
from dashboard.shell import Look, page, tile
from dashboard.tables import percent, table
from dashboard.theme import colour_of

if TYPE_CHECKING:
    from analytics.budget import BudgetStatus

MISSING: Final = (
    "**No SLO is set.** :gray[Name an SLO file: `servescope up --slos slos.yaml`; ten lines make one, see "
    "alerts/slos.example.yaml.]"
)
_STATES: Final = {"ok": "kept", "burning": "burning", "exhausted": "budget spent", "no_traffic": "no traffic"}


def draw() -> None:
    """The SLO page."""
    page("Is the promise kept?", _body)


def _body(look: Look) -> None:
    path = os.environ.get("SERVESCOPE_SLOS")
    if not path:
        st.markdown(MISSING)
        return
    guarded("budgets", lambda: _objectives(look, load(Path(path))))


def _objectives(look: Look, file: RulesFile) -> None:
    if not file.slos:
        st.markdown(MISSING)
        return
    found = _statuses(str(os.environ["SERVESCOPE_SLOS"]), look.window.end.timestamp())
    _table(found)
    for slo in file.slos:
        own = [status for status in found if status.name == slo.name]
        with st.container(border=True, key=f"panel-slo-{slo.name}"):
            _one(look, slo, own)


@st.cache_data(ttl=5, max_entries=20, show_spinner=False)
def _statuses(path: str, at: float) -> list[SloStatus]:
    del at  # part of the key alone: a new moment is a new question
    return slo_statuses(store(), load(Path(path)))


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
            "Burn rate": max(status.burn_rates.values(), default=None),
        }
        for status in found
    ])  # fmt: skip
    if frame.empty:
        st.markdown("**No traffic** that an SLO speaks of, over its whole period.")
        return
    table(frame, "slos")
    st.caption(
        "A burn rate of 1 spends the budget exactly over the period; the highest of its windows is shown. "
        "Recorded data never counts."
    )


def _one(look: Look, slo: Slo, found: list[SloStatus]) -> None:
    st.markdown(f"**{slo.name}** :gray[{slo.description}]")
    with st.container(horizontal=True, gap="small", key=f"tiles-{slo.name}"):
        for status in found:
            name = ", ".join(status.labels.values())
            tile(f"{slo.name}-left-{name}", f"Budget left {name}".strip(), words.ratio(status.budget_ratio))
            tile(
                f"{slo.name}-good-{name}", f"Good {name}".strip(), words.ratio(status.good_ratio),
                delta=f"target {words.ratio(status.target)}", delta_arrow="off",
            )  # fmt: skip
            for seconds, rate in sorted(status.burn_rates.items()):
                label = f"Burn, {words.seconds(seconds)} {name}".strip()
                tile(f"{slo.name}-{seconds:g}-{name}", label, f"{words.three(rate)} ×")
    objective = objective_of(slo)
    if objective is None:
        return
    answer = ask("budget.status", look.window, look.filter, objectives=(objective,))
    shown: BudgetStatus = answer.result.objectives[0]
    if any(value is not None for value in shown.line):
        trace = Trace("", shown.line, colour_of("requests", look.style.colours))
        figure = lines(
            shown.times, [trace], look.style, title="Good requests", unit="ratio", top=1.02, height=190,
            limit=(slo.target, f"target {words.ratio(slo.target)}"),
        )  # fmt: skip
        st.plotly_chart(figure, key=f"chart-slo-{slo.name}", config=CONFIG, theme=None)
    else:
        st.markdown("**No traffic** for this objective in the window.")
    foot(f"slo-{slo.name}", answer)


def objective_of(slo: Slo) -> Objective | None:
    """The objective that draws an SLO's line over time; None for one that no single signal tells, or with patterns."""
    if slo.sli.kind == "goodput":
        return None
    chosen = {name: getattr(slo.filter, name) for name in slo.filter.dimensions()}
    if any(set(text) & set("*?[") for patterns in chosen.values() for text in patterns):
        return None
    narrowed = Filter(recording="exclude").narrowed(**chosen)
    if isinstance(slo.sli, LatencySli):
        return Objective(
            slo.name, "latency", slo.target, slo.period, narrowed, signal=slo.sli.signal,
            threshold_seconds=slo.sli.threshold_seconds,
        )  # fmt: skip
    bad = tuple(outcome.value for outcome in slo.sli.bad) if slo.sli.kind == "availability" else ()
    return Objective(slo.name, "availability", slo.target, slo.period, narrowed, bad_outcomes=bad)
