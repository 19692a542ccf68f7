"""What is left of the error budget of each SLO.

The words are those of `analytics.slo`: a request counts when it ends, as for the rules that page.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from analytics.answer import Answer, Coverage, weakest
from analytics.conditions import conditions
from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.question import Command, QuestionError
from analytics.selection import FILTER_COLUMNS, refuse
from analytics.signals import signal_of
from analytics.slo import FINISHED, LONGEST_SECONDS, Objective, Sli, budget_remaining, burn_rate, counting
from analytics.values import ratio
from base.formats import spell
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from analytics.answer import Exactness, State
    from analytics.inquiry import Reader
    from analytics.selection import Selection


COMMAND: Final = Command(of_slos=True)
_SQL: Final = beside(__file__)


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """One objective over one window.

    Attributes:
        objective: Its name.
        sli: Kind.
        target: Promised share of good requests.
        total, bad, good: Requests, weighted; 0 without traffic.
        sli_ratio: Share of good ones; None without traffic.
        budget_ratio: Share of the window's budget left: 1 untouched, 0 spent, negative overspent; None without
            traffic.
        budget_requests: Bad requests still affordable at this volume; None without traffic.
        burn_rate: Bad share over the allowed share; None without traffic.
        times: Starts of the steps of the two lines.
        line: Share of good requests per step, None in steps without traffic.
        budget_line: ``budget_ratio`` as it went down over the window, measured against the window's whole volume.
        exactness: ``exact`` from rows, ``derived`` from histogram or counters.
        state: *No traffic* and *no data* are told apart.
        note: What this SLI cannot see, empty when nothing.
    """

    objective: str
    sli: Sli
    target: float
    total: float
    bad: float
    good: float
    sli_ratio: float | None
    budget_ratio: float | None
    budget_requests: float | None
    burn_rate: float | None
    times: list[datetime]
    line: list[float | None]
    budget_line: list[float | None]
    exactness: Exactness
    state: State
    note: str


@dataclass(frozen=True, slots=True)
class Budget:
    """Objectives over one window, in the order given.

    Attributes:
        step: Seconds of a step of the lines.
        objectives: One status each.
    """

    step: int
    objectives: list[BudgetStatus]


def ask(
    store: Reader,
    selection: Selection,
    *,
    objectives: Sequence[Objective] = (),
    points: int = 120,
) -> Answer[Budget]:
    """Each objective over the window; the selection's filter narrows further what the objective's own lets through.

    An objective without any row is read from metrics where they can say it: failures that the server counts, or the
    histogram bucket at or below the threshold.

    Raises:
        QuestionError: There is no objective.
    """
    if not objectives:
        raise QuestionError("A budget needs objectives", "Name a file of SLOs")
    refuse("budget", selection, (*FILTER_COLUMNS,))
    narrowed = selection.filter
    if all(objective.filter.recording == "exclude" for objective in objectives) and narrowed.recording == "include":
        # what no objective counts the answer does not rest on
        selection = selection.but(filter=replace(narrowed, recording="exclude"))
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    grid = Grid.of(selection.window, points)
    counted = _from_rows(inquiry, grid, objectives)
    made = [
        _status(objective, grid, total, bad, "exact", cover, "")
        if any(total)
        else _from_metrics(inquiry, cover, grid, objective)
        for objective, (total, bad) in zip(objectives, counted, strict=True)
    ]
    rows = sum(int(sum(total)) for total, _ in counted)
    return inquiry.answer(
        Budget(grid.step, made),
        cover,
        level="rows" if rows or cover.rows else "metrics",
        exactness=weakest([item.exactness for item in made]),
        rows=rows or int(sum(item.total for item in made)),
        by_arrival=False,
    )


def _from_rows(inquiry: Inquiry, grid: Grid, objectives: Sequence[Objective]) -> list[tuple[list[float], list[float]]]:
    """Valid and bad requests per step of each objective; none of one that is to be read from metrics."""
    lines = [(grid.zeros(), grid.zeros()) for _ in objectives]
    asked = {place: objective for place, objective in enumerate(objectives) if objective.source == "rows"}
    if not asked:
        return lines
    totals, bads = [], []
    bound: dict[str, Any] = {"arrived_from_ms": inquiry.window.from_ms - int(LONGEST_SECONDS * 1000)}
    for index, objective in asked.items():
        narrowed, parameters = conditions(objective.filter, "requests", f"objective_{index}", patterns=True)
        made = counting(objective.measure, str(index))
        total, bad = made.sums(f"1 {narrowed}")
        totals.append(total)
        bads.append(bad)
        bound |= parameters | made.parameters
    fragments = {"totals": ", ".join(totals), "bads": ", ".join(bads), "finished": FINISHED}
    for row in inquiry.ask("status_rows", fragments, step_ms=grid.step_ms, **bound):
        place = grid.at(row["slot"])
        for index, valid, wrong in zip(asked, row["totals"], row["bads"], strict=True):
            lines[index][0][place], lines[index][1][place] = float(valid), float(wrong)
    return lines


def _from_metrics(inquiry: Inquiry, cover: Coverage, grid: Grid, objective: Objective) -> BudgetStatus:
    total, bad = grid.zeros(), grid.zeros()
    if objective.filter.tenant or inquiry.filter.tenant:
        return _status(objective, grid, total, bad, "exact", cover, "Server metrics know no tenant.")
    if objective.sli == "goodput":
        return _status(objective, grid, total, bad, "exact", cover, "Server metrics judge no single request.")
    latency = objective.sli == "latency"
    if latency and not signal_of(objective.signal).distribution:
        return _status(objective, grid, total, bad, "exact", cover, "")
    made = counting(replace(objective.measure, source="metrics"), "0")
    judged, wrong = made.sums("1")
    used = 0.0
    for row in inquiry.ask(
        "status_histograms" if latency else "status_samples",
        {"total": judged, "bad": wrong},
        promised=objective.filter,
        step_ms=grid.step_ms,
        **made.parameters,
    ):
        place = grid.at(row["slot"])
        total[place], bad[place] = float(row["total"]), float(row["bad"] or 0.0)
        used = max(used, float(row.get("bound_used") or 0.0))
    if not any(total):
        return _status(objective, grid, total, bad, "exact", cover, "")
    note = (
        f"From the engine's buckets: good means at most {spell(used)}, the last bound within the threshold."
        if latency
        else "From the servers' own counters: a refused or aborted request may be in none of them."
    )
    return _status(objective, grid, total, bad, "derived", cover, note)


def _status(
    objective: Objective,
    grid: Grid,
    totals: list[float],
    bads: list[float],
    exactness: Exactness,
    cover: Coverage,
    note: str,
) -> BudgetStatus:
    total, bad = sum(totals), sum(bads)
    allowed = total * (1 - objective.target)
    burned = burn_rate(bad, total, objective.target) if total else None
    spent = list(accumulate(bads))
    return BudgetStatus(
        objective=objective.name,
        sli=objective.sli,
        target=objective.target,
        total=total,
        bad=bad,
        good=total - bad,
        sli_ratio=ratio(total - bad, total),
        budget_ratio=budget_remaining(bad, total, objective.target) if total else None,
        budget_requests=allowed - bad if total else None,
        burn_rate=burned,
        times=grid.times,
        line=[ratio(all_ - wrong, all_) for all_, wrong in zip(totals, bads, strict=True)],
        budget_line=[1 - wrong / allowed if total else None for wrong in spent],
        exactness=exactness,
        state="value" if total else "no_data" if cover.state == "no_data" else "no_traffic",
        note=note,
    )
