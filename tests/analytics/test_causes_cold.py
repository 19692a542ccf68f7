"""A cache that is lost on a busy server: most of the time is lost by others, and whose prompts took it is told."""

from __future__ import annotations

import random

import numpy as np
import pytest

from analytics.causes.account import Account, account_of
from analytics.causes.evidence import Cause, causes_of
from analytics.causes.fit import slope_of
from analytics.causes.grid import Bins
from analytics.causes.harm import harm_of
from analytics.causes.steps import Steps, cost_of
from tests.analytics.test_causes_simulated import SINCE, UNTIL
from tests.kits.causes_sim import Server, evidence, steady, traffic


def lost(seed: int, *, steps: bool) -> tuple[Account, list[Cause]]:
    """One tenant of four asks twice a second, and from second 60 on finds nothing of its prompts in the cache."""
    chance = random.Random(seed)
    server = Server(token=0.0003, blocks=40_000)
    asks = steady(chance, UNTIL)
    asks += traffic(chance, 0, SINCE, 2, "umbrella", prompt=(3000, 4000), cached=0.95)
    asks += traffic(chance, SINCE, UNTIL, 2, "umbrella", prompt=(3000, 4000), cached=0.0)
    server.serve(asks, UNTIL, chance)
    account = account_of(evidence([server], asks, SINCE, steps=steps))
    return account, causes_of(account, account.asked)


@pytest.mark.parametrize("steps", [False, True])
def test_who_lost_its_cache_is_named_for_what_all_others_lose(steps: bool) -> None:
    account, found = lost(4, steps=steps)
    first = found[0]
    assert (first.cause, first.who.get("tenant")) == ("cold_prefix_cache", "umbrella"), found
    assert {one.tenant for one in first.driving} == {"umbrella"}
    seconds = {pair.victim: pair.seconds for pair in harm_of(account, found, account.asked).pairs}
    assert min(seconds[name] for name in ("acme", "globex", "initech")) > 0
    own = account.ledger.of(first.cause)[account.requests.tenant.among(["umbrella"]) & account.asked].sum()
    assert own < 0.5 * first.seconds, "most of it is lost by others"


def test_a_few_extreme_prompts_leave_what_a_token_takes_to_all_others() -> None:
    chance = np.random.default_rng(1)
    tokens = np.concatenate([chance.uniform(50, 300, 90), [6110.0, 6113.0]])
    seconds = 0.01 + 0.0002 * tokens + chance.normal(0, 0.001, 92)
    seconds[-2:] = 0.15  # first of their kind: whatever they took
    assert slope_of(tokens, seconds, np.zeros(92, dtype=np.int64)) == pytest.approx(0.0002, rel=0.1)


def test_what_a_token_takes_is_learnt_of_tenants_each_by_itself() -> None:
    chance = np.random.default_rng(2)
    of = np.repeat([0, 1], 40)
    tokens = np.where(of == 1, chance.uniform(60, 160, 80), chance.uniform(140, 300, 80))
    # the second reads six thousand tokens of the cache beside
    seconds = 0.0002 * tokens + np.where(of == 1, 0.1, 0.01) + chance.normal(0, 0.001, 80)
    assert slope_of(tokens, seconds, of) == pytest.approx(0.0002, rel=0.1)
    alike = np.arange(80, dtype=np.int64)
    assert slope_of(tokens, seconds, alike) < 0.0001, "of tenants with a request each there is nothing better"


def test_single_steps_that_do_not_tell_their_batch_do_not_hide_what_steps_cost() -> None:
    n = 100
    decoded, prefilled = np.tile([1.0, 4.0], n // 2), np.tile([0.0, 0.0, 300.0, 700.0], n // 4)
    told = Steps(
        since=np.arange(n) + 0.4, width=0.1, count=np.ones(n), busy=0.01 + 0.001 * decoded + 0.0001 * prefilled,
        prefilled=prefilled, decoded=decoded, preempted=np.zeros(n), waiting=np.zeros(n), kv=np.zeros(n),
    )  # fmt: skip
    every, bins = np.ones(n, dtype=np.bool_), Bins(0.0, 1.0, n)
    told.decoded[7] = told.prefilled[7] = np.nan
    told.busy[7] = 50.0
    assert told.batch_told
    cost = cost_of(told, every, bins)
    assert cost is not None
    assert (cost.alone, cost.sequence, cost.token) == pytest.approx((0.01, 0.001, 0.0001), rel=0.01)
    told.decoded[::5] = np.nan
    assert not told.batch_told
    assert cost_of(told, every, bins) is None
