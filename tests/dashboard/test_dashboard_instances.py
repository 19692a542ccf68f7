"""The state of an instance in words, and how many of those that are here are up."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from analytics.questions.configuration import Configured, Setting
from analytics.questions.instances import InstanceRow
from dashboard.views.instances import _farewell, _of_how_many, _rank, _state, configuration_rows

END = datetime(2026, 5, 1, 12, tzinfo=UTC)
ROW = InstanceRow(
    instance="a", deployment="chat", engine="vllm", region="", version="", role="", node="", models=[], ranks=[],
    up=True, asleep=None, left=None, left_by="", last_sample=END - timedelta(seconds=2), last_request=None, requests=0,
    running=None, waiting=None, kv_cache_usage_ratio=None, up_ratio=1.0, scrape_seconds=None, recording="",
)  # fmt: skip
LEFT = replace(
    ROW, up=None, left=END - timedelta(minutes=5), left_by="dns:chat", last_sample=END - timedelta(minutes=6)
)


@pytest.mark.parametrize(
    ("row", "state"),
    [
        (ROW, "up"),
        (replace(ROW, asleep=False), "up"),
        (replace(ROW, asleep=True), "asleep"),
        (replace(ROW, up=False, asleep=True), "down"),
        (replace(ROW, last_sample=END - timedelta(minutes=6)), "silent"),
        (replace(ROW, up=None, last_sample=None), "not scraped"),
        (LEFT, "left"),
    ],
)
def test_one_that_left_is_not_silent(row: InstanceRow, state: str):
    assert _state(row, END) == state


def test_those_that_left_are_not_counted_and_stand_last(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dashboard.views.instances.zone", lambda: UTC)
    assert _of_how_many(["up", "left", "down", "left"]) == "of 2, 2 left"
    assert _of_how_many(["up", "down"]) == "of 2"
    assert _of_how_many(["up", "asleep", "left"]) == "of 2, 1 asleep, 1 left"
    assert _of_how_many([]) == ""
    assert sorted(["left", "up", "silent"], key=_rank) == ["silent", "up", "left"]
    assert _farewell(LEFT).endswith(", by dns:chat")
    assert _farewell(ROW) not in _farewell(LEFT)


def test_where_servers_run_stands_before_their_settings():
    since = datetime(2026, 1, 1, tzinfo=UTC)
    servers = [
        Configured("a", "chat", "vllm", "1", "", pod="p-0", namespace="models", node="k1", since=since),
        Configured("b", "chat", "vllm", "1", "", pod="", namespace="", node="k2", since=since),
    ]
    rows = configuration_rows([Setting("chat", "", "blocks", {"a": "1"}, differs=True)], servers, ["a", "b"])
    assert rows.values.tolist() == [
        ["Namespace", "", "models", "–"], ["Pod", "", "p-0", "–"], ["Node", "", "k1", "k2"],
        ["blocks", "differs", "1", "–"],
    ]  # fmt: skip
    nowhere = [replace(one, pod="", namespace="", node="") for one in servers]
    assert len(configuration_rows([Setting("chat", "", "x", {}, differs=False)], nowhere, ["a"])) == 1
