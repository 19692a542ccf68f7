"""Where data begin: with the first row or sample of a window that has nothing before it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from analytics.questions import beginning
from analytics.selection import Filter, Selection
from analytics.window import Window

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

BACK = timedelta(days=4)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def start(lab: Lab) -> datetime:
    """A time long ago, at which a recording began; two minutes later a server was scraped and three later asked."""
    at = (datetime.now(UTC) - BACK).replace(microsecond=0)
    common = {"instance": "begun", "model": "m", "recording": ""}
    lab.owner.insert("engine_samples", [
        {**common, "time": at, "recording": "played"},
        {**common, "time": at + 2 * MINUTE},
        {**common, "time": at + 5 * MINUTE},
    ])  # fmt: skip
    lab.owner.insert("requests_t", [{**common, "time": at + 3 * MINUTE, "key": 1, "operation": "chat"}])
    return at


@pytest.mark.parametrize(("recording", "after"), [("include", 0), ("only", 0), ("exclude", 2)])
def test_data_begin_with_the_first_of_those_that_are_looked_at(
    lab: Lab, start: datetime, recording: str, after: int
) -> None:
    window = Window(start - 10 * MINUTE, start + 5 * MINUTE)
    for given in (Filter(recording=recording), Filter(recording=recording, model=("another",), tenant=("x",))):  # type: ignore[arg-type]
        assert beginning.ask(lab.store, Selection(window, given)).result.at == start + after * MINUTE


def test_after_data_of_the_same_length_of_time_a_gap_is_a_gap(lab: Lab, start: datetime) -> None:
    window = Window(start + 150 * timedelta(seconds=1), start + 12 * MINUTE)
    assert beginning.ask(lab.store, Selection(window)).result.at is None, "samples lie before the window"


def test_older_data_are_another_start(lab: Lab, start: datetime) -> None:
    window = Window(start + 4 * MINUTE + timedelta(seconds=10), start + 5 * MINUTE + timedelta(seconds=10))
    assert beginning.ask(lab.store, Selection(window)).result.at == start + 5 * MINUTE


def test_without_data_nothing_begins(lab: Lab, start: datetime) -> None:
    answer = beginning.ask(lab.store, Selection(Window(start - 60 * MINUTE, start - 50 * MINUTE)))
    assert answer.result.at is None
    assert answer.state == "no_data"
    assert len(answer.sql) == 3
