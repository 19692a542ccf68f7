from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from analytics.questions import halves
from analytics.selection import Filter, Selection
from analytics.window import Window
from servescope import checkup

if TYPE_CHECKING:
    from pathlib import Path

    from tests.analytics.lab import Lab

LONG_AGO = datetime.now(UTC).replace(microsecond=0) - timedelta(days=3)
THEN = Window(LONG_AGO, LONG_AGO + timedelta(minutes=5))


def row(key: int, instance: str, **more: Any) -> dict[str, Any]:
    fixed = {
        "time": LONG_AGO,
        "key": key,
        "engine": "vllm",
        "route": "/v1/completions",
        "outcome": "ok",
        "unsampled": 0,
    }
    halves = {"has_edge": 1, "has_engine": 0, "orphan": 0}
    return {**fixed, **halves, "instance": instance, "e2e_seconds": 0.1, **more}


def test_a_half_that_is_missing_has_a_cause(lab: Lab):
    engine = {"has_edge": 0, "has_engine": 1, "route": "", "outcome": ""}
    lab.owner.insert(
        "requests_t",
        [
            row(1, "speaks", has_engine=1),
            row(2, "speaks", outcome="rejected"),
            row(3, "speaks", outcome="client_error"),
            row(4, "speaks", outcome="client_abort"),
            row(5, "speaks", outcome="timeout"),
            row(6, "speaks", outcome="server_error"),
            row(7, "speaks", unsampled=1),
            row(8, "speaks"),
            row(9, "speaks", **engine),
            row(10, "speaks", **engine, orphan=1),
            row(11, "speaks", route="/v1/models"),
            row(12, "dumb"),
            row(13, "speaks", e2e_seconds=3 * 86_400 + 7_200),
        ],
    )
    answer = halves.ask(lab.store, Selection(THEN))
    found = {one.instance: one for one in answer.result.instances}
    assert found["speaks"].met == 1
    assert found["speaks"].alone == {
        "refused": 2,
        "given_up": 2,
        "failed": 1,
        "not_sampled": 1,
        "silent": 1,
        "edge_missing": 1,
        "past_the_edge": 1,
        "pending": 1,
    }
    assert found["speaks"].unexplained == {"silent": 1, "edge_missing": 1, "past_the_edge": 1}
    assert found["dumb"].alone == {"silent": 1}
    assert not found["dumb"].speaks
    assert found["dumb"].unexplained == {}
    one = halves.ask(lab.store, Selection(THEN, Filter(instance=("dumb",))))
    assert [each.instance for each in one.result.instances] == ["dumb"]


def test_doctor_counts_the_halves_of_the_last_hour(lab: Lab, tmp_path: Path):
    found = {f.name: f for f in checkup.examine(tmp_path, lab.store.address.url) if f.name.startswith("halves")}
    assert "halves vllm-2" in found  # its requests go past every tap
    assert found["halves vllm-2"].state == "note"
    assert "past_the_edge" in found["halves vllm-2"].text + found["halves vllm-2"].fix
    assert " have both halves" in found["halves vllm-0"].text
