"""The task that keeps causes: one period after the other, a broken one is tried again and then left out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from alerts.causes_keeper import CausesKeeper, apart
from base.errors import ServescopeError
from tests.kits.schema_tools import fresh_store

if TYPE_CHECKING:
    from tests.conftest import StoreServer


def test_a_period_that_fails_is_tried_again_and_left_out_after_three_times():
    kept: list[float] = []
    periods = [300.0, 600.0, 900.0]

    def due(after: float) -> float | None:
        return next((one for one in periods if one > after and one not in kept), None)

    def keep(until: float) -> None:
        tried.append(until)
        if until == 600.0:
            raise ServescopeError("no", "")
        kept.append(until)

    tried: list[float] = []
    keeper = CausesKeeper(due, keep)
    for _ in range(7):
        keeper.once()
    assert tried == [300.0, 600.0, 600.0, 600.0, 900.0]
    assert kept == [300.0, 900.0]


def test_nothing_is_asked_of_a_store_that_is_away_and_what_it_refuses_is_no_fault():
    asked: list[float] = []

    def due(after: float) -> float | None:
        asked.append(after)
        raise ServescopeError("away", "")

    CausesKeeper(due, asked.append, ready=lambda: False).once()
    assert asked == []
    CausesKeeper(due, asked.append).once()
    assert asked == [0.0]


def test_where_no_period_is_due_that_is_asked_again_when_another_has_ended():
    asked: list[float] = []
    waiting, kept, ended = [300.0], [], [300.0]

    def due(_: float) -> float | None:
        asked.append(ended[0])
        return waiting.pop() if waiting else None

    keeper = CausesKeeper(due, kept.append, newest=lambda: ended[0])
    for _ in range(5):
        keeper.once()
    assert (asked, kept) == ([300.0, 300.0], [300.0])
    ended[0], waiting[:] = 600.0, [600.0]
    for _ in range(5):
        keeper.once()
    assert (asked[2:], kept) == ([600.0, 600.0], [300.0, 600.0])


def test_what_pages_still_loads_no_numpy():
    code = "import alerts.process, sys; print([m for m in ('numpy', 'pandas', 'pyarrow') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_a_period_is_kept_by_a_process_of_its_own(store_server: StoreServer):
    at = datetime.fromtimestamp(1_790_000_200, UTC)
    with fresh_store(store_server) as made:
        key = int(at.timestamp() * 1000) << 22
        made.insert("requests_t", [{"time": at, "key": key, "operation": "chat", "outcome": "ok", "has_edge": 1}])
        assert apart(made.address, 1_790_000_400) == 0
        (row,) = made.rows("SELECT time FROM cause_seconds")
        assert row["time"] == datetime.fromtimestamp(1_790_000_100, UTC)
        with pytest.raises(ServescopeError, match="store"):
            apart(replace(made.address, url="http://127.0.0.1:9"), 1_790_000_400)
