from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from dashboard import words

NOW = datetime(2026, 5, 4, 22, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"), (float("nan"), "–"), (float("inf"), "–"), (200.0, "3 min 20 s"),
    ],
)  # fmt: skip
def test_an_unknown_duration_is_no_figure(value: float | None, shown: str) -> None:
    assert words.seconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (1.0, "100 %"), (0.9993, "99.93 %"), (0.0712, "7.12 %"), (0.0, "0 %")]
)
def test_shares_keep_the_nines(value: float | None, shown: str) -> None:
    assert words.ratio(value) == shown


@pytest.mark.parametrize(
    ("value", "before", "unit", "shown"),
    [
        (7.0, 1.1, "seconds", "+5.9 s"),
        (1.0, 1.001, "seconds", "no change"),
        (0.05, 0.08, "ratio", "−3 points"),
        (None, 1.0, "seconds", ""),
        (2.0, None, "count", ""),
    ],
)
def test_a_change_is_told_in_words(value: float | None, before: float | None, unit: str, shown: str) -> None:
    assert words.change(value, before, unit) == shown


def test_times_stand_in_the_viewers_zone() -> None:
    tokyo = ZoneInfo("Asia/Tokyo")
    assert words.local_clock(NOW, tokyo, now=NOW) == "07:30:00"
    assert words.local_clock(NOW - timedelta(days=1), tokyo, now=NOW) == "04 May 07:30:00"
    assert words.local_clock(NOW.replace(microsecond=42_000), tokyo, milliseconds=True, now=NOW) == "07:30:00.042"


def test_nothing_is_a_dash() -> None:
    assert {words.count(None), words.per_second(None), words.figure(None, "ratio"), words.ago(None)} == {"–"}
