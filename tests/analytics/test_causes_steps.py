"""Causes where a probe tells of every step: simulated servers (not recorded), with and without their pages."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from analytics.causes.account import account_of
from analytics.causes.evidence import causes_of
from analytics.causes.grid import Bins
from analytics.causes.load import load
from analytics.causes.place import places_of
from analytics.causes.steps import Silence, Steps, cost_of
from analytics.inquiry import Inquiry
from analytics.questions import causes
from analytics.selection import Filter, Selection
from analytics.window import Window
from tests.analytics.test_causes_simulated import PLANTED, SINCE, UNTIL, check
from tests.kits.causes_sim import Ask, Server, evidence, steady
from tests.kits.causes_store import stored, stored_steps
from tests.kits.two_servers import by_two

if TYPE_CHECKING:
    from collections.abc import Callable

    from analytics.causes.account import Account
    from analytics.causes.evidence import Cause
    from tests.analytics.lab import Lab


def accounted(
    seed: int, extra: Callable[[random.Random], list[Ask]] = lambda _: [], *, samples: bool = False, **server: Any
) -> tuple[Account, list[Cause]]:
    """An account of a window from second 60 on, of a server whose probe tells of every step."""
    chance = random.Random(seed)
    one = Server(**server)
    asks = steady(chance, UNTIL) + extra(chance)
    one.serve(asks, UNTIL, chance)
    account = account_of(evidence([one], asks, SINCE, samples=samples, steps=True))
    return account, causes_of(account, account.asked)


@pytest.mark.parametrize("name", ["kv", "batch", "flood", "frozen", "longer outputs"])
def test_a_planted_fault_comes_first_without_any_page(name: str):
    options, cause, who = PLANTED[name]
    account, found = accounted(17, **options)
    assert found[0].cause == cause, [(one.cause, one.share) for one in found]
    assert who.items() <= found[0].who.items()
    check(account, found)


@pytest.mark.parametrize(("alone", "sequence", "token"), [(0.008, 0.0001, 0.00002), (0.02, 0.0006, 0.0001)])
def test_what_a_step_costs_is_learnt_from_calm_seconds(alone: float, sequence: float, token: float):
    account, _ = accounted(5, alone=alone, sequence=sequence, token=token, slower=lambda at: 1 + 2 * (at > SINCE))
    (place,) = account.places
    cost = place.cost
    assert cost is not None
    assert (cost.alone, cost.sequence, cost.token) == pytest.approx((alone, sequence, token), rel=0.15)
    assert place.prefill_token == cost.token


def test_a_server_that_is_slow_for_no_known_reason_is_no_batch():
    account, found = accounted(3, samples=True, slower=lambda at: 2.5 if at > 65 else 1.0)
    assert account.ledger.excess[account.asked].sum() > 0.5 * account.reference.expected[account.asked].sum()
    assert not found


def test_quiet_windows_claim_nothing():
    for seed in range(300, 304):
        _, found = accounted(seed, samples=True, noise=0.05 + 0.1 * (seed % 4))
        assert not found, seed


def test_a_stand_still_is_told_to_the_tenth_of_a_second():
    account, _ = accounted(8, stops=((70, 76), (85, 87.2)))
    found = account.places[0].frozen
    assert [(since, until) for since, until in found] == [
        (pytest.approx(70, abs=0.1), pytest.approx(76, abs=0.1)),
        (pytest.approx(85, abs=0.1), pytest.approx(87.2, abs=0.1)),
    ]


def test_a_page_that_says_nothing_moved_is_wrong_where_steps_went_on():
    server = Server()
    asks = [Ask(float(at), "acme", 200, 5000) for at in (61, 62, 63)]  # whose tokens nobody but the steps tells of
    server.serve(asks, UNTIL, random.Random(4))
    without, beside_steps = (evidence([server], asks, SINCE, steps=steps) for steps in (False, True))
    for one in (without, beside_steps):
        samples = one.samples["sim-0"]
        samples.progress[(samples.time > 70) & (samples.time < 76)] = 0
    token = np.full(len(without.requests), 1e-5)
    assert places_of(without, token)[0].frozen
    assert not places_of(beside_steps, token)[0].frozen


def steps(ends: list[float], **more: Any) -> Steps:
    n = len(ends)
    plain: dict[str, Any] = {
        "since": np.array(ends) - 0.1, "width": 0.1, "count": np.ones(n), "busy": np.full(n, 0.1),
        "prefilled": np.zeros(n), "decoded": np.ones(n), "preempted": np.zeros(n), "waiting": np.zeros(n),
        "kv": np.zeros(n),
    }  # fmt: skip
    return Steps(**(plain | more))


@pytest.mark.parametrize(
    ("ends", "silence", "stood"),
    [
        ([1.0, 4.0], Silence(1.0, 4.0, 0), True),
        ([1.0, 4.0], Silence(1.0, 4.0, 2000), False),
        ([1.0, 4.0], Silence(1.0, 4.0, 1000), True),
        ([1.0, 2.5, 4.0], Silence(1.0, 4.0, 0), False),
    ],
    ids=["nothing", "a long prompt was computed", "a prompt that takes half of it", "another rank went on"],
)
def test_what_is_a_stand_still(ends: list[float], silence: Silence, stood: bool):
    assert bool(steps(ends, silences=[silence]).stood(token=0.001)) is stood


def test_sums_between_two_times_count_a_slot_that_is_cut_by_its_share():
    told = steps([1.0, 1.1, 5.0], prefilled=np.array([10.0, 20.0, 40.0]))
    start, end = np.array([0.0, 0.95, 1.1, 4.95, 2.0, 9.0]), np.array([9.0, 1.05, 4.9, 5.0, 3.0, 10.0])
    assert told.between("prefilled", start, end) == pytest.approx([70, 15, 0, 20, 0, 0])
    assert told.known(np.array([-1.0, 0.5, 4.0]), np.array([1.0, 5.0, 9.0])).tolist() == [False, True, False]
    assert told.over("prefilled", Bins(0.0, 1.0, 6)).tolist() == [10.0, 20.0, 0.0, 0.0, 40.0, 0.0]


def test_nothing_is_learnt_of_too_few_seconds_or_of_engines_that_do_not_tell_the_batch():
    bins = Bins(0.0, 1.0, 100)
    every = np.ones(100, dtype=np.bool_)
    many = steps([float(at) + 0.5 for at in range(100)])
    assert cost_of(many, every, bins) is not None
    assert np.isnan(cost_of(many, every, bins).sequence), "one sequence in every step tells nothing of two"  # type: ignore[union-attr]
    assert cost_of(many, np.arange(100) < 19, bins) is None
    assert cost_of(steps([float(at) + 0.5 for at in range(100)], decoded=np.full(100, np.nan)), every, bins) is None


@pytest.mark.parametrize(
    ("raw", "servers"), [(True, 1), (True, 2), (False, 1)], ids=["each step", "of two servers", "sums of seconds"]
)
def test_a_store_is_asked_for_the_steps_of_the_instances(lab: Lab, raw: bool, servers: int):
    options, cause, who = PLANTED["kv"]
    name = f"sim-steps-{raw}-{servers}".lower()
    start, chance = lab.start - timedelta(days=8 + raw + 6 * servers), random.Random(12)
    server = Server(name, blocks=1000)
    asks = steady(chance, UNTIL, instance=name) + options["extra"](chance)
    for one in asks:
        one.instance = name
    server.serve(asks, UNTIL, chance)
    served = [one for one in asks if one.last >= 0]
    lab.owner.insert("requests_t", [
        stored(one, number, start, name) | {"engine_tenant": one.tenant} for number, one in enumerate(served)
    ])  # fmt: skip
    told = stored_steps(server, start)
    told = by_two(told) if servers > 1 else told
    lab.owner.insert("engine_steps", told)
    lab.owner.insert("engine_steps", [step | {"recording": "old", "pid": step["pid"] + 10} for step in told])
    lab.owner.insert("engine_steps", [step | {"instance": "another"} for step in told])
    if not raw:
        lab.owner.command(f"DELETE FROM engine_steps WHERE instance = '{name}'")
    window = Window(start + timedelta(seconds=SINCE), start + timedelta(seconds=UNTIL))
    selection = Selection(window, Filter(instance=(name,), recording="exclude"))
    answer = causes.ask(lab.store, selection)
    assert answer.level == "steps"
    first = answer.result.causes[0]
    assert (first.cause, first.who) == (cause, who | {"instance": name})
    assert any("KV cache up to" in said for said in first.evidence)
    assert not any("No engine steps" in note for note in answer.notes)
    assert "settled_until" in answer.envelope(selection)["result"]["about"]  # type: ignore[index]
    found = load(Inquiry(lab.store, selection)).steps
    assert set(found) == {name}
    inside = [step for step in server.steps if step["done"] < UNTIL]
    assert found[name].width == (0.1 if raw else 1.0)
    for column, of_step in (("count", None), ("prefilled", "prefilled"), ("decoded", "decoded"), ("preempted",) * 2):
        wanted = sum(step[of_step] if of_step else 1 for step in inside)
        assert getattr(found[name], column).sum() == wanted, column
    assert found[name].kv.max() == pytest.approx(max(step["kv"] for step in inside), abs=1e-6)
    taken = sum(step["busy"] if raw else step["took"] for step in inside)
    assert found[name].busy.sum() == pytest.approx(taken, rel=0.01)
