from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from alerts.burn import (
    BurnWindow,
    Counted,
    budget_remaining,
    burn_rate,
    highest_burn_rate,
    judge,
    windows_for,
)

DAY = 86400.0


def test_thirty_days_give_the_workbooks_factors():
    found = [(w.long_seconds, w.short_seconds, w.factor, w.severity) for w in windows_for(30 * DAY)]
    assert found == [
        (3600, 300, 14.4, "critical"),
        (21600, 1800, 6, "critical"),
        (86400, 7200, 3, "warning"),
        (259200, 21600, 1, "warning"),
    ]


@given(st.floats(DAY, 90 * DAY))
def test_a_window_at_its_factor_spends_just_its_share_of_the_budget(period: float):
    for window, share in zip(windows_for(period), (0.02, 0.05, 0.1, 0.1), strict=False):
        assert window.factor * window.long_seconds / period == pytest.approx(share, rel=1e-4)
        assert window.factor >= 1


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
