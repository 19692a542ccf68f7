"""Faults planted into a simulated server (not recorded): the right cause first, the right tenant, nothing in quiet."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from analytics.causes.account import account_of
from analytics.causes.advice import SHARED
from analytics.causes.evidence import causes_of
from analytics.causes.harm import harm_of
from analytics.causes.table import Event, Host
from tests.kits.causes_sim import Server, evidence, steady, traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from analytics.causes.account import Account
    from analytics.causes.evidence import Cause
    from analytics.causes.table import Gpu
    from tests.kits.causes_sim import Ask

SINCE, UNTIL = 60.0, 105.0


def simulated(
    seed: int,
    extra: Callable[[random.Random], list[Ask]] = lambda _: [],
    names: tuple[str, ...] = ("sim-0",),
    special: dict[str, dict[str, Any]] | None = None,
    events: tuple[Event, ...] = (),
    rate: float = 8.0,
    gpus: dict[str, list[Gpu]] | None = None,
    taps_alone: bool = False,
    streamed: bool = True,
    **server: Any,
) -> tuple[Account, list[Cause]]:
    """An account of a window from second 60 on; the time before is quiet. ``extra`` goes to the first server."""
    chance = random.Random(seed)
    servers, asks = [], []
    for place, name in enumerate(names):
        one = Server(name, **(server | (special or {}).get(name, {})))
        mine = steady(chance, UNTIL, rate, name) + (extra(chance) if not place else [])
        one.serve(mine, UNTIL, chance)
        servers.append(one)
        asks += mine
    seen: dict[str, Any] = {"events": events, "gpus": gpus, "taps_alone": taps_alone, "streamed": streamed}
    account = account_of(evidence(servers, asks, SINCE, **seen))
    return account, causes_of(account, account.asked)


def long_prompts(chance: random.Random) -> list[Ask]:
    return traffic(chance, 65, 95, 5, "hooli", prompt=(900, 1500), output=(200, 300), cached=0.0)


def crowd(chance: random.Random) -> list[Ask]:
    return traffic(chance, 65, 90, 20, "hooli", prompt=(150, 300), output=(80, 160))


def flood(chance: random.Random) -> list[Ask]:
    return traffic(chance, 65, 95, 4, "hooli", prompt=(6000, 8000), output=(5, 10), cached=0.0)


PLANTED: dict[str, tuple[dict[str, Any], str, dict[str, str]]] = {
    "kv": ({"extra": long_prompts, "blocks": 1000}, "kv_cache_full", {"tenant": "hooli", "instance": "sim-0"}),
    "batch": (
        {"extra": crowd, "blocks": 40_000, "places": 2_000, "sequence": 0.0003},
        "batch_interference",
        {"tenant": "hooli"},
    ),
    "flood": ({"extra": flood, "blocks": 40_000}, "prefill_interference", {"tenant": "hooli"}),
    "places": (
        {"extra": lambda c: traffic(c, 65, 95, 10, "hooli", output=(100, 200)), "places": 16},
        "queue_saturated",
        {"instance": "sim-0"},
    ),
    "frozen": ({"stops": ((70, 76), (85, 88))}, "engine_frozen", {"instance": "sim-0"}),
    "slow replica": (
        {"names": ("sim-0", "sim-1", "sim-2"), "special": {"sim-1": {"slower": lambda t: 2.0 if t > 60 else 1.0}}},
        "slow_instance",
        {"instance": "sim-1"},
    ),
    "replica that was always slow": (
        {"names": ("sim-0", "sim-1", "sim-2"), "special": {"sim-2": {"slower": lambda _: 2.2}}},
        "slow_instance",
        {"instance": "sim-2"},
    ),
    "uneven router": (
        {
            "extra": lambda c: traffic(c, 65, 95, 14, "acme", output=(60, 120)),
            "names": ("sim-0", "sim-1", "sim-2"),
            "places": 12,
        },
        "router_imbalance",
        {"instance": "sim-0"},
    ),
    "longer outputs": (
        {"extra": lambda c: traffic(c, 60, 100, 6, "acme", output=(300, 400))},
        "longer_outputs",
        {"tenant": "acme"},
    ),
    "lost cache": (
        {
            "extra": lambda c: (
                traffic(c, 0, 60, 6, "acme", prompt=(3000, 4000), cached=0.9)
                + traffic(c, 60, 100, 6, "acme", prompt=(3000, 4000), cached=0.0)
            )
        },
        "cold_prefix_cache",
        {"tenant": "acme"},
    ),
    "new version": (
        {
            "extra": lambda c: traffic(c, 60, 100, 2, "globex", version="2"),
            "slower": lambda t: 2.0 if t > 60 else 1.0,
        },
        "deploy",
        {"version": "2"},
    ),
    "slow readers": (
        {"extra": lambda c: traffic(c, 62, 95, 1, "umbrella", reads=0.08)},
        "slow_client",
        {"tenant": "umbrella"},
    ),
}


@pytest.mark.parametrize("name", [name for name in PLANTED if name != "new version"])
@pytest.mark.parametrize("seed", [11, pytest.param(12, marks=pytest.mark.heavy)])
def test_a_planted_fault_comes_first_with_who_did_it(name: str, seed: int):
    options, cause, who = PLANTED[name]
    account, found = simulated(seed, **options)
    assert found, account.ledger.excess[account.asked].sum()
    assert found[0].cause == cause, [(one.cause, one.share) for one in found]
    assert who.items() <= found[0].who.items()
    assert found[0].share > 0.5
    assert found[0].evidence
    check(account, found)


def check(account: Account, found: list[Cause]) -> None:
    """The laws that hold of every account."""
    ledger = account.ledger
    charged = sum((ledger.of(cause) for cause in ledger.causes), start=np.zeros(len(ledger.excess)))
    assert np.allclose(charged + ledger.unexplained, ledger.excess, atol=1e-6)
    assert (charged <= np.maximum(ledger.excess, 0) + 1e-6).all()
    assert sum(one.seconds for one in found) <= ledger.excess[account.asked].sum() * 1.02
    tenants = account.requests.tenant
    whole = {one.cause: one.seconds for one in found}
    parts: dict[str, float] = {}
    for code in range(len(tenants.names)):
        mine = account.asked & (tenants.codes == code)
        for cause in ledger.causes:
            parts[cause] = parts.get(cause, 0.0) + float(ledger.of(cause)[mine].sum())
    for cause, seconds in whole.items():
        assert abs(parts[cause] - seconds) < 1e-6 * max(seconds, 1)
    harm = harm_of(account, found, account.asked)
    taken = {
        (one.cause, one.who["tenant"]): one.seconds for one in found if one.cause in SHARED and "tenant" in one.who
    }
    assert {(pair.cause, pair.driver) for pair in harm.pairs} == taken.keys()
    for (cause, driver), seconds in taken.items():
        mine = [pair for pair in harm.pairs if (pair.cause, pair.driver) == (cause, driver)]
        assert sum(pair.seconds for pair in mine) == pytest.approx(seconds)
        assert len({pair.victim for pair in mine}) == len(mine)
    shared = sum(one.seconds for one in found if one.cause in SHARED)
    assert sum(taken.values()) + harm.nobodys_seconds == pytest.approx(shared)
    assert harm.unlisted_seconds == 0


@pytest.mark.parametrize("seed", range(4))
def test_readers_that_are_slow_soon_after_a_server_began_are_no_cold_start(seed: int):
    up = Event(45.0, "instance_up", "sim-0", "", "")
    _, found = simulated(seed, events=(up,), **PLANTED["slow readers"][0])
    assert [one.cause for one in found] == ["slow_client"]


@pytest.mark.parametrize("seed", range(4))
def test_the_first_requests_of_a_server_that_began_are_cold(seed: int):
    up = Event(61.0, "instance_up", "sim-0", "", "")
    _, found = simulated(seed, events=(up,), slower=lambda t: 3.0 if 59 < t < 68 else 1.0)
    assert [one.cause for one in found[:1]] == ["cold_start"]


def test_what_a_tenant_took_from_others_is_told_apart_from_what_it_took_from_itself():
    account, found = simulated(11, extra=long_prompts, blocks=1000)
    harm = harm_of(account, found, account.asked)
    lost = account.ledger.of("kv_cache_full") * account.asked
    tenant = account.requests.tenant
    of_cache = {pair.victim: pair for pair in harm.pairs if pair.cause == "kv_cache_full"}
    assert {pair.driver for pair in of_cache.values()} == {"hooli"}
    assert len(of_cache) > 2
    for name, pair in of_cache.items():
        mine = tenant.among([name])
        assert pair.seconds == pytest.approx(lost[mine].sum())
        assert pair.requests == (lost[mine] > 0).sum()
    others = sum(pair.seconds for name, pair in of_cache.items() if name != "hooli")
    assert others == pytest.approx(lost[~tenant.among(["hooli"])].sum())
    assert others > 0
    few = harm_of(account, found, account.asked, most=1)
    assert few.pairs == harm.pairs[:1]
    assert few.unlisted_seconds == pytest.approx(sum(pair.seconds for pair in harm.pairs[1:]))


def test_the_version_is_named_where_its_requests_alone_are_slow():
    options, cause, _ = PLANTED["new version"]
    chance = random.Random(5)
    old, new = Server("sim-0"), Server("sim-1", slower=lambda _: 2.0)
    asks = steady(chance, UNTIL, 8, "sim-0")
    old.serve(asks, UNTIL, chance)
    late = [one for one in steady(chance, UNTIL, 8, "sim-1") if one.at > SINCE]
    for one in late:
        one.version = "2"
    new.serve(late, UNTIL, chance)
    account = account_of(evidence([old, new], asks + late, SINCE))
    found = causes_of(account, account.asked)
    assert found[0].cause == cause
    assert found[0].who["version"] == "2"
    assert options


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_long_prompts_under_a_quota_are_told_beside_the_quota(seed: int):
    """Four fifths of the time the process had no CPU: of the clock the prompts took little, of what it did most."""
    chance = random.Random(seed)
    server = Server(slower=lambda t: 5.0 if 65 < t < 95 else 1.0, blocks=40_000)
    long = traffic(chance, 65, 95, 1.0, "hooli", prompt=(3000, 4000), output=(2, 4), cached=0.0)
    asks = steady(chance, UNTIL, 2.0) + long
    server.serve(asks, UNTIL, chance)
    seen = evidence([server], asks, SINCE)
    time = np.arange(1.0, UNTIL)
    seen.hosts["sim-0"] = Host(delay_time=time, delay=np.where((time > 65) & (time <= 95), 0.8, 0.01))
    account = account_of(seen)
    found = {one.cause: one for one in causes_of(account, account.asked)}
    assert found.keys() >= {"cpu_starved", "prefill_interference"}
    assert found["prefill_interference"].who["tenant"] == "hooli"


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_a_cache_that_is_filled_while_the_engine_stands_still_is_told_beside_that(seed: int):
    _, found = simulated(seed, extra=long_prompts, blocks=1000, stops=((66, 71), (76, 81)))
    who = {one.cause: one.who.get("tenant") for one in found}
    assert who.keys() >= {"kv_cache_full", "engine_frozen"}
    assert who["kv_cache_full"] == "hooli"


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_the_backlog_of_a_stand_still_fills_no_cache(seed: int):
    _, found = simulated(seed, blocks=250, stops=((70, 76), (80, 86)))
    assert found[0].cause == "engine_frozen"
    assert "kv_cache_full" not in {one.cause for one in found}


def test_quiet_windows_claim_nothing_and_sum_to_about_nothing():
    claimed, sums = [], []
    for seed in range(8):
        account, found = simulated(100 + seed, noise=0.05 + 0.1 * (seed % 4))
        claimed += [(seed, one.cause, one.share) for one in found]
        sums.append(account.ledger.excess[account.asked].sum() / account.reference.expected[account.asked].sum())
    assert not claimed
    assert abs(np.mean(sums)) < 0.05
    assert np.max(np.abs(sums)) < 0.3


def test_what_nothing_shows_the_reason_of_is_unexplained():
    """A host that is slow at the same demand: no sample of it, so nobody is charged."""
    account, found = simulated(3, slower=lambda t: 2.5 if t > 65 else 1.0)
    assert account.ledger.excess[account.asked].sum() > 0.5 * account.reference.expected[account.asked].sum()
    assert not found


def test_what_was_charged_is_what_the_fault_cost():
    """Paired runs: the same arrivals with the fault and without; the difference is the loss."""
    for name, place in (("frozen", {"stops": ((70, 76), (85, 88))}), ("kv", {"extra": long_prompts, "blocks": 1000})):
        chance = random.Random(8)
        asks = steady(chance, UNTIL) + (long_prompts(chance) if name == "kv" else [])
        twin = [type(one)(one.at, one.tenant, one.prompt, one.output, one.cached) for one in asks]
        options = {key: value for key, value in place.items() if key != "extra"}
        sick, well = Server(**options), Server(blocks=100_000)
        sick.serve(asks, UNTIL, random.Random(1))
        well.serve(twin, UNTIL, random.Random(1))
        account = account_of(evidence([sick], asks, SINCE))
        found = causes_of(account, account.asked)
        lost = sum(one.last - one.at for one in asks if one.at >= SINCE) - sum(
            one.last - one.at for one in twin if one.at >= SINCE
        )
        charged = sum(one.seconds for one in found if not one.cause.startswith("longer"))
        assert abs(charged - lost) < 0.2 * lost, (name, charged, lost)


def test_two_faults_at_once_are_both_named():
    _, found = simulated(9, extra=long_prompts, blocks=1000, stops=((98, 104),))
    assert {one.cause for one in found} >= {"kv_cache_full", "engine_frozen"}


def test_without_anything_before_the_windows_calm_part_serves_and_without_requests_nothing_is_said():
    chance = random.Random(4)
    server = Server(stops=((70, 78),))
    asks = steady(chance, UNTIL)
    server.serve(asks, UNTIL, chance)
    account = account_of(evidence([server], asks, 0.0))
    assert account.reference.inside.all()
    assert causes_of(account, account.asked)[0].cause == "engine_frozen"
    few = account_of(evidence([server], asks[:5], 0.0))
    assert not few.reference.fits
    assert not few.asked.any()
    assert causes_of(few, few.asked) == []


def test_without_samples_the_rest_is_still_told():
    chance = random.Random(6)
    server = Server(places=16)
    asks = steady(chance, UNTIL) + traffic(chance, 65, 95, 10, "hooli", output=(100, 200))
    server.serve(asks, UNTIL, chance)
    account = account_of(evidence([server], asks, SINCE, samples=False))
    assert causes_of(account, account.asked)[0].cause == "queue_saturated"
