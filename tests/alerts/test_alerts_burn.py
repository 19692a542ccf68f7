from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from alerts.measure.measured import Counted
from alerts.rules.burn import (
    BurnWindow,
    highest_burn_rate,
    judge,
    windows_for,
)
from analytics.slo import budget_remaining, burn_rate

DAY = 86400.0


def test_thirty_days_give_the_workbooks_factors():
    found = [(w.long_seconds, w.short_seconds, w.factor, w.severity) for w in windows_for(30 * DAY)]
    assert found == [
        (3600, 300, 14.4, "critical"),
        (21600, 1800, 6, "critical"),
        (86400, 7200, 3, "warning"),
        (259200, 21600, 1, "warning"),
    ]


@given(st.floats(DAY, 400 * DAY))
def test_a_window_at_its_factor_spends_just_its_share_of_the_budget(period: float):
    windows = windows_for(period)
    for window, share in zip(windows, (0.02, 0.05, 0.1, 0.1), strict=True):
        assert window.factor * window.long_seconds / period == pytest.approx(share, rel=1e-4)
        assert window.long_seconds < period
    assert [window.severity for window in windows] == ["critical", "critical", "warning", "warning"]


@pytest.mark.parametrize(
    ("days", "longest", "factor"), [(28, 3 * DAY, 0.933333), (29, 3 * DAY, 0.966667), (90, 3 * DAY, 3)]
)
def test_a_period_of_about_a_month_or_more_keeps_the_slow_window(days: float, longest: float, factor: float):
    slow = windows_for(days * DAY)[-1]
    assert (slow.long_seconds, slow.short_seconds, slow.factor) == (longest, 6 * 3600, factor)


@given(st.floats(3600, 28 * DAY - 1))
def test_windows_of_shorter_periods_shrink_with_them_and_can_still_be_counted(period: float):
    windows = windows_for(period)
    assert [window.factor for window in windows] == [14.4, 6, 3, 1]
    for window in windows:
        assert 10 <= window.short_seconds < window.long_seconds
        assert 60 <= window.long_seconds <= period / 9
    assert windows == tuple(sorted(windows, key=lambda window: window.long_seconds))


def test_below_an_hour_there_is_nothing_to_scale_to():
    assert windows_for(3599) == ()


@given(st.lists(st.booleans(), min_size=1, max_size=300), st.floats(0.5, 0.9999))
def test_burn_rate_is_the_speed_at_which_the_budget_goes(bad: list[bool], target: float):
    # brute force: budget units are requests that may fail; spend them one by one
    allowed = len(bad) * (1 - target)
    left = allowed
    for one in bad:
        left -= one
    spent = (allowed - left) / allowed
    assert burn_rate(sum(bad), len(bad), target) == pytest.approx(spent, rel=1e-9, abs=1e-9)
    assert budget_remaining(sum(bad), len(bad), target) == pytest.approx(1 - spent, rel=1e-9, abs=1e-6)


@given(
    st.lists(st.tuples(st.floats(0, 600), st.booleans()), max_size=200),
    st.floats(0.5, 0.999),
    st.sampled_from([(60, 5, 2.0), (600, 60, 14.4), (300, 300, 1.0)]),
    st.integers(1, 30),
)
def test_judgement_equals_brute_force_over_the_requests(
    requests: list[tuple[float, bool]], target: float, spec: tuple[float, float, float], least: int
):
    long, short, factor = spec
    now = 600.0

    def count(seconds: float) -> Counted:
        inside = [bad for at, bad in requests if at >= now - seconds]
        return Counted(len(inside), sum(inside))

    def share(seconds: float) -> float:
        inside = [bad for at, bad in requests if at >= now - seconds]
        return sum(inside) / len(inside) if inside else 0.0

    limit = factor * (1 - target)
    assume(all(abs(share(s) - limit) > 1e-9 for s in (long, short)))
    expected = share(long) > limit and share(short) > limit and count(long).total >= least
    verdict = judge(BurnWindow(long, short, factor, "critical"), count(long), count(short), target, least)
    assert verdict.breached == expected
    assert not (verdict.breached and verdict.guarded)


def test_no_traffic_burns_nothing():
    assert burn_rate(0, 0, 0.99) == 0
    assert budget_remaining(0, 0, 0.99) == 1
    assert not judge(BurnWindow(60, 5, 1, "critical"), Counted(0, 0), Counted(0, 0), 0.99, 1).breached


def test_the_highest_rate_is_when_everything_fails():
    assert burn_rate(5, 5, 0.99) == pytest.approx(highest_burn_rate(0.99))
