from __future__ import annotations

import time
from typing import Any

from alerts.burn import Counted
from alerts.measure import Measurer
from alerts.rules import all_rules
from alerts.rulesfile import parse

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
    measured = Measurer(rules, ingest_delay_seconds=1).measure(fleet.store, now)
    slo = {rule.slo.name: rule.slo.sli.measure() for rule in rules if hasattr(rule, "slo")}
    (long,), (short,) = measured.counts[60.0], measured.counts[10.0]
    assert long.labels["deployment"] == "vision"
    assert long.labels["model"] == "m"
    assert long.counts[slo["a"]] == Counted(12, 2)
    assert short.counts[slo["a"]] == Counted(5, 2)
    assert long.counts[slo["l"]] == Counted(7, 0)


def test_samples_of_ranks_add_up_and_the_newest_scrape_is_known(fleet: Any):
    now = time.time()
    for rank in ("0", "1"):
        fleet.sample(now - 1, dp_rank=rank, waiting=12.0, kv_cache_usage_ratio=0.3 + int(rank) / 10)
    fleet.sample(now - 2, "b", up=0)
    measured = Measurer(all_rules(parse(FILE))).measure(fleet.store, now)
    a, b = sorted(measured.series, key=lambda one: one.labels["instance"], reverse=True)
    assert a.samples[0].values["waiting"] == 24.0
    assert "preemptions_delta" not in a.samples[0].values
    assert b.samples[0].values["up"] == 0.0
    assert {labels["instance"] for labels, _ in measured.last_seen} == {"triton-a", "b"}
    assert measured.was_up == {"triton-a"}
