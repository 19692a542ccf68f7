"""A deployment's account is its own: whoever else is in the store changes none of it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from analytics.causes.account import account_of
from analytics.causes.evidence import causes_of
from tests.kits.causes_sim import Ask, Server, evidence, steady, traffic

SINCE, UNTIL = 60.0, 105.0
OTHERS = {
    "busy from long before": (0.0, 30.0, ()),
    "there for a moment": (40.0, 5.0, ()),
    "new in the window": (70.0, 8.0, ()),
    "with a fault of its own": (0.0, 8.0, ((75.0, 85.0),)),
}


def served(seed: int, name: str, since: float, rate: float, **server: Any) -> tuple[Server, list[Ask]]:
    chance = random.Random(seed)
    one = Server(name, **server)
    asks = [ask for ask in steady(chance, UNTIL, rate, name) if ask.at >= since]
    if name == "sim-0":
        asks += traffic(chance, 70, 90, 12, "hooli", output=(100, 200), instance=name)
    one.serve(asks, UNTIL, chance)
    return one, asks


@pytest.mark.parametrize("since", [SINCE, 1.0])
@pytest.mark.parametrize("name", OTHERS)
def test_another_deployment_changes_nothing(name: str, since: float):
    begins, rate, stops = OTHERS[name]
    mine = served(3, "sim-0", 0.0, 8.0, places=16)
    other = served(4, "sim-1", begins, rate, stops=stops)
    alone = account_of(evidence([mine[0]], mine[1], since))
    among = evidence([mine[0], other[0]], mine[1] + other[1], since, deployments={"sim-1": "other"})
    both = account_of(among)
    requests = both.requests
    own = requests.deployment.among(["sim"])
    assert own.sum() == len(alone.requests)
    assert np.array_equal(both.reference.calm[own], alone.reference.calm)
    assert np.array_equal(both.reference.expected[own], alone.reference.expected)
    assert np.array_equal(both.ledger.excess[own], alone.ledger.excess)
    told, wanted = causes_of(both, both.asked & own), causes_of(alone, alone.asked)
    assert wanted[0].cause == "queue_saturated"
    assert told == wanted
    assert {key: one for key, one in both.noise.items() if key[0] == "sim" and key[1] in alone.ledger.causes} == {
        key: one for key, one in alone.noise.items() if key[1] in alone.ledger.causes
    }


def test_a_tenants_share_of_cached_prompts_is_that_of_the_deployment_that_it_asks():
    mine = served(5, "sim-0", 0.0, 8.0)
    chance = random.Random(6)
    cold = Server("sim-1")
    asks = [
        ask
        for tenant in ("acme", "globex", "initech")
        for ask in traffic(chance, 0, UNTIL, 4, tenant, cached=0.0, instance="sim-1")
    ]
    cold.serve(asks, UNTIL, chance)
    both = account_of(evidence([mine[0], cold], mine[1] + asks, SINCE, deployments={"sim-1": "other"}))
    hit = both.reference.hit[both.requests.deployment.among(["other"])]
    assert np.nanmax(hit) == 0.0
