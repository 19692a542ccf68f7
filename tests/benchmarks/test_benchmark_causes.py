"""What the benchmark of causes makes of recordings: windows, the newcomer, figures; the truth is never an input."""

from __future__ import annotations

import gzip
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

from benchmarks.causes import CAUSE_OF, begun_with, figure, runs_of, windows

if TYPE_CHECKING:
    from pathlib import Path


def test_runs_have_their_fault_their_quiet_and_who_is_new(tmp_path: Path):
    run = tmp_path / "one"
    run.mkdir()
    truth = {"kind": "kv_exhaustion", "timeline_start": 0, "timeline_end": 80, "fault_start": 30, "fault_end": 50}
    (run / "truth.json").write_text(json.dumps(truth))
    with gzip.open(run / "client.jsonl.gz", "wt") as out:
        for role, tenant in (("baseline", "acme"), ("fault", "acme"), ("fault", "hooli")):
            out.write(json.dumps({"role": role, "tenant": tenant}) + "\n")
    found = runs_of(tmp_path)
    assert [(one.fault, one.quiet, one.tenant) for one in found] == [((30, 50), (0, 30), "hooli")]
    assert CAUSE_OF[found[0].kind] == "kv_cache_full"


def test_quiet_windows_lie_inside_and_figures_are_shares():
    found = list(windows(100, 130))
    assert len(found) > 5
    assert all(100 <= first < last <= 130 for first, last in found)
    assert figure("x", 9, 10, 0.95)["met"] is False
    assert figure("x", 0, 0, 0.9)["met"] is None


def test_what_most_failures_began_with_is_told_where_no_second_was_lost():
    def failures(*each: tuple[int, str]) -> SimpleNamespace:
        told = [
            SimpleNamespace(requests=requests, onset=SimpleNamespace(event=event) if event else None)
            for requests, event in each
        ]
        return SimpleNamespace(failures=told)

    assert begun_with(failures((30, ""), (5, "deploy"), (17, "restart"))) == "restart"
    assert begun_with(failures((30, ""))) == ""
    assert begun_with(failures()) == ""
