"""The whole pager against a real store: pages, history, acknowledgement, restart, a lost journal."""

from __future__ import annotations

import json
import shutil
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from alerts.config import AlertsConfig
from alerts.incidents import history
from alerts.incidents.evidence import freeze
from alerts.incidents.incident import Alert, Incident, IncidentState
from alerts.incidents.report import listing, story_markdown, story_text
from alerts.process import Pager, build
from alerts.rules.file import load
from alerts.slo_status import slo_statuses
from analytics.answer import as_plain
from analytics.questions import latency
from analytics.selection import Filter, Selection
from analytics.window import Window
from base.errors import ServescopeError
from collector.store.client import StoreUnavailable

if TYPE_CHECKING:
    from pathlib import Path

RULES = """
slos:
  - name: vision
    description: Images are answered.
    sli: availability
    target: 0.9
    period: 1h
    filter: {deployment: vision}
    windows: [{long: 30s, short: 10s, factor: 2}]
    keep_firing_for: 5s
    runbook: docs/runbooks/availability-burn.md
rules:
  - name: engine-waiting
    when: {kind: signal, signal: waiting, above: 20}
    for: 3s
    keep_firing_for: 5s
    runbook: docs/runbooks/engine-waiting.md
"""


class World:
    """A pager on a folder, and a clock that a test turns."""

    def __init__(self, fleet: Any, folder: Path) -> None:
        self.fleet, self.folder, self.now = fleet, folder, float(int(time.time()))
        self.rules = folder / "rules.yaml"
        self.rules.write_text(RULES)
        self.pager = self.start()

    def start(self) -> Pager:
        config = AlertsConfig(slos=self.rules, health_port=0, dashboard_url="http://dash")
        pager = build(config, self.folder, self.fleet.store, clock=lambda: self.now)
        pager.servers[0].start()
        return pager

    def stop(self) -> None:
        """End the pager as a crash would, without its last words; the store is the test's own."""
        self.pager.servers[0].stop()
        self.pager.health.stop()
        self.pager.outbox.close()
        self.pager.journal.close()

    def restart(self) -> None:
        self.stop()
        self.pager = self.start()

    def play(self, seconds: int, waiting: float, **requests: int) -> None:
        for _ in range(seconds // 5):
            samples, rows = [], []
            for _ in range(5):
                self.now += 1
                samples.append(self.fleet.sample_row(self.now, waiting=waiting, running=4.0, kv_cache_usage_ratio=0.5))
                for outcome, count in requests.items():
                    rows += [self.fleet.request_row(self.now - 0.2, outcome) for _ in range(count)]
            self.fleet.store.insert("engine_samples", samples)
            self.fleet.store.insert("requests_t", rows)
            self.once()

    def once(self) -> None:
        self.pager.once()
        self.pager.outbox.deliver("pagerduty")
        self.pager.illustrator.once()
        self.pager.outbox.deliver("pagerduty")
        self.pager.history.push(self.fleet.store)

    @property
    def pages(self) -> list[dict[str, Any]]:
        return list(reversed(history.pages(self.folder)))


@pytest.fixture
def world(fleet: Any, tmp_path: Path):
    made = World(fleet, tmp_path)
    yield made
    made.stop()


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_an_overload_from_the_first_row_to_the_last_line_of_its_story(world: World):
    began = world.now
    world.play(20, 2, ok=3)
    assert world.pages == []
    world.fleet.store.insert(
        "events",
        [{"time": at(world.now), "event": "deploy", "message": "vision 1.2 rolled out", "deployment": "vision"}],
    )
    overload = world.now
    world.play(20, 57, ok=2, rejected=3)
    (page,) = world.pages
    assert page["at"] - overload <= 20
    payload = page["event"]["payload"]
    assert payload["summary"].startswith("waiting 57 on triton-a, model m, limit 20, for ")
    assert "evidence" not in payload["custom_details"]  # the page goes first
    (opened,) = history.incidents(world.fleet.store, at(began), at(world.now + 1))
    evidence = history.story(world.fleet.store, opened.id).evidence
    assert evidence["tenants"][0]["tenant"] == "acme"
    assert evidence["instances"][0]["waiting_max"] == 57
    assert 0 < evidence["error_share"] < 1
    assert "missing" not in evidence

    store = world.fleet.store
    counts = history.open_counts(store)
    assert (counts.open, counts.acknowledged, counts.critical) == (1, 0, 1)
    active = {alert.rule: alert.state for alert in history.active_alerts(store)}
    assert active == {"engine-waiting": "firing", "vision-burn": "firing"}
    (row,) = history.incidents(store, at(began), at(world.now + 1))
    history.acknowledge(store, row.id, "ada", "looking", at(world.now))
    world.play(5, 57, ok=2, rejected=3)
    assert history.open_counts(store).acknowledged == 1

    ended = world.now
    world.play(60, 2, ok=5)
    assert [page["action"] for page in world.pages] == ["trigger", "acknowledge", "resolve"]
    assert world.pages[-1]["at"] - ended <= 60
    assert {page["dedup_key"] for page in world.pages} == {f"servescope-{row.id}"}

    told = history.story(store, row.id)
    assert told.incident.state == "resolved"
    assert told.incident.owner == "ada"
    kinds = [entry.kind for entry in told.timeline]
    assert kinds.count("opened") == kinds.count("resolved") == kinds.count("deploy") == 1
    assert kinds.count("notification_sent") == 3
    assert kinds.index("deploy") < kinds.index("opened") < kinds.index("acknowledged") < kinds.index("resolved")
    assert told.evidence["instances"] == evidence["instances"]
    assert [n.action for n in told.notifications] == ["trigger", "acknowledge", "resolve"]
    assert all(n.status == "sent" and n.sent_at for n in told.notifications)
    assert history.open_counts(store) == history.OpenCounts(0, 0, 0)
    assert history.active_alerts(store) == []
    assert row.id in listing(history.incidents(store, at(began), at(world.now + 1)))
    assert "vision 1.2 rolled out" in story_text(told)
    assert "| opened |" in story_markdown(told)
    json.dumps(as_plain(told))
    with pytest.raises(history.UnknownIncidentError):
        history.story(store, "nothing")


def test_a_deploy_splits_no_alert(fleet: Any, tmp_path: Path):
    world = World(fleet, tmp_path)

    def waits(seconds: int, waiting: float, version: str) -> None:
        for _ in range(seconds // 5):
            samples = [fleet.sample_row(world.now + second, waiting=waiting, version=version) for second in range(1, 6)]
            world.now += 5
            fleet.store.insert("engine_samples", samples)
            world.once()

    waits(10, 57, "1")
    waits(45, 57, "2")
    assert [(alert.rule, alert.state) for alert in history.active_alerts(fleet.store)] == [("engine-waiting", "firing")]
    world.stop()
    (tmp_path / "alerts" / "journal.sqlite").unlink()
    world.pager = world.start()
    waits(45, 2, "2")
    assert history.active_alerts(fleet.store) == []
    assert [page["action"] for page in world.pages] == ["trigger", "resolve"]
    world.stop()


def test_alerts_of_rows_from_before_end_with_their_incident(fleet: Any):
    now = datetime.now(UTC)
    old = {"rule": "r", "state": "firing", "value": 1.0, "threshold": 1.0, "reason": "", "incident_id": ""}
    rows = [
        {"time": now, **old, "labels": {"instance": "a", "version": "1"}, "incident_id": "over"},
        {"time": now, **old, "labels": {"instance": "b"}, "incident_id": "open"},
        {"time": now, **old, "labels": {"instance": "c"}, "state": "pending"},
    ]
    fleet.store.insert("alert_transitions", rows)
    incident = {"opened_at": now, "updated_at": now, "severity": "critical", "title": "", "summary": "", "version": 1}
    fleet.store.insert(
        "incidents", [{"id": "over", "state": "resolved", **incident}, {"id": "open", "state": "open", **incident}]
    )
    assert [alert.labels for alert in history.active_alerts(fleet.store)] == [{"instance": "b"}]


def test_slos_say_what_is_left_of_their_budgets(world: World):
    file = load(world.rules)
    (idle,) = slo_statuses(world.fleet.store, file, at(world.now))
    assert (idle.state, idle.budget_ratio) == ("no_traffic", None)
    world.fleet.requests(world.now - 600, 95)
    world.fleet.requests(world.now - 600, 5, "server_error")
    (calm,) = slo_statuses(world.fleet.store, file, at(world.now))
    assert (calm.state, calm.total, calm.bad) == ("ok", 100, 5)
    assert calm.budget_ratio == pytest.approx(0.5)
    world.fleet.requests(world.now - 2, 20, "timeout")
    (burning,) = slo_statuses(world.fleet.store, file, at(world.now))
    assert burning.state == "burning"
    assert burning.burn_rates[30.0] == pytest.approx(10)


def test_a_lost_journal_is_taken_up_from_the_store(world: World):
    world.play(15, 57)
    world.stop()
    shutil.rmtree(world.folder / "alerts" / "receiver")
    (world.folder / "alerts" / "journal.sqlite").unlink()
    for _ in range(2):  # the store is away, over a restart
        world.pager = world.start()
        real, world.pager.store, world.pager.engine.watch.store = world.pager.store, Away(), Away()
        world.now += 5
        world.pager.once()
        world.stop()
    world.pager = world.start()
    assert world.pager.store is real
    world.play(15, 57)
    assert [page["action"] for page in world.pages] == ["trigger"]
    world.play(20, 2)
    assert [page["action"] for page in world.pages] == ["trigger", "resolve"]
    assert len({page["dedup_key"] for page in world.pages}) == 1


def test_history_written_while_the_store_was_away_follows(world: World):
    world.play(5, 2)
    real, world.pager.store = world.pager.store, Away()
    world.pager.engine.watch.store = Away()
    for _ in range(8):
        world.now += 5
        world.pager.once()
        world.pager.outbox.deliver("pagerduty")
    assert [page["event"]["payload"]["source"] for page in world.pages] == ["store"]
    world.restart()
    world.pager.store = real
    world.play(10, 2)
    (row,) = history.incidents(real, at(world.now - 3600), at(world.now + 1))
    assert row.title.startswith("the store has not answered for ")
    assert row.state == "resolved"
    assert world.pager.journal.waiting_rows() == []
    world.pager.history.push(real)
    assert len(history.story(real, row.id).notifications) == 2


class Away:
    """A store that is away."""

    def rows(self, *_: object, **__: object) -> list[dict[str, Any]]:
        raise StoreUnavailable("the store at http://s does not answer")

    insert = alive = rows


def test_build_refuses_what_is_wrong_before_anything_starts(fleet: Any, tmp_path: Path):
    (tmp_path / "rules.yaml").write_text("rules: [{name: x}]")
    for config in (
        AlertsConfig(slos=tmp_path / "rules.yaml", health_port=0),
        AlertsConfig(slos=tmp_path / "none.yaml", health_port=0),
        AlertsConfig(webhook={"url": "http://x", "secret_file": tmp_path / "none"}, health_port=0),
    ):
        with pytest.raises(ServescopeError):
            build(config, tmp_path, fleet.store)
    pager = build(AlertsConfig(health_port=0), tmp_path, fleet.store)
    with pytest.raises(ServescopeError, match="Another alerts process"):
        build(AlertsConfig(health_port=0), tmp_path, fleet.store)
    pager.servers[0].start().stop()
    pager.health.stop()
    pager.outbox.close()
    pager.journal.close()


def test_a_store_that_is_slow_to_take_history_holds_up_no_round(fleet: Any, tmp_path: Path):
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    asked, let_go, stop = threading.Event(), threading.Event(), threading.Event()

    class Slow:
        def insert(self, table: str, rows: Any) -> None:
            asked.set()
            let_go.wait(60)
            fleet.store.insert(table, rows)

        def close(self) -> None:
            """The store is the fixture's."""

        def __getattr__(self, name: str) -> Any:
            return getattr(fleet.store, name)

    config = AlertsConfig(slos=rules, health_port=0, receiver_port=0, evaluate_every_seconds=0.1)
    pager = build(config, tmp_path, Slow(), clock=time.time)  # type: ignore[arg-type]
    pager.journal.write({}, [("alert_transitions", {"time": time.time(), "rule": "x", "state": "firing"})])
    running = threading.Thread(target=pager.run, args=(stop,), daemon=True)
    running.start()
    try:
        assert asked.wait(60)
        before = pager.engine.health.rounds
        deadline = time.monotonic() + 60
        while pager.engine.health.rounds < before + 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert pager.engine.health.rounds >= before + 3
    finally:
        let_go.set()
        stop.set()
        running.join(60)
    assert not running.is_alive()
    assert fleet.store.rows("SELECT rule FROM alert_transitions") == [{"rule": "x"}]


def test_evidence_counts_requests_when_they_end(fleet: Any):
    now = float(int(time.time()))
    alert = Alert("r", {"instance": "triton-a"}, {}, "critical", "", 1, 1, 0.0, "", now)
    incident = Incident("i", now, now, None, IncidentState.OPEN, "critical", "", "", {}, "", 1, {"r": alert})
    fleet.requests(now - 100, 5, "timeout", e2e_seconds=95.0)  # the slow ones, that arrived long before
    for number in range(5):
        fleet.requests(now - 30, 1, ttft_seconds=0.01 * 3**number, stream=1)
    fleet.requests(now - 1, 4)  # rows as new as these may not all be there yet
    fleet.requests(now - 66, 3)
    for path in ({}, {"tenant": "lister"}):  # of models and of preflights: nobody's work
        fleet.requests(now - 30, 7, "client_error", operation="", stream=0, e2e_seconds=2.0, **path)
    found = freeze(fleet.store, incident, now)
    assert found["requests_per_second"] == pytest.approx(10 / 60, abs=1e-3)
    assert found["error_share"] == 0.5
    assert found["e2e_p99_seconds"] == pytest.approx(95, rel=0.01)
    shown = {name: datetime.fromisoformat(text) for name, text in found["latency_window"].items()}
    page = Window(shown["start"], shown["end"])
    only = Filter(instance=("triton-a",), recording="exclude")
    for signal, names in (("ttft_seconds", ("p50", "p99")), ("e2e_seconds", ("p99",))):
        (line,) = latency.ask(fleet.store, Selection(page, only), signal=signal, points=1).result.lines
        for name in names:  # what the latency page says of the same window
            assert found[f"{signal.removesuffix('_seconds')}_{name}_seconds"] == round(line.total[name], 4)
    (tenant,) = found["tenants"]
    assert tenant["requests"] == 10
