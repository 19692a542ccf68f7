from __future__ import annotations

import math
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.buckets import LOWEST, Buckets, common_bounds, edge, log_edges, quantile, rebucket

bounds_of = st.lists(st.floats(0.001, 100), min_size=1, max_size=12, unique=True).map(sorted)
values_of = st.lists(st.floats(0.0001, 200), min_size=1, max_size=60)


def counted(bounds: list[float], values: list[float]) -> list[int]:
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_left(bounds, value)] += 1
    return counts


@given(bounds_of, values_of, st.floats(0.01, 0.99))
def test_a_quantile_lies_in_the_bucket_that_holds_the_value(bounds: list[float], values: list[float], q: float):
    counts = counted(bounds, values)
    estimate = quantile(bounds, counts, q)
    true = sorted(values)[max(0, math.ceil(q * len(values)) - 1)]
    assert estimate is not None
    place = bisect_left(bounds, true)
    if place == len(bounds):
        assert estimate == bounds[-1]
    else:
        assert (bounds[place - 1] if place else 0) <= estimate <= bounds[place]


@given(bounds_of, values_of)
def test_quantiles_never_go_down(bounds: list[float], values: list[float]):
    found = [quantile(bounds, counted(bounds, values), q / 20) for q in range(1, 20)]
    assert found == sorted(found)  # type: ignore[type-var]


@given(bounds_of, bounds_of, values_of, values_of)
def test_two_sets_of_bounds_add_up_exactly_on_what_they_share(
    first: list[float], second: list[float], some: list[float], others: list[float]
):
    buckets = Buckets()
    buckets.add(first, counted(first, some), len(some), sum(some))
    buckets.add(second, counted(second, others), len(others), sum(others))
    shared, counts = buckets.merged()
    assert shared == sorted(set(first) & set(second))
    assert counts == counted(shared, some + others)
    assert buckets.mean() == pytest.approx(sum(some + others) / len(some + others))


@given(bounds_of, values_of)
def test_coarser_buckets_keep_every_observation(bounds: list[float], values: list[float]):
    coarse = bounds[::2]
    assert rebucket(bounds, counted(bounds, values), coarse) == counted(coarse, values)


def test_nothing_has_no_quantile_and_no_mean():
    assert quantile([1.0], [0, 0], 0.5) is None
    assert quantile([], [3], 0.5) is None
    assert Buckets().mean() is None
    assert Buckets().merged() == ([], [0])
    assert common_bounds([]) == []


def test_log_edges_grow_by_a_fourth_of_an_octave_and_start_at_zero():
    assert edge(LOWEST) == 0.0
    assert log_edges(0, 3) == pytest.approx([1.0, 2**0.25, 2**0.5, 2**0.75, 2.0])
    assert log_edges(LOWEST, LOWEST) == [0.0, pytest.approx(6.1035e-05, rel=1e-4)]
