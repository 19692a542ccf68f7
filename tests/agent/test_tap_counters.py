from __future__ import annotations

import re

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from agent.tap.counters import Counters, Tally, Times

BOUNDS = (0.0001, 0.00025, 1.0, 5.0)


def shown(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_times_are_shown_as_a_histogram_of_the_library_shows_them():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    times = Times("edge_seconds", "text", BOUNDS)
    ours.register(times)
    histogram = Histogram("edge_seconds", "text", buckets=BOUNDS, registry=theirs)
    assert shown(ours) == shown(theirs)
    for seconds in (0.0, 0.0001, 0.0002, 0.5, 1.0, 1.5, 5.0, 60.0):
        times.observe(seconds)
        histogram.observe(seconds)
    assert shown(ours) == shown(theirs)


def test_tallies_are_shown_as_a_counter_of_the_library_shows_them():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    by_outcome, bare = Tally("ended", "text", "outcome"), Tally("written", "text")
    ours.register(by_outcome)
    ours.register(bare)
    counter = Counter("ended", "text", ["outcome"], registry=theirs)
    one = Counter("written", "text", registry=theirs)
    assert page(ours) == page(theirs)
    for outcome in ("ok", "timeout", "ok"):
        by_outcome.add(outcome)
        counter.labels(outcome).inc()
        bare.add()
        one.inc()
    assert page(ours) == page(theirs)
    assert 'ended_total{outcome="ok"} 2.0' in page(ours)


def page(registry: CollectorRegistry) -> list[str]:
    """The page of metrics without the moments at which they began."""
    return [re.sub(r"(_created\S*) .*", r"\1", line) for line in generate_latest(registry).decode().splitlines()]


def test_requests_are_counted_by_outcome():
    counters = Counters()
    counters.in_flight += 2
    for outcome in ("ok", "timeout", "ok"):
        counters.request_ended(outcome, 0.001)
    found = counters.registry.get_sample_value
    assert found("servescope_tap_requests_total", {"outcome": "ok"}) == 2
    assert found("servescope_tap_requests_total", {"outcome": "timeout"}) == 1
    assert found("servescope_tap_edge_seconds_count") == 3
    assert found("servescope_tap_active_requests") == 2
