"""Names of any length and letters are asked for like all others."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from analytics.ask import all_questions, ask
from analytics.questions import budget, events, latency, requests, story, tenants, traffic
from analytics.selection import Filter, Selection
from analytics.slo import Objective
from analytics.window import Window

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

BACK = timedelta(hours=20)
KEYS = 7_000_001
NAMES = ("x" * 5000, "turned\u202e\nround\t\x01" + "y" * 3000, "'; DROP TABLE x --\\", "<a href=x>" * 300)


@pytest.fixture(scope="module")
def window(lab: Lab) -> Window:
    start = (datetime.now(UTC) - BACK).replace(microsecond=0)
    rows = [
        {
            "time": start + timedelta(seconds=place), "key": KEYS + place, "request_id": name,
            "model": name, "tenant": name, "instance": name,
            "outcome": "ok", "e2e_seconds": 0.5, "ttft_seconds": 0.25, "has_edge": 1, "stream": 1, "operation": "chat",
        }
        for place, name in enumerate(NAMES * 3)
    ]  # fmt: skip
    samples = [
        {"time": start + timedelta(seconds=5), "instance": name, "model": name, "up": 1, "requests_finished_delta": 2.0}
        for name in (*NAMES, "alone" * 400)
    ]
    many = [
        {"time": start + timedelta(seconds=6), "instance": f"gpu-{number:04d}.eu.example:8000", "up": 1}
        for number in range(300)
    ]
    lab.owner.insert("requests_t", rows)
    lab.owner.insert("engine_samples", samples)
    lab.owner.insert("engine_samples", many)
    return Window(start, start + timedelta(seconds=60))


ROWS = {
    **dict.fromkeys(("batching", "features", "instances", "kvblocks", "kvcache", "ledger"), 305),
    **dict.fromkeys(("causes", "configuration", "contract", "events", "gpus", "hosts", "routers", "steps"), 0),
}
"""Rows under each answer; 12, the requests, where it is not among these."""


def test_every_question_is_answered(lab: Lab, window: Window) -> None:
    """From the rows that are there, and with the names as they are."""
    options: dict[str, dict[str, object]] = {
        "difference": {"baseline": "previous"},
        "budget": {"objectives": [Objective("answers", "availability", 0.5)]},
    }
    answers = {
        name: ask(name, lab.store, Selection(window), **options.get(name, {}))
        for name in all_questions().keys() - {"story"}
    }
    rows = {name: answer["rows"] for name, answer in answers.items()}
    assert rows.pop("choices") >= 12 + 305, "of more than the window"  # type: ignore[operator]
    assert rows == {name: ROWS.get(name, 12) for name in rows}
    texts = {name: json.dumps(answer, allow_nan=False) for name, answer in answers.items()}
    nameless = {name for name, text in texts.items() if not all(json.dumps(each) in text for each in NAMES)}
    assert nameless == {"events"}, "nothing happened, and to nobody"


def test_the_budget_of_a_long_name_is_of_its_requests(lab: Lab, window: Window) -> None:
    objectives = [
        Objective(f"o{place}", "availability", 0.5, filter=Filter(model=(name,))) for place, name in enumerate(NAMES)
    ]
    found = budget.ask(lab.store, Selection(window), objectives=objectives).result.objectives
    assert [(one.total, one.bad) for one in found] == [(3, 0)] * len(NAMES)


def test_requests_of_servers_with_rows_are_not_counted_from_their_counters_too(lab: Lab, window: Window) -> None:
    found = traffic.ask(lab.store, Selection(window)).result
    assert found.requests.value == pytest.approx((12 + 2) / 60)
    assert sorted(row.model for row in found.models if row.requests_per_second)[-2:] == sorted(NAMES)[-2:]


def test_long_names_filter_and_split(lab: Lab, window: Window) -> None:
    for name in NAMES:
        one = Filter(model=(name,), tenant=(name, *NAMES), instance=(name,))
        assert latency.ask(lab.store, Selection(window, one), signal="e2e_seconds").rows == 3
    split = latency.ask(lab.store, Selection(window), signal="e2e_seconds", by="tenant").result
    assert {line.name for line in split.lines} == set(NAMES)
    assert {row.tenant for row in tenants.ask(lab.store, Selection(window)).result.tenants} == set(NAMES)


def test_what_goes_by_a_long_name_is_found_and_told(lab: Lab, window: Window) -> None:
    for place, name in enumerate(NAMES):
        told = story.ask(lab.store, Selection.one(key=str(KEYS + place))).result
        assert told.request is not None
        assert told.request.instance == name
        assert told.samples, "of the same instance"
        found = requests.ask(lab.store, Selection(window, request_id=name), order="newest").result
        assert found.matching == 3
        assert {row.request_id for row in found.requests} == {name}
        assert events.ask(lab.store, Selection(window, Filter(model=(name,), instance=(name,)))).result.bands == []
