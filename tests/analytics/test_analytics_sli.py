"""What is good and bad, told by budgets and by the rules that page: the same rows, the same words."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from alerts.measure.store import Measurer
from alerts.rules.file import parse
from alerts.rules.model import all_rules
from alerts.rules.objectives import objective_of
from alerts.rules.slo import Burn
from analytics.questions import budget, latency, requests, story, traffic
from analytics.selection import Filter, Selection
from analytics.slo import OPERATION, Objective
from analytics.window import Window
from base.named_sql import statements

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

LIMIT = 2.0
HUNG = "hung-0"
ROWS: dict[str, tuple[dict[str, Any], str, str]] = {
    # what happened, and what it is for time to first token and for the end-to-end time: good, bad or no event ("")
    "answered in time": ({"outcome": "ok", "ttft_seconds": 0.5, "e2e_seconds": 1.5}, "good", "good"),
    "answered late": ({"outcome": "ok", "ttft_seconds": 2.5, "e2e_seconds": 9.0}, "bad", "bad"),
    "whole answer": ({"outcome": "ok", "stream": 0, "e2e_seconds": 1.0}, "", "good"),
    "left after the limit": ({"outcome": "client_abort", "e2e_seconds": 30.0}, "bad", "bad"),
    "left just after": ({"outcome": "client_abort", "e2e_seconds": 2.01}, "bad", "bad"),
    "left before it": ({"outcome": "client_abort", "e2e_seconds": 1.0}, "", ""),
    "left with tokens": ({"outcome": "client_abort", "ttft_seconds": 0.2, "e2e_seconds": 1.0}, "good", ""),
    "left late with late tokens": ({"outcome": "client_abort", "ttft_seconds": 4, "e2e_seconds": 5}, "bad", "bad"),
    "timed out": ({"outcome": "timeout", "e2e_seconds": 60.0}, "bad", "bad"),
    "cut after the limit": ({"outcome": "upstream_reset", "e2e_seconds": 5.0}, "bad", "bad"),
    "cut at once": ({"outcome": "upstream_reset", "e2e_seconds": 0.1}, "", ""),
    "whole answer given up": ({"outcome": "client_abort", "stream": 0, "e2e_seconds": 30.0}, "", "bad"),
    "refused": ({"outcome": "rejected", "status": 429, "e2e_seconds": 5.0}, "", ""),
    "failed": ({"outcome": "server_error", "status": 500, "e2e_seconds": 5.0}, "", ""),
    "listed the models": ({"outcome": "ok", "operation": "", "ttft_seconds": 0.01, "e2e_seconds": 9.0}, "", ""),
    "a probe that hung": ({"outcome": "server_error", "operation": "", "e2e_seconds": 90.0}, "", ""),
    "asked for nonsense": ({"outcome": "client_error", "status": 400, "e2e_seconds": 5.0}, "", ""),
}
FILE = f"""
slos:
  - {{name: first, target: 0.9, sli: {{kind: latency, signal: ttft_seconds, threshold_seconds: {LIMIT}}},
     windows: [{{long: 300s, short: 60s, factor: 2}}], filter: {{instance: "hung-?"}}}}
  - {{name: whole, target: 0.9, sli: {{kind: latency, signal: e2e_seconds, threshold_seconds: {LIMIT}}},
     windows: [{{long: 300s, short: 60s, factor: 2}}], filter: {{instance: {HUNG}}}}}
  - {{name: goodput, target: 0.9, sli: {{kind: goodput, limits: {{ttft_seconds: {LIMIT}}}}},
     windows: [{{long: 300s, short: 60s, factor: 2}}], filter: {{instance: {HUNG}}}}}
"""
OTHER = {"listed the models", "a probe that hung"}
SERVICE = {"timed out", "cut after the limit", "cut at once", "refused", "failed"}


@pytest.fixture(scope="module")
def window(lab: Lab) -> Window:
    """Two minutes of an hour ago, with one request of each kind."""
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=9)
    common = {"has_edge": 1, "stream": 1, "instance": HUNG, "model": "m", "operation": "chat"}
    rows = []
    for number, (name, (told, _, _)) in enumerate(ROWS.items()):
        row = {"request_id": name, "ttft_seconds": 0.0, "status": 200} | common | told
        rows.append({"time": start + timedelta(seconds=number), "key": number + 1} | row)
    lab.owner.insert("requests_t", rows)
    return Window(start, start + timedelta(seconds=120))


def expected(place: int) -> tuple[int, int]:
    words = [told[place] for told in ROWS.values()]
    return sum(word != "" for word in words), words.count("bad")


def test_who_gave_up_after_the_limit_is_known_to_exceed_it(lab: Lab, window: Window) -> None:
    here = Filter(instance=(HUNG,), recording="exclude")
    objectives = [
        Objective("first", "latency", 0.9, threshold_seconds=LIMIT, filter=here),
        Objective("whole", "latency", 0.9, signal="e2e_seconds", threshold_seconds=LIMIT, filter=here),
        Objective("any", "availability", 0.9, filter=here),
    ]
    told = budget.ask(lab.store, Selection(window), objectives=objectives).result.objectives
    assert [(item.total, item.bad) for item in told] == [
        expected(1),
        expected(2),
        (len(ROWS) - len(OTHER), len(SERVICE)),
    ]


def test_rules_and_budgets_count_the_same(lab: Lab, window: Window) -> None:
    file = parse(FILE)
    rules = all_rules(file)
    measurer = Measurer([rule.needs() for rule in rules], ingest_delay_seconds=0)
    found = measurer.measure(lab.store, window.end.timestamp() + 60).counts[300.0]
    counts = {r.when.slo.name: found[0].counts[r.when.slo.sli.measure()] for r in rules if isinstance(r.when, Burn)}
    assert len(found) == 1
    assert (counts["first"].total, counts["first"].bad) == expected(1)
    assert (counts["whole"].total, counts["whole"].bad) == expected(2)
    late = {name for name, (_, word, _) in ROWS.items() if word == "bad"}
    assert (counts["goodput"].total, counts["goodput"].bad) == (len(ROWS) - len(OTHER), len(late | SERVICE))
    ends = Window(window.end + timedelta(seconds=60 - 300), window.end + timedelta(seconds=60))
    objectives = [objective_of(slo) for slo in file.slos]
    told = budget.ask(lab.store, Selection(ends), objectives=objectives).result.objectives
    assert {item.objective: (item.total, item.bad) for item in told} == {
        name: (item.total, item.bad) for name, item in counts.items()
    }


@pytest.fixture(scope="module")
def counters(lab: Lab) -> Window:
    """A vLLM whose finished counts its errors, one that shows no errors yet, a Triton, one that counts no failures."""
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=11)
    told = {
        "c-vllm": ("vllm", 100.0, 10.0),
        "c-vllm-quiet": ("vllm", 50.0, None),
        "c-triton": ("triton", 90.0, 10.0),
        "c-other": ("llamacpp", 400.0, None),
    }
    lab.owner.insert("engine_samples", [
        {"time": start + timedelta(seconds=5), "instance": name, "engine": engine, "model": name, "up": 1,
         "requests_finished_delta": finished, "requests_failed_delta": failed}
        for name, (engine, finished, failed) in told.items()
    ])  # fmt: skip
    return Window(start, start + timedelta(seconds=60))


def test_failures_are_counted_once_and_unknown_is_not_none(lab: Lab, counters: Window) -> None:
    found = traffic.ask(lab.store, Selection(counters)).result
    assert found.requests.value == pytest.approx((100 + 50 + 100 + 400) / 60)
    assert found.errors.value == pytest.approx(20 / 250), "of those whose servers tell failures"
    assert {row.model: row.error_share for row in found.models} == {
        "c-vllm": pytest.approx(0.1), "c-vllm-quiet": 0.0, "c-triton": pytest.approx(0.1), "c-other": None,
    }  # fmt: skip
    alone = traffic.ask(lab.store, Selection(counters, Filter(instance=("c-other",)))).result
    assert (alone.errors.value, alone.errors.state) == (None, "no_data")


@pytest.mark.parametrize(
    ("instance", "total", "bad"),
    [("c-vllm", 100, 10), ("c-vllm-quiet", 50, 0), ("c-triton", 100, 10), ("c-other", 0, 0)],
)
def test_an_objective_over_counters_counts_them_so_too(
    lab: Lab, counters: Window, instance: str, total: int, bad: int
) -> None:
    objective = Objective("a", "availability", 0.9, filter=Filter(instance=(instance,)))
    told = budget.ask(lab.store, Selection(counters), objectives=[objective]).result.objectives[0]
    assert (told.total, told.bad) == (total, bad)
    text = (
        f"slos: [{{name: a, target: 0.9, sli: {{kind: availability, source: metrics}}, by: [instance], "
        f"filter: {{instance: {instance}}}, windows: [{{long: 300s, short: 60s, factor: 2}}]}}]"
    )
    rules = all_rules(parse(text))
    measurer = Measurer([rule.needs() for rule in rules], ingest_delay_seconds=0)
    groups = measurer.measure(lab.store, counters.end.timestamp() + 60).counts[300.0]
    of = [next(iter(group.counts.values())) for group in groups if group.labels["instance"] == instance]
    assert [(item.total, item.bad) for item in of] == [(total, bad)]


def test_what_runs_no_model_is_in_no_count_and_found_by_its_id(lab: Lab, window: Window) -> None:
    here = Filter(instance=(HUNG,))
    assert traffic.ask(lab.store, Selection(window, here)).rows == len(ROWS) - len(OTHER)
    assert latency.ask(lab.store, Selection(window, here), signal="e2e_seconds").result.lines[0].total["max"] == 60.0
    assert requests.ask(lab.store, Selection(window, here), order="newest").result.matching == len(ROWS) - len(OTHER)
    found = requests.ask(lab.store, Selection(window, here, request_id="listed the models"), order="newest").result
    assert [row.request_id for row in found.requests] == ["listed the models"]


def test_a_model_that_writes_no_tokens_has_no_rate_of_them(lab: Lab, window: Window) -> None:
    found = traffic.ask(lab.store, Selection(window, Filter(instance=(HUNG,)))).result
    assert [row.generation_tokens_per_second for row in found.models] == [None]
    assert found.generation_tokens.value is None


def test_a_requests_neighbours_are_model_operations(lab: Lab, window: Window):
    slow = next(
        r
        for r in requests.ask(lab.store, Selection(window), signal="e2e_seconds").result.requests
        if r.outcome == "timeout"
    )
    told = story.ask(lab.store, Selection.one(key=slow.key, window=Window.instant(slow.time))).result
    beside = {row.request_id for row in told.neighbours}
    assert "cut after the limit" in beside
    assert not beside & OTHER


LOOKED_UP = {"by_time_and_key", "by_key", "by_trace", "find", "matching"}
"""Told by its key, or by words of whoever asks, which the question `requests` narrows."""


@pytest.mark.parametrize("path", sorted([*Path("analytics").rglob("*.sql"), *Path("alerts").rglob("*.sql")]))
def test_statements_over_requests_are_of_model_operations(path: Path):
    for name, sql in statements(path.resolve()).items():
        for part in re.split(r"FROM requests\b", sql)[1:] if name not in LOOKED_UP else []:
            where = part.partition("GROUP BY")[0]
            told = any(f"/*filter:{word}*/" in where for word in ("requests", "arrived"))
            assert OPERATION in where or told, f"{path}: {name}"
