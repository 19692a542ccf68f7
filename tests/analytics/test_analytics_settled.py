"""The settled edge: of the newest arrivals only the quick ones are known, and every figure by arrival knows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.questions import arrivals, batching, heatmap, histogram, latency, phases, queue, tenants, traffic
from analytics.selection import Filter, Selection
from analytics.settled import INGEST_SECONDS, LIVE_SECONDS, LONGEST_SECONDS, QUIET_SECONDS, Tap, edge_of, taps_of
from analytics.window import Window

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

NOW = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
LIVE = Window(NOW - timedelta(minutes=15), NOW)


def tap(ago: float, open_: float, oldest: float, instance: str = "a") -> Tap:
    return Tap(instance, NOW - timedelta(seconds=ago), open_, oldest)


@pytest.mark.parametrize(
    ("taps", "longest", "behind"),
    [
        ([], 0.0, INGEST_SECONDS),
        ([], 42.0, 42.0),
        ([], 9000.0, LONGEST_SECONDS),
        ([tap(4, 3, 20)], 500.0, 24.0),  # a tap that tells beats what requests took before
        ([tap(4, 3, 20), tap(1, 1, 70, "b")], 0.0, 71.0),  # the oldest of all taps
        ([tap(4, 0, 0)], 0.0, 4.0),
        ([tap(29, 0, 0)], 0.0, QUIET_SECONDS),  # it would have told of a request that began since
        ([tap(4, 0, 33)], 0.0, 4.0),  # nothing open has no age
        ([tap(LIVE_SECONDS + 1, 9, 400)], 7.0, 7.0),  # gone: what was open there will never come
        ([tap(LIVE_SECONDS + 1, 9, 400), tap(2, 1, 1, "b")], 0.0, 3.0),
        ([tap(0.5, 1, 0.1)], 0.0, INGEST_SECONDS),
    ],
)
def test_the_edge_is_the_oldest_open_request(taps: list[Tap], longest: float, behind: float) -> None:
    assert edge_of(taps, longest, LIVE, NOW).until == NOW - timedelta(seconds=behind)


@given(st.lists(st.tuples(st.floats(0, 200), st.integers(0, 5), st.floats(0, 900)), max_size=5), st.floats(0, 2000))
def test_the_edge_never_lies_after_the_window_or_what_is_in_the_store(
    told: list[tuple[float, int, float]], longest: float
) -> None:
    until = edge_of([tap(*one) for one in told], longest, LIVE, NOW).until
    assert until <= NOW - timedelta(seconds=INGEST_SECONDS)
    for ago, open_, oldest in told:
        if ago <= LIVE_SECONDS and open_:
            assert until <= NOW - timedelta(seconds=ago + oldest) + timedelta(microseconds=2)


def test_taps_of_the_instances_looked_at() -> None:
    rows = [
        {"instance": name, "at_ms": int(NOW.timestamp() * 1000), "open": 1.0, "oldest": oldest}
        for name, oldest in (("a", 5.0), ("b", 300.0))
    ]
    assert [one.instance for one in taps_of(rows, Filter(instance=("a",)))] == ["a"]
    assert len(taps_of(rows, Filter(instance=("c",)))) == 2, "nobody knows of c: all count"


MODEL = "settling"
ME = Filter(model=(MODEL,))


@pytest.fixture(scope="module")
def hanging(lab: Lab) -> Window:
    """Five minutes up to now, 2 requests a second; in the last one the slow half hangs and the quick half fails."""
    now = datetime.now(UTC).replace(microsecond=0)
    start = now - timedelta(minutes=5)
    rows = []
    for second in range(300):
        late = second >= 240
        for half in (0, 1):
            quick = half == 0
            if late and not quick:
                continue  # still open
            rows.append({
                "time": start + timedelta(seconds=second, milliseconds=500 * half), "key": second * 2 + half + 1,
                "model": MODEL, "tenant": "t", "instance": "hang-0", "has_edge": 1, "stream": 1, "operation": "chat",
                "outcome": "rejected" if quick else "ok", "e2e_seconds": 0.01 if quick else 8.0,
                "ttft_seconds": 0.0 if quick else 4.0, "prompt_tokens": 10,
            })  # fmt: skip
    lab.owner.insert("requests_t", rows)
    lab.owner.insert("engine_samples", [
        {"time": start + timedelta(seconds=second), "instance": "hang-0", "model": MODEL, "engine": "vllm", "up": 1,
         "running": 8.0 if second < 240 else 8.0 + second - 240, "waiting": 0.0}
        for second in range(300)
    ])  # fmt: skip
    names = {"open": 60.0, "oldest_age": 58.0}
    lab.owner.insert("otel_metrics_gauge", [
        {"ResourceAttributes": {"service.name": "servescope-tap", "service.instance.id": "hang-0"},
         "ServiceName": "servescope-tap", "MetricName": f"servescope.tap.requests.{name}",
         "TimeUnix": now - timedelta(seconds=2), "Value": value}
        for name, value in names.items()
    ])  # fmt: skip
    return Window(start, now)


def test_figures_by_arrival_are_of_what_is_complete(lab: Lab, hanging: Window) -> None:
    edge = hanging.end - timedelta(seconds=60)
    answer = arrivals.ask(lab.store, Selection(hanging, ME))
    assert answer.result.settled_until == edge
    assert answer.envelope(Selection(hanging, ME))["result"]["about"]["settled_until"].startswith(
        f"{edge:%Y-%m-%dT%H:%M:%S}"
    )  # type: ignore[index]
    overview = traffic.ask(lab.store, Selection(hanging, ME), points=30)
    found = overview.result
    assert found.requests.value == pytest.approx(2.0)
    assert found.errors.value == pytest.approx(0.5), "not the 60 % that are known of all arrivals"
    assert found.e2e_mean.value == pytest.approx(8.0)
    assert [row.requests_per_second for row in found.models] == [pytest.approx(2.0)]
    assert [row.error_share for row in found.models] == [pytest.approx(0.5)]
    last = found.times.index(max(at for at in found.times if at + timedelta(seconds=found.step) <= edge))
    assert found.requests.line[last] == pytest.approx(2.0)
    assert set(found.requests.line[last + 1 :]) == {None}
    assert any(f"{edge:%H:%M:%S}" in note for note in overview.notes)
    share = tenants.ask(lab.store, Selection(hanging, ME)).result.tenants[0]
    assert (share.requests, share.error_share) == (480, pytest.approx(0.5))


def test_percentiles_and_phases_are_of_what_is_complete_and_lines_show_the_rest(lab: Lab, hanging: Window) -> None:
    told = latency.ask(lab.store, Selection(hanging, ME), signal="edge_seconds", points=30).result.lines[0]
    assert told.total["count"] == 480
    assert sum(told.count) == 540
    assert histogram.ask(lab.store, Selection(hanging, ME), signal="edge_seconds").rows == 480
    assert sum(map(sum, heatmap.ask(lab.store, Selection(hanging, ME), signal="edge_seconds").result.counts)) == 540
    assert phases.ask(lab.store, Selection(hanging, ME)).rows == 240


def test_littles_law_compares_settled_seconds(lab: Lab, hanging: Window) -> None:
    law = queue.ask(lab.store, Selection(hanging, ME), points=60).result.littles_law
    assert law["measured"] == pytest.approx(8.0)
    assert law["expected"] == pytest.approx(2.0 * (8.0 + 0.01) / 2)


def test_a_window_of_the_past_is_whole(lab: Lab) -> None:
    answer = arrivals.ask(lab.store, Selection(lab.window))
    assert (answer.result.whole, answer.coverage.settled) == (True, lab.window.end)
    assert not any("settled" in sql or "otel_metrics_gauge" in sql for sql in answer.sql)


def test_samples_have_no_such_edge(lab: Lab, hanging: Window) -> None:
    told: Any = batching.ask(lab.store, Selection(hanging, ME)).envelope(Selection(hanging, ME))["result"]
    assert "settled_until" not in told["about"]


def test_where_no_tap_tells_the_longest_request_bounds_it(lab: Lab, hanging: Window) -> None:
    edge = edge_of([], 8.0, hanging, hanging.end)
    assert (edge.source, edge.until) == ("longest", hanging.end - timedelta(seconds=8))
