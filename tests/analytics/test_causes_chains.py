"""Chains of causes, planted into simulated servers (not recorded): told where one fault brought the next about."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from analytics.causes.account import account_of
from analytics.causes.chains import in_words
from analytics.causes.evidence import causes_of
from analytics.causes.story import chains_of
from analytics.causes.table import Event, Host
from tests.kits.causes_pages import by_pages
from tests.kits.causes_sim import ORIGIN_MS, Server, evidence, gpu, steady, traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from analytics.causes.account import Account
    from analytics.causes.chains import Chain
    from analytics.causes.evidence import Cause
    from analytics.causes.table import Evidence
    from tests.kits.causes_sim import Ask

SINCE, UNTIL = 60.0, 110.0
SEEDS = [11, pytest.param(12, marks=pytest.mark.heavy)]
REPLICAS = ("sim-0", "sim-1", "sim-2")


def event(name: str, at: float, instance: str = "sim-0", **more: str) -> Event:
    return Event(at, name, instance, more.pop("version", ""), f"{name} at {instance or 'all'}.", **more)


def served(
    seed: int,
    *,
    extra: Callable[[random.Random], list[Ask]] = lambda _: [],
    changed: Callable[[Ask], None] = lambda _: None,
    names: tuple[str, ...] = ("sim-0",),
    special: dict[str, dict[str, Any]] | None = None,
    events: tuple[Event, ...] = (),
    away: tuple[float, float] = (0.0, 0.0),
    rate: float = 8.0,
    until: float = UNTIL,
    gpus: dict[str, Any] | None = None,
    turned: bool = False,
    short: tuple[float, float] = (0.0, 0.0),
    **server: Any,
) -> Evidence:
    """What a store would hold; ``extra`` requests go to the first server, pages do not answer while ``away``.

    ``turned``: rows come in another order. ``short``: when processes had no CPU for a fifth of the time.
    """
    chance = random.Random(seed)
    servers, asks = [], []
    for place, name in enumerate(names):
        one = Server(name, **(server | (special or {}).get(name, {})))
        mine = steady(chance, until, rate, name) + (extra(chance) if not place else [])
        for ask in mine:
            changed(ask)
        one.serve(mine, until, chance)
        for sample in one.samples:
            sample["up"] = float(not away[0] <= (sample["at_ms"] - ORIGIN_MS) / 1000 < away[1])
        servers.append(one)
        asks += mine
    if turned:
        servers, asks, events = servers[::-1], random.Random(seed).sample(asks, len(asks)), events[::-1]
    known = evidence(servers, asks, SINCE, events=events, gpus=gpus)
    if any(short):
        seconds = np.arange(1.0, until)
        delay = np.where((seconds >= short[0]) & (seconds < short[1]), 0.2, 0.0)
        known.hosts |= {name: Host(delay_time=seconds, delay=delay) for name in names}
    return known


def told(known: Evidence) -> tuple[Account, list[Cause], list[Chain]]:
    account = account_of(known)
    found = causes_of(account, account.asked)
    chains = chains_of(account, found, account.asked, SINCE)
    laws(account, found, chains)
    return account, found, chains


def laws(account: Account, causes: list[Cause], chains: list[Chain]) -> None:
    """What holds of all chains: no second twice, in order of time, and of causes that are told."""
    charged = {one.cause: one.seconds for one in causes}
    stood: dict[str, float] = {}
    for chain in chains:
        assert chain.steps
        assert chain.began or len(chain.steps) > 1
        assert chain.seconds == pytest.approx(sum(step.seconds for step in chain.steps))
        since = {step.cause: step.since_seconds for step in chain.steps}
        assert len(since) == len(chain.steps)
        for step in chain.steps:
            stood[step.cause] = stood.get(step.cause, 0.0) + step.seconds
            assert step.seconds > 0
            assert step.since_seconds >= (since[step.after] if step.after else chain.since_seconds) - 1
            assert bool(step.because) == bool(step.after or chain.began)
    for cause, seconds in stood.items():
        assert seconds <= charged[cause] * (1 + 1e-6)


def lost_cache(at: float, tenants: tuple[str, ...] = ("acme", "globex", "initech")) -> Callable[[Ask], None]:
    def lose(one: Ask) -> None:
        if one.at >= at and one.tenant in tenants:
            one.cached = 0

    return lose


def prompts(chance: random.Random) -> list[Ask]:
    """One tenant's long prompts, nine tenths of which are in the cache."""
    return traffic(chance, 0, 100, 16, "acme", prompt=(1500, 2000), cached=0.9)


COLD: dict[str, Any] = {"extra": prompts, "rate": 2.0, "blocks": 2300}
SLOW = {"slower": lambda t: 3.0 if t > 70 else 1.0}
PLANTED: dict[str, tuple[dict[str, Any], str, list[str], str]] = {
    "a deploy loses the cache": (
        COLD | {"changed": lost_cache(70), "events": (event("deploy", 69.0),)},
        "deploy", ["cold_prefix_cache", "kv_cache_full"], "sim-0",
    ),
    "a deploy that is told of the deployment": (
        COLD | {"changed": lost_cache(70), "events": (event("deploy", 65.0, "", deployment="sim"),)},
        "deploy", ["cold_prefix_cache", "kv_cache_full"], "sim-0",
    ),
    "a tenant loses its cache": (
        COLD | {"changed": lost_cache(70, ("acme",))}, "", ["cold_prefix_cache", "kv_cache_full"], "sim-0",
    ),
    "a slow replica has too few places": (
        {"names": REPLICAS, "special": {"sim-1": SLOW | {"places": 16}}},
        "", ["slow_instance", "queue_saturated"], "sim-1",
    ),
    "a slow replica has too few blocks": (
        {"names": REPLICAS, "special": {"sim-1": SLOW | {"blocks": 400}}},
        "", ["slow_instance", "kv_cache_full"], "sim-1",
    ),
    "a restart is cold": (
        {"stops": ((70.0, 76.0),), "away": (70.0, 76.0), "until": 150.0, "events": (event("instance_restarted", 76.1),),
         "slower": lambda t: 3.0 if 76 <= t < 96 else 1.0, "sequence": 0.00002},
        "", ["restart", "cold_start"], "sim-0",
    ),
    "a slow GPU fills the cache": (
        {"blocks": 450, "slower": lambda t: 3.3 if t > 70 else 1.0,
         "gpus": {"sim-0": [gpu("GPU-0", 112.0, lambda t: 0.3 if t > 70 else 1.0)]}},
        "", ["gpu_throttled", "kv_cache_full"], "sim-0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_planted_chain_is_told_with_what_it_began_with(name: str, seed: int):
    options, began, causes, instance = PLANTED[name]
    account, found, chains = told(served(seed, **options))
    assert chains, [(one.cause, one.seconds) for one in found]
    first = chains[0]
    assert [step.cause for step in first.steps][: len(causes)] == causes, first
    assert [step.after for step in first.steps][: len(causes)] == [None, *causes[:-1]]
    assert first.instances == [instance]
    assert (first.began.event if first.began else "") == began
    assert first.share > 0.5
    assert first.since_seconds == pytest.approx(5.0 if "deployment" in name else 10.0, abs=5)
    assert first.seconds <= account.ledger.excess[account.asked].sum() * 1.02
    assert "→" in in_words(first, "06:54")


def noisy(chance: random.Random) -> list[Ask]:
    return traffic(chance, 85, 105, 8, "hooli", prompt=(900, 1500), output=(200, 300), cached=0.0)


def flood(chance: random.Random) -> list[Ask]:
    return traffic(chance, 70, 95, 14, "hooli", output=(100, 200))


NULL: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a deploy that changes nothing": {"events": (event("deploy", 70.0), event("config_changed", 71.0))},
    "a deploy, and a flood that it has nothing to do with": {
        "extra": flood, "places": 16, "events": (event("deploy", 68.0),),
    },
    "a cache that was lost long after a deploy, and fills nothing": {
        "extra": prompts, "rate": 2.0, "blocks": 9000, "changed": lost_cache(75), "events": (event("deploy", 5.0),),
    },
    "a cache that was lost at one instance, and a deploy at another": {
        "extra": prompts, "rate": 2.0, "blocks": 9000, "changed": lost_cache(75), "events": (event("deploy", 74, "b"),),
    },
    "one tenant's cache that was lost after a deploy, and fills nothing": {
        "extra": prompts, "rate": 2.0, "blocks": 9000, "changed": lost_cache(75, ("acme",)),
        "events": (event("deploy", 74),),
    },
    "a slow replica, and a flood at another": {
        "extra": flood, "names": REPLICAS, "special": {"sim-0": {"places": 16}, "sim-1": SLOW},
    },
    "a stand-still, and a full cache long after it": {"extra": noisy, "blocks": 1000, "stops": ((62.0, 65.0),)},
    "a flood at a replica that is a little slow": {
        "extra": flood, "names": REPLICAS,
        "special": {"sim-0": {"places": 16, "slower": lambda t: 1.5 if t > 68 else 1.0}},
    },
    "a flood, and a CPU that is short while it lasts": {
        "extra": lambda chance: traffic(chance, 70, 95, 6, "hooli", output=(100, 200)), "places": 12,
        "slower": lambda t: 1.1 if 70 <= t < 95 else 1.0, "short": (70.0, 95.0),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", NULL)
@pytest.mark.parametrize("seed", SEEDS)
def test_what_did_not_bring_one_another_about_is_no_chain(name: str, seed: int):
    _, found, chains = told(served(seed, **NULL[name]))
    if "nothing" not in name:
        assert found  # else there were nothing to invent from
    mine = [[step.cause for step in one.steps] for one in chains if one.began or one.steps[0].cause in BLAMED]
    assert [one for one in mine if one != OWN.get(name)] == [], chains


OWN = {"a stand-still, and a full cache long after it": ["engine_frozen", "batch_interference"]}
"""What the first of two faults did bring about."""
BLAMED = {"cpu_starved", "slow_instance", "engine_frozen", "cold_prefix_cache", "longer_outputs", "longer_prompts"}
"""What the faults above are charged to; a full cache that leads to preemptions is a chain of its own."""


NEWCOMER: dict[str, dict[str, Any]] = {
    "a stand-still, and long prompts": {
        "extra": lambda c: traffic(c, 80, 100, 4, "hooli", prompt=(6000, 8000), output=(5, 10), cached=0.0),
        "blocks": 40_000, "stops": ((81.0, 84.0),),
    },
    "a deploy, and longer answers": {
        "extra": lambda c: traffic(c, 79, 99, 6, "hooli", prompt=(900, 1500), output=(200, 300), cached=0.0),
        "blocks": 1000, "events": (event("deploy", 71.0), event("config_changed", 71.0)),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", NEWCOMER)
@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_tenant_takes_that_was_not_there_before_came_by_itself(name: str, seed: int):
    _, found, chains = told(served(seed, **NEWCOMER[name]))
    assert found[0].who["tenant"] == "hooli"
    assert found[0].cause not in [step.cause for chain in chains for step in chain.steps]
    assert [chain.began for chain in chains if chain.began] == []


def two_tenants(chance: random.Random) -> list[Ask]:
    """One tenant's prompts, nine tenths of them in the cache, and another's answers, ten times as long later."""
    return [
        *traffic(chance, 0, 105, 6, "acme", prompt=(3000, 4000), cached=0.9),
        *traffic(chance, 0, 70, 5, "hooli", output=(20, 60)),
        *traffic(chance, 70, 105, 5, "hooli", output=(400, 500)),
    ]


@pytest.mark.parametrize("seed", [12, pytest.param(11, marks=pytest.mark.heavy)])
def test_work_of_one_tenant_leads_to_nothing_that_anothers_takes(seed: int):
    known = served(seed, extra=two_tenants, rate=2.0, blocks=4500, changed=lost_cache(73, ("acme",)))
    _, found, chains = told(known)
    charged = {one.cause: one.who for one in found}
    assert charged["kv_cache_full"]["tenant"] == "hooli"
    assert "cold_prefix_cache" in charged
    assert chains
    assert "cold_prefix_cache" not in [step.cause for chain in chains for step in chain.steps]


def test_tenants_chains_sum_to_the_whole_and_say_the_same():
    options, _, causes, _ = PLANTED["a deploy loses the cache"]
    account, _, (whole,) = told(served(11, **options))
    parts = {step.cause: 0.0 for step in whole.steps}
    for code, name in enumerate(account.requests.tenant.names):
        rows = account.asked & (account.requests.tenant.codes == code)
        found = causes_of(account, rows)
        for chain in chains_of(account, found, rows, SINCE):
            assert chain.began == whole.began, name
            for step in chain.steps:
                parts[step.cause] += step.seconds
    assert set(parts) >= set(causes)
    for step in whole.steps:
        assert parts[step.cause] == pytest.approx(step.seconds, rel=0.02)  # a hundredth of a tenant's is not told


def test_the_order_of_rows_of_a_store_changes_no_chain():
    options, _, _, _ = PLANTED["a slow replica has too few places"]
    known, turned = served(11, **options), served(11, **options, turned=True)
    assert told(turned)[2] == told(known)[2]


def test_of_pages_alone_a_chain_is_told_too():
    options, _, causes, instance = PLANTED["a slow replica has too few places"]
    pages = by_pages(served(11, **options), ORIGIN_MS, ORIGIN_MS + int(SINCE * 1000), ORIGIN_MS + int(UNTIL * 1000))
    _, found, chains = told(pages)
    assert chains, [(one.cause, one.seconds) for one in found]
    assert [step.cause for step in chains[0].steps] == causes
    assert chains[0].instances == [instance]


def test_who_is_not_asked_about_has_no_seconds_in_a_chain():
    options, _, _, _ = PLANTED["a slow replica has too few places"]
    account, _, _ = told(served(11, **options))
    well = account.asked & account.requests.instance.among(["sim-0"])
    assert chains_of(account, causes_of(account, well), well, SINCE) == []
    one = np.zeros(len(account.requests), dtype=np.bool_)
    slow = account.ledger.of("queue_saturated")
    one[int(np.argmax(np.where(account.ledger.of("slow_instance") > 0, slow, 0.0)))] = True
    (chain,) = chains_of(account, causes_of(account, one), one, SINCE)
    assert chain.seconds <= float(account.ledger.excess[one].sum()) + 1e-6
