"""What a restart at any moment, a full disk and old age leave of alerts and incidents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from alerts.measure.measured import Counted, Group, Sample
from alerts.rules.sli import BAD_OUTCOMES
from alerts.tracking import RESTORED_SECONDS
from analytics.slo import Measure
from collector.store.client import StoreUnavailable

if TYPE_CHECKING:
    from alerts.journal import Journal
    from tests.kits.alerts_stage import Stage


BAD = tuple(outcome.value for outcome in BAD_OUTCOMES)


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


def test_old_incidents_leave_the_journal_and_unsent_ones_stay(stage: Stage):
    stage.run(10, waiting=57)
    stage.run(30, waiting=2)
    assert len(stage.journal.section("incidents")) == 1
    stage.now += 90_000
    stage.samples.clear()
    stage.round()
    assert stage.journal.section("incidents") == {}
    assert stage.journal.section("outbox") == {}
