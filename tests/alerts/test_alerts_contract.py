"""The kind `contract`: what stands broken pages once per server, ends when it is mended, and never by ignorance."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from alerts.measure.measured import Breach, Measured
from alerts.measure.store import BREACHES_EVERY_SECONDS, Measurer
from alerts.rules.file import parse
from alerts.rules.model import all_rules
from base.errors import ServescopeError
from tests.kits.alerts_stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from alerts.rules.rule import Rule

NOW = 1_000_000.0
TEXT = "rules: [{name: c, when: {kind: contract%s}, keep_firing_for: 0s}]"


def rule(more: str = "") -> Rule:
    return all_rules(parse(TEXT % more))[0]


def seen(*instances: str, age: float = 1.0, replayed: str = "0") -> list[tuple[dict[str, str], float]]:
    return [({"instance": one, "deployment": "d", "replayed": replayed}, NOW - age) for one in instances]


def test_all_families_of_a_server_are_one_alert_that_names_them():
    broken = [Breach("gone", "generation_tokens_total", NOW - 40, True), Breach("unit", "kv", NOW - 10, True)]
    a, b = rule().judge(Measured(last_seen=seen("a", "b"), breaches={"a": broken}), NOW)
    assert (a.seen.breached, a.seen.value, a.seen.since) == (True, 2.0, NOW - 40)
    assert a.reason == "a does not tell what it must: generation_tokens_total (gone or renamed), kv (in another unit)"
    assert (a.labels, a.context) == ({"instance": "a"}, {"deployment": "d"})
    assert (b.seen.breached, b.seen.value) == (False, 0.0)


def test_a_long_list_is_cut_and_hostile_names_are_one_line():
    broken = [Breach("absent", f"x\n{number}", NOW, True) for number in range(11)]
    (reading,) = rule().judge(Measured(last_seen=seen("a"), breaches={"a": broken}), NOW)
    assert "x 0 (absent)" in reading.reason
    assert reading.reason.endswith(" and 3 more")
    assert "\n" not in reading.reason


def test_what_costs_no_figure_pages_only_where_asked():
    measured = Measured(last_seen=seen("a"), breaches={"a": [Breach("doubled", "old", NOW, True)]})
    assert [one.seen.breached for one in rule().judge(measured, NOW)] == [False]
    assert [one.seen.breached for one in rule(", breaches: [doubled]").judge(measured, NOW)] == [True]


def test_who_sends_nothing_and_what_may_be_over_is_not_judged():
    known, before = Breach("gone", "x", NOW - 9, True), Breach("gone", "x", NOW - 9, False)
    assert rule().judge(Measured(last_seen=seen("a", age=61), breaches={"a": [known]}), NOW) == []
    assert rule().judge(Measured(last_seen=seen("a"), breaches={"a": [before]}), NOW) == []
    assert rule().judge(Measured(last_seen=seen("a", replayed="1"), breaches={"a": [known]}), NOW) == []
    (both,) = rule().judge(Measured(last_seen=seen("a"), breaches={"a": [before, known]}), NOW)
    assert both.seen.value == 1.0


class Scripted(Stage):
    """Measurements of the contract instead of samples; ``told`` of None: the server sends nothing."""

    told: list[Breach] | None = None

    def measure(self, _store: object, now: float) -> Measured:
        if self.error is not None:
            raise self.error
        sends = [({"instance": "a", "deployment": "d", "replayed": "0"}, now)] if self.told is not None else []
        return Measured(last_seen=sends, breaches={"a": self.told or []})


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Scripted]:
    made = Scripted(tmp_path, text=TEXT % "")
    yield made
    made.journal.close()


def test_it_fires_until_mended(loop: Scripted):
    loop.told = []
    loop.run(10)
    assert loop.pages == []
    loop.told = [Breach("absent", "x", loop.now, True)]
    loop.run(600)
    assert loop.pages == ["trigger"]
    loop.told = []
    loop.run(10)
    assert loop.pages == ["trigger", "resolve"]


def test_a_store_that_is_away_and_an_agent_that_is_silent_for_a_while_change_nothing(loop: Scripted):
    loop.told = [Breach("absent", "x", loop.now, True)]
    loop.run(10)
    loop.error = ServescopeError("the store is away", "start it")
    loop.run(10)
    loop.error, loop.told = None, None
    loop.run(200)
    loop.told = [Breach("absent", "x", loop.now - 220, False)]
    loop.run(50)
    assert loop.pages == ["trigger"]


def test_a_server_that_is_gone_ends_it(loop: Scripted):
    loop.told = [Breach("absent", "x", loop.now, True)]
    loop.run(10)
    loop.told = None
    loop.run(330)
    assert loop.pages == ["trigger", "resolve"]


def event(at: float, name: str, instance: str = "a", recording: str = "", **attributes: str) -> dict[str, Any]:
    row = {"time": datetime.fromtimestamp(at, UTC), "event": name, "instance": instance, "recording": recording}
    return row | {"attributes": attributes, "message": f"{name} {attributes}"}


def test_what_stands_broken_is_what_was_told_last(fleet: Any):
    now = time.time()
    fleet.sample(now - 1, "a")
    broken, mended = "contract_broken", "contract_mended"
    fleet.store.insert(
        "events",
        [
            event(now - 90, broken, kind="gone", what="before the agent's start"),
            event(now - 80, "instance_up", first="true"),
            event(now - 80, broken, kind="unit", what="at its start"),
            event(now - 70, broken, kind="frozen", what="mended"),
            event(now - 60, mended, kind="frozen", what="mended"),
            event(now - 50, broken, kind="gone", what="mended and broken"),
            event(now - 40, mended, kind="gone", what="mended and broken"),
            event(now - 30, broken, kind="gone", what="mended and broken"),
            event(now - 20, "instance_up"),
            event(now - 10, broken, "b", kind="absent", what="another's"),
            event(now - 10, broken, "c", "old", kind="absent", what="replayed"),
            event(now - 30, broken, "d", kind="gone", what="before it left"),
            event(now - 20, "target_left", "d"),
            event(now - 30, broken, "e", kind="gone", what="before it left"),
            event(now - 20, "target_left", "e"),
            event(now - 10, broken, "e", kind="gone", what="since it came back"),
        ],
    )
    measurer = Measurer([rule().needs()])
    measured = measurer.measure(fleet.store, now)
    told = {one: [(b.kind, b.what, b.known) for b in found] for one, found in measured.breaches.items()}
    assert told == {
        "a": [
            ("gone", "before the agent's start", False),
            ("unit", "at its start", True),
            ("gone", "mended and broken", True),
        ],
        "b": [("absent", "another's", True)],
        "e": [("gone", "since it came back", True)],
    }
    assert measured.breaches["a"][2].at == pytest.approx(now - 30, abs=0.01)
    (reading,) = rule().judge(measured, now)
    assert reading.seen.value == 2.0, "b and e send no samples"
    fleet.store.insert("events", [event(now - 5, mended, kind="unit", what="at its start")])
    assert measurer.measure(fleet.store, now + 1).breaches == measured.breaches, "asked four times a minute"
    later = measurer.measure(fleet.store, now + BREACHES_EVERY_SECONDS)
    assert [one.what for one in later.breaches["a"]] == ["before the agent's start", "mended and broken"]
