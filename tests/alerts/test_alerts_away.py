"""A pager that begins while its store is away: it pages about that, and judges no rule before it knows its past."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from alerts.config import AlertsConfig
from alerts.incidents import history
from alerts.process import Pager, build
from alerts.rules.own import STORE_RULE
from collector.store.client import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

AWAY = "the store at http://s does not answer"
RULES = """
rules:
  - {name: waiting, when: {kind: signal, signal: waiting, above: 20}}
"""


class Away:
    """A store that answers nothing until it is `back`, and then what its `past` says."""

    def __init__(self) -> None:
        self.back, self.past, self.asked = False, dict[str, list[dict[str, Any]]](), list[str]()

    def rows(self, sql: str, _parameters: Any = None, settings: Any = None) -> list[dict[str, Any]]:  # noqa: ARG002
        self.asked.append(sql)
        if not self.back:
            raise StoreUnavailable(AWAY, "start it")
        return next((rows for mark, rows in self.past.items() if mark in sql), [])

    def alive(self) -> None:
        self.rows("")

    def insert(self, _table: str, _rows: Sequence[Mapping[str, object]]) -> None:
        if not self.back:
            raise StoreUnavailable(AWAY, "start it")

    def close(self) -> None:
        pass


class Begun:
    """A pager that began on an empty folder, and its clock."""

    def __init__(self, folder: Path) -> None:
        (folder / "rules.yaml").write_text(RULES)
        self.folder, self.store, self.now = folder, Away(), 1_800_000_000.0
        config = AlertsConfig(health_port=0, slos=folder / "rules.yaml")
        self.pager: Pager = build(config, folder, self.store, clock=lambda: self.now)  # type: ignore[arg-type]
        self.pager.servers[0].start()

    def play(self, seconds: int) -> None:
        for _ in range(seconds // 5):
            self.now += 5
            self.pager.once()
            self.pager.outbox.deliver("pagerduty")

    @property
    def pages(self) -> list[str]:
        return [page["action"] for page in reversed(history.pages(self.folder))]


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[Begun]:
    made = Begun(tmp_path)
    yield made
    made.pager.servers[0].stop()
    made.pager.health.stop()
    made.pager.outbox.close()
    made.pager.journal.close()


def test_a_store_that_was_never_there_pages_in_time_and_is_said_once(begun: Begun):
    with capture_logs() as logged:
        begun.play(20)
        assert begun.pages == []
        begun.play(30)
    assert begun.pages == ["trigger"]
    assert [line["event"] for line in logged].count("alert_states_not_restored") == 1
    assert not any("engine_samples" in sql for sql in begun.store.asked), "no rule is judged before its past is known"
    begun.store.back = True
    begun.play(5)
    assert begun.pages == ["trigger", "resolve"]
    assert any("engine_samples" in sql for sql in begun.store.asked)


def test_a_page_of_an_earlier_outage_ends_with_the_one_of_this(begun: Begun):
    begun.play(40)
    labels = {"component": "store"}
    at = int(begun.now * 1000) - 600_000
    begun.store.past = {
        "FROM alert_transitions": [
            {"rule": STORE_RULE, "labels": labels, "last_state": "firing", "incident_id": "old", "reason": "away",
             "value": 20.0, "threshold": 20.0, "at": at}
        ],
        "FROM incidents FINAL": [
            {"id": "old", "opened": at, "updated": at, "state": "open", "severity": "critical", "title": "away",
             "summary": "away", "labels": labels, "owner": "", "version": 1}
        ],
        "FROM notifications FINAL": [
            {"id": "old-pagerduty-1", "at": at, "incident_id": "old", "notifier": "pagerduty", "action": "trigger",
             "dedup_key": "servescope-old", "status": "sent", "attempts": 1, "last_error": "", "destination": "d",
             "payload": json.dumps({}), "sent": at, "version": 2}
        ],
    }  # fmt: skip
    begun.store.back = True
    begun.play(10)
    assert begun.pager.engine.register.open == []
    assert begun.pages == ["trigger", "resolve", "resolve"]
    assert "servescope-old" in {page["dedup_key"] for page in history.pages(begun.folder)}
