"""GPUs that are slowed down or fail, planted into a simulated server: what it cost is theirs, and nothing else is."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from analytics.causes.account import account_of
from analytics.causes.evidence import causes_of
from analytics.causes.gpus import gpus_of
from analytics.causes.load import load
from analytics.inquiry import Inquiry
from analytics.questions import causes
from analytics.selection import Filter, Selection
from analytics.window import Window
from tests.analytics.test_causes_simulated import SINCE, UNTIL, check, long_prompts, simulated
from tests.kits.causes_sim import ORIGIN_MS, Server, evidence, gpu, steady
from tests.kits.causes_store import stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from analytics.causes.table import Gpu
    from tests.analytics.lab import Lab

NAMES = ("sim-0", "sim-1", "sim-2")
HALF = {"sim-1": {"slower": lambda at: 2.0 if at > 62 else 1.0}}


def half(at: float) -> float:
    return 0.5 if at > 62 else 1.0


def well(**clocks: Callable[[float], float]) -> dict[str, list[Gpu]]:
    """A GPU of each server; those of ``clocks`` (``sim_1``) are slowed down as they say."""
    return {name: [gpu(f"GPU-{name[-1]}", UNTIL, clocks.get(name.replace("-", "_"), lambda _: 1.0))] for name in NAMES}


def told(found: list[Any]) -> list[tuple[str, float]]:
    return [(one.cause, one.share) for one in found]


@pytest.mark.parametrize("seed", [11, pytest.param(12, marks=pytest.mark.heavy)])
def test_a_gpu_that_is_slowed_down_comes_first_with_its_instance(seed: int):
    account, found = simulated(seed, names=NAMES, special=HALF, gpus=well(sim_1=half))
    assert found[0].cause == "gpu_throttled", told(found)
    assert (found[0].who, found[0].stage) == ({"instance": "sim-1", "gpu": "GPU-1"}, "rate")
    assert found[0].share > 0.5
    assert any("GPU 1 of n1" in said and "hardware thermal limit" in said for said in found[0].evidence)
    assert not any(account.ledger.of("gpu_throttled")[account.requests.instance.among(["sim-0", "sim-2"])])
    check(account, found)


def test_of_several_gpus_the_slowest_is_named():
    mine = {"sim-0": [gpu("GPU-0", UNTIL), gpu("GPU-1", UNTIL, half), gpu("GPU-2", UNTIL)]}
    _, found = simulated(11, slower=lambda at: 2.0 if at > 62 else 1.0, gpus=mine)
    assert found[0].cause == "gpu_throttled", told(found)
    assert found[0].who["gpu"] == "GPU-1"


def test_one_that_was_always_slowed_down_is_held_against_its_like():
    _, found = simulated(
        11, names=NAMES, special={"sim-2": {"slower": lambda _: 2.2}}, gpus=well(sim_2=lambda _: 1 / 2.2)
    )
    assert found[0].cause == "gpu_throttled", told(found)
    assert found[0].who == {"instance": "sim-2", "gpu": "GPU-2"}


@pytest.mark.parametrize(
    "gpus",
    [
        pytest.param(well(), id="its clock is as usual"),
        pytest.param(well(sim_0=half), id="another's is slowed down"),
        pytest.param(well() | {"sim-1": [gpu("GPU-1", UNTIL, half, reasons=0)]}, id="its clock is low for no reason"),
    ],
)
def test_a_slow_replica_whose_gpu_is_not_slowed_down_stays_that(gpus: dict[str, list[Gpu]]):
    account, found = simulated(11, names=NAMES, special=HALF, gpus=gpus)
    assert found[0].cause == "slow_instance", told(found)
    assert found[0].who["instance"] == "sim-1"
    assert "gpu_throttled" not in account.ledger.causes


def test_a_gpu_that_is_slowed_down_and_keeps_nobody_waiting_has_taken_nothing():
    assert told(simulated(11, names=NAMES, gpus=well(sim_1=half))[1]) == []


def test_what_a_gpu_says_at_random_in_quiet_windows_is_charged_to_nobody():
    claimed = []
    for seed in range(6):
        chance = random.Random(seed)
        clocks = [1.0 if chance.random() < 0.6 else chance.uniform(0.6, 0.95) for _ in range(int(UNTIL) + 2)]
        faults = [chance.uniform(SINCE, UNTIL) for _ in range(2)]
        mine = {"sim-0": [gpu("GPU-0", UNTIL, lambda at, c=clocks: c[int(at)], reasons=4, faults=faults)]}  # type: ignore[misc]
        claimed += told(simulated(200 + seed, noise=0.05 + 0.1 * (seed % 4), gpus=mine)[1])
    assert claimed == []


def test_no_more_is_charged_than_the_missing_clock_explains_and_what_it_cost():
    """Paired runs: the same arrivals with the slower steps and without; the difference is the loss."""
    chance = random.Random(8)
    asks = steady(chance, UNTIL)
    twin = [type(one)(one.at, one.tenant, one.prompt, one.output, one.cached) for one in asks]
    sick, well_ = Server(slower=lambda at: 2.0 if at > 62 else 1.0), Server()
    sick.serve(asks, UNTIL, random.Random(1))
    well_.serve(twin, UNTIL, random.Random(1))
    lost = sum(one.last - one.at for one in asks if one.at >= SINCE) - sum(
        one.last - one.at for one in twin if one.at >= SINCE
    )
    charged = {}
    for share in (0.5, 0.8):
        mine = {"sim-0": [gpu("GPU-0", UNTIL, lambda at, share=share: share if at > 62 else 1.0)]}  # type: ignore[misc]
        account = account_of(evidence([sick], asks, SINCE, gpus=mine))
        check(account, causes_of(account, account.asked))
        charged[share] = float(account.ledger.of("gpu_throttled")[account.asked].sum())
        took = float(account.requests.e2e[account.asked].sum())
        assert charged[share] <= (1 - share) * took
    assert abs(charged[0.5] - lost) < 0.2 * lost, (charged, lost)
    assert charged[0.8] < 0.5 * charged[0.5], "a server that is slower than its clock has another reason"


def test_two_faults_at_once_are_both_named():
    account, found = simulated(
        9,
        names=NAMES,
        extra=long_prompts,
        special={"sim-0": {"blocks": 1000}, **HALF},
        gpus=well(sim_1=half),
    )
    assert {one.cause for one in found} >= {"kv_cache_full", "gpu_throttled"}, told(found)
    check(account, found)


STOPS = ((70.0, 82.0),)


@pytest.mark.parametrize(
    ("fault", "cause"), [(69.5, "gpu_fault"), (5.0, "engine_frozen"), (90.0, "engine_frozen"), (None, "engine_frozen")]
)
def test_a_stand_still_that_begins_with_a_fault_is_its_consequence(fault: float | None, cause: str):
    mine = {"sim-0": [gpu("GPU-0", UNTIL, faults=[] if fault is None else [fault])]}
    account, found = simulated(11, stops=STOPS, gpus=mine)
    assert found[0].cause == cause, told(found)
    if cause == "gpu_fault":
        assert (found[0].who, found[0].stage) == ({"instance": "sim-0", "gpu": "GPU-0"}, "contention")
        assert any("Xid 79" in said for said in found[0].evidence)
    check(account, found)


@pytest.mark.parametrize(("faults", "charged"), [([75.0], True), ([], False), ([5.0], False)])
def test_requests_that_fail_after_a_fault_lost_their_time_to_it(faults: list[float], charged: bool):
    chance = random.Random(3)
    server, asks = Server(stops=((75.0, 87.0),)), steady(chance, UNTIL)
    server.serve(asks, UNTIL, chance)
    for one in asks:
        one.outcome = "server_error" if one.at < 87 and one.last > 75 else "ok"
    mine = {"sim-0": [gpu("GPU-0", UNTIL, faults=faults)]}
    account = account_of(evidence([server], asks, SINCE, samples=False, gpus=mine))
    found = causes_of(account, account.asked)
    assert (found[0].cause == "gpu_fault") == account.ledger.of("gpu_fault").any() == charged, told(found)
    check(account, found)


@pytest.mark.parametrize(("fault", "charged"), [(70.0, True), (5.0, False), (95.0, False)])
def test_work_that_is_slower_from_a_fault_on_is_its_consequence(fault: float, charged: bool):
    mine = {"sim-0": [gpu("GPU-0", UNTIL, faults=[fault])]}
    account, found = simulated(3, slower=lambda at: 2.5 if at > 70 else 1.0, gpus=mine)
    assert [one.cause for one in found][:1] == ["gpu_fault"] if charged else not account.ledger.of("gpu_fault").any()
    check(account, found)


def row(**columns: Any) -> dict[str, Any]:
    n = len(columns["at_ms"])
    usual = {name: [float("nan")] * n for name in ("slowed", "reasons", "clock", "xids", "ecc", "pending", "failed")}
    texts = {"gpu": ["GPU-0"] * n, "product": ["H100"] * n, "place": ["3"] * n, "machine": ["n1"] * n}
    return usual | texts | columns


@pytest.mark.parametrize(
    ("columns", "events", "faults"),
    [
        ({"xids": [2.0, 2.0, 3.0, 3.0]}, [], [(3.0, "GPU 3 of n1 counts an Xid")]),
        ({"xids": [2.0, 0.0, 0.0, 1.0]}, [], [(4.0, "GPU 3 of n1 counts an Xid")]),
        ({"xids": [0.0, 0.0, 1.0, 1.0]}, [(2.5, "79", "Xid 79")], [(2.5, "Xid 79")]),
        ({"xids": [0.0, 0.0, 1.0, 1.0]}, [(2.5, "45", "Xid 45")], []),
        ({"ecc": [0.0, float("nan"), 1.0, 1.0]}, [], [(3.0, "GPU 3 of n1 counts uncorrected memory errors")]),
        ({"pending": [1.0, 1.0, 1.0, 1.0]}, [], []),
    ],
)
def test_a_fault_is_a_counter_that_rose_or_what_the_driver_told(
    columns: dict[str, Any], events: list[tuple[float, str, str]], faults: list[tuple[float, str]]
):
    at = [ORIGIN_MS + second * 1000 for second in (1, 2, 3, 4)]
    said = [
        {"at_ms": ORIGIN_MS + int(when * 1000), "gpu": "GPU-0", "xid": xid, "message": message}
        for when, xid, message in events
    ]
    whose = [{"gpu": "GPU-0", "instance": "sim-0"}, {"gpu": "GPU-9", "instance": "sim-0"}]
    found = gpus_of(row(at_ms=at, **columns), whose, said, ORIGIN_MS, 1000)
    assert [(one.time, one.what) for one in found["sim-0"][0].faults] == faults
    assert len(found["sim-0"]) == 1
    assert np.isnan(found["sim-0"][0].clock).all()


def test_a_store_is_asked_for_the_gpus_that_an_instance_runs_on(lab: Lab):
    start, chance = lab.start - timedelta(days=11), random.Random(11)
    server = Server("sim-gpu", slower=lambda at: 2.0 if at > 62 else 1.0)
    asks = steady(chance, UNTIL, instance="sim-gpu")
    server.serve(asks, UNTIL, chance)
    lab.owner.insert("requests_t", [stored(one, number, start, "gpus") for number, one in enumerate(asks)])
    lab.owner.insert("gpu_samples", [
        {"time": start + timedelta(seconds=second), "gpu": name, "gpu_name": "H100", "gpu_index": name[-1],
         "node": "n11", "sm_clock_hertz": 2e9 * (half(second - 0.5) if name == "GPU-C7" else 1.0), "xid_total": 0.0,
         "throttle_reasons": 0x60 if name == "GPU-C7" and second > 62 else 0x1, "recording": recording}
        for name in ("GPU-C6", "GPU-C7", "GPU-C8") for second in range(1, int(UNTIL))
        for recording in (("", "old") if name == "GPU-C8" else ("",))
    ])  # fmt: skip
    lab.owner.insert("instance_gpus_t", [
        {"instance": instance, "rank": "TP0", "node": "n11", "gpu": name, "process_pid": name[-1], "from": start,
         "to": start + timedelta(seconds=UNTIL)}
        for instance, name in (("sim-gpu", "GPU-C6"), ("sim-gpu", "GPU-C7"), ("another", "GPU-C8"))
    ])  # fmt: skip
    lab.owner.insert("events", [
        {"time": start + timedelta(seconds=second), "event": "gpu_xid", "message": "GPU 6 reports Xid 94",
         "attributes": {"hw.id": name, "xid": "94"}}
        for name, second in (("GPU-C6", 20), ("GPU-C8", 21))
    ])  # fmt: skip
    window = Window(start + timedelta(seconds=SINCE), start + timedelta(seconds=UNTIL))
    selection = Selection(window, Filter(instance=("sim-gpu",)))
    result = causes.ask(lab.store, selection).result
    first = result.causes[0]
    assert first.cause == "gpu_throttled", told(result.causes)
    assert first.who == {"instance": "sim-gpu", "gpu": "GPU-C7"}
    assert any("GPU 7 of n11" in said and "software thermal limit" in said for said in first.evidence)
    assert sum(one.seconds for one in result.causes) + result.unexplained_seconds == pytest.approx(
        result.excess_seconds
    )
    read = load(Inquiry(lab.store, selection))
    assert {name: [one.gpu for one in gpus] for name, gpus in read.gpus.items()} == {"sim-gpu": ["GPU-C6", "GPU-C7"]}
    (fault,) = read.gpus["sim-gpu"][0].faults
    assert (fault.gpu, fault.what) == ("GPU-C6", "GPU 6 reports Xid 94")
    assert fault.time == pytest.approx(20 - SINCE + 600)
    assert read.gpus["sim-gpu"][1].faults == []
