from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import words

NOW = datetime(2026, 5, 4, 22, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(7.0812, "7.08"), (0.01234, "0.0123"), (1234.6, "1,230"), (100.0, "100"), (0.0, "0"), (9.999, "10")],
)
def test_three_significant_digits(value: float, shown: str) -> None:
    assert words.three(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"), (float("nan"), "–"), (0.0, "0 s"), (0.00085, "850 µs"), (0.021, "21 ms"), (7.08, "7.08 s"),
        (200.0, "3 min 20 s"), (7500.0, "2 h 5 min"), (3 * 86400.0, "3 d"),
    ],
)  # fmt: skip
def test_durations_come_in_their_best_unit(value: float | None, shown: str) -> None:
    assert words.seconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (1.0, "100 %"), (0.9993, "99.93 %"), (0.0712, "7.12 %"), (0.0, "0 %")]
)
def test_shares_keep_the_nines(value: float | None, shown: str) -> None:
    assert words.ratio(value) == shown


@given(st.floats(1e-7, 1e7))
def test_a_duration_always_has_a_unit_and_never_an_exponent(value: float) -> None:
    shown = words.seconds(value)
    assert shown.split()[-1] in {"µs", "ms", "s", "min", "h", "d"}
    assert "e" not in shown


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
