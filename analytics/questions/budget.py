"""What is left of the error budget of each SLO.

The words are those of `analytics.slo`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from analytics.answer import Answer, Coverage, weakest
from analytics.conditions import conditions
from analytics.counters import FRAGMENTS
from analytics.grid import Grid
from analytics.inquiry import Inquiry
from analytics.question import Command, QuestionError
from analytics.selection import Filter
from analytics.signals import signal_of
from analytics.slo import Objective, Sli, judged
from analytics.values import ratio
from analytics.window import Window
from base.formats import spell
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from analytics.answer import Exactness, State
    from analytics.inquiry import Reader


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


@dataclass(frozen=True, slots=True)
class Burn:
    """Burn rate of one objective over one window that ends now.

    Attributes:
        objective: Its name.
        window_seconds: Length of the window.
        total, bad: Requests, weighted.
        burn_rate: None without traffic in that window.
    """

    objective: str
    window_seconds: float
    total: float
    bad: float
    burn_rate: float | None


@dataclass(frozen=True, slots=True)
class Burns:
    """Burn rates of several objectives over several windows.

    Attributes:
        burns: By objective, then window, in the order asked.
    """

    burns: list[Burn]


def ask(
    store: Reader,
    window: Window,
    filter: Filter = Filter(),  # noqa: A002, B008
    *,
    objectives: Sequence[Objective] = (),
    points: int = 120,
) -> Answer[Budget]:
    """Each objective over the window; ``filter`` narrows further what the objective's own filter lets through.

    An objective without any row is read from metrics where they can say it: failures that the server counts, or the
    histogram bucket at or below the threshold.

    Raises:
        QuestionError: There is no objective.
    """
    if not objectives:
        raise QuestionError("A budget needs objectives", "Name a file of SLOs")
    if all(objective.filter.recording == "exclude" for objective in objectives) and filter.recording == "include":
        filter = replace(filter, recording="exclude")  # noqa: A001 - what no objective counts the answer does not rest on
    inquiry = Inquiry(store, window, filter, sql=_SQL)
    cover = inquiry.coverage()
    grid = Grid.of(window, points)
    totals = [grid.zeros() for _ in objectives]
    bads = [grid.zeros() for _ in objectives]
    if cover.rows:
        valid, bad, bound = _tests(objectives)
        fragments = {
            "totals": ", ".join(f"sumIf(weight, {test})" for test in valid),
            "bads": ", ".join(f"sumIf(weight, {test} AND {wrong})" for test, wrong in zip(valid, bad, strict=True)),
        }
        for row in inquiry.ask("status_rows", fragments, step_ms=grid.step_ms, **bound):
            place = grid.at(row["slot"])
            for index in range(len(objectives)):
                totals[index][place] = float(row["totals"][index])
                bads[index][place] = float(row["bads"][index])
    made = [
        _status(objective, grid, total, bad, "exact", cover, "")
        if any(total)
        else _from_metrics(inquiry, cover, grid, objective)
        for objective, total, bad in zip(objectives, totals, bads, strict=True)
    ]
    rows = sum(int(sum(total)) for total in totals)
    return inquiry.answer(
        Budget(grid.step, made),
        cover,
        level="rows" if rows or cover.rows else "metrics",
        exactness=weakest([item.exactness for item in made]),
        rows=rows or int(sum(item.total for item in made)),
    )


def burn(store: Reader, now: datetime, objectives: Sequence[Objective], windows: Sequence[float]) -> Answer[Burns]:
    """Burn rates of all objectives over all windows (seconds, ending at ``now``) in one query, from request rows.

    Raises:
        QuestionError: There is no objective or no window, or a window is not longer than nothing.
    """
    if not objectives or not windows or min(windows) <= 0:
        raise QuestionError("A burn rate needs objectives and windows", "Give at least one of each, in seconds")
    span = Window(now - timedelta(seconds=max(windows)), now)
    inquiry = Inquiry(store, span, Filter(), sql=_SQL)
    valid, bad, bound = _tests(objectives)
    fragments = {
        "totals": ", ".join(f"sumIf(weight, {test})" for test in valid),
        "bads": ", ".join(f"sumIf(weight, {test} AND {wrong})" for test, wrong in zip(valid, bad, strict=True)),
    }
    starts = [Window(now - timedelta(seconds=seconds), now).from_ms for seconds in windows]
    ages = inquiry.ask("burn", fragments, starts=starts, **bound)

    def summed(column: str, index: int, start: int) -> float:
        return sum(float(age[column][index]) for age in ages if int(age["latest_start"]) >= start)

    burns = [
        _burn(objective, seconds, summed("totals", index, start), summed("bads", index, start))
        for index, objective in enumerate(objectives)
        for seconds, start in zip(windows, starts, strict=True)
    ]
    rows = int(max(item.total for item in burns))
    return inquiry.answer(Burns(burns), Coverage(rows=rows), level="rows", exactness="exact", rows=rows)


def _tests(objectives: Sequence[Objective]) -> tuple[list[str], list[str], dict[str, Any]]:
    """Per objective, SQL for whether a request counts, SQL for whether it is bad; and their parameters."""
    valid: list[str] = []
    bad: list[str] = []
    bound: dict[str, Any] = {}
    for index, objective in enumerate(objectives):
        narrowed, parameters = conditions(objective.filter, "requests", f"objective_{index}")
        latency = objective.sli == "latency"
        made = judged(
            str(index),
            bad=() if latency else objective.bad_outcomes,
            limits=[(objective.signal, objective.threshold_seconds)] if latency else (),
            measured_only=latency,
            ignored=objective.ignored_outcomes,
        )
        bound |= parameters | made.parameters
        valid.append(f"(({made.valid}) {narrowed})")
        bad.append(f"({made.bad})")
    return valid, bad, bound


def _from_metrics(inquiry: Inquiry, cover: Coverage, grid: Grid, objective: Objective) -> BudgetStatus:
    total, bad = grid.zeros(), grid.zeros()
    note = ""
    if objective.filter.tenant or inquiry.filter.tenant:
        return _status(objective, grid, total, bad, "exact", cover, "Server metrics know no tenant.")
    bound: dict[str, Any]
    narrowed, bound = conditions(objective.filter, "samples", "objective")
    fragments = FRAGMENTS | {"objective": narrowed}
    if objective.sli == "availability":
        for row in inquiry.ask("status_samples", fragments, step_ms=grid.step_ms, **bound):
            place = grid.at(row["slot"])
            total[place], bad[place] = float(row["judged"]), float(row["failed"] or 0.0)
        note = "From the servers' own counters: a refused or aborted request may be in none of them."
    elif distribution := signal_of(objective.signal).distribution:
        used = 0.0
        asked: dict[str, Any] = {"distribution": distribution, "threshold": objective.threshold_seconds, **bound}
        for row in inquiry.ask("status_histograms", fragments, step_ms=grid.step_ms, **asked):
            place = grid.at(row["slot"])
            total[place], bad[place] = float(row["total"]), float(row["total"]) - float(row["good"])
            used = max(used, float(row["bound_used"]))
        note = f"From the engine's buckets: good means at most {spell(used)}, the last bound within the threshold."
    if not any(total):
        return _status(objective, grid, total, bad, "exact", cover, "")
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
    burned = _burn(objective, 1, total, bad).burn_rate
    spent = list(accumulate(bads))
    return BudgetStatus(
        objective=objective.name,
        sli=objective.sli,
        target=objective.target,
        total=total,
        bad=bad,
        good=total - bad,
        sli_ratio=ratio(total - bad, total),
        budget_ratio=None if burned is None else 1 - burned,
        budget_requests=allowed - bad if total else None,
        burn_rate=burned,
        times=grid.times,
        line=[ratio(all_ - wrong, all_) for all_, wrong in zip(totals, bads, strict=True)],
        budget_line=[1 - wrong / allowed if total else None for wrong in spent],
        exactness=exactness,
        state="value" if total else "no_data" if cover.state == "no_data" else "no_traffic",
        note=note,
    )


def _burn(objective: Objective, seconds: float, total: float, bad: float) -> Burn:
    share = ratio(bad, total)
    rate = None if share is None else share / (1 - objective.target)
    return Burn(objective.name, float(seconds), total, bad, rate)
