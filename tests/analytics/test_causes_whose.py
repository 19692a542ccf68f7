"""Whose a cause is: two at once are told apart, one is told once, and an answer is the sum over its requests."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from analytics.causes.account import account_of
from analytics.causes.evidence import causes_of
from analytics.causes.harm import harm_of
from analytics.causes.keeping import charges
from tests.kits.causes_sim import Server, evidence, steady, traffic

if TYPE_CHECKING:
    from analytics.causes.account import Account

SINCE, UNTIL = 60.0, 105.0


@cache
def flooded(*floods: str, seed: int = 3, slow: tuple[str, ...] = (), blocks: int = 1000, other: str = "") -> Account:
    """Servers beside each other, each with a tenant that floods it with long prompts, or none where that is "".

    Args:
        floods: The tenants.
        slow: Servers that are.
        other: One that is of another deployment.
    """
    chance = random.Random(seed)
    servers, asks = [], []
    for number, tenant in enumerate(floods):
        name = f"sim-{number}"
        slower = {"slower": lambda at: 2.0 if at > SINCE else 1.0} if name in slow else {}
        one = Server(name, blocks=blocks, **slower)
        mine = steady(chance, UNTIL, 8.0, name)
        if tenant:
            mine += traffic(chance, 65, 95, 5, tenant, prompt=(900, 1500), output=(200, 300), cached=0.0, instance=name)
        one.serve(mine, UNTIL, chance)
        servers.append(one)
        asks += mine
    return account_of(evidence(servers, asks, SINCE, deployments={other: "another"} if other else None))


@pytest.mark.parametrize("other", ["", "sim-1"])
def test_two_tenants_that_each_fill_the_cache_of_an_instance_are_both_named_and_for_no_more(other: str):
    account = flooded("hooli", "evil", "", other=other)
    found = causes_of(account, account.asked)
    full = {one.who.get("instance"): one for one in found if one.cause == "kv_cache_full"}
    assert {name: one.who["tenant"] for name, one in full.items()} == {"sim-0": "hooli", "sim-1": "evil"}
    lost = account.ledger.of("kv_cache_full")
    for name, one in full.items():
        there = account.requests.instance.among([name])
        assert one.seconds == pytest.approx(lost[there & account.asked].sum())
        assert one.requests == (lost[there & account.asked] > 0).sum()
    # neither has a request where the other floods
    pairs = {(pair.driver, pair.victim) for pair in harm_of(account, found, account.asked).pairs}
    assert ("hooli", "hooli") in pairs
    assert ("evil", "acme") in pairs
    assert not {("hooli", "evil"), ("evil", "hooli")} & pairs


def test_what_is_kept_of_a_period_names_them_by_instance_too():
    now = datetime.now(UTC)
    rows = [row for row in charges(flooded("hooli", "evil", ""), now, now) if row["cause"] == "kv_cache_full"]
    assert {(row["instance"], row["by_tenant"]) for row in rows} == {("sim-0", "hooli"), ("sim-1", "evil")}


def test_a_tenant_that_floods_all_instances_is_told_once():
    account = flooded("hooli", "hooli", "hooli")
    (full,) = [one for one in causes_of(account, account.asked) if one.cause == "kv_cache_full"]
    assert full.who == {"tenant": "hooli"}


def test_of_several_slow_replicas_each_is_named():
    account = flooded("", "", "", "", "", slow=("sim-1", "sim-3"), blocks=4000)
    slow = [one.who for one in causes_of(account, account.asked) if one.cause == "slow_instance"]
    assert sorted(one["instance"] for one in slow) == ["sim-1", "sim-3"]


@pytest.mark.parametrize("seed", range(3))
def test_an_answer_is_the_sum_over_its_requests_however_they_are_parted(seed: int):
    account = flooded("hooli", "evil", seed=seed)
    part = np.random.default_rng(seed).random(len(account.requests)) < 0.3
    tenant = account.requests.tenant

    def told(rows: Any) -> dict[str, float]:
        sums = {"": float(account.ledger.excess[rows].sum())}
        for one in causes_of(account, rows):
            sums[one.cause] = sums.get(one.cause, 0.0) + one.seconds
            sums[""] -= one.seconds
        return sums

    whole = told(account.asked)
    assert len(whole) > 2
    for parts in (
        [account.asked & part, account.asked & ~part],
        [account.asked & tenant.among([name]) for name in tenant.names],
    ):
        sums = [told(rows) for rows in parts]
        for cause, seconds in whole.items():
            assert sum(one.get(cause, 0.0) for one in sums) == pytest.approx(seconds, abs=1e-6)
