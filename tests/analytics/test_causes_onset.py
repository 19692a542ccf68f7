"""What failures began with, planted into simulated servers: the event at their place right before, and else nothing."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from analytics.causes.account import account_of
from analytics.causes.evidence import failures_of
from analytics.causes.table import Event, Evidence, Fault, Gpu, requests_of, samples_of
from analytics.questions import causes
from analytics.selection import Filter, Selection
from analytics.window import Window
from tests.analytics.test_causes_triton import SINCE, UNTIL, served, up
from tests.kits.causes_sim import ORIGIN_MS, Server, evidence, steady
from tests.kits.causes_store import stored

if TYPE_CHECKING:
    from collections.abc import Iterable

    from analytics.causes.evidence import Failure
    from tests.analytics.lab import Lab

Rows = list[dict[str, Any]]


def second(row: dict[str, Any]) -> float:
    return (row["at_ms"] - ORIGIN_MS) / 1000 + float(row["e2e_s"])


def quiet(seed: int = 3, instance: str = "triton-0") -> Rows:
    return [row | {"instance": instance} for row in served(lambda _: 8.0, lambda _: 0.01, seed=seed)]


def failing(rows: Rows, since: float, until: float = UNTIL, share: float = 0.6, **how: str) -> Rows:
    """The same requests, of which a share fails from one second to another."""
    chance = random.Random(1)
    ill = {"outcome": "server_error", "error": "http_500"} | how
    return [row | (ill if since <= second(row) < until and chance.random() < share else {}) for row in rows]


def told(rows: Rows, **more: Any) -> list[Failure]:
    columns = {name: [row[name] for row in rows] for name in rows[0]} | {"key": list(range(len(rows)))}
    account = account_of(Evidence(requests_of(columns, ORIGIN_MS, ORIGIN_MS + int(SINCE * 1000)), **more))
    return failures_of(account, account.requests.inside & account.requests.selected, SINCE)


def began(found: list[Failure]) -> list[tuple[str, str]]:
    return [(one.onset.event, one.onset.instance) if one.onset else ("", "") for one in found]


def event(name: str, at: float, instance: str = "triton-0", **more: str) -> Event:
    return Event(at, name, instance, more.pop("version", ""), f"{name} of {instance}.", **more)


def cache(names: Iterable[str], full: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """Samples of servers whose KV cache is full for a time."""
    rows: dict[str, list[Any]] = {name: [] for name in (
        "name", "at_ms", "interval", "up", "running", "waiting", "kv", "preemptions", "progress")}  # fmt: skip
    for name in names:
        since, until = full.get(name, (0.0, 0.0))
        for at in range(1, int(UNTIL)):
            values = (name, ORIGIN_MS + at * 1000, 1.0, 1.0, 4.0, 0.0, 0.97 if since <= at < until else 0.4, 0.0, 1.0)
            for column, value in zip(rows.values(), values, strict=True):
                column.append(value)
    return samples_of(rows, ORIGIN_MS)


def test_what_a_restart_refused_began_with_it():
    rows = served(lambda _: 8.0, lambda _: 0.01, down=(80.0, 90.0))
    samples = up((80, 90))
    (one,) = told(rows, samples=samples, events=[event("instance_restarted", 90.2)])
    assert one.onset
    assert (one.outcome, one.onset.event, one.onset.instance) == ("unreachable", "restart", "triton-0")
    assert one.onset.seconds == pytest.approx(79 - SINCE, abs=1.5)
    # a page that stays away without a new beginning
    assert began(told(rows, samples=samples)) == [("instance_left", "triton-0")]
    assert began(told(rows)) == [("", "")]


def test_what_was_open_while_an_engine_stood_still_began_with_that():
    chance = random.Random(5)
    server, asks = Server(stops=((75.0, 95.0),)), steady(chance, UNTIL)
    server.serve(asks, UNTIL, chance)
    for one in asks:
        one.outcome = "timeout" if one.at < 88 and one.last > 90 else "ok"
    account = account_of(evidence([server], asks, SINCE))
    assert began(failures_of(account, account.requests.inside, SINCE)) == [("engine_frozen", "sim-0")]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("deploy", "deploy"),
        ("version_changed", "deploy"),
        ("config_changed", "config_changed"),
        ("oom_kill", "oom_kill"),
    ],
)
@pytest.mark.parametrize(
    ("at", "instance", "claimed"),
    [(71.0, "triton-0", True), (5.0, "triton-0", False), (71.0, "triton-1", False), (90.0, "triton-0", False)],
)
def test_an_event_right_before_at_the_same_place_is_it(name: str, wanted: str, at: float, instance: str, claimed: bool):
    rows = failing(quiet(), 75.0) + quiet(4, "triton-1")
    found = told(rows, events=[event(name, at, instance)])
    assert began(found) == [(wanted, "triton-0") if claimed else ("", "")]
    assert not found[0].onset or found[0].onset.what == f"{name} of triton-0"


@pytest.mark.parametrize(("since", "claimed"), [(75.0, True), (64.0, False), (30.0, False), (70.0, False)])
def test_what_was_failing_before_an_event_is_not_its(since: float, claimed: bool):
    found = told(failing(quiet(), since), events=[event("deploy", 74.0)])
    assert began(found) == [("deploy", "triton-0") if claimed else ("", "")]


def test_a_gpus_fault_comes_before_the_restart_that_it_brings():
    rows = served(lambda _: 8.0, lambda _: 0.01, down=(80.0, 90.0))
    none = np.empty(0)
    gpu = Gpu("GPU-0", "H100", "GPU 0 of n1", none, none, none, none, faults=[Fault(79.0, "GPU-0", "Xid 79 on GPU-0")])
    events = [event("instance_restarted", 90.2)]
    (one,) = told(rows, samples=up((80, 90)), events=events, gpus={"triton-0": [gpu]})
    assert one.onset
    assert (one.onset.event, one.onset.what) == ("gpu_fault", "Xid 79 on GPU-0")


@pytest.mark.parametrize(
    ("outcome", "place", "claimed"),
    [("rejected", "triton-0", True), ("server_error", "triton-0", False), ("rejected", "triton-1", False)],
)
def test_what_a_full_cache_did_not_admit_began_with_it(outcome: str, place: str, claimed: bool):
    rows = failing(quiet(), 80.0, 95.0, 0.4, outcome=outcome, error="http_429") + quiet(4, "triton-1")
    found = told(rows, samples=cache(("triton-0", "triton-1"), {place: (78.0, 95.0)}))
    assert began(found) == [("kv_cache_full", "triton-0") if claimed else ("", "")]


def versioned(rows: Rows, share_of_new: float = 0.4, at: float = 70.0) -> Rows:
    chance = random.Random(2)
    return [row | {"version": "2" if second(row) >= at and chance.random() < share_of_new else "1"} for row in rows]


def test_a_version_whose_requests_fail_began_it_wherever_it_runs():
    rows = versioned(quiet() + quiet(4, "triton-1"))
    sick = [row for row in rows if row["version"] == "2"]
    others = [row for row in rows if row["version"] == "1"]
    (one,) = told(failing(sick, 70.0) + others)
    assert one.onset
    assert (one.onset.event, one.onset.instance) == ("deploy", "")
    assert "Version 2" in one.onset.what
    assert one.onset.seconds == pytest.approx(70 - SINCE, abs=2)
    # where those of the version before fail as much it is something else
    assert began(told(failing(rows, 72.0))) == [("", "")]


@pytest.mark.parametrize(("deployment", "claimed"), [("vision", True), ("", True), ("speech", False)])
def test_a_deploy_that_is_told_of_a_deployment_is_its_instances(deployment: str, claimed: bool):
    rows = failing(quiet() + quiet(4, "triton-1"), 75.0)
    found = told(rows, events=[event("deploy", 73.0, "", deployment=deployment)])
    assert began(found) == [("deploy" if claimed else "", "")]


def test_an_event_at_one_of_several_places_that_fail_alike_is_not_it():
    names = ("triton-0", "triton-1", "triton-2")
    rows = failing([row for seed, name in enumerate(names) for row in quiet(seed, name)], 75.0)
    assert began(told(rows, events=[event("deploy", 74.0)])) == [("", "")]
    rolled = [event("deploy", 73.0 + place, name) for place, name in enumerate(names)]
    assert began(told(rows, events=rolled)) == [("deploy", "")]


def test_failures_that_come_now_and_then_began_with_nothing_whatever_happens_beside():
    claimed = []
    for seed in range(24):
        chance = random.Random(seed)
        rate = (1.0, 4.0, 8.0)[seed % 3]
        rows = served(lambda _, rate=rate: rate, lambda _: 0.01, seed=seed)  # type: ignore[misc]
        ill = failing(rows, 0.0, UNTIL, (0.01, 0.03, 0.1, 0.3)[seed % 4], outcome="rejected")
        events = [event(name, chance.uniform(10, UNTIL)) for name in ("deploy", "config_changed", "oom_kill") * 2]
        samples = cache(("triton-0",), {"triton-0": (chance.uniform(60, 70), 90.0)})
        claimed += [one for one in began(told(ill, events=events, samples=samples)) if one[0]]
    assert claimed == []


def test_a_store_is_asked_for_what_happened(lab: Lab):
    start, chance = lab.start - timedelta(days=13), random.Random(11)
    asks = steady(chance, UNTIL, instance="sim-fail")
    Server("sim-fail").serve(asks, UNTIL, chance)
    rows = [stored(one, number, start, "onsets") for number, one in enumerate(asks)]
    for number, (one, row) in enumerate(zip(asks, rows, strict=True)):
        failed = one.at > 80 and number % 2
        row["engine_outcome"] = "server_error" if failed else "ok"
    lab.owner.insert("requests_t", rows)
    lab.owner.insert("events", [
        {"time": start + timedelta(seconds=79), "event": name, "message": "Version 9 goes out.", "deployment": "onsets"}
        for name in ("deploy", "note")
    ])  # fmt: skip
    window = Window(start + timedelta(seconds=SINCE), start + timedelta(seconds=UNTIL))
    (one,) = causes.ask(lab.store, Selection(window, Filter(instance=("sim-fail",)))).result.failures
    assert one.onset
    assert (one.onset.event, one.onset.what, one.onset.instance) == ("deploy", "Version 9 goes out", "")
    assert one.onset.seconds == pytest.approx(79 - SINCE)
