"""An incident has what was measured around it kept as a recording, once, and its timeline says where."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from agent.recording.folder import Recording
from agent.recording.ring import RING, Ring
from alerts.incidents import keeper
from alerts.incidents.keeper import Keeper

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kits.alerts_stage import Stage


class Asked:
    """Stands for what makes a recording."""

    def __init__(self) -> None:
        self.whys: list[str] = []
        self.error: Exception | None = None

    def __call__(self, _data: Path, why: str) -> str:
        self.whys.append(why)
        if self.error is not None:
            raise self.error
        return f"/data/recordings/{why}"


def kept_of(stage: Stage) -> list[str]:
    return [row["message"] for row in stage.rows_of("incident_events") if row["kind"] == "recording_kept"]


def passing(stage: Stage, keeper: Keeper, seconds: int, waiting: float) -> None:
    for _ in range(seconds):
        stage.run(1, waiting=waiting, every=1)
        keeper.once()


def test_an_incident_is_kept_once_also_where_it_is_over_and_after_a_restart(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / RING).mkdir()
    asked = Asked()
    keep = Keeper(tmp_path, stage.journal, stage.engine.register, lambda: stage.now, asked)
    passing(stage, keep, 10, 57)
    passing(stage, keep, 5, 1)
    assert asked.whys == []
    passing(stage, keep, 25, 1)
    assert stage.pages == ["trigger", "resolve"]
    (incident,) = asked.whys
    assert kept_of(stage) == [f"what was measured around it is kept: servescope replay /data/recordings/{incident}"]
    stage.restart()
    again = Keeper(tmp_path, stage.journal, stage.engine.register, lambda: stage.now, asked)
    passing(stage, again, 30, 1)
    assert len(asked.whys) == 1
    stage.now += 100_000
    stage.round()
    assert not stage.journal.section("recorded")


def test_where_it_fails_the_incident_goes_on_and_it_is_not_tried_for_ever(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / RING).mkdir()
    asked = Asked()
    asked.error = subprocess.CalledProcessError(1, "keep")
    keep = Keeper(tmp_path, stage.journal, stage.engine.register, lambda: stage.now, asked)
    passing(stage, keep, 60, 57)
    assert len(asked.whys) == 1
    assert kept_of(stage) == []
    assert stage.pages == ["trigger"]


def test_without_a_black_box_beside_it_nothing_is_asked(stage: Stage, tmp_path: Path) -> None:
    asked = Asked()
    keep = Keeper(tmp_path, stage.journal, stage.engine.register, lambda: stage.now, asked)
    passing(stage, keep, 40, 57)
    assert asked.whys == []


def test_a_real_ring_becomes_a_recording(tmp_path: Path) -> None:
    ring = Ring(tmp_path / RING, tmp_path / "spool", 300.0, 10_000_000)
    ring.page("vllm-a", 1_795_557_400.0, 0.01, b"# nobody knows it\nx 1\n")
    ring.close()
    folder = keeper.kept(tmp_path, "20261129-010203-abcdef")
    assert folder.endswith("-20261129-010203-abcdef")
    (row,) = Recording(tmp_path / "recordings" / folder.rpartition("/")[2] / "vllm-a").rows("pages.jsonl.gz")
    assert json.loads(json.dumps(row))["text"] == "# nobody knows it\nx 1\n"
    assert keeper.kept(tmp_path, "again") != folder
