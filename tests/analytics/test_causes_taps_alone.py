"""Requests of which only the edge tells: the same simulated faults (not recorded) are named, nothing in quiet."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from analytics.causes.account import account_of
from analytics.causes.evidence import causes_of
from analytics.causes.table import PHASE, Requests, requests_of
from tests.analytics.test_causes_simulated import PLANTED, SINCE, UNTIL, check, simulated
from tests.kits.causes_sim import ORIGIN_MS, PHASES, Server, evidence, steady


@pytest.mark.parametrize("name", [name for name in PLANTED if name != "new version"])
def test_a_planted_fault_comes_first_with_who_did_it(name: str):
    options, cause, who = PLANTED[name]
    account, found = simulated(11, taps_alone=True, **options)
    assert not account.requests.engine_half.any()
    assert found, account.ledger.excess[account.asked].sum()
    assert found[0].cause == cause, [(one.cause, one.share) for one in found]
    assert who.items() <= found[0].who.items()
    assert found[0].share > 0.5
    check(account, found)


def test_a_version_is_named_where_its_requests_alone_are_slow():
    chance = random.Random(5)
    old, new = Server("sim-0"), Server("sim-1", slower=lambda _: 2.0)
    asks = steady(chance, UNTIL, 8, "sim-0")
    old.serve(asks, UNTIL, chance)
    late = [one for one in steady(chance, UNTIL, 8, "sim-1") if one.at > SINCE]
    for one in late:
        one.version = "2"
    new.serve(late, UNTIL, chance)
    account = account_of(evidence([old, new], asks + late, SINCE, taps_alone=True))
    found = causes_of(account, account.asked)
    assert found[0].cause == "deploy"
    assert found[0].who["version"] == "2"


@pytest.mark.parametrize("names", [("sim-0",), ("sim-0", "sim-1", "sim-2")], ids=["one", "three"])
def test_quiet_windows_claim_nothing(names: tuple[str, ...]):
    claimed = []
    for seed in range(6):
        _, found = simulated(100 + seed, names=names, noise=0.05 + 0.1 * (seed % 4), taps_alone=True)
        claimed += [(seed, one.cause, one.share) for one in found]
    assert not claimed


def seen(**seconds: float) -> Requests:
    row: dict[str, Any] = dict.fromkeys((f"{name}_s" for name in PHASES), 0.0)
    row |= dict.fromkeys(("gap_max_s", "prompt", "cached", "output", "preempted", "has_engine", "key"), 0)
    row |= dict.fromkeys(("instance", "deployment", "tenant", "model", "route", "version", "engine", "error"), "a")
    row |= {"at_ms": ORIGIN_MS, "selected": 1, "outcome": "ok", **seconds}
    return requests_of({name: [value] for name, value in row.items()}, ORIGIN_MS, ORIGIN_MS)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"e2e_s": 3.0, "ttft_s": 2.5, "edge_s": 2.0}, {"edge": 2.0, "prefill": 0.5, "decode": 0.5}),  # a slow upload
        ({"e2e_s": 9.0, "ttft_s": 0.5, "edge_s": 8.0}, {"edge": 8.0, "prefill": 0.5, "decode": 0.5}),  # a slow reader
        ({"e2e_s": 9.0, "ttft_s": 0.5, "edge_s": 8.8}, {"edge": 8.8, "prefill": 0.2}),
        ({"e2e_s": 2.0, "ttft_s": 0.0, "edge_s": 1.5}, {"edge": 1.5, "other": 0.5}),  # not streamed
        ({"e2e_s": 2.0, "ttft_s": 3.0, "edge_s": 5.0}, {"edge": 2.0}),
    ],
)
def test_what_the_edge_waited_is_a_phase_of_its_own(told: dict[str, float], expected: dict[str, float]):
    requests = seen(**told)
    phases = {name: requests.phases[0, place] for name, place in PHASE.items()}
    assert {name: pytest.approx(value) for name, value in phases.items() if abs(value) > 1e-9} == expected
    assert np.isclose(requests.phases.sum(), told["e2e_s"])
