"""Causes that few servers can have: drafts that are not accepted, adapters without a slot, KV caches that come late.

Simulated servers (not recorded): the fault; what shows it without anybody losing by it; a slow server without it.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from analytics.causes import account as judged
from analytics.causes.account import account_of
from analytics.causes.evidence import causes_of
from analytics.causes.load import load
from analytics.causes.table import Names
from analytics.inquiry import Inquiry
from analytics.questions import causes
from analytics.selection import Filter, Selection
from analytics.window import Window
from tests.analytics.test_causes_simulated import PLANTED, SINCE, UNTIL, check, simulated
from tests.kits.causes_pages import by_pages
from tests.kits.causes_sim import ORIGIN_MS, Server, evidence, steady, traffic
from tests.kits.causes_store import stored, stored_steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from analytics.causes.evidence import Cause
    from analytics.causes.table import Evidence
    from tests.analytics.lab import Lab
    from tests.kits.causes_sim import Ask

CAUSES = {"spec_acceptance_drop", "kv_transfer", "lora_slots"}


def from_65(then: float, before: float) -> Callable[[float], float]:
    return lambda at: then if at > 65 else before


def of_adapters(chance: random.Random) -> list[Ask]:
    """Requests of one adapter all the time, of four more seldom and then often."""
    asks = traffic(chance, 0, UNTIL, 2.0, "acme", adapter="sql")
    for name in ("law", "med", "eng", "tax"):
        asks += traffic(chance, 0, 60, 0.3, "globex", adapter=name)
        asks += traffic(chance, 65, 95, 2.0, "globex", adapter=name)
    return asks


def more(chance: random.Random) -> list[Ask]:
    return traffic(chance, 65, 95, 10, "hooli", output=(100, 200))


def nobody(_: random.Random) -> list[Ask]:
    return []


DROP = {"accepts": from_65(0.2, 0.8)}
FASTER = (1 + 0.2 + 0.04 + 0.008) / (1 + 0.8 + 0.64 + 0.512)
"""Of what a step takes, that makes up for what it yields less by `DROP`: tokens of drafts of three."""
LATE = {"transfer": from_65(0.8, 0.05)}
FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[[random.Random], list[Ask]], str]] = {
    "few accepted": (DROP, {"accepts": lambda _: 0.8}, nobody, "spec_acceptance_drop"),
    "fewer accepted": ({"accepts": from_65(0.5, 0.8)}, {"accepts": lambda _: 0.8}, nobody, "spec_acceptance_drop"),
    "drafts of some steps": (
        {"accepts": from_65(0.1, 0.8), "drafting": 0.4},
        {"accepts": lambda _: 0.8, "drafting": 0.4},
        nobody,
        "spec_acceptance_drop",
    ),
    "late caches": (LATE, {"transfer": lambda _: 0.05}, nobody, "kv_transfer"),
    "three slots": ({"slots": 3}, {"slots": 9}, of_adapters, "lora_slots"),
    "three slots, reasons untold": ({"slots": 3, "reasons": False}, {"slots": 9}, of_adapters, "lora_slots"),
}
"""The server with the fault, without it, who asks besides, and the cause."""
INNOCENT: dict[str, dict[str, Any]] = {
    "steps that are shorter by as much": DROP | {"slower": from_65(FASTER, 1.0)},
    "slow at the usual acceptance": {"accepts": lambda _: 0.8, "slower": from_65(2.0, 1.0)},
    "slow, and few steps have a draft": DROP | {"drafting": 0.03, "slower": from_65(2.0, 1.0)},
    "caches that come beside the computing": LATE | {"overlapped": True, "reasons": False},
    "slow at the usual transfers": {"transfer": lambda _: 0.05, "slower": from_65(2.0, 1.0)},
    "a full server": {"transfer": lambda _: 0.05, "extra": more, "places": 16},
    "a full server with slots left": {
        "slots": 9,
        "extra": lambda chance: of_adapters(chance) + more(chance),
        "places": 16,
    },
    "a full server, all slots taken": {
        "slots": 2,
        "places": 12,
        "extra": lambda chance: (
            traffic(chance, 0, UNTIL, 2, "acme", adapter="sql")
            + traffic(chance, 0, UNTIL, 2, "acme", adapter="law")
            + more(chance)
        ),
    },
    "slots that are always short": {"slots": 2, "extra": lambda chance: always(chance, 0.4)},
    "slots that suffice": {"slots": 4, "extra": lambda chance: always(chance, 3.0)},
    "usual acceptance": {"accepts": lambda _: 0.5, "noise": 0.3},
    "usual transfers": {"transfer": lambda at: 0.3 + 0.1 * (at * 7 % 1), "noise": 0.3},
}


def always(chance: random.Random, rate: float) -> list[Ask]:
    return [
        one for name in ("sql", "law", "med", "eng") for one in traffic(chance, 0, UNTIL, rate, "acme", adapter=name)
    ]


def told(of: Evidence) -> list[Cause]:
    account = account_of(of)
    found = causes_of(account, account.asked)
    check(account, found)
    return found


def faulty(name: str, seed: int) -> tuple[Evidence, float]:
    """Evidence of a server with a fault, and the seconds that requests of the window lost by it: paired runs."""
    sick, well, extra, _ = FAULTS[name]
    chance = random.Random(seed)
    asks = steady(chance, UNTIL) + extra(chance)
    twins = [replace(one) for one in asks]
    server = Server(**sick)
    server.serve(asks, UNTIL, random.Random(1))
    Server(**well).serve(twins, UNTIL, random.Random(1))
    took, without = (sum(one.last - one.at for one in some if one.at >= SINCE) for some in (asks, twins))
    return evidence([server], asks, SINCE), took - without


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("seed", [8, pytest.param(9, marks=pytest.mark.heavy)])
def test_it_comes_first_with_what_it_took(name: str, seed: int):
    of, lost = faulty(name, seed)
    found = told(of)
    first = found[0]
    assert first.cause == FAULTS[name][3], [(one.cause, one.share) for one in found]
    assert first.who == {"instance": "sim-0"}
    assert first.seconds == pytest.approx(lost, rel=0.15)
    assert len(first.evidence) > 1
    assert first.stage == ("rate" if first.cause == "spec_acceptance_drop" else "contention")


@pytest.mark.parametrize("name", INNOCENT)
@pytest.mark.parametrize("seed", [11, pytest.param(12, marks=pytest.mark.heavy)])
def test_it_is_not_told_where_nobody_lost_by_it(name: str, seed: int):
    account, found = simulated(seed, **INNOCENT[name])
    assert not {one.cause for one in found} & CAUSES, [(one.cause, one.share) for one in found]
    assert ("full" in name) == (bool(found) and found[0].cause == "queue_saturated")
    if account.ledger.excess[account.asked].sum() > 0:
        check(account, found)


@pytest.mark.parametrize("name", ["steps that are shorter by as much", "caches that come beside the computing"])
def test_what_is_no_more_than_noise_is_not_charged_at_all(name: str, monkeypatch: pytest.MonkeyPatch):
    """Where a reference is too short to tell noise, nothing would take it back."""
    monkeypatch.setattr(judged, "_stands", lambda *_: True)
    account, _ = simulated(11, **INNOCENT[name])
    assert not CAUSES & set(account.ledger.causes)


def test_who_waits_for_capacity_while_caches_are_late_does_not_wait_for_them():
    options = {"overlapped": True, "places": 16, "extra": more}
    _, found = simulated(11, **LATE, **options)
    assert "kv_transfer" not in {one.cause for one in found}


SLOWED = {"alone": 0.018, "sequence": 0.0002}
"""Steps by which a server that drafts is no quicker than the others, so that what is planted is a fault there too."""


@pytest.mark.parametrize("name", [name for name in PLANTED if name != "new version"])
def test_another_fault_of_a_server_that_has_all_of_it_stays_first(name: str):
    options, cause, _ = PLANTED[name]
    asks = options.get("extra", nobody)

    def some_by_adapters(chance: random.Random) -> list[Ask]:
        return [
            replace(one, adapter=("", "sql", "law")[number % 3] if number % 9 < 3 else "")
            for number, one in enumerate(asks(chance))
        ]

    features = {"accepts": lambda _: 0.7, "transfer": lambda at: 0.05 + 0.02 * (at * 7 % 1), "slots": 2}
    account, found = simulated(21, **(options | features | SLOWED | {"extra": some_by_adapters}))
    assert found[0].cause == cause, [(one.cause, one.share) for one in found]
    assert not {one.cause for one in found} & CAUSES
    assert not account.ledger.charged("lora_slots").any()


@pytest.mark.parametrize("name", ["few accepted", "late caches", "three slots"])
def test_pages_alone_tell_it_and_so_do_seldom_ones(name: str):
    of, _ = faulty(name, 8)
    # a page counts the requests of adapters under the base model
    of.requests = replace(of.requests, model=Names.of(["m"] * len(of.requests)))
    made = by_pages(of, ORIGIN_MS, ORIGIN_MS + int(SINCE * 1000), ORIGIN_MS + int(UNTIL * 1000))
    assert told(made)[0].cause == FAULTS[name][3]
    of, lost = faulty(name, 8)
    of.samples = {instance: seldom(one, 10) for instance, one in of.samples.items()}
    first = told(of)[0]
    assert first.cause == FAULTS[name][3]
    assert first.seconds == pytest.approx(lost, rel=0.3)


def seldom(samples: Any, seconds: int) -> Any:
    """The same as pages of every so many seconds would tell it."""
    whole = len(samples.time) // seconds * seconds

    def added(values: Any) -> Any:
        return values[:whole].reshape(-1, seconds).sum(axis=1)

    def last(values: Any) -> Any:
        return values[:whole].reshape(-1, seconds)[:, -1]

    counters = {"generated", "drafts", "accepted", "transfers", "transfer_s"}
    features = {name: (added if name in counters else last)(values) for name, values in samples.features.items()}
    counted = {name: added(getattr(samples, name)) for name in ("interval", "preemptions", "progress")}
    gauges = {name: last(getattr(samples, name)) for name in ("time", "up", "running", "waiting", "kv")}
    return replace(samples, **counted, **gauges, features=features)


def test_what_adapters_wait_for_in_a_queue_that_nobody_tells_the_reason_of_needs_their_names():
    of, _ = faulty("three slots, reasons untold", 8)
    of.requests = replace(of.requests, model=Names.of(["m"] * len(of.requests)))
    assert "lora_slots" not in {one.cause for one in told(of)}


def test_a_server_that_tells_no_adapter_that_runs_has_those_that_its_requests_name():
    of, lost = faulty("three slots, reasons untold", 8)
    features = of.samples["sim-0"].features
    of.samples["sim-0"].features = {"adapter_slots": features["adapter_slots"]}
    first = told(of)[0]
    assert first.cause == "lora_slots"
    assert first.seconds == pytest.approx(lost, rel=0.3)


def test_the_mean_of_the_last_batches_serves_where_no_accepted_token_is_counted():
    of, lost = faulty("few accepted", 8)
    features = of.samples["sim-0"].features
    drafts, accepted = features.pop("drafts"), features.pop("accepted")
    features["acceptance_length"] = np.where(drafts > 0, 1 + accepted / np.maximum(drafts, 1), np.nan)
    first = told(of)[0]
    assert first.cause == "spec_acceptance_drop"
    assert first.seconds == pytest.approx(lost, rel=0.15)


def test_a_probe_tells_of_drafts_where_no_page_does():
    sick, _, _, cause = FAULTS["few accepted"]
    chance = random.Random(8)
    server, asks = Server(**sick), steady(chance, UNTIL)
    server.serve(asks, UNTIL, random.Random(1))
    first = told(evidence([server], asks, SINCE, samples=False, steps=True))[0]
    _, lost = faulty("few accepted", 8)
    assert (first.cause, first.seconds) == (cause, pytest.approx(lost, rel=0.15))


def test_transfers_that_the_sender_counts_are_those_of_the_deployment():
    of, lost = faulty("late caches", 8)
    reader = of.samples["sim-0"]
    of.samples["prefill-0"] = replace(reader, features=reader.features)
    of.samples["sim-0"] = replace(reader, features={})
    first = told(of)[0]
    assert (first.cause, first.who) == ("kv_transfer", {"instance": "sim-0"})
    assert first.seconds == pytest.approx(lost, rel=0.15)
    of.samples["prefill-0"].deployment = "another"
    assert "kv_transfer" not in {one.cause for one in told(of)}


def test_what_waited_for_a_lower_yield_waited_for_that_and_not_for_more_requests():
    _, found = simulated(11, **DROP, places=6)
    assert found[0].cause == "spec_acceptance_drop"
    assert found[0].share > 0.9
    _, found = simulated(11, **DROP, places=6, extra=more)
    assert found[0].cause == "queue_saturated"


def test_a_version_that_brings_another_draft_model_is_a_deploy():
    chance = random.Random(5)
    server = Server(accepts=from_65(0.1, 0.8))
    asks = steady(chance, UNTIL)
    for one in asks:
        one.version = "2" if one.at > 63 else "1"
    server.serve(asks, UNTIL, chance)
    first = told(evidence([server], asks, SINCE))[0]
    assert (first.cause, first.who["version"]) == ("deploy", "2")


@pytest.mark.parametrize(
    ("name", "told_in"), [("few accepted", "num_speculative_tokens"), ("three slots", "(max-loras)")]
)
def test_what_to_turn_is_said_in_the_engines_words(name: str, told_in: str):
    of, _ = faulty(name, 8)
    assert told_in in told(of)[0].advice
    requests = of.requests
    of.requests = replace(requests, engine=Names.of(["sglang"] * len(requests)))
    assert told_in not in told(of)[0].advice


def test_a_store_is_asked_for_what_few_servers_show(lab: Lab):
    start, chance = lab.start - timedelta(days=16), random.Random(16)
    server = Server("sim-spec", **DROP)
    asks = steady(chance, UNTIL, instance="sim-spec")
    server.serve(asks, UNTIL, chance)
    lab.owner.insert("requests_t", [stored(one, number, start, "spec") for number, one in enumerate(asks)])
    where = {"deployment": "spec", "engine": "vllm", "model": "m", "up": 1, "interval_seconds": 1.0}
    shown = {
        "kv_transfers_delta": 4.0, "kv_transfer_seconds_delta": 0.5, "lora_adapters_running": 2.0,
        "lora_adapters_held_back": 1.0, "lora_slots": 2.0, "waiting_deferred": 3.0, "waiting_capacity": 0.0,
    }  # fmt: skip
    samples = [
        where | {
            "time": start + timedelta(seconds=second), "instance": "sim-spec", "dp_rank": "0", "recording": recording,
            "running": one["running"], "waiting": one["waiting"], "kv_cache_usage_ratio": one["kv"],
            "generation_tokens_delta": one["generated"],
            "other_signals": {
                "spec_decode_drafts_delta": one["drafts"], "spec_decode_accepted_tokens_delta": one["accepted"],
            },
        }
        for second, one in enumerate(server.samples, start=1) for recording in ("", "old")
    ]  # fmt: skip
    lab.owner.insert("engine_samples", samples)
    lab.owner.insert("engine_samples", [
        where | {"time": start + timedelta(seconds=30), "instance": "sim-other", "dp_rank": rank, "other_signals": told}
        for rank, told in (("0", shown), ("1", {"spec_decode_acceptance_length": 2.0}), ("2", {}),
                           ("3", {"spec_decode_acceptance_length": 3.0}), ("4", {"spec_decode_acceptance_length": 0.0}))
    ])  # fmt: skip
    window = Window(start + timedelta(seconds=SINCE), start + timedelta(seconds=UNTIL))
    selection = Selection(window, Filter(instance=("sim-spec",), recording="exclude"))
    result = causes.ask(lab.store, selection).result
    first = result.causes[0]
    assert (first.cause, first.who) == ("spec_acceptance_drop", {"instance": "sim-spec"})
    assert any("tokens a sequence" in said for said in first.evidence)
    read = load(Inquiry(lab.store, selection))
    mine = read.samples["sim-spec"]
    assert mine.deployment == "spec"
    assert mine.features["accepted"].sum() == pytest.approx(
        sum(one["accepted"] for one in server.samples if one["at_ms"] < ORIGIN_MS + UNTIL * 1000)
    )
    unsaid = {name for name, values in mine.features.items() if np.isnan(values).all()}
    assert unsaid == set(mine.features) - {"generated", "drafts", "accepted"}
    other = {name: float(values[0]) for name, values in read.samples["sim-other"].features.items()}
    assert {name for name, value in other.items() if np.isnan(value)} == {"generated", "drafts", "accepted"}
    assert other["acceptance_length"] == pytest.approx(2.5)
    assert [other[name] for name in ("transfers", "transfer_s", "adapters_running", "adapters_held_back")] == [
        4.0, 0.5, 2.0, 1.0,
    ]  # fmt: skip
    assert [other[name] for name in ("adapter_slots", "deferred", "capacity")] == [2.0, 3.0, 0.0]


@pytest.mark.parametrize("raw", [True, False], ids=["each step", "sums of seconds"])
def test_a_store_is_asked_for_the_drafts_of_steps(lab: Lab, raw: bool):
    name = f"sim-drafts-{raw}".lower()
    start, chance = lab.start - timedelta(days=17 + raw), random.Random(17)
    server = Server(name, **DROP)
    asks = steady(chance, UNTIL, instance=name)
    server.serve(asks, UNTIL, chance)
    lab.owner.insert("requests_t", [stored(one, number, start, name) for number, one in enumerate(asks)])
    lab.owner.insert("engine_steps", stored_steps(server, start))
    if not raw:
        lab.owner.command(f"DELETE FROM engine_steps WHERE instance = '{name}'")
    window = Window(start + timedelta(seconds=SINCE), start + timedelta(seconds=UNTIL))
    selection = Selection(window, Filter(instance=(name,)))
    first = causes.ask(lab.store, selection).result.causes[0]
    assert (first.cause, first.who) == ("spec_acceptance_drop", {"instance": name})
    read = load(Inquiry(lab.store, selection)).steps[name]
    inside = [step for step in server.steps if step["done"] < UNTIL]
    for column in ("generated", "drafts", "accepted"):
        assert np.nansum(read.features[column]) == sum(step[column] for step in inside), column
