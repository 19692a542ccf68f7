"""Why requests of an incident are slow: on the page where it is known in time, else in the timeline."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from alerts.incidents import why
from alerts.incidents.why import place_of
from alerts.measure.measured import Counted, Group
from base.errors import ServescopeError

if TYPE_CHECKING:
    from tests.kits.alerts_stage import Stage

FOUND = {
    "summary": "94 % of what requests of the last 10 min took above the usual: KV cache full on a; next: limit it",
    "window": {"start": "2026-05-04T10:00:00Z", "end": "2026-05-04T10:10:00Z"},
    "place": {"instance": ["a"]},
    "causes": [{
        "cause": "kv_cache_full", "name": "KV cache full", "seconds": 90.0, "share": 0.94, "who": {"instance": "a"},
        "evidence": ["9 requests lost 90 s."], "advice": "Limit it.", "runbook": "kv-cache-full.md",
    }],
}  # fmt: skip
QUIET: dict[str, Any] = {"summary": "nothing stands out from the usual in 9 requests of the last 10 min", "causes": []}


def told(stage: Stage) -> list[str]:
    return [row["message"] for row in stage.rows_of("incident_events") if row["kind"] == "causes"]


def test_what_was_found_while_an_alert_was_pending_goes_with_its_page(stage: Stage) -> None:
    stage.causes = FOUND
    stage.run(5, waiting=57, every=1)
    (message,) = stage.sent.messages
    assert message.details["why"]["summary"] == FOUND["summary"]
    assert message.details["why"]["causes"] == FOUND["causes"]
    assert ("Runbook: kv-cache-full.md", "docs/runbooks/kv-cache-full.md") in message.links
    place, start, end = stage.explained[0]
    assert place == {"deployment": ("d",), "instance": ("a",), "model": ("m",)}
    assert end - start == why.WINDOW_SECONDS


BURN = """
slos:
  - {name: answers, sli: {kind: availability}, target: 0.99, period: 30d, by: [model], windows: [
      {long: 1h, short: 5m, factor: 10}]}
rules:
  - name: shares
    when: {kind: share, above: 0.2, window: 30s, by: [model]}
"""
FAILED: dict[str, Any] = QUIET | {
    "window": FOUND["window"],
    "summary": "of the last 10 min 96 failed: http_503",
    "failures": [{"outcome": "error", "error_type": "http_503", "who": {}, "requests": 96}],
}


@pytest.mark.parametrize(("windows", "bad"), [((3600.0, 300.0), (60, 110)), ((30.0,), (120, 210))])
@pytest.mark.parametrize("found", [FOUND, FAILED])
def test_what_has_no_time_of_pending_is_asked_about_when_it_comes_near(
    stage: Stage, windows: tuple[float, ...], bad: tuple[int, int], found: dict[str, Any]
) -> None:
    stage.restart(BURN)
    stage.causes = found

    def fail(count: int) -> None:
        (measure,) = {m for need in (rule.needs() for rule in stage.engine.rules) for m in need.measures}
        group = Group({"model": "m"}, {measure: Counted(1000, count)})
        stage.counts = {seconds: [group] for seconds in windows}

    fail(10)
    stage.run(5)
    assert stage.explained == []
    fail(bad[0])
    stage.run(5)
    assert [place for place, _, _ in stage.explained] == [{"model": ("m",)}]
    fail(bad[1])
    stage.run(5)
    assert stage.pages == ["trigger"]
    assert stage.sent.messages[0].details["why"] == {name: found[name] for name in found if name != "place"}
    fail(bad[0])
    stage.run(5)
    assert len(stage.explained) == 2, "before, and when it opened"


def test_a_page_waits_for_no_account_and_the_timeline_gets_it(stage: Stage) -> None:
    stage.causes, stage.slow = FOUND, threading.Event()
    stage.run(2, waiting=57, every=100)
    stage.engine.round()  # pending
    beside = threading.Thread(target=stage.explainer.once, daemon=True)
    beside.start()
    try:
        for _ in range(2):
            stage.run(4, waiting=57, every=100)
            stage.engine.round()
            stage.outbox.deliver("pager")
        assert stage.pages == ["trigger"]
        assert "why" not in stage.sent.messages[0].details
        assert told(stage) == []
    finally:
        stage.slow.set()
        beside.join()
    stage.slow = None
    stage.explainer.once()
    assert told(stage) == [FOUND["summary"]]
    assert stage.pages == ["trigger"]


def test_what_was_found_long_ago_goes_with_no_page(stage: Stage) -> None:
    stage.causes = FOUND
    stage.run(3, waiting=57, every=1)
    assert stage.explained
    stage.run(3, waiting=1, every=1)
    stage.now += why.FRESH_SECONDS
    stage.causes = QUIET
    stage.run(6, waiting=57, every=1)
    assert stage.pages == ["trigger"]
    assert "why" not in stage.sent.messages[0].details


def test_it_is_asked_again_until_something_stands_out_also_after_a_restart(stage: Stage) -> None:
    stage.causes = QUIET
    stage.run(10, waiting=57)
    assert told(stage) == []
    stage.restart()
    stage.causes = FOUND
    stage.run(5, waiting=57)
    assert told(stage) == []  # twenty seconds have not passed
    stage.run(30, waiting=57)
    stage.run(300, waiting=57)
    assert told(stage) == [FOUND["summary"]]
    (row,) = (row for row in stage.rows_of("incident_events") if row["kind"] == "causes")
    assert json.loads(row["attributes"]["json"])["causes"] == FOUND["causes"]


def test_an_incident_that_is_soon_over_gets_its_causes_of_the_time_that_it_lasted(stage: Stage) -> None:
    stage.causes = QUIET
    stage.run(10, waiting=57)
    stage.run(20, waiting=1)
    assert stage.pages == ["trigger", "resolve"]
    over = stage.now
    stage.restart()
    stage.causes = FOUND
    stage.run(60, waiting=1)
    assert told(stage) == [FOUND["summary"]]
    place, start, end = stage.explained[-1]
    assert place == {"deployment": ("d",), "instance": ("a",), "model": ("m",)}
    (row,) = (row for row in stage.rows_of("incidents") if row["state"] == "resolved")
    assert (start, end) == (row["opened_at"] - why.WINDOW_SECONDS, row["resolved_at"])
    assert end <= over
    assert stage.pages == ["trigger", "resolve"]


def test_failures_are_told_at_once_though_no_cause_stands_out(stage: Stage) -> None:
    failure = {"outcome": "error", "error_type": "http_503", "who": {}, "requests": 96, "since": "2026-05-04T10:09:00Z"}
    stage.causes = QUIET | {"summary": "of the last 10 min 96 failed", "failures": [failure]}
    stage.run(12, waiting=57)
    assert told(stage) == ["of the last 10 min 96 failed"]


def test_a_last_try_says_that_nothing_stands_out(stage: Stage) -> None:
    stage.causes = QUIET
    stage.run(400, waiting=57)
    assert told(stage) == [QUIET["summary"]]


def test_what_cannot_be_asked_is_said_and_pages_go_on(stage: Stage) -> None:
    stage.causes = ServescopeError("the store refused", "Ask for less")
    stage.run(400, waiting=57)
    assert stage.pages == ["trigger"]
    assert told(stage) == ["causes could not be asked: the store refused"]


def test_an_account_that_trips_is_tried_a_few_times_and_not_for_ever(stage: Stage) -> None:
    stage.run(10, waiting=57)  # opened, and asked for the first time
    stage.causes = ZeroDivisionError("an account of nothing")
    tripped = 0
    for _ in range(100):
        stage.now += 5
        try:
            stage.explainer.once()
        except ZeroDivisionError:
            tripped += 1
    assert tripped == len(why.TRIES_SECONDS) - 1


def test_no_trouble_with_what_is_known_keeps_a_page_back(stage: Stage) -> None:
    def trip(*_: object) -> None:
        raise KeyError("gone")

    stage.engine.register.why = trip  # type: ignore[assignment]
    stage.run(10, waiting=57)
    assert stage.pages == ["trigger"]
    assert "why" not in stage.sent.messages[0].details


def test_a_resolve_carries_no_causes_and_a_forgotten_incident_leaves_nothing(stage: Stage) -> None:
    stage.causes = FOUND
    stage.run(10, waiting=57)
    stage.run(30, waiting=1)
    assert stage.pages == ["trigger", "resolve"]
    assert "why" not in stage.sent.messages[-1].details
    assert stage.journal.section("why")
    stage.now += 100_000
    stage.round()
    assert not stage.journal.section("why")


def test_a_place_is_what_alerts_agree_on_and_a_store_is_none() -> None:
    one = {"deployment": "d", "instance": "a", "model": "m", "rule": "x"}
    assert place_of([one, one | {"instance": "b", "model": ""}]) == {"deployment": ("d",), "instance": ("a", "b")}
    assert place_of([{}]) == {}
    assert place_of([one, {"component": "store"}]) is None
    assert place_of([]) is None
