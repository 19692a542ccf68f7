"""Requests of which only the edge tells: the same simulated faults (not recorded) are named, nothing in quiet."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from analytics.causes.account import account_of
from analytics.causes.evidence import causes_of
from analytics.causes.table import PHASE, Evidence, Requests, Samples, requests_of
from analytics.causes.unstreamed import parted
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


UNTOLD = {"flood", "lost cache", "slow readers"}
"""What shows in a prompt's computing or in a stream alone."""


@pytest.mark.parametrize("name", [name for name in PLANTED if name not in UNTOLD | {"new version"}])
def test_of_answers_in_one_piece_it_comes_first_too(name: str):
    options, cause, who = PLANTED[name]
    account, found = simulated(11, taps_alone=True, streamed=False, **options)
    assert not account.requests.ttft.any()
    assert found[0].cause == cause, [(one.cause, one.share) for one in found]
    assert who.items() <= found[0].who.items()
    assert found[0].share > 0.5
    check(account, found)


@pytest.mark.parametrize("name", sorted(UNTOLD))
def test_of_answers_in_one_piece_nothing_is_claimed_that_they_do_not_show(name: str):
    options, _, _ = PLANTED[name]
    account, found = simulated(11, taps_alone=True, streamed=False, **options)
    assert account.ledger.excess[account.asked].sum() > 0.1 * account.reference.expected[account.asked].sum()
    assert found == []


def test_who_waited_is_told_by_arrivals_and_the_servers_page():
    """Five come at once to a server that takes one a second; its page is read each second and shows who waits."""
    start = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    row: dict[str, Any] = {
        name: value for name, value in whole(output=20, e2e_s=10.0, ttft_s=0.0).items() if name != "key"
    }
    columns = {name: [value] * 5 for name, value in row.items()}
    columns |= {"at_ms": list(ORIGIN_MS + 1000 * start), "key": list(range(5))}
    requests = requests_of(columns, ORIGIN_MS, ORIGIN_MS)
    time = np.arange(0.5, 7.0)
    samples = Samples(
        time=time, interval=np.ones(7), up=np.ones(7, dtype=np.bool_), running=np.ones(7),
        waiting=np.array([4.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0]),
        **dict.fromkeys(("kv", "preemptions", "progress"), np.zeros(7)),
    )  # fmt: skip
    found = parted(Evidence(requests, {"a": samples}))
    queue = found.requests.phases[:, PHASE["queue"]]
    assert queue == pytest.approx([0.0, 1.4, 2.3, 3.2, 4.1])
    assert found.requests.phases[:, PHASE["decode"]] == pytest.approx(10.0 - queue)
    assert not found.requests.phases[:, PHASE["other"]].any()
    assert parted(found) is found
    blind = parted(Evidence(requests))
    assert blind.requests.phases[:, PHASE["decode"]] == pytest.approx(10.0)
    assert parted(
        Evidence(streamed := requests_of(columns | {"ttft_s": [1.0] * 5}, ORIGIN_MS, ORIGIN_MS))
    ).requests is (streamed)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("names", [("sim-0",), ("sim-0", "sim-1", "sim-2")], ids=["one", "three"])
def test_quiet_windows_claim_nothing(names: tuple[str, ...], streamed: bool):
    claimed = []
    for seed in range(6):
        noise = 0.05 + 0.1 * (seed % 4)
        _, found = simulated(100 + seed, names=names, noise=noise, taps_alone=True, streamed=streamed)
        claimed += [(seed, one.cause, one.share) for one in found]
    assert not claimed


def whole(**values: float) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys((f"{name}_s" for name in PHASES), 0.0)
    row |= dict.fromkeys(("gap_max_s", "prompt", "cached", "output", "preempted", "has_engine", "key"), 0)
    row |= dict.fromkeys(("instance", "deployment", "tenant", "model", "route", "version", "engine", "error"), "a")
    return row | {"at_ms": ORIGIN_MS, "selected": 1, "outcome": "ok", **values}


def seen(**seconds: float) -> Requests:
    return requests_of({name: [value] for name, value in whole(**seconds).items()}, ORIGIN_MS, ORIGIN_MS)


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
