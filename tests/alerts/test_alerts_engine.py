"""Rounds over scripted measurements: what pages and what does not, a store that is away, rules that trip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from alerts.measure.measured import Measured, Sample
from alerts.measure.taps import Loss
from alerts.rules.rule import Rule
from collector.store.client import StoreError, StoreUnavailable

if TYPE_CHECKING:
    from tests.kits.alerts_stage import Stage


def test_an_overload_pages_once_within_ten_seconds_and_resolves_within_half_a_minute(stage: Stage):
    stage.run(20, waiting=2)
    assert stage.pages == []
    began = stage.now
    stage.run(10, waiting=57)
    assert stage.pages == ["trigger"]
    (message,) = stage.sent.messages
    assert message.at - began <= 10
    assert message.title.startswith("waiting 57 on a, model m, limit 20, for ")
    assert message.details["threshold"] == 20
    assert message.details["runbook"] == "docs/runbooks/engine-waiting.md"
    assert dict(message.links)["Incident in Servescope"] == f"http://d/incidents?id={message.incident_id}"
    stage.run(60, waiting=57)
    ended = stage.now
    stage.run(30, waiting=2)
    assert stage.pages == ["trigger", "resolve"]
    assert stage.sent.messages[-1].at - ended <= 20
    assert stage.sent.messages[0].dedup_key == stage.sent.messages[1].dedup_key
    kinds = [row["kind"] for row in stage.rows_of("incident_events")]
    assert kinds[:4] == ["opened", "alert_firing", "notification_sent", "evidence"]
    assert {"notification_sent", "alert_resolved", "resolved"} <= set(kinds)
    assert [r["state"] for r in stage.rows_of("alert_transitions")][-2:] == ["firing", "resolved"]


def test_a_short_peak_pages_nobody(stage: Stage):
    for _ in range(10):
        stage.run(2, waiting=57)
        stage.run(8, waiting=2)
    assert stage.pages == []


def test_flapping_is_one_incident(stage: Stage):
    for _ in range(6):
        stage.run(10, waiting=57)
        stage.run(5, waiting=2)
    assert stage.pages == ["trigger"]


def test_late_samples_count_as_if_they_had_been_in_time(stage: Stage):
    stage.run(10, waiting=2)
    late = [Sample(stage.now + i, {"waiting": 57.0}) for i in range(1, 9)]
    stage.now += 10
    stage.round()
    assert stage.pages == []
    stage.samples["a"] += late
    stage.round()
    assert stage.pages == ["trigger"]


def test_a_store_that_goes_away_pages_from_memory_and_freezes_everything_else(stage: Stage):
    stage.run(15, waiting=57)
    stage.error = StoreUnavailable("the store at http://s does not answer")
    for _ in range(10):
        stage.now += 5
        stage.round()
    assert stage.pages == ["trigger", "trigger"]
    down = stage.sent.messages[-1]
    assert down.title == "the store has not answered for 20 s: the store at http://s does not answer"
    assert down.incident_id != stage.sent.messages[0].incident_id
    stage.error = None
    stage.run(5, waiting=57)
    assert stage.pages == ["trigger", "trigger", "resolve"]
    assert stage.sent.messages[-1].dedup_key == down.dedup_key
    assert stage.engine.health.firing == 1


def test_a_store_that_refuses_from_the_start_is_away_too(stage: Stage):
    stage.error = StoreError(60, "UNKNOWN_TABLE", "Table servescope.requests does not exist")
    for _ in range(4):
        stage.now += 5
        stage.round()
    assert stage.pages == []
    stage.now += 5
    stage.round()
    assert stage.pages == ["trigger"]
    assert "does not exist" in stage.sent.messages[0].title


def test_a_tap_that_loses_requests_is_an_alert_without_a_rule(stage: Stage):
    def told(lost: float) -> list[Loss]:
        return [Loss("a", "servescope.tap.records_lost", "", lost)]

    stage.restart("rules: []")
    for readings in (None, told(0), told(3), None, told(2)):
        stage.engine.taps = readings
        stage.now += 5
        stage.round()
    assert stage.pages == ["trigger"]
    (message,) = stage.sent.messages
    assert message.title == "requests at the tap of a in 5 min: 3 were served and not recorded"
    assert (message.severity, message.source) == ("error", "a")
    assert message.details["runbook"] == "docs/runbooks/tap-losing.md"
    stage.engine.taps = told(0)
    stage.round()
    assert stage.pages == ["trigger", "resolve"]


def test_a_rule_that_leaves_the_file_ends_its_alert(stage: Stage):
    stage.run(10, waiting=57)
    stage.restart("rules: []")
    stage.now += 20
    stage.round()
    stage.now += 20
    stage.round()
    assert stage.pages == ["trigger", "resolve"]


def test_a_subject_that_disappears_resolves_after_a_while(stage: Stage):
    stage.run(10, waiting=57)
    stage.samples.clear()
    for _ in range(12):
        stage.now += 5
        stage.round()
    assert stage.pages == ["trigger"]
    stage.now += 300
    stage.round()
    assert stage.pages == ["trigger", "resolve"]


def test_a_rule_that_trips_silences_no_other_and_keeps_its_own_alerts(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    stage.run(10, waiting=2, kv_cache_usage_ratio=0.97)
    assert stage.pages == ["trigger"]

    judge = Rule.judge

    def trips(rule: Rule, measured: Measured, now: float) -> list[Any]:
        if rule.name == "kv":
            raise ZeroDivisionError
        return judge(rule, measured, now)

    monkeypatch.setattr(Rule, "judge", trips)
    stage.run(10, waiting=57, kv_cache_usage_ratio=0.1)
    assert stage.pages == ["trigger", "trigger"]
    assert stage.engine.health.failing_rules == {"kv": "ZeroDivisionError:"}
    assert stage.engine.health.firing == 2
    monkeypatch.undo()
    stage.run(10, waiting=57, kv_cache_usage_ratio=0.1)
    assert stage.engine.health.failing_rules == {}
    assert stage.engine.health.firing == 1


def test_a_round_that_trips_changes_nothing_and_the_next_one_pages(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    stage.run(5, waiting=2)

    def trips(*_: object) -> None:
        raise ValueError("no JSON")

    monkeypatch.setattr(stage.journal, "write", trips)
    with pytest.raises(ValueError, match="no JSON"):
        stage.run(5, waiting=57)
    assert stage.pages == []
    monkeypatch.undo()
    stage.run(5, waiting=57)
    assert stage.pages == ["trigger"]
