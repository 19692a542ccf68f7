"""Killed again and again with pages in flight: none is lost, none goes out twice."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from alerts.deliver.receiver import Pages, Receiver
from tests.kits.alerts import run_pager

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from alerts.deliver.certificate import Certificate

KILLS = 50
INSTANCES = tuple(f"i{number}" for number in range(8))
RULES = """
rules:
  - name: engine-waiting
    when: {kind: signal, signal: waiting, above: 20}
    for: 500ms
    keep_firing_for: 500ms
"""


@dataclass
class Load:
    """Samples of some instances, each of a deployment of its own, whose queues fill and empty in turn."""

    fleet: Any
    draw: random.Random
    all_at: float | None = None
    waiting: dict[str, float] = field(default_factory=lambda: dict.fromkeys(INSTANCES, 2.0))

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.25):
            for name in INSTANCES:
                if self.all_at is not None:
                    self.waiting[name] = self.all_at
                elif self.draw.random() < 0.12:
                    self.waiting[name] = 59.0 - self.waiting[name]
            now = time.time()
            rows = [
                self.fleet.sample_row(now, name, deployment=f"d-{name}", model=f"m-{name}", waiting=self.waiting[name])
                for name in INSTANCES
            ]
            self.fleet.store.insert("engine_samples", rows)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@dataclass
class Ear:
    """Every event that the receiver took, and faults now and then; `asked` is set while one is in flight."""

    draw: random.Random
    trouble: float = 0.25
    asked: threading.Event = field(default_factory=threading.Event)
    events: list[dict[str, Any]] = field(default_factory=list)

    def fault(self) -> tuple[int, dict[str, str]] | None:
        self.asked.set()
        return (503, {"Retry-After": "0"}) if self.draw.random() < self.trouble else None

    def listen(self, receiver: Receiver) -> None:
        receiver.fail_with = self.fault
        true_add = receiver.pages.add

        def add(at: float, event: dict[str, Any]) -> None:
            self.events.append(event)
            true_add(at, event)

        receiver.pages.add = add  # type: ignore[method-assign]

    def told(self) -> dict[str, list[dict[str, Any]]]:
        """By key, the events without their repeats."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for event in list(self.events):
            if event not in found[event["dedup_key"]]:
                found[event["dedup_key"]].append(event)
        return found

    def firing(self) -> set[str]:
        """Instances whose page is not over."""
        told = self.told().values()
        return {es[0]["payload"]["source"].partition(",")[0] for es in told if es[-1]["event_action"] == "trigger"}


def eventually(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.heavy
def test_fifty_kills_with_pages_in_flight_lose_none_and_double_none(
    fleet: Any, store_server: Any, tmp_path: Path, certificate: Certificate
):
    draw = random.Random(7)
    (tmp_path / "key").write_text("k" * 32)
    (tmp_path / "rules.yaml").write_text(RULES)
    receiver, ear = Receiver(certificate, Pages()).start(), Ear(draw)
    ear.listen(receiver)
    settings = {
        "slos": str(tmp_path / "rules.yaml"),
        "evaluate_every_seconds": 0.2,
        "health_port": 0,
        "pagerduty": {
            "base_url": receiver.url,
            "ca_file": str(certificate.authority),
            "routing_key_file": str(tmp_path / "key"),
        },
    }
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.kits.alerts"])
    where = (str(tmp_path), store_server.url, fleet.store.address.database, store_server.owner_password, settings)
    load = Load(fleet, random.Random(8))

    def start() -> Any:
        process = context.Process(target=run_pager, args=where)
        process.start()
        return process

    pager, in_flight = start(), 0
    try:
        for _ in range(KILLS):
            ear.asked.clear()
            # a message is on its way: the kill comes before its answer, or while the next things happen
            in_flight += ear.asked.wait(2)
            time.sleep(draw.choice((0.0, 0.05, 0.3)))
            pager.kill()
            pager.join(30)
            pager = start()
        load.all_at, ear.trouble = 57.0, 0.0
        eventually(lambda: ear.firing() == set(INSTANCES), f"pages are missing: {ear.firing()}")
        load.all_at = 2.0
        eventually(lambda: not ear.firing(), f"pages never ended: {ear.firing()}")
        unsent = "SELECT count() AS n FROM notifications FINAL WHERE status != 'sent'"
        unresolved = "SELECT count() AS n FROM incidents FINAL WHERE state != 'resolved'"
        for question in (unsent, unresolved):
            eventually(lambda q=question: fleet.store.rows(q)[0]["n"] == 0, question)
        pager.terminate()
        pager.join(60)
        assert pager.exitcode == 0
    finally:
        load.stop()
        if pager.is_alive():
            pager.kill()
        receiver.stop()
    told = ear.told()
    assert all([e["event_action"] for e in events] == ["trigger", "resolve"] for events in told.values()), told
    # what fired is what was paged: an incident for each key, none beside it at the same time for the same instance
    incidents = fleet.store.rows(
        "SELECT id, labels['instance'] AS instance, opened_at, resolved_at FROM incidents FINAL ORDER BY opened_at"
    )
    assert {f"servescope-{one['id']}" for one in incidents} == set(told)
    assert len(incidents) > len(INSTANCES)
    ended: dict[str, Any] = {}
    for one in incidents:
        assert one["instance"] not in ended or one["opened_at"] >= ended[one["instance"]], one
        ended[one["instance"]] = one["resolved_at"]
    fired = fleet.store.rows("SELECT DISTINCT incident_id FROM alert_transitions WHERE state = 'firing'")
    assert {row["incident_id"] for row in fired} == {one["id"] for one in incidents}
    assert in_flight >= KILLS / 5
