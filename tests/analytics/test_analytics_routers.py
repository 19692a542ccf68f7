"""A router's requests are its servers' too: each counts once, and a router alone or asked for is shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from alerts.rules.file import parse
from alerts.rules.objectives import objective_of
from alerts.slo_status import slo_statuses
from analytics.questions import budget, traffic
from analytics.selection import Filter, Selection
from analytics.window import Window

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

BACK = timedelta(days=7)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def start(lab: Lab) -> datetime:
    """In the first two minutes a router and its server are watched, in the third the router alone."""
    at = (datetime.now(UTC) - BACK).replace(second=0, microsecond=0)
    rows = []
    for second in range(180):
        for engine, running in (("litellm", 7.0), ("vllm", 5.0)):
            if engine == "litellm" or second < 120:
                rows.append({
                    "time": at + timedelta(seconds=second), "instance": f"{engine}-r", "engine": engine, "model": "m",
                    "up": 1, "running": running, "interval_seconds": 1.0,
                })  # fmt: skip
    lab.owner.insert("engine_samples", rows)
    return at


@pytest.mark.parametrize(
    ("given", "minutes", "highest"),
    [
        (Filter(), (0, 2), 5),
        (Filter(model=("m",)), (0, 2), 5),
        (Filter(instance=("litellm-r",)), (0, 2), 7),
        (Filter(engine=("litellm", "vllm")), (0, 2), 12),
        (Filter(), (2, 3), 7),
    ],
)
def test_each_request_counts_once(
    lab: Lab, start: datetime, given: Filter, minutes: tuple[int, int], highest: float
) -> None:
    window = Window(start + minutes[0] * MINUTE, start + minutes[1] * MINUTE)
    assert traffic.ask(lab.store, Selection(window, given)).result.running.value == highest


FLEET = {
    # instance: engine, deployment, model, recording, requests that ended and that were bad, and how many ran
    "server": ("vllm", "chat", "m", "", 100, 10, 1.0),
    "gateway": ("litellm", "gate", "alias", "", 1000, 200, 2.0),
    "sidecar": ("litellm", "chat", "m", "", 4000, 800, 4.0),
    "replayed": ("vllm", "gate", "alias", "old", 20_000, 3000, 8.0),
}
"""A gateway in a deployment of its own, in which servers were replayed too, and a router in its servers' deployment."""


@pytest.fixture(scope="module")
def mixed(lab: Lab) -> Window:
    """A minute in which all of them are watched."""
    at = (datetime.now(UTC) - timedelta(days=8, hours=12)).replace(second=0, microsecond=0)
    samples, histograms = [], []
    for instance, (engine, deployment, model, recording, total, bad, running) in FLEET.items():
        place = {
            "time": at + timedelta(seconds=5), "instance": instance, "engine": engine, "deployment": deployment,
            "model": model, "recording": recording,
        }  # fmt: skip
        counters = {"requests_finished_delta": total, "requests_failed_delta": bad}  # which both engines count in it
        samples.append({**place, **counters, "up": 1, "running": running, "interval_seconds": 1.0})
        buckets = {"bounds": [0.5, 1.0], "counts": [total - bad, bad, 0], "count": total, "sum": 1.0}
        histograms.append({**place, **buckets, "signal": "ttft_seconds"})
    lab.owner.insert("engine_samples", samples)
    lab.owner.insert("engine_histograms", histograms)
    return Window(at, at + MINUTE)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (Filter(recording="exclude"), {"server"}),
        (Filter(), {"server", "replayed"}),
        (Filter(deployment=("gate",), recording="exclude"), {"gateway"}),
        (Filter(deployment=("gate",)), {"gateway", "replayed"}),
        (Filter(model=("alias",), recording="exclude"), {"gateway"}),
        (Filter(deployment=("chat",)), {"server"}),
        (Filter(deployment=("chat",), recording="only"), set()),
    ],
)
def test_what_servers_elsewhere_or_in_a_recording_tell_hides_no_router(
    lab: Lab, mixed: Window, given: Filter, shown: set[str]
) -> None:
    running = traffic.ask(lab.store, Selection(mixed, given)).result.running.value
    assert (running or 0) == sum(FLEET[name][-1] for name in shown)


PROMISED = [
    ("", {"server"}),
    ("filter: {deployment: gate}", {"gateway"}),
    ("filter: {deployment: [gate, chat]}", {"server"}),
    ("filter: {deployment: chat}", {"server"}),
    ("filter: {model: alias}", {"gateway"}),
    ("filter: {instance: gateway}", {"gateway"}),
    ("filter: {instance: 'gate*'}", {"gateway"}),
    ("filter: {instance: '*'}", {"server"}),
    ("filter: {instance: [server, gateway]}", {"server"}),
    ("filter: {engine: litellm}", {"gateway", "sidecar"}),
    ("filter: {engine: [vllm, litellm]}", {"server"}),
    ("filter: {deployment: gate, recordings: include}", {"gateway", "replayed"}),
    ("filter: {recordings: include}", {"server", "replayed"}),
]
SLIS = {
    "availability": "{kind: availability, source: metrics}",
    "latency": "{kind: latency, signal: ttft_seconds, threshold_seconds: 0.5, source: metrics}",
}


@pytest.mark.parametrize("sli", SLIS)
def test_a_promise_counts_each_request_once_in_budgets_and_rules(lab: Lab, mixed: Window, sli: str) -> None:
    expected = {
        f"slo-{number}": tuple(sum(FLEET[name][place] for name in counted) for place in (4, 5))
        for number, (_, counted) in enumerate(PROMISED)
    }
    told = f"target: 0.9, sli: {SLIS[sli]}, period: 1h, windows: [{{long: 10m, short: 5m, factor: 2}}]"
    lines = [f"- {{name: slo-{number}, {told}, {asked}}}" for number, (asked, _) in enumerate(PROMISED)]
    file = parse("\n".join(["slos:", *lines]))
    drawn = budget.ask(lab.store, Selection(mixed), objectives=[objective_of(slo) for slo in file.slos]).result
    assert {one.objective: (one.total, one.bad) for one in drawn.objectives} == expected
    paged = slo_statuses(lab.store, file, mixed.end)
    assert {one.name: (one.total, one.bad) for one in paged} == expected


@pytest.mark.parametrize(
    ("chosen", "counted"),
    [
        (Filter(instance=("gateway",)), {"gateway"}),
        (Filter(deployment=("gate",)), {"gateway"}),
        (Filter(instance=("gateway", "server")), {"server"}),
        (Filter(instance=("gateway",), deployment=("chat",)), set()),
    ],
)
def test_what_a_viewer_chose_narrows_a_promise_before_routers_are_left_out(
    lab: Lab, mixed: Window, chosen: Filter, counted: set[str]
) -> None:
    file = parse(f"slos: [{{name: a, target: 0.9, sli: {SLIS['availability']}}}]")
    found = budget.ask(lab.store, Selection(mixed, chosen), objectives=[objective_of(file.slos[0])])
    (drawn,) = found.result.objectives
    assert (drawn.total, drawn.bad) == tuple(sum(FLEET[name][place] for name in counted) for place in (4, 5))


def test_a_router_that_a_rule_judges_apart_is_judged(lab: Lab, mixed: Window) -> None:
    told = (
        f"name: a, target: 0.9, sli: {SLIS['availability']}, period: 1h, windows: [{{long: 10m, short: 5m, factor: 2}}]"
    )
    by_deployment = slo_statuses(lab.store, parse(f"slos: [{{{told}, by: [deployment]}}]"), mixed.end)
    assert {one.labels["deployment"]: one.total for one in by_deployment} == {"chat": 100, "gate": 1000}
    by_instance = slo_statuses(lab.store, parse(f"slos: [{{{told}, by: [instance]}}]"), mixed.end)
    assert {one.labels["instance"]: one.total for one in by_instance} == {
        "server": 100, "gateway": 1000, "sidecar": 4000,
    }  # fmt: skip
