"""Rounds over scripted measurements: what becomes one incident, who took it, what stands in its timeline."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from alerts.measure.measured import Sample

if TYPE_CHECKING:
    from tests.kits.alerts_stage import Stage


def test_alerts_of_one_place_are_one_page_and_a_worse_one_and_a_new_place_page_again(stage: Stage):
    stage.run(5, waiting=2, kv_cache_usage_ratio=0.97)
    stage.run(10, waiting=57, kv_cache_usage_ratio=0.97)
    assert stage.pages == ["trigger", "trigger"]
    first, second = stage.sent.messages
    assert first.dedup_key != second.dedup_key  # PagerDuty notifies of a key once, and never of one that is taken
    assert (first.severity, second.severity) == ("warning", "critical")
    assert second.title.startswith("waiting 57 on a, model m, ")
    stage.run(5, "b", waiting=2, kv_cache_usage_ratio=0.97)
    assert stage.pages == ["trigger", "trigger", "trigger"]
    third = stage.sent.messages[-1]
    assert third.title == "KV cache use 97 % on b, model m, limit 90 %, for 4 s (+2 more)"
    assert third.severity == "warning"
    assert stage.engine.health.open_incidents == 1
    for name in "ab":
        stage.samples[name] = []
    for second_ in range(40):
        stage.now += 1
        for name in "ab":
            stage.samples[name].append(Sample(stage.now, {"waiting": 2.0, "kv_cache_usage_ratio": 0.1}))
        if second_ % 5 == 4:
            stage.round()
    assert stage.pages == ["trigger"] * 3 + ["resolve"] * 3
    keys = [payload["key"] for payload in stage.sent.payloads]
    assert keys[:3] == keys[3:]


def test_an_incident_that_somebody_took_swallows_no_new_place(stage: Stage):
    stage.run(10, waiting=57)
    (incident,) = stage.engine.register.open
    ask = {"at": int(stage.now * 1000), "incident_id": incident.id, "attributes": {"who": "ada", "note": "mine"}}
    stage.answers["acknowledge_asked"] = [ask]
    stage.run(5, waiting=57)
    stage.run(10, "b", waiting=57)
    assert stage.pages == ["trigger", "acknowledge", "trigger"]
    states = {one.id: one.state.value for one in stage.engine.register.open}
    assert states == {incident.id: "acknowledged", stage.sent.messages[-1].incident_id: "open"}


def test_a_store_that_answers_nothing_more_holds_up_no_page(stage: Stage):
    stage.run(10, "a", waiting=57)
    stage.slow = threading.Event()
    beside = threading.Thread(target=stage.illustrator.once, daemon=True)
    beside.start()
    try:
        for number in range(20):
            began, name = stage.asked, f"far-{number}"
            stage.places[name] = {"deployment": name, "model": name}
            for _ in range(10):
                stage.now += 1
                stage.samples.setdefault(name, []).append(Sample(stage.now, {"waiting": 57.0}))
            stage.engine.round()
            assert stage.outbox.counts()["queued"] == 1
            stage.outbox.deliver("pager")
            assert len(stage.pages) == number + 2
            assert stage.asked <= began + 1  # the illustrator's own
    finally:
        stage.slow.set()
        beside.join()
    stage.slow = None
    stage.round()
    assert sum(row["kind"] == "evidence" for row in stage.rows_of("incident_events")) > 1


def test_acknowledging_tells_the_pager_once(stage: Stage):
    stage.run(10, waiting=57)
    (incident,) = stage.engine.register.open
    ask = {"at": int(stage.now * 1000), "incident_id": incident.id, "attributes": {"who": "ada", "note": "mine"}}
    stage.answers["acknowledge_asked"] = [ask]
    stage.run(10, waiting=57)
    stage.restart()
    stage.run(10, waiting=57)
    assert stage.pages == ["trigger", "acknowledge"]
    (incident,) = stage.engine.register.open
    assert (incident.state.value, incident.owner) == ("acknowledged", "ada")


def test_events_around_an_incident_join_its_timeline_once(stage: Stage):
    stage.run(10, waiting=2)

    def event(name: str, instance: str, age: float) -> dict[str, Any]:
        at = int((stage.now - age) * 1000)
        named = {"instance": instance, "deployment": "", "model": "", "version": "2"}
        return {"at": at, "event": name, "message": f"{name} of {instance}"} | named

    stage.answers["event != 'instance_config'"] = [
        event("deploy", "", 60),
        event("instance_restarted", "a", 5),
        event("x", "z", 5),
    ]
    stage.run(20, waiting=57)
    stage.restart()
    stage.run(20, waiting=57)
    found = [
        r["message"] for r in stage.rows_of("incident_events") if r["kind"] in {"deploy", "instance_restarted", "x"}
    ]
    assert sorted(found) == ["deploy of", "instance_restarted of a"]


def test_hostile_names_reach_pages_clean(stage: Stage):
    name = "a\u202e\n<script>" + "x" * 500
    stage.run(10, name, waiting=57)
    title = stage.sent.messages[0].title
    assert "\u202e" not in title
    assert "\n" not in title
    assert len(title) < 400
    details = json.dumps(stage.sent.messages[0].details, ensure_ascii=False)
    assert "\u202e" not in details
    assert "x" * 100 not in details
