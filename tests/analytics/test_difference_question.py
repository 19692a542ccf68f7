"""The question ``difference`` over a store: planted differences are found, and its counts are those of SQL by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from analytics.ask import ask
from analytics.question import QuestionError
from analytics.questions import difference
from analytics.selection import Filter, LatencyRange, Selection
from analytics.window import Window

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

BACK = timedelta(days=8)


@pytest.fixture(scope="module")
def planted(lab: Lab) -> Window:
    """Two minutes of four tenants on two instances; in the second, tenant d2's long prompts on ``diff-b`` are slow."""
    at = (datetime.now(UTC) - BACK).replace(second=0, microsecond=0)
    rows = []
    for number in range(1200):
        slow = number >= 600 and number % 8 == 2  # of tenant d2, on diff-b
        rows.append({
            "time": at + timedelta(seconds=number / 10), "key": 9_000_000 + number, "model": "m", "engine": "vllm",
            "tenant": f"d{number % 4}", "instance": "diff-b" if number % 8 == 2 or number % 2 else "diff-a",
            "operation": "chat", "route": "/v1/chat/completions", "outcome": "ok", "stream": 1, "status": 200,
            "prompt_tokens": 3000 + number if slow else 100 + number % 50, "completion_tokens": 20,
            "e2e_seconds": 9.0 if slow else 0.5, "has_edge": 1,
        })  # fmt: skip
    lab.owner.insert("requests_t", rows)
    return Window(at, at + timedelta(minutes=2))


SLOW = LatencyRange("e2e_seconds", 5.0)


def test_what_is_planted_is_told_and_ranked(lab: Lab, planted: Window):
    told = difference.ask(lab.store, Selection(planted, latency=SLOW)).result
    assert (told.selected_requests, told.baseline_requests) == (75, 1125)
    found = {one.column: one for one in told.findings}
    tenant, prompt = found["tenant"], found["prompt_tokens"]
    assert (tenant.value, tenant.selected, tenant.baseline) == ("d2", 75, 225)
    assert (prompt.selected, prompt.baseline, prompt.below) == (75, 0, None)
    assert prompt.at_least is not None
    assert 149 < prompt.at_least <= 3602
    assert told.findings[0].column in {"prompt_tokens", "uncached_prompt_tokens"}
    assert "model" not in found  # all are the same model's
    assert {one.value for one in told.findings if one.column == "instance"} == {"diff-b"}
    order = [one.least_difference for one in told.findings]
    assert order == sorted(order, reverse=True)


def test_counts_are_those_of_sql_by_hand(lab: Lab, planted: Window):
    told = difference.ask(lab.store, Selection(planted, latency=SLOW)).result
    for one in told.findings:
        if one.value is not None and one.column in {"tenant", "instance"}:
            (row,) = lab.store.rows(
                f"SELECT countIf(e2e_seconds >= 5) AS n, countIf(e2e_seconds < 5) AS rest FROM requests "
                f"WHERE {one.column} = {{value:String}} AND time >= fromUnixTimestamp64Milli({planted.from_ms}) "
                f"AND time < fromUnixTimestamp64Milli({planted.to_ms})",
                {"value": one.value},
            )
            assert (one.selected, one.baseline) == (int(row["n"]), int(row["rest"]))


def test_a_band_of_time_is_held_against_the_window_before(lab: Lab, planted: Window):
    second = Window(planted.start + timedelta(minutes=1), planted.end)
    told = difference.ask(lab.store, Selection(second, Filter(tenant=("d2",))), baseline="previous").result
    assert (told.baseline, told.selected_requests, told.baseline_requests) == ("previous", 150, 150)
    assert [one.column for one in told.findings][:1] == ["prompt_tokens"]
    assert not {"tenant", "instance"} & {one.column for one in told.findings}


def test_where_nothing_differs_nothing_is_told(lab: Lab, planted: Window):
    first = Window(planted.start, planted.start + timedelta(minutes=1))
    for chosen in (Filter(tenant=("d1",)), Filter(tenant=("d3",))):
        told = difference.ask(lab.store, Selection(first, chosen)).result
        assert told.selected_requests == 150
        assert {one.column for one in told.findings} <= {"instance"}  # odd tenants are all on diff-b
    told = difference.ask(lab.store, Selection(first, Filter(model=("nobody",)))).result
    assert (told.selected_requests, told.findings) == (0, [])


def test_the_envelope_is_json_and_what_can_not_be_compared_is_refused(lab: Lab, planted: Window):
    envelope = json.loads(json.dumps(ask("difference", lab.store, Selection(planted, latency=SLOW), limit=2)))
    assert set(envelope) == {"window", "filters", "level", "rows", "result"}
    assert (envelope["level"], envelope["rows"], len(envelope["result"]["findings"])) == ("rows", 75, 2)
    assert envelope["filters"]["latency"]["at_least"] == 5.0
    with pytest.raises(QuestionError, match="no rest to compare with"):
        difference.ask(lab.store, Selection(planted))
    with pytest.raises(QuestionError, match="no baseline 'weather'"):
        difference.ask(lab.store, Selection(planted), baseline="weather")  # type: ignore[arg-type]
