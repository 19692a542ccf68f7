from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from alerts.measure.measured import Counted
from alerts.measure.store import Measurer
from alerts.rules.file import parse
from alerts.rules.model import all_rules
from alerts.rules.slo import Burn

FILE = """
slos:
  - name: a
    sli: availability
    target: 0.9
    by: [deployment]
    windows: [{long: 60s, short: 10s, factor: 2}]
  - name: l
    sli: {kind: latency, signal: e2e_seconds, threshold_seconds: 5}
    target: 0.9
    filter: {model: "m*"}
    windows: [{long: 60s, short: 10s, factor: 2}]
rules:
  - {name: w, when: {kind: signal, signal: waiting, above: 20}, for: 3s}
  - {name: s, when: {kind: silent, after: 10s}}
  - {name: p, when: {kind: signal, signal: preemptions_per_second, above: 1}}
"""


def test_counts_requests_when_they_finish_and_leaves_recordings_out(fleet: Any):
    now = time.time()
    fleet.requests(now - 100, 5, "server_error")  # before every window
    fleet.requests(now - 40, 7)
    fleet.requests(now - 40, 2, "timeout", e2e_seconds=38.0)  # finished two seconds ago
    fleet.requests(now - 2, 3, "client_error")
    fleet.requests(now - 2, 50, "server_error", recording="old")
    rules = all_rules(parse(FILE))
    measured = Measurer([rule.needs() for rule in rules], ingest_delay_seconds=1).measure(fleet.store, now)
    slo = {r.when.slo.name: r.when.slo.sli.measure() for r in rules if isinstance(r.when, Burn)}
    (long,), (short,) = measured.counts[60.0], measured.counts[10.0]
    assert long.labels["deployment"] == "vision"
    assert long.labels["model"] == "m"
    assert long.counts[slo["a"]] == Counted(12, 2)
    assert short.counts[slo["a"]] == Counted(5, 2)
    assert long.counts[slo["l"]] == Counted(9, 2)  # a client that gave up waited that long at least


def test_a_window_holds_requests_that_exceed_a_limit_however_long_it_is(fleet: Any):
    now = time.time()
    sli = "{kind: latency, signal: e2e_seconds, threshold_seconds: 900}"
    (rule,) = all_rules(parse(f"rules:\n  - {{name: a, when: {{kind: share, above: 0.1, sli: {sli}}}}}"))
    fleet.requests(now - 5, 30)
    fleet.requests(now - 1000, 10, e2e_seconds=990.0)
    measured = Measurer([rule.needs()], ingest_delay_seconds=1).measure(fleet.store, now)
    (reading,) = rule.judge(measured, now)
    assert (reading.seen.breached, reading.seen.value) == (True, 0.25)


def test_samples_of_ranks_add_up_and_the_newest_scrape_is_known(fleet: Any):
    now = time.time()
    for rank in ("0", "1"):
        fleet.sample(now - 1, dp_rank=rank, waiting=12.0, kv_cache_usage_ratio=0.3 + int(rank) / 10)
    fleet.sample(now - 2, "b", up=0)
    measured = Measurer([rule.needs() for rule in all_rules(parse(FILE))]).measure(fleet.store, now)
    a, b = sorted(measured.series, key=lambda one: one.labels["instance"], reverse=True)
    assert a.samples[0].values["waiting"] == 24.0
    assert "preemptions_delta" not in a.samples[0].values
    assert b.samples[0].values["up"] == 0.0
    assert {labels["instance"] for labels, _ in measured.last_seen} == {"triton-a", "b"}
    assert measured.was_up == {"triton-a"}


def test_a_server_that_left_on_purpose_is_neither_silent_nor_was_it_up(fleet: Any):
    now = time.time()
    rules = all_rules(parse(FILE + "  - {name: quiet, when: {kind: silent}}\n"))
    for instance in ("scaled-down", "crashed", "came-again", "elsewhere"):
        fleet.sample(now - 100, instance)
    left = {"event": "target_left", "message": "it left", "attributes": {"by": "kubernetes:chat"}}
    for instance in ("scaled-down", "came-again"):
        fleet.store.insert("events", [left | {"time": datetime.fromtimestamp(now - 99, UTC), "instance": instance}])
    replayed = {"time": datetime.fromtimestamp(now - 99, UTC), "instance": "elsewhere", "recording": "old"}
    fleet.store.insert("events", [left | replayed])
    fleet.sample(now - 1, "came-again", up=0)
    measured = Measurer([rule.needs() for rule in rules]).measure(fleet.store, now)
    assert {labels["instance"] for labels, _ in measured.last_seen} == {"crashed", "came-again", "elsewhere"}
    assert measured.was_up == {"crashed", "elsewhere"}
    silent = next(rule for rule in rules if rule.name == "quiet")
    assert {one.labels["instance"]: one.seen.breached for one in silent.judge(measured, now)} == {
        "crashed": True,
        "came-again": False,
        "elsewhere": True,
    }


METRICS = """
slos:
  - {name: a, sli: {kind: availability, source: metrics}, target: 0.9, windows: [{long: 60s, short: 10s, factor: 2}]}
  - name: l
    sli: {kind: latency, signal: ttft_seconds, threshold_seconds: 0.5, source: metrics}
    target: 0.9
    by: [instance]
    windows: [{long: 60s, short: 10s, factor: 2}]
"""


def test_servers_that_only_show_metrics_have_slos_too(fleet: Any):
    now = time.time()
    fleet.sample(now - 30, requests_finished_delta=90.0, requests_failed_delta=4.0)
    fleet.sample(now - 2, requests_finished_delta=5.0, requests_failed_delta=1.0)
    row = {"time": datetime.fromtimestamp(now - 2, UTC), "instance": "v", "deployment": "d", "model": "m"}
    histogram = {"count": 10, "sum": 7.0, "bounds": [0.25, 0.5, 1.0], "counts": [2, 3, 4, 1]}
    other = {"signal": "e2e_seconds", **histogram}
    fleet.store.insert("engine_histograms", [row | {"signal": "ttft_seconds"} | histogram, row | other])
    rules = all_rules(parse(METRICS))
    measured = Measurer([rule.needs() for rule in rules]).measure(fleet.store, now)
    slo = {rule.when.slo.name: rule for rule in rules}
    assert slo["a"].judge(measured, now)[0].seen.value == pytest.approx(0.5)
    readings = {reading.labels["instance"]: reading for reading in slo["l"].judge(measured, now)}
    assert readings["v"].seen.value == pytest.approx(5)
    assert readings["v"].seen.breached
