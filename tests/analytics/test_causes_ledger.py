"""The account's own laws: nothing charged twice, nothing below zero, nothing lost."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analytics.causes.charge import Ledger
from analytics.causes.grid import Bins, overlap, runs, united
from analytics.causes.table import PHASES

SECONDS = st.floats(-50, 50, allow_nan=False, width=32)
EXCESS = st.integers(1, 6).flatmap(lambda n: arrays(np.float64, (n, len(PHASES)), elements=SECONDS))
TAKES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.lists(st.sampled_from(PHASES), min_size=1, max_size=4),
        st.floats(-5, 100, allow_nan=False),
    ),
    max_size=12,
)
SPANS = st.lists(
    st.tuples(st.floats(0, 40), st.floats(0.01, 20)).map(lambda one: (one[0], one[0] + one[1])), max_size=8
)


@settings(max_examples=40)
@given(EXCESS, TAKES, st.booleans())
def test_charges_and_the_unexplained_are_the_excess_to_rounding(excess: Any, takes: Any, back: bool):
    ledger = Ledger(excess.copy())
    for cause, phases, wanted in takes:
        taken = ledger.take(cause, phases, wanted)
        assert (taken >= 0).all()
        assert (taken <= max(wanted, 0) + 1e-9).all()
    if back:
        ledger.give_back("a")
        assert "a" not in ledger.causes
    charged = sum((ledger.of(cause) for cause in ledger.causes), start=np.zeros(len(excess)))
    total = excess.sum(axis=1)
    assert np.allclose(charged + ledger.unexplained, total, atol=1e-9)
    assert (charged <= np.maximum(total, 0) + 1e-9).all()
    by_phase = sum((ledger.charged(cause) for cause in ledger.causes), start=np.zeros(excess.shape))
    assert (by_phase >= 0).all()
    assert (by_phase <= np.maximum(excess, 0) + 1e-9).all()


@settings(max_examples=40)
@given(EXCESS, TAKES)
def test_a_request_that_was_quick_is_charged_nothing_and_keeps_its_sign(excess: Any, takes: Any):
    ledger = Ledger(-np.abs(excess))
    for cause, phases, wanted in takes:
        ledger.take(cause, phases, wanted)
    assert (ledger.unexplained <= 0).all()
    assert not any(ledger.of(cause).any() for cause in ledger.causes)


def test_what_is_given_back_can_be_charged_again():
    ledger = Ledger(np.array([[0.0, 0.0, 0.0, 3.0] + [0.0] * (len(PHASES) - 4)]))
    ledger.take("a", ["queue"], 3.0)
    assert ledger.take("b", ["queue"], 3.0)[0] == 0
    ledger.give_back("a")
    assert ledger.take("b", ["queue"], 3.0)[0] == 3.0


@settings(max_examples=40)
@given(SPANS, SPANS)
def test_overlap_counts_what_spans_share_once(requests: Any, spans: Any):
    start, end = (np.array([one[place] for one in requests]) for place in (0, 1))
    found = overlap(start, end, spans)
    fine = np.arange(0, 61, 0.01) + 0.005
    for place, seconds in enumerate(found):
        inside = (fine >= start[place]) & (fine < end[place])
        covered = np.zeros(len(fine), dtype=bool)
        for first, last in spans:
            covered |= (fine >= first) & (fine < last)
        assert abs(seconds - (inside & covered).sum() * 0.01) < 0.2
    joined = united(spans)
    assert all(one[1] < other[0] for one, other in pairwise(joined))


@settings(max_examples=40)
@given(SPANS.filter(bool), st.integers(1, 3))
def test_what_is_spread_over_bins_is_all_there_and_where_it_belongs(spans: Any, step: int):
    bins = Bins(0.0, float(step), 61 // step + 1)
    start, end = (np.array([one[place] for one in spans]) for place in (0, 1))
    mass = np.arange(1.0, len(spans) + 1)
    found = bins.spread(start, end, mass)
    assert np.isclose(found.sum(), mass.sum(), rtol=1e-6)
    for place in range(0, bins.n, 7):
        low, high = bins.edges[place], bins.edges[place + 1]
        share = np.clip(np.minimum(end, high) - np.maximum(start, low), 0, None) / (end - start)
        assert np.isclose(found[place], (share * mass).sum(), atol=1e-5)
    series = np.arange(float(bins.n))
    mean = bins.mean(series, start, end)
    assert (mean >= 0).all()
    assert (mean <= bins.n).all()


def test_a_long_time_has_few_bins_and_runs_are_joined_over_short_gaps():
    assert Bins.over(0, 90_000).n <= 20_000
    flags = np.array([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 1], dtype=bool)
    assert runs(flags) == [(1, 3), (5, 6), (10, 11)]
    assert runs(flags, gap=2) == [(1, 6), (10, 11)]
