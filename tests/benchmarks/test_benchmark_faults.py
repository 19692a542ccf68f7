"""What clients of the faults' runs ask, and whether every kind can be judged."""

from __future__ import annotations

import pytest

from analytics.causes.advice import ADVICE
from benchmarks.faults import asks
from benchmarks.faults.kinds import KINDS, MAKES, QUIET


def test_a_seed_asks_the_same_at_the_same_moments_and_another_does_not():
    for drawn in (asks.llm, asks.vision):
        assert drawn(3, 20.0) == drawn(3, 20.0)
        assert [ask.at for ask in drawn(3, 20.0)] != [ask.at for ask in drawn(4, 20.0)]


def test_asks_come_in_order_within_the_time_and_are_known_by_moment_and_tenant():
    for drawn in (asks.llm(1, 30.0), asks.vision(1, 30.0, 3)):
        at = [ask.at for ask in drawn]
        assert at == sorted(at)
        assert 0 < at[0] < at[-1] < 30
        assert len({(ask.at, ask.tenant) for ask in drawn}) == len(drawn)
        assert {ask.role for ask in drawn} == {asks.BASELINE}
        assert asks.NOISY not in {ask.tenant for ask in drawn}


def test_several_servers_get_an_even_share():
    drawn = asks.vision(1, 30.0, 3)
    shares = [sum(ask.where == number for ask in drawn) / len(drawn) for number in range(3)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.01)


def test_every_kind_has_a_cause_that_there_is_and_a_run_without_it():
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names)
    for kind in KINDS:
        assert kind.make in MAKES
        assert f"{QUIET}_{kind.make.replace('-', '_')}" in names
        assert (kind.cause in ADVICE) != kind.name.startswith(QUIET), kind.name
        assert not kind.also or (kind.also in ADVICE and kind.also != kind.cause)
