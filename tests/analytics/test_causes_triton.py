"""A simulated server that computes one request after the other (as Triton with one instance), and what hosts say."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from analytics.causes.account import account_of
from analytics.causes.evidence import causes_of
from analytics.causes.table import Event, Evidence, Host, requests_of, samples_of
from tests.kits.causes_sim import ORIGIN_MS, PHASES

if TYPE_CHECKING:
    from collections.abc import Callable

    from analytics.causes.evidence import Cause

UNTIL, SINCE = 120.0, 60.0


def served(
    rate: Callable[[float], float],
    compute: Callable[[float], float],
    *,
    version: Callable[[float], str] = lambda _: "",
    tenant: Callable[[float], str] = lambda _: "acme",
    down: tuple[float, float] | None = None,
    seed: int = 3,
    stopped: tuple[float, float] = (0.0, 0.0),
    late: Callable[[float], float] = lambda _: 0.0,
) -> list[dict[str, Any]]:
    """Rows of requests through one server in turn; while it is down they are refused at once after 2 s."""
    chance, at, free, rows = random.Random(seed), 0.0, 0.0, []
    while (at := at + chance.expovariate(rate(at))) < UNTIL:
        away = down is not None and down[0] <= at < down[1]
        took = compute(at) * chance.lognormvariate(0, 0.1)
        began = max(at, free)
        took += stopped[1] - began if stopped[0] <= began < stopped[1] else 0.0
        seconds = dict.fromkeys((f"{name}_s" for name in PHASES), 0.0)
        if not away:
            free = began + took
            seconds |= {"queue_s": began - at, "compute_infer_s": took, "compute_input_s": 0.0005}
            seconds["transit_s"] = 0.001 + late(at)
        rows.append(
            {
                **seconds,
                "at_ms": ORIGIN_MS + at * 1000,
                "e2e_s": 2.0 if away else sum(seconds.values()),
                **dict.fromkeys(("ttft_s", "gap_max_s", "prompt", "cached", "output", "preempted"), 0),
                "has_engine": int(not away),
                "selected": 1,
                "instance": "triton-0",
                "deployment": "vision",
                "tenant": tenant(at),
                "model": "resnet",
                "route": "/v2/models/resnet/infer",
                "version": version(at),
                "engine": "triton",
                "outcome": "unreachable" if away else "ok",
                "error": "refused" if away else "",
            }
        )
    return rows


def batched(rows: list[dict[str, Any]], most: int = 16) -> list[dict[str, Any]]:
    """The same requests at a server that computes up to so many of them at once, a batch as long as its items ask."""
    waiting, at, free = sorted(rows, key=lambda row: row["at_ms"]), 0, 0.0
    while at < len(waiting):
        begun = max(free, (waiting[at]["at_ms"] - ORIGIN_MS) / 1000)
        batch = [row for row in waiting[at : at + most] if (row["at_ms"] - ORIGIN_MS) / 1000 <= begun]
        took = 0.01 + sum(row["compute_infer_s"] for row in batch)
        for row in batch:
            row["queue_s"] = begun - (row["at_ms"] - ORIGIN_MS) / 1000
            row["compute_infer_s"] = took
            row["e2e_s"] = sum(row[f"{name}_s"] for name in PHASES)
        at, free = at + len(batch), begun + took
    return waiting


def told(rows: list[dict[str, Any]], since: float = SINCE, **more: Any) -> list[Cause]:
    columns = {name: [row[name] for row in rows] for name in rows[0]} | {"key": list(range(len(rows)))}
    evidence = Evidence(requests_of(columns, ORIGIN_MS, ORIGIN_MS + int(since * 1000)), **more)
    account = account_of(evidence)
    return causes_of(account, account.asked)


def up(down: tuple[float, float]) -> dict[str, Any]:
    """Samples of a server whose page was away for a time."""
    times = [float(t) for t in range(1, int(UNTIL))]
    columns = {name: [0.0 if name != "interval" else 1.0 for _ in times] for name in (
        "interval", "scrape", "running", "waiting", "preemptions", "generated")}  # fmt: skip
    columns["kv"] = [float("nan")] * len(times)
    columns |= {"at_ms": [ORIGIN_MS + t * 1000 for t in times], "progress": [1.0] * len(times)}
    columns["up"] = [float(not down[0] <= t < down[1]) for t in times]
    return samples_of({**columns, "name": ["triton-0"] * len(times)}, ORIGIN_MS)


def test_a_model_that_sleeps_is_the_reason_of_its_queue_as_well():
    found = told(served(lambda _: 4.0, lambda t: 0.22 if t > 70 else 0.01))
    assert found[0].cause == "model_slow"
    assert found[0].share > 0.8


@pytest.mark.parametrize(("slow", "cause"), [(("triton-1",), "slow_instance"), (None, "model_slow")])
def test_the_queue_of_a_slow_replica_is_its_own_and_of_a_slow_model_the_models(
    slow: tuple[str, ...] | None, cause: str
):
    rows = []
    for number in range(3):
        name = f"triton-{number}"
        sleeps = slow is None or name in slow
        made = served(lambda _: 6.0, lambda t, sleeps=sleeps: 0.2 if sleeps and t > 70 else 0.02, seed=number)
        rows += [row | {"instance": name} for row in made]
    found = told(rows)
    assert found[0].cause == cause
    assert found[0].share > 0.9
    assert found[0].who.get("instance") == (slow[0] if slow else None)


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_replica_beside_one_that_is_flooded_and_who_floods_it_are_both_told(seed: int):
    """Those who wait are inside too: who fills a queue is told by who came. A replica waits now and then before."""

    def flood(at: float) -> str:
        return (
            "hooli" if 70 < at < 95 and int(at * 1000) % 100 < 45 else "acme" if int(at * 1000) % 10 < 5 else "umbrella"
        )

    def steady(at: float) -> str:
        return "acme" if int(at * 1000) % 10 < 5 else "umbrella"

    rows = []
    for number, (rate, slower, tenant) in enumerate(((11.0, 1.0, flood), (6.0, 6.0, steady), (6.0, 1.0, steady))):
        made = served(
            lambda t, rate=rate: rate if 70 < t < 95 else 6.0,
            lambda t, slower=slower: 0.11 * (slower if 70 < t < 95 else 1.0),
            tenant=tenant, seed=10 * seed + number,
        )  # fmt: skip
        rows += [row | {"instance": f"triton-{number}"} for row in made]
    found = {one.cause: one.who for one in told(rows)}
    assert found["slow_instance"] == {"instance": "triton-1"}
    assert found["queue_saturated"].get("tenant") == "hooli"
    assert "model_slow" not in found


def test_time_before_a_server_was_there_says_nothing_of_what_it_is_asked():
    old = [row | {"deployment": "other", "instance": "old-0"} for row in served(lambda _: 3.0, lambda _: 0.01)]
    young = [
        row | {"at_ms": row["at_ms"] + 600_000} for row in served(lambda _: 6.0, lambda t: 0.17 if t > 70 else 0.02)
    ]
    assert told(old + young, 600 + SINCE)[0].cause == "model_slow"


def test_a_version_that_sleeps_is_a_deploy():
    found = told(served(lambda _: 4.0, lambda t: 0.2 if t > 62 else 0.01, version=lambda t: "2" if t > 62 else "1"))
    assert found[0].cause == "deploy"
    assert found[0].who["version"] == "2"


def test_more_than_it_can_take_is_saturation_by_who_sent_more():
    def tenant(at: float) -> str:
        return "hooli" if 70 < at < 100 and int(at * 1000) % 10 < 8 else "acme"

    found = told(served(lambda t: 60.0 if 70 < t < 100 else 8.0, lambda _: 0.02, tenant=tenant))
    assert found[0].cause == "queue_saturated"
    assert found[0].who["tenant"] == "hooli"


@pytest.mark.parametrize("since", [SINCE, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_flood_of_a_model_that_batches_is_saturation_beside_a_steady_one(since: float, seed: int):
    """Its batches take longer for their size; and a version that is told late is not another one."""

    def tenant(at: float) -> str:
        return "hooli" if 70 < at < 95 and int(at * 1000) % 10 < 9 else "acme"

    def version(at: float) -> str:
        return "" if at < 8 else "2.51.0"

    flooded = served(lambda t: 70.0 if 70 < t < 95 else 5.0, lambda _: 0.02, tenant=tenant, version=version, seed=seed)
    steady = served(lambda _: 7.0, lambda _: 0.001, version=version, seed=seed + 50)
    found = told(batched(flooded) + [{**row, "model": "ranker"} for row in steady], since)
    if since == SINCE:  # the window's own calm parts may know too little of how they differ
        assert (found[0].cause, found[0].who.get("tenant")) == ("queue_saturated", "hooli")
    assert not {"deploy", "model_slow"} & {one.cause for one in found}


@pytest.mark.parametrize("seed", range(3))
def test_the_large_batches_of_a_replica_that_is_sent_everything_are_the_routers(seed: int):
    """It computes longer than the replicas beside it since it is asked for more at once, and is no slower."""
    rows = []
    for number, rate in enumerate((40.0, 1.0, 1.0)):
        made = served(lambda t, rate=rate: rate if 70 < t < 95 else 10.0, lambda _: 0.02, seed=10 * seed + number)
        rows += [row | {"instance": f"triton-{number}"} for row in batched(made)]
    found = told(rows)
    assert [(one.cause, one.who.get("instance")) for one in found] == [("router_imbalance", "triton-0")]
    assert found[0].share > 0.9


def test_a_model_that_batches_and_sleeps_is_slow():
    rows = batched(served(lambda _: 8.0, lambda t: 0.15 if 70 < t < 95 else 0.02))
    assert told(rows)[0].cause == "model_slow"


@pytest.mark.parametrize("seed", range(3))
def test_requests_that_fail_after_they_were_computed_and_come_again_are_a_retry_storm(seed: int):
    """What fails was worked on all the same: the model finishes more than used to come, and is not slow."""

    def tenant(at: float) -> str:
        return "hooli" if 70 < at < 86 and int(at * 1000) % 10 < 8 else "acme"

    rows = batched(served(lambda t: 40.0 if 70 < t < 86 else 8.0, lambda _: 0.03, tenant=tenant, seed=seed))
    for row in rows:
        if row["tenant"] == "hooli":
            row |= {"outcome": "server_error", "error": "lookup failed"}
    found = told(rows)
    assert (found[0].cause, found[0].who.get("tenant")) == ("retry_storm", "hooli")
    assert "model_slow" not in {one.cause for one in found}


def retried_among_steady_ones(seed: int, fails: float) -> list[dict[str, Any]]:
    """Twenty a second as ever, and for sixteen seconds as many besides, of which a share fails."""

    def tenant(at: float) -> str:
        return "hooli" if 70 < at < 86 and int(at * 1000) % 20 < 9 else "acme"

    rows = served(lambda t: 36.0 if 70 < t < 86 else 20.0, lambda _: 0.035, tenant=tenant, seed=seed)
    for row in rows:
        if row["tenant"] == "hooli" and row["at_ms"] % 100 < 100 * fails:
            row |= {"outcome": "server_error", "error": "lookup failed"}
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_retries_are_told_among_more_of_steady_traffic(seed: int):
    found = told(retried_among_steady_ones(seed, 1.0))
    assert (found[0].cause, found[0].who.get("tenant")) == ("retry_storm", "hooli")


@pytest.mark.parametrize("seed", range(3))
def test_retries_at_one_of_three_replicas_are_not_the_routers(seed: int):
    """Who comes again where it failed makes that replica's share uneven."""
    rows = retried_among_steady_ones(seed, 1.0)
    for number in (1, 2):
        beside = served(lambda _: 14.0, lambda _: 0.035, seed=100 * seed + number)
        rows += [row | {"instance": f"triton-{number}"} for row in beside]
    found = told(rows)
    assert (found[0].cause, found[0].who.get("tenant")) == ("retry_storm", "hooli")
    assert "router_imbalance" not in {one.cause for one in found}


@pytest.mark.parametrize("seed", range(3))
def test_a_flood_of_which_some_fails_among_steady_traffic_is_no_retry_storm(seed: int):
    found = told(retried_among_steady_ones(seed, 0.1))
    assert (found[0].cause, found[0].who.get("tenant")) == ("queue_saturated", "hooli")


@pytest.mark.parametrize(("outcome", "error"), [("rejected", "queue_full"), ("server_error", "queue_timeout")])
def test_what_a_full_queue_refuses_makes_a_flood_no_retry_storm(outcome: str, error: str):
    def tenant(at: float) -> str:
        return "hooli" if 70 < at < 100 and int(at * 1000) % 10 < 9 else "acme"

    rows = served(lambda t: 80.0 if 70 < t < 100 else 8.0, lambda _: 0.02, tenant=tenant)
    for row in rows:
        if row["tenant"] == "hooli" and row["at_ms"] % 10 < 5:
            row |= {"outcome": outcome, "error": error, "queue_s": 0.0, "compute_infer_s": 0.0, "compute_input_s": 0.0}
            row["e2e_s"] = 0.02 if outcome == "rejected" else 4.2
    found = told(rows)
    assert (found[0].cause, found[0].who.get("tenant")) == ("queue_saturated", "hooli")


def test_what_failed_requests_waited_before_is_the_queues():
    rows = served(lambda t: 60.0 if 70 < t < 100 else 8.0, lambda _: 0.02)
    late = [row for row in rows if row["queue_s"] > 2.0 and row["at_ms"] % 10 < 2]
    assert late
    for row in late:
        row |= {"outcome": "server_error", "error": "timed out", "compute_infer_s": 0.0}
        row["e2e_s"] = row["queue_s"] + row["transit_s"]
    account = {one.cause: one.seconds for one in told(rows)}
    assert account["queue_saturated"] > 0.95 * sum(account.values())


def test_a_version_that_nobody_told_is_no_other():
    rows = served(lambda _: 4.0, lambda t: 0.2 if t > 62 else 0.01, version=lambda t: "2" if t > 62 else "")
    assert told(rows)[0].cause == "model_slow"


def test_what_a_restart_refused_is_the_restarts():
    rows = served(lambda _: 8.0, lambda _: 0.01, down=(80.0, 90.0))
    events = [Event(89.5, "instance_restarted", "triton-0", "", "triton-0 restarted")]
    found = told(rows, samples=up((80, 90)), events=events)
    assert found[0].cause == "restart"
    without = told(rows)
    assert without[0].cause == "upstream_error"


def test_a_fault_that_long_requests_were_open_in_when_it_began_stands():
    """What it cost those that arrived before is no measure of what is usual."""
    rows = served(lambda _: 0.9, lambda _: 0.9, stopped=(60.5, 70.0))
    long = [row | {"at_ms": row["at_ms"], "instance": "triton-0"} for row in rows]
    for row in long:  # computed side by side, each for several seconds
        arrived = (row["at_ms"] - ORIGIN_MS) / 1000
        row |= {"queue_s": 0.0, "compute_infer_s": 6.0 + (9.5 if arrived < 70.0 and arrived + 6.0 > 60.5 else 0.0)}
        row["e2e_s"] = sum(row[f"{name}_s"] for name in PHASES)
    assert told(long, samples=up((61, 70)))[0].cause == "engine_frozen"


def test_a_process_that_stood_still_and_went_on_is_frozen():
    rows = served(lambda _: 8.0, lambda _: 0.01, stopped=(80.0, 86.0))
    assert all(row["outcome"] == "ok" for row in rows)
    found = told(rows, samples=up((81, 86)))
    assert found[0].cause == "engine_frozen"


@pytest.mark.parametrize(("wanted", "cause"), [(0.9, "cpu_starved"), (0.0, "engine_frozen")])
def test_a_process_that_stood_still_for_want_of_a_cpu_is_starved(wanted: float, cause: str):
    """A quota that is used up stops a process as a signal does; the kernel counts that it wanted to run."""
    rows = served(lambda _: 8.0, lambda _: 0.01, stopped=(80.0, 86.0))
    times = np.arange(1, UNTIL)
    host = Host(delay_time=times, delay=np.where((times > 79) & (times <= 87), wanted, 0.01))
    assert told(rows, samples=up((81, 86)), hosts={"triton-0": host})[0].cause == cause


@pytest.mark.parametrize("starved", [True, False])
def test_a_host_without_cpu_is_told_by_the_kernels_count(starved: bool):
    slow = 3.0 if starved else 1.0
    rows = served(lambda _: 8.0, lambda t: 0.02 * (slow if 80 < t < 100 else 1), late=lambda t: 0.05 * (80 < t < 100))
    times = np.arange(1, UNTIL)
    delay = np.where((times > 80) & (times < 100), 0.66, 0.02)
    host = Host(delay_time=times, delay=delay if starved else delay * 0 + 0.02)
    found = told(rows, hosts={"triton-0": host})
    assert bool(found and found[0].cause == "cpu_starved") == starved


def test_quiet_is_quiet_and_a_burst_that_is_taken_is_no_cause():
    for seed in range(12):
        assert told(served(lambda _: 8.0, lambda _: 0.02, seed=seed)) == []
