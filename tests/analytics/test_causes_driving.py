"""The very requests whose work took others' time."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from analytics.causes.account import Account, account_of
from analytics.causes.driving import MOST, DrivingRequest, in_words
from analytics.causes.evidence import causes_of
from tests.kits.causes_sim import Ask, Server, evidence, steady, traffic

SINCE, UNTIL = 60.0, 105.0
ORIGIN_MS = 1_790_000_000_000


def crowded(*planted: Ask, blocks: int = 1000) -> tuple[Account, list[Ask]]:
    """A server that a tenant floods with long prompts, and requests of others that are planted there."""
    chance = random.Random(5)
    asks = [*steady(chance, UNTIL, 8.0), *planted]
    asks += traffic(chance, 65, 95, 5, "hooli", prompt=(900, 1500), output=(200, 300), cached=0.0)
    server = Server(blocks=blocks)
    server.serve(asks, UNTIL, chance)
    return account_of(replace(evidence([server], asks, SINCE), origin_ms=ORIGIN_MS)), asks


def test_the_requests_that_held_most_while_others_waited_are_told_first():
    account, _ = crowded()
    (full,) = [one for one in causes_of(account, account.asked) if one.cause == "kv_cache_full"]
    assert full.who["tenant"] == "hooli"
    assert [one.tenant for one in full.driving] == ["hooli"] * MOST
    shares = [one.share for one in full.driving]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) < 1
    requests = account.requests
    for one in full.driving:
        (row,) = np.flatnonzero(requests.key == int(one.key))
        assert requests.prompt[row] >= 900
        assert requests.cached[row] == 0
        at = datetime.fromtimestamp(ORIGIN_MS / 1000 + requests.start[row], UTC)
        assert abs((one.time - at).total_seconds()) < 0.001


def test_nobody_is_told_of_what_is_not_others_work():
    account, _ = crowded()
    slow = Server(slower=lambda at: 2.0 if at > SINCE else 1.0)
    chance = random.Random(2)
    asks = steady(chance, UNTIL, 4.0)
    slow.serve(asks, UNTIL, chance)
    alone = account_of(evidence([slow], asks, SINCE))
    assert all(not one.driving for one in causes_of(alone, alone.asked))
    assert any(one.driving for one in causes_of(account, account.asked))


@pytest.mark.parametrize("what", ["held", "prefilled", "decoding", "inside", "arriving"])
def test_the_work_of_requests_is_that_of_their_tenants(what: str):
    account, _ = crowded()
    (place,) = account.places
    lost = np.random.default_rng(1).random(place.bins.n)
    codes, names = account.requests.tenant.codes[place.part], account.requests.tenant.names
    own = np.bincount(codes, place.work_while(what, lost), len(names))
    step = 1.0 if what in {"prefilled", "arriving"} else place.bins.step
    for name, series in place.by_tenant(what).items():
        assert own[names.index(name)] == pytest.approx(float((series * lost).sum()) * step, rel=1e-6)


def test_ids_are_those_that_clients_know():
    one = DrivingRequest("7", datetime.now(UTC), "a", "i", 0.0412)
    assert in_words([one]) == ""
    told = [
        replace(one, response_id="chatcmpl-a", request_id="engine-a", trace_id="t"),
        replace(one, request_id="engine-b", share=0.03),
        one,
    ]
    assert in_words(told[:1]) == "The largest of it: request chatcmpl-a (4.1%)."
    assert in_words(told) == "The largest of it: requests chatcmpl-a (4.1%), engine-b (3.0%)."
