"""Rounds over scripted measurements: pages, restarts, a store that is away."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from alerts import engine as engines
from alerts.config import AlertsConfig
from alerts.deliver.notice import Delivery, Notice
from alerts.deliver.outbox import Outbox
from alerts.engine import RESTORED_SECONDS, Engine
from alerts.incidents.register import Register
from alerts.incidents.timeline import Illustrator
from alerts.journal import Journal
from alerts.measure.store import Group, Measured, Sample, Series
from alerts.rules.burn import Counted
from alerts.rules.evaluate import Reading, evaluate
from alerts.rules.file import parse
from alerts.rules.model import BAD_OUTCOMES, Measure
from alerts.state import Observation
from collector.store.client import StoreError, StoreUnavailable

if TYPE_CHECKING:
    from pathlib import Path

FILE = """
rules:
  - name: waiting
    when: {kind: signal, signal: waiting, above: 20}
    for: 3s
    keep_firing_for: 10s
    runbook: docs/runbooks/engine-waiting.md
  - name: kv
    when: {kind: signal, signal: kv_cache_usage_ratio, above: 0.9}
    severity: warning
"""


BAD = tuple(outcome.value for outcome in BAD_OUTCOMES)


class Sent:
    """A notifier that takes everything."""

    name = "pager"
    destination = "test"

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.payloads: list[dict[str, Any]] = []

    def render(self, notice: Notice) -> dict[str, Any]:
        self.notices.append(notice)
        return {"action": notice.action, "key": notice.dedup_key}

    def send(self, payload: dict[str, Any]) -> Delivery:
        self.payloads.append(payload)
        return Delivery("sent")

    def close(self) -> None:
        pass


@dataclass
class Stage:
    """An engine whose measurements a test writes, and whose clock it turns."""

    folder: Path
    now: float = 1_000_000.0
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    error: Exception | None = None
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    sent: Sent = field(default_factory=Sent)
    places: dict[str, dict[str, str]] = field(default_factory=dict)
    counts: dict[float, list[Group]] = field(default_factory=dict)
    slow: threading.Event | None = None
    asked: int = 0

    def __post_init__(self) -> None:
        self.start()

    def start(self, text: str = FILE) -> None:
        self.journal = Journal(self.folder)
        self.outbox = Outbox(self.journal, [self.sent], lambda: self.now)
        register = Register(self.journal, self.outbox, dashboard_url=lambda: "http://d")
        self.engine = Engine(self, parse(text), self.journal, register, AlertsConfig(), lambda: self.now)
        self.engine._measurer = self  # type: ignore[assignment]
        self.illustrator = Illustrator(self, self.journal, register, AlertsConfig(), lambda: self.now)

    def restart(self, text: str = FILE) -> None:
        self.journal.close()
        self.start(text)

    # what the engine asks for
    def measure(self, _store: object, now: float) -> Measured:
        if self.error is not None:
            raise self.error
        shown = []
        for instance, samples in self.samples.items():
            labels = {"instance": instance, "model": "m", "deployment": "d", "engine": "e", "region": "", "version": ""}
            labels |= self.places.get(instance, {})
            recent = [s for s in samples if now - 40 <= s.at <= now]
            if recent:
                shown.append(Series(labels | {"replayed": "0"}, recent))
        return Measured(series=shown, counts=self.counts)

    def rows(self, sql: str, _parameters: object = None, settings: object = None) -> list[dict[str, Any]]:  # noqa: ARG002
        self.asked += 1
        while self.slow is not None and not self.slow.wait(1):
            continue
        return next((rows for mark, rows in self.answers.items() if mark in sql), [])

    # what a test does
    def run(self, seconds: int, instance: str = "a", every: int = 5, **values: float) -> None:
        """Time passes: a sample a second, a round every five, everything delivered."""
        for second in range(seconds):
            self.now += 1
            self.samples.setdefault(instance, []).append(Sample(self.now, values))
            if second % every == every - 1:
                self.round()

    def round(self) -> None:
        self.engine.round()
        self.outbox.deliver("pager")
        self.illustrator.once()
        self.outbox.deliver("pager")

    @property
    def pages(self) -> list[str]:
        return [payload["action"] for payload in self.sent.payloads]

    def rows_of(self, table: str) -> list[dict[str, Any]]:
        return [row for _, (name, row) in self.journal.waiting_rows(10_000) if name == table]


@pytest.fixture
def stage(tmp_path: Path):
    made = Stage(tmp_path)
    yield made
    made.journal.close()


def test_an_overload_pages_once_within_ten_seconds_and_resolves_within_half_a_minute(stage: Stage):
    stage.run(20, waiting=2)
    assert stage.pages == []
    began = stage.now
    stage.run(10, waiting=57)
    assert stage.pages == ["trigger"]
    (notice,) = stage.sent.notices
    assert notice.at - began <= 10
    assert notice.title.startswith("waiting 57 on a, model m, limit 20, for ")
    assert notice.details["threshold"] == 20
    assert notice.details["runbook"] == "docs/runbooks/engine-waiting.md"
    assert dict(notice.links)["Incident in Servescope"] == f"http://d/incidents?id={notice.incident_id}"
    stage.run(60, waiting=57)
    ended = stage.now
    stage.run(30, waiting=2)
    assert stage.pages == ["trigger", "resolve"]
    assert stage.sent.notices[-1].at - ended <= 20
    assert stage.sent.notices[0].dedup_key == stage.sent.notices[1].dedup_key
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


@pytest.mark.parametrize("when", range(0, 60, 5))
def test_a_restart_at_any_moment_pages_no_more_and_no_less(stage: Stage, when: int):
    course = [2] * 10 + [57] * 25 + [2] * 25
    for start in range(0, 60, 5):
        if start == when:
            stage.restart()
        for value in course[start : start + 5]:
            stage.now += 1
            stage.samples.setdefault("a", []).append(Sample(stage.now, {"waiting": value}))
        stage.engine.round()
        if start == when:  # written, and the process dies before it is sent
            stage.restart()
        stage.outbox.deliver("pager")
    assert stage.pages == ["trigger", "resolve"]


def test_what_fires_at_a_restart_fires_until_it_is_judged_with_data_again(stage: Stage):
    stage.run(600, waiting=57)  # its last transition is ten minutes ago
    kept, stage.samples = stage.samples, {}
    stage.restart()
    for _ in range(10):  # nothing arrives yet: the agent or the collector is being restarted as well
        stage.now += 20
        stage.round()
        assert stage.engine.health.firing == 1
    assert stage.pages == ["trigger"]
    stage.samples = kept
    stage.run(10, waiting=57)
    assert stage.pages == ["trigger"]
    stage.run(30, waiting=2)
    assert stage.pages == ["trigger", "resolve"]


def test_what_fires_at_a_restart_and_never_has_data_again_ends(stage: Stage):
    stage.run(600, waiting=57)
    stage.samples.clear()
    stage.restart()
    stage.error = StoreUnavailable("away")
    for _ in range(10):  # ignorance is no silence
        stage.now += 60
        stage.round()
    assert stage.engine.health.firing == 2
    stage.error = None
    stage.round()
    stage.now += RESTORED_SECONDS - 1
    stage.round()
    assert stage.engine.health.firing == 1
    stage.now += 5
    stage.round()
    assert stage.engine.health.firing == 0


BURN = """
slos:
  - name: s
    sli: availability
    target: 0.9
    period: 1h
    min_requests: 1
    keep_firing_for: 60s
    by: {by}
    windows: [{{long: 60s, short: 10s, factor: 2}}]
rules:
  - {{name: share, when: {{kind: share, above: 0.1, window: 30s, min_requests: 1, by: {by}}}, keep_firing_for: 60s}}
"""


@pytest.mark.parametrize("by", ["[]", "[deployment]"])
def test_objectives_that_burn_at_a_restart_burn_until_requests_are_seen_again(stage: Stage, by: str):
    def requests(bad: float, *, only: tuple[float, ...] = (60.0, 30.0, 10.0)) -> dict[float, list[Group]]:
        labels = {"deployment": "d", "replayed": "0"}
        return {
            window: [Group(labels, {Measure(bad=BAD): Counted(100, bad)})] if window in only else []
            for window in (60.0, 30.0, 10.0)
        }

    def rounds(seconds: int) -> None:
        for _ in range(seconds // 5):
            stage.now += 5
            stage.round()

    stage.restart(BURN.format(by=by))
    stage.counts = requests(50)
    rounds(300)
    firing = stage.engine.health.firing
    assert firing == 2
    stage.restart(BURN.format(by=by))
    for counts in ({}, requests(50, only=()), requests(50, only=(60.0,))):  # rows wait in the collector's log
        stage.counts = counts
        rounds(70)
        assert stage.engine.health.firing == firing
    stage.counts = requests(50)
    rounds(10)
    stage.counts = requests(0)
    rounds(30)
    stage.restart(BURN.format(by=by))
    rounds(25)
    assert stage.engine.health.firing == firing  # keep_firing_for counts from the last breach, over the restart
    rounds(10)
    assert stage.engine.health.firing == 0


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
    down = stage.sent.notices[-1]
    assert down.title == "the store has not answered for 20 s: the store at http://s does not answer"
    assert down.incident_id != stage.sent.notices[0].incident_id
    stage.error = None
    stage.run(5, waiting=57)
    assert stage.pages == ["trigger", "trigger", "resolve"]
    assert stage.sent.notices[-1].dedup_key == down.dedup_key
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
    assert "does not exist" in stage.sent.notices[0].title


def test_alerts_of_one_place_are_one_page_and_a_worse_one_and_a_new_place_page_again(stage: Stage):
    stage.run(5, waiting=2, kv_cache_usage_ratio=0.97)
    stage.run(10, waiting=57, kv_cache_usage_ratio=0.97)
    assert stage.pages == ["trigger", "trigger"]
    first, second = stage.sent.notices
    assert first.dedup_key != second.dedup_key  # PagerDuty notifies of a key once, and never of one that is taken
    assert (first.severity, second.severity) == ("warning", "critical")
    assert second.title.startswith("waiting 57 on a, model m, ")
    stage.run(5, "b", waiting=2, kv_cache_usage_ratio=0.97)
    assert stage.pages == ["trigger", "trigger", "trigger"]
    third = stage.sent.notices[-1]
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
    assert states == {incident.id: "acknowledged", stage.sent.notices[-1].incident_id: "open"}


def test_a_store_that_answers_nothing_more_holds_up_no_page(stage: Stage):
    stage.run(10, "a", waiting=57)
    stage.slow = threading.Event()
    beside = threading.Thread(target=stage.illustrator.once)
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

    stage.answers["FROM events"] = [event("deploy", "", 60), event("instance_restarted", "a", 5), event("x", "z", 5)]
    stage.run(20, waiting=57)
    stage.restart()
    stage.run(20, waiting=57)
    found = [
        r["message"] for r in stage.rows_of("incident_events") if r["kind"] in {"deploy", "instance_restarted", "x"}
    ]
    assert sorted(found) == ["deploy of", "instance_restarted of a"]


def test_a_tap_that_loses_requests_is_an_alert_without_a_rule(stage: Stage):
    def told(lost: float) -> list[Reading]:
        return [
            Reading({"instance": "a"}, Observation(lost > 0, stage.now, lost), f"{lost:g} lost at the tap of a", 0.0)
        ]

    stage.restart("rules: []")
    for readings in (None, told(0), told(3), None, told(2)):
        stage.engine.taps = readings
        stage.now += 5
        stage.round()
    assert stage.pages == ["trigger"]
    (notice,) = stage.sent.notices
    assert (notice.title, notice.severity, notice.source) == ("3 lost at the tap of a", "error", "a")
    assert notice.details["runbook"] == "docs/runbooks/tap-losing.md"
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

    def trips(rule: Any, measured: Measured, now: float) -> list[Any]:
        if rule.name == "kv":
            raise ZeroDivisionError
        return evaluate(rule, measured, now)

    monkeypatch.setattr(engines, "evaluate", trips)
    stage.run(10, waiting=57, kv_cache_usage_ratio=0.1)
    assert stage.pages == ["trigger", "trigger"]
    assert stage.engine.health.failing_rules == {"kv": "ZeroDivisionError:"}
    assert stage.engine.health.firing == 2
    monkeypatch.undo()
    stage.run(10, waiting=57, kv_cache_usage_ratio=0.1)
    assert stage.engine.health.failing_rules == {}
    assert stage.engine.health.firing == 1


def test_a_full_disk_holds_up_no_page_and_what_was_paged_is_written_when_there_is_room(stage: Stage):
    stage.run(5, waiting=2)
    refuse(stage.journal, writes=True)
    stage.run(10, waiting=57)
    assert stage.pages == ["trigger"]
    assert "readonly" in stage.journal.error
    refuse(stage.journal, writes=False)
    stage.run(5, waiting=57)
    assert stage.journal.error == ""
    stage.restart()
    stage.run(10, waiting=57)
    assert stage.pages == ["trigger"]
    stage.run(30, waiting=2)
    assert stage.pages == ["trigger", "resolve"]


def refuse(journal: Journal, *, writes: bool) -> None:
    """The disk takes nothing; or it does."""
    assert journal._database is not None
    journal._database.execute(f"PRAGMA query_only = {int(writes)}")


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


def test_old_incidents_leave_the_journal_and_unsent_ones_stay(stage: Stage):
    stage.run(10, waiting=57)
    stage.run(30, waiting=2)
    assert len(stage.journal.section("incidents")) == 1
    stage.now += 90_000
    stage.samples.clear()
    stage.round()
    assert stage.journal.section("incidents") == {}
    assert stage.journal.section("outbox") == {}


def test_hostile_names_reach_pages_clean(stage: Stage):
    name = "a\u202e\n<script>" + "x" * 500
    stage.run(10, name, waiting=57)
    title = stage.sent.notices[0].title
    assert "\u202e" not in title
    assert "\n" not in title
    assert len(title) < 400
    details = json.dumps(stage.sent.notices[0].details, ensure_ascii=False)
    assert "\u202e" not in details
    assert "x" * 100 not in details
