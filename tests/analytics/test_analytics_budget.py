from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import pytest

from analytics.question import QuestionError
from analytics.questions import budget
from analytics.selection import Filter, Selection
from analytics.slo import Objective
from analytics.window import Window, WindowError
from tests.analytics.lab import BOUNDS
from tests.analytics.truth import BAD, by_step, latencies
from tests.analytics.truth import latency as latency_of

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

LIVE = Filter(recording="exclude")
OBJECTIVES = [
    Objective("answers", "availability", 0.9),
    Objective("fast first token", "latency", 0.95, threshold_seconds=0.5, filter=Filter(model=("llama",))),
    Objective("only a1", "availability", 0.99, filter=Filter(tenant=("a1",), recording="exclude")),
    Objective("strict", "availability", 0.5, bad_outcomes=("client_abort",), ignored_outcomes=("ok",)),
    Objective("useful", "goodput", 0.8, limits=(("e2e_seconds", 3.0), ("ttft_seconds", 0.5))),
    Objective("some", "latency", 0.9, threshold_seconds=0.5, filter=Filter(instance=("vllm-[01]", "trit*"))),
]


def ended(lab: Lab, only: Filter, window: Window) -> list[dict[str, Any]]:
    """Requests that ended in a window, of those whose values match the filter's patterns."""
    exact = Filter(recording=only.recording)
    before = Window(window.start - timedelta(seconds=600), window.end)
    return [
        row
        for row in lab.rows(exact, before)
        if window.start <= end_of(row) < window.end
        and all(any(fnmatchcase(row[column], one) for one in values) for column, values in only.chosen())
    ]


def end_of(row: dict[str, Any]) -> datetime:
    return row["time"] + timedelta(milliseconds=int(row["e2e_seconds"] * 1000))  # type: ignore[no-any-return]


def counted(lab: Lab, objective: Objective, window: Window) -> tuple[int, int]:
    """Total and bad requests by the words of the objective."""
    rows = ended(lab, objective.filter, window)
    if objective.sli == "latency":
        values = latencies(rows, objective.signal)
        # who gave up after the threshold without a first token is known to exceed it
        late = [r for r in rows if objective.signal == "ttft_seconds" and gave_up(r, objective.threshold_seconds)]
        return len(values) + len(late), sum(v > objective.threshold_seconds for v in values) + len(late)
    if objective.sli == "goodput":
        return len(rows), sum(outcome(r) in BAD or any(exceeds(r, *limit) for limit in objective.limits) for r in rows)
    outcomes = [outcome(r) for r in rows]
    valid = [o for o in outcomes if o not in objective.ignored_outcomes]
    return len(valid), sum(o in objective.bad_outcomes for o in valid)


def outcome(row: dict[str, Any]) -> str:
    return str(row["outcome"]) if row["has_edge"] else "ok"


def gave_up(row: dict[str, Any], limit: float) -> bool:
    left = {"client_abort", "upstream_reset", "timeout"}
    waited = row["has_edge"] and row["stream"] and not row["ttft_seconds"] and outcome(row) in left
    return bool(waited and row["e2e_seconds"] > limit)


def exceeds(row: dict[str, Any], signal: str, limit: float) -> bool:
    value = latency_of(row, signal)
    if value is not None:
        return value > limit
    if signal == "ttft_seconds":
        return gave_up(row, limit)
    return bool(row["has_edge"] and outcome(row) in {"client_abort", "upstream_reset"} and row["e2e_seconds"] > limit)


def test_the_budget_is_what_the_rows_say(lab: Lab):
    answer = budget.ask(lab.store, Selection(lab.window), objectives=OBJECTIVES, points=30)
    for objective, found in zip(OBJECTIVES, answer.result.objectives, strict=True):
        total, bad = counted(lab, objective, lab.window)
        assert (found.objective, found.total, found.bad, found.good) == (objective.name, total, bad, total - bad)
        allowed = total * (1 - objective.target)
        assert found.sli_ratio == pytest.approx(1 - bad / total)
        assert found.budget_ratio == pytest.approx(1 - bad / allowed)
        assert found.budget_requests == pytest.approx(allowed - bad)
        assert found.burn_rate == pytest.approx(bad / total / (1 - objective.target))
        assert found.budget_line[-1] == pytest.approx(found.budget_ratio)
        assert found.budget_line == sorted(found.budget_line, reverse=True)  # type: ignore[type-var]
        assert (found.exactness, found.state) == ("exact", "value")
    first = answer.result.objectives[0]
    held_by = [{**row, "time": end_of(row)} for row in ended(lab, LIVE, lab.window)]
    steps = by_step(held_by, first.times, answer.result.step)
    for index, value in enumerate(first.line):
        held = steps.get(index, [])
        bad = sum(r["has_edge"] and r["outcome"] in BAD for r in held)
        assert value == (pytest.approx(1 - bad / len(held)) if held else None)


def test_what_the_client_did_never_spends_the_budget(lab: Lab):
    window = lab.window
    found = budget.ask(lab.store, Selection(window), objectives=[OBJECTIVES[0]]).result.objectives[0]
    rows = ended(lab, LIVE, window)
    forgiven = sum(r["has_edge"] and r["outcome"] in {"client_abort", "client_error"} for r in rows)
    assert forgiven > 0
    assert found.total == len(rows), "they count as requests"
    assert found.bad == sum(r["has_edge"] and r["outcome"] in BAD for r in rows), "and not as bad ones"


def test_an_answer_rests_on_recordings_only_where_an_objective_counts_them(lab: Lab):
    assert budget.ask(lab.store, Selection(lab.window), objectives=[OBJECTIVES[0]]).recordings == ()
    assert budget.ask(lab.store, Selection(lab.window), objectives=OBJECTIVES).recordings != (), (
        "the second one counts them"
    )


def test_the_page_narrows_what_the_objective_lets_through(lab: Lab):
    found = budget.ask(
        lab.store, Selection(lab.window, Filter(instance=("vllm-0",))), objectives=[OBJECTIVES[1]]
    ).result.objectives[0]
    both = replace(OBJECTIVES[1], filter=Filter(model=("llama",), instance=("vllm-0",)))
    assert (found.total, found.bad) == counted(lab, both, lab.window)


def test_a_star_is_a_pattern_in_an_objective_and_a_letter_in_what_a_viewer_chose(lab: Lab):
    some = Objective("some", "availability", 0.9, filter=Filter(model=("lla*",)))
    assert budget.ask(lab.store, Selection(lab.window), objectives=[some]).result.objectives[0].total > 0
    chosen = budget.ask(lab.store, Selection(lab.window, Filter(model=("lla*",))), objectives=[some]).result.objectives[
        0
    ]
    assert (chosen.total, chosen.state) == (0, "no_data")


def test_a_request_counts_where_it_ends(lab: Lab):
    """One that arrived before the window and ended in it counts; one that will end after it does not."""
    edge = lab.window.start + timedelta(seconds=300)
    late = Window(edge, lab.window.end)
    crossing = [r for r in lab.rows(LIVE) if r["time"] < edge <= end_of(r)]
    open_ = [r for r in lab.rows(LIVE) if end_of(r) >= lab.window.end]
    assert crossing
    assert open_
    found = budget.ask(lab.store, Selection(late), objectives=[OBJECTIVES[0]]).result.objectives[0]
    arrived = sum(edge <= r["time"] for r in lab.rows(LIVE))
    assert found.total == arrived + len(crossing) - len(open_)


def test_an_objective_of_metrics_is_read_from_them_though_rows_are_there(lab: Lab):
    told = Objective("t", "latency", 0.9, threshold_seconds=0.5, source="metrics", filter=Filter(instance=("vllm-0",)))
    found = budget.ask(
        lab.store, Selection(lab.window), objectives=[told, replace(told, source="rows")]
    ).result.objectives
    assert [item.exactness for item in found] == ["derived", "exact"]
    assert "at most 0.5 s" in found[0].note


def test_goodput_of_servers_without_rows_is_not_guessed(lab: Lab):
    useful = replace(OBJECTIVES[4], filter=Filter(instance=("vllm-3",)))
    found = budget.ask(lab.store, Selection(lab.window), objectives=[useful]).result.objectives[0]
    assert (found.total, found.budget_ratio) == (0, None)
    assert found.note == "Server metrics judge no single request."


def test_without_traffic_a_budget_is_unknown_and_not_whole(lab: Lab):
    quiet = lab.start - timedelta(days=6)
    found = budget.ask(
        lab.store, Selection(Window(quiet, quiet + timedelta(hours=1))), objectives=OBJECTIVES[:1]
    ).result.objectives[0]
    assert (found.state, found.sli_ratio, found.budget_ratio) == ("no_data", None, None)
    idle = budget.ask(
        lab.store, Selection(lab.window, Filter(instance=("vllm-0",), tenant=("nobody",))), objectives=OBJECTIVES[:1]
    )
    assert idle.result.objectives[0].state == "no_traffic"


def test_servers_without_rows_are_read_from_counters_and_buckets(lab: Lab):
    triton = Objective("triton", "availability", 0.9, filter=Filter(instance=("triton-1",)))
    slow = Objective("slow", "latency", 0.9, threshold_seconds=0.7, filter=Filter(instance=("vllm-3",)))
    answer = budget.ask(lab.store, Selection(lab.window), objectives=[triton, slow])
    counted_, bucketed = answer.result.objectives
    samples = lab.sampled(lambda s: s["instance"] == "triton-1")
    failed = sum(s["requests_failed_delta"] for s in samples)
    assert counted_.bad == failed
    assert counted_.total == failed + sum(s["requests_finished_delta"] for s in samples)
    assert counted_.exactness == "derived"
    rows = [
        h
        for h in lab.histograms
        if (h["instance"], h["signal"]) == ("vllm-3", "ttft_seconds") and lab.window.start <= h["time"] < lab.window.end
    ]
    good = sum(sum(h["counts"][: BOUNDS.index(0.5) + 1]) for h in rows)
    assert (bucketed.total, bucketed.good) == (sum(h["count"] for h in rows), good)
    assert "at most 0.5 s" in bucketed.note


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target": 1.0}, "target"),
        ({"sli": "speed"}, "sli"),
        ({"sli": "latency"}, "threshold_seconds"),
        ({"sli": "goodput"}, "limits"),
        ({"sli": "goodput", "limits": (("warp", 1.0),)}, "no latency"),
        ({"period_seconds": 0}, "period_seconds"),
        ({"signal": "warp"}, "no latency"),
    ],
)
def test_an_objective_that_makes_no_sense_is_refused_by_name(wrong: dict[str, object], message: str):
    with pytest.raises(WindowError, match=message):
        Objective(**{"name": "x", "sli": "availability", "target": 0.9, **wrong})  # type: ignore[arg-type]


def test_a_budget_needs_objectives(lab: Lab):
    with pytest.raises(QuestionError, match="needs objectives"):
        budget.ask(lab.store, Selection(lab.window))
