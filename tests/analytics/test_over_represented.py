"""What is over-represented: planted differences are found and ranked, and where nothing differs nothing is told."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics import over_represented
from analytics.over_represented import CHANCE, Count, Finding, Judged, numbers, ranked
from analytics.over_represented import names as judged

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = st.tuples(st.integers(1, 10**6), st.integers(1, 10**6))


def names(counts: Sequence[tuple[str, str, int, int]], selected: int, baseline: int) -> list[Judged]:
    """Of columns that every request tells; each value is other requests'."""
    return judged([
        Count(column, value, have, selected, lack, baseline, place + 1)
        for place, (column, value, have, lack) in enumerate(counts)
    ])  # fmt: skip


def drawn(seed: int, selected: int = 400, others: int = 4000, planted: float = 0.0) -> list[Finding]:
    """Requests of 12 tenants, 6 instances and 40 error types; a share of the selected ones is tenant 7's."""
    source = random.Random(seed)
    counts: dict[tuple[str, str], list[int]] = {}
    lengths: tuple[list[float], list[float]] = ([], [])
    for index in range(selected + others):
        side = int(index >= selected)
        tenant = "t7" if not side and source.random() < planted else f"t{source.randrange(12)}"
        values = {"tenant": tenant, "instance": f"i{source.randrange(6)}", "error_type": f"e{source.randrange(40)}"}
        for pair in values.items():
            counts.setdefault(pair, [0, 0])[side] += 1
        lengths[side].append(float(source.randrange(200)))
    found = names([(*pair, *both) for pair, both in counts.items()], selected, others)
    return ranked(found + numbers("prompt_tokens", *lengths), 20)


def test_where_nothing_differs_nothing_is_told():
    false_alarms = sum(bool(drawn(seed, selected=60, others=600)) for seed in range(300))
    assert false_alarms <= 300 * CHANCE * 3


@pytest.mark.parametrize("seed", range(5))
def test_what_is_planted_is_told_first_and_alone(seed: int):
    (first,) = drawn(seed, planted=0.3)
    assert (first.column, first.value) == ("tenant", "t7")
    assert first.share == pytest.approx(0.3 + 0.7 / 12, abs=0.1)
    assert first.usual_share == pytest.approx(1 / 12, abs=0.02)
    assert 0 < first.least_difference < first.share - first.usual_share


def test_the_order_is_the_same_in_a_part_of_the_requests():
    order = [
        [one.value for one in ranked(names(
            [("tenant", "big", 600 // part, 500 // part), ("tenant", "small", 150 // part, 100 // part),
             ("instance", "slow", 900 // part, 3000 // part)], 1000 // part, 9000 // part), 9)]
        for part in (1, 2, 4)
    ]  # fmt: skip
    assert order == [["slow", "big", "small"]] * 3


def test_values_that_the_same_requests_have_are_one_finding_and_others_are_not():
    same, other = 77, 78
    found = judged([
        Count("model", "vision", 90, 100, 10, 900, same), Count("instance", "triton-a", 90, 100, 10, 900, same),
        Count("tenant", "as-many", 90, 100, 10, 900, other), Count("tenant", "too", 88, 100, 10, 900, 79),
    ])  # fmt: skip
    first, *rest = ranked(found, 9)
    assert (first.column, first.value, dict(first.also)) == ("instance", "triton-a", {"model": "vision"})
    assert [(one.column, one.value, dict(one.also)) for one in rest] == [
        ("tenant", "as-many", {}),
        ("tenant", "too", {}),
    ]


def test_who_does_not_tell_a_column_counts_in_none_of_its_shares():
    # nine in ten of the baseline name no tenant; those that do are divided as the selected ones are
    found = judged([Count("tenant", name, 50, 100, 450, 900, place) for place, name in enumerate("ab", 1)])
    assert ranked(found, 9) == []


@pytest.mark.parametrize("above", [True, False])
def test_numbers_are_told_from_where_they_part(above: bool):
    source = np.random.default_rng(3)
    usual = source.integers(10, 200, 2000).astype(float)
    odd = np.concatenate([source.integers(10, 200, 40), source.integers(800, 900, 160) if above else np.full(160, 2)])
    (found,) = ranked(numbers("prompt_tokens", odd.tolist(), usual.tolist()), 9)
    assert (found.selected, found.of_selected, found.baseline, found.of_baseline) == (160, 200, 0, 2000)
    if above:
        assert found.below is None
        assert found.at_least is not None
        assert 199 < found.at_least <= 810
    else:
        assert (found.at_least, found.below) == (None, 10.0)


def test_too_few_requests_and_columns_that_are_all_alike_tell_nothing():
    assert ranked(names([("tenant", "a", 4, 0)], 4, 5000), 9) == []
    assert numbers("preemptions", [0.0] * 50, [0.0] * 500) == []
    assert numbers("preemptions", [9.0] * 4, [0.0] * 500) == []
    assert names([("tenant", "a", 0, 5)], 0, 5) == []


@given(SIZES, st.data())
def test_counts_of_any_size_give_shares_and_probabilities(sizes: tuple[int, int], data: st.DataObject):
    selected, baseline = (data.draw(st.integers(0, size)) for size in sizes)
    ((found, _),) = names([("tenant", "a", selected, baseline)], *sizes)
    assert 0 <= found.probability <= 1
    assert -1 - 1e-9 <= found.least_difference <= found.share - found.usual_share + 1e-9
    assert found.share == selected / sizes[0]


def test_the_limit_is_kept():
    found = names([("tenant", f"t{index}", 50 + index, 5) for index in range(9)], 1000, 9000)
    assert len(ranked(found, 3)) == 3
    assert over_represented.ranked([], 3) == []
