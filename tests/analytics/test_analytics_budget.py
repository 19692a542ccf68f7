from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from analytics.question import QuestionError
from analytics.questions import budget
from analytics.questions.budget import burn
from analytics.selection import Filter
from analytics.slo import Objective
from analytics.window import Window, WindowError
from tests.analytics.lab import BOUNDS
from tests.analytics.truth import BAD, by_step, latencies

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

LIVE = Filter(recording="exclude")
OBJECTIVES = [
    Objective("answers", "availability", 0.9),
    Objective("fast first token", "latency", 0.95, threshold_seconds=0.5, filter=Filter(model=("llama",))),
    Objective("only a1", "availability", 0.99, filter=Filter(tenant=("a1",), recording="exclude")),
    Objective("strict", "availability", 0.5, bad_outcomes=("client_abort",), ignored_outcomes=("ok",)),
]


def counted(lab: Lab, objective: Objective, window: Window) -> tuple[int, int]:
    """Total and bad requests by the words of the objective."""
    rows = lab.rows(objective.filter, window)
    if objective.sli == "latency":
        values = latencies(rows, objective.signal)
        return len(values), sum(v > objective.threshold_seconds for v in values)
    outcomes = [r["outcome"] if r["has_edge"] else "ok" for r in rows]
    valid = [o for o in outcomes if o not in objective.ignored_outcomes]
    return len(valid), sum(o in objective.bad_outcomes for o in valid)


def test_the_budget_is_what_the_rows_say(lab: Lab):
    answer = budget.ask(lab.store, lab.window, objectives=OBJECTIVES, points=30)
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
    steps = by_step(lab.rows(LIVE), first.times, answer.result.step)
    for index, value in enumerate(first.line):
        held = steps.get(index, [])
        bad = sum(r["has_edge"] and r["outcome"] in BAD for r in held)
        assert value == (pytest.approx(1 - bad / len(held)) if held else None)


def test_what_the_client_did_never_spends_the_budget(lab: Lab):
    window = lab.window
    found = budget.ask(lab.store, window, objectives=[OBJECTIVES[0]]).result.objectives[0]
    rows = lab.rows(LIVE, window)
    forgiven = sum(r["has_edge"] and r["outcome"] in {"client_abort", "client_error"} for r in rows)
    assert forgiven > 0
    assert found.total == len(rows), "they count as requests"
    assert found.bad == sum(r["has_edge"] and r["outcome"] in BAD for r in rows), "and not as bad ones"


def test_an_answer_rests_on_recordings_only_where_an_objective_counts_them(lab: Lab):
    assert budget.ask(lab.store, lab.window, objectives=[OBJECTIVES[0]]).recordings == ()
    assert budget.ask(lab.store, lab.window, objectives=OBJECTIVES).recordings != (), "the second one counts them"


def test_the_page_narrows_what_the_objective_lets_through(lab: Lab):
    found = budget.ask(
        lab.store, lab.window, Filter(instance=("vllm-0",)), objectives=[OBJECTIVES[1]]
    ).result.objectives[0]
    values = latencies(lab.rows(Filter(instance=("vllm-0",))), "ttft_seconds")
    assert (found.total, found.bad) == (len(values), sum(v > 0.5 for v in values))


def test_burn_rates_of_all_windows_come_from_one_query(lab: Lab):
    windows = [30.0, 300.0, 60.0, 600.0]
    answer = burn(lab.store, lab.window.end, OBJECTIVES, windows)
    assert len(answer.sql) == 1
    told = iter(answer.result.burns)
    for objective in OBJECTIVES:
        for seconds in windows:
            found = next(told)
            window = Window(lab.window.end - timedelta(seconds=seconds), lab.window.end)
            total, bad = counted(lab, objective, window)
            assert (found.objective, found.window_seconds) == (objective.name, seconds)
            assert (found.total, found.bad) == (total, bad)
            expected = bad / total / (1 - objective.target) if total else None
            assert found.burn_rate == (None if expected is None else pytest.approx(expected))


def test_without_traffic_a_burn_rate_is_unknown_and_not_zero(lab: Lab):
    quiet = lab.start - timedelta(days=3)
    answer = burn(lab.store, quiet, OBJECTIVES[:1], [60.0])
    assert (answer.result.burns[0].total, answer.result.burns[0].burn_rate) == (0, None)
    found = budget.ask(
        lab.store, Window(quiet, quiet + timedelta(hours=1)), objectives=OBJECTIVES[:1]
    ).result.objectives[0]
    assert (found.state, found.sli_ratio, found.budget_ratio) == ("no_data", None, None)
    idle = budget.ask(
        lab.store, lab.window, Filter(instance=("vllm-0",), tenant=("nobody",)), objectives=OBJECTIVES[:1]
    )
    assert idle.result.objectives[0].state == "no_traffic"


def test_servers_without_rows_are_read_from_counters_and_buckets(lab: Lab):
    triton = Objective("triton", "availability", 0.9, filter=Filter(instance=("triton-1",)))
    slow = Objective("slow", "latency", 0.9, threshold_seconds=0.7, filter=Filter(instance=("vllm-3",)))
    answer = budget.ask(lab.store, lab.window, objectives=[triton, slow])
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
        ({"period_seconds": 0}, "period_seconds"),
        ({"signal": "warp"}, "no latency"),
    ],
)
def test_an_objective_that_makes_no_sense_is_refused_by_name(wrong: dict[str, object], message: str):
    with pytest.raises(WindowError, match=message):
        Objective(**{"name": "x", "sli": "availability", "target": 0.9, **wrong})  # type: ignore[arg-type]


def test_a_burn_needs_objectives_and_windows(lab: Lab):
    for objectives, windows in (([], [60.0]), (OBJECTIVES, []), (OBJECTIVES, [0.0])):
        with pytest.raises(QuestionError, match="needs objectives and windows"):
            burn(lab.store, lab.window.end, objectives, windows)  # type: ignore[arg-type]
