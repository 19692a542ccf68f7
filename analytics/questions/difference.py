"""What is different about a selection: which values of which columns it has more often than its baseline.

The baseline is the rest of the window's requests, or what the same selection was in the window before. From rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from analytics import over_represented
from analytics.conditions import conditions, of_requests
from analytics.inquiry import Inquiry
from analytics.over_represented import Count
from analytics.question import Command, Option, QuestionError
from analytics.selection import Filter
from analytics.traits import NAMES, NUMBERS
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.over_represented import Finding
    from analytics.selection import Selection

Baseline = Literal["rest", "previous"]

COMMAND: Final = Command((Option("baseline", "rest of the window, or previous: the window before."),))
_SQL: Final = beside(__file__)
_VALUES: Final = 40
"""Values of a column that are looked at: its most frequent ones among the selected requests."""
_SAMPLE: Final = 20_000
"""Requests of either kind whose numbers are looked at."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How a selection differs from its baseline.

    Attributes:
        baseline: ``rest`` or ``previous``.
        selected_requests: Requests of the selection.
        baseline_requests: Requests that they are compared with.
        examined: Values and columns of numbers that were looked at.
        findings: What stands out, most telling first (`analytics.over_represented`).
    """

    baseline: Baseline
    selected_requests: int
    baseline_requests: int
    examined: int
    findings: list[Finding]


def ask(store: Reader, selection: Selection, *, baseline: Baseline = "rest", limit: int = 20) -> Answer[Difference]:
    """Values that are over-represented in a selection, ranked.

    Raises:
        QuestionError: The selection is all of the window, so that there is no rest; or there is no such baseline.
    """
    if baseline not in {"rest", "previous"}:
        raise QuestionError(f"There is no baseline {baseline!r}", "Compare with rest or previous")
    if baseline == "rest" and not selection.chosen():
        raise QuestionError(
            "All requests of the window are selected: there is no rest to compare with",
            "Narrow it, by a tenant, an outcome or a latency, or compare with the previous window",
        )
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    shapes, first_ms = _shapes(selection, baseline)
    sizes = inquiry.ask("sizes", shapes, first_ms=first_ms)[0]
    selected, compared = int(sizes["selected"]), int(sizes["baseline"])
    found: list[over_represented.Judged] = []
    if selected and compared:
        pairs = ", ".join(f"('{column}', {value})" for column, value in NAMES.items())
        rows = inquiry.ask("names", shapes | {"pairs": pairs}, first_ms=first_ms, values=_VALUES)
        own = {name for name, _ in selection.filter.chosen()} | ({"outcome"} if selection.outcome else set())
        own |= {trait.column for trait in selection.traits if not trait.lacking}
        found += over_represented.names([_count(row) for row in rows if row["column"] not in own])
        numbers = inquiry.ask("numbers", shapes, first_ms=first_ms, sample=_SAMPLE)
        for column in [name for name in NUMBERS if name not in own]:
            sides: tuple[list[float], list[float]] = ([], [])
            for row in numbers:
                sides[1 - int(row["is_selected"])].append(float(row[column]))
            found += over_represented.numbers(column, *sides)
    told = Difference(baseline, selected, compared, len(found), over_represented.ranked(found, limit))
    return inquiry.answer(told, cover, level="rows", exactness="exact", rows=selected, notes=_notes(selected, compared))


def _count(row: Mapping[str, Any]) -> Count:
    selected, baseline, of_selected, of_baseline, requests = (
        int(row[name]) for name in ("selected", "baseline", "of_selected", "of_baseline", "requests")
    )
    return Count(str(row["column"]), str(row["value"]), selected, of_selected, baseline, of_baseline, requests)


def _shapes(selection: Selection, baseline: Baseline) -> tuple[dict[str, str], int]:
    """What ``/*selected*/`` and ``/*universe*/`` become, and where all that is looked at begins, in Unix ms."""
    narrowed, _ = conditions(selection.filter, "requests")
    one_by_one, _ = of_requests(selection)
    window = selection.window
    if baseline == "previous":
        universe = f"{narrowed} {one_by_one}"
        selected = "time >= fromUnixTimestamp64Milli({from_ms:Int64})"
        return {"selected": selected, "universe": universe}, 2 * window.from_ms - window.to_ms
    anybody, _ = conditions(Filter(recording=selection.filter.recording), "requests")
    return {"selected": f"1 {narrowed} {one_by_one}", "universe": anybody}, window.from_ms


def _notes(selected: int, compared: int) -> tuple[str, ...]:
    few = over_represented.LEAST_REQUESTS
    if selected and not compared:
        return ("There are no other requests to compare with.",)
    if 0 < selected < few:
        return (f"Fewer than {few} requests are selected: nothing can be told of them.",)
    return ()
