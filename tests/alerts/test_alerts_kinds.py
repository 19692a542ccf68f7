from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.measure.measured import Counted, Group, Measured, Open, Sample, Series
from alerts.rules.file import parse
from alerts.rules.model import all_rules
from alerts.rules.reading import trailing_run

if TYPE_CHECKING:
    from alerts.rules.rule import Rule

NOW = 1000.0


def rule(text: str) -> Rule:
    return all_rules(parse(f"rules:\n  - {text}" if text.startswith("{name") else text))[0]


def series(instance: str, model: str = "m", replayed: str = "0", **columns: list[float]) -> Series:
    """One sample a second, the last one at NOW."""
    length = max(len(values) for values in columns.values())
    samples = [
        Sample(NOW - length + 1 + i, {name: values[i] for name, values in columns.items()} | {"interval_seconds": 1.0})
        for i in range(length)
    ]
    labels = {"instance": instance, "model": model, "deployment": "d", "engine": "vllm", "region": "", "version": "1"}
    return Series(labels | {"replayed": replayed}, samples)


def test_a_threshold_says_since_when_and_in_plain_english():
    waiting = rule("{name: w, when: {kind: signal, signal: waiting, above: 20}, for: 3s}")
    measured = Measured(series=[series("triton-a", waiting=[3, 50, 21, 30, 40, 50, 60, 57])])
    (reading,) = waiting.judge(measured, NOW)
    assert reading.reason == "waiting 57 on triton-a, model m, limit 20, for 6 s"
    assert reading.seen.breached
    assert (reading.seen.since, reading.seen.at, reading.seen.unbroken) == (NOW - 6, NOW, False)
    assert reading.labels == {"instance": "triton-a", "model": "m"}
    assert reading.context == {"deployment": "d", "engine": "vllm", "version": "1"}


def test_models_of_an_instance_join_where_the_rule_says_so():
    waiting = rule("{name: w, when: {kind: signal, signal: waiting, above: 20, by: [instance]}}")
    kv = rule("{name: k, when: {kind: signal, signal: kv_cache_usage_ratio, above: 0.9, by: [instance]}}")
    both = [
        series("a", "x", waiting=[10, 15], kv_cache_usage_ratio=[0.5, 0.95]),
        series("a", "y", waiting=[10, 9], kv_cache_usage_ratio=[0.2, 0.1]),
    ]
    (joined,) = waiting.judge(Measured(series=both), NOW)
    assert joined.seen.value == 24
    (fullest,) = kv.judge(Measured(series=both), NOW)
    assert fullest.seen.value == 0.95
    assert fullest.reason == "KV cache use 95 % on a, limit 90 %, for 0 s"


def test_rates_and_ratios_rest_on_their_span():
    storm = rule("{name: p, when: {kind: signal, signal: preemptions_per_second, above: 1, over: 4s}}")
    (reading,) = storm.judge(Measured(series=[series("a", preemptions_delta=[0, 0, 0, 0, 3, 3])]), NOW)
    assert reading.seen.value == pytest.approx(1.5)
    cache = rule("{name: c, when: {kind: signal, signal: prefix_cache_hit_ratio, below: 0.1, over: 3s}}")
    hits = series("a", prefix_cache_hits_delta=[90, 1, 1, 1], prefix_cache_queries_delta=[100, 50, 30, 20])
    (reading,) = cache.judge(Measured(series=[hits]), NOW)
    assert reading.seen.value == pytest.approx(3 / 100)
    idle = series("a", prefix_cache_hits_delta=[0, 0], prefix_cache_queries_delta=[0, 0])
    assert cache.judge(Measured(series=[idle]), NOW) == []


def test_replayed_samples_page_only_where_asked():
    text = "{name: w, when: {kind: signal, signal: waiting, above: 20}%s}"
    measured = Measured(series=[series("a", replayed="1", waiting=[50])])
    assert rule(text % "").judge(measured, NOW) == []
    assert len(rule(text % ", filter: {recordings: include}").judge(measured, NOW)) == 1


def test_a_server_that_never_came_up_is_not_down():
    down = rule("{name: d, when: {kind: signal, signal: up, below: 1, by: [instance]}}")
    measured = Measured(series=[series("a", up=[0, 0]), series("b", up=[0, 0])], was_up={"a"})
    a, b = down.judge(measured, NOW)
    assert (a.opens, b.opens) == (True, False)
    assert a.reason == "a does not answer, for 1 s"
    there = rule("{name: u, when: {kind: signal, signal: up, above: 0, by: [instance]}}")
    (reading,) = there.judge(Measured(series=[series("a", up=[1, 1])]), NOW)
    assert reading.reason == "a answers, for 1 s"


def test_a_wedged_engine_has_work_and_no_progress():
    wedged = rule("{name: w, when: {kind: wedged, after: 3s}}")
    assert wedged.timing.for_seconds == 3
    stuck = series("a", running=[5] * 5, generation_tokens_delta=[40, 0, 0, 0, 0])
    busy = series("b", running=[5] * 5, generation_tokens_delta=[0, 0, 0, 0, 1])
    idle = series("c", running=[0] * 5, generation_tokens_delta=[0] * 5)
    mute = series("d", running=[5] * 5)  # a server that shows no counter cannot be judged
    verdicts = {r.labels["instance"]: r for r in wedged.judge(Measured(series=[stuck, busy, idle, mute]), NOW)}
    assert {name: r.seen.breached for name, r in verdicts.items()} == {"a": True, "b": False, "c": False}
    assert verdicts["a"].reason == "a, model m has 5 requests and made no progress for 3 s"


def test_steps_without_anybody_running_are_no_progress_and_the_reason_says_what_is_seen():
    wedged = rule("{name: w, when: {kind: wedged, after: 3s}}")

    def judged(**columns: list[float]) -> tuple[bool | None, str]:
        (reading,) = wedged.judge(Measured(series=[series("a", **columns)]), NOW)
        return reading.seen.breached, reading.reason

    steps = {"engine_steps_delta": [9.0] * 5, "generation_tokens_delta": [0.0] * 5}
    livelock = {"running": [0.0] * 5, "waiting": [7.0] * 5, **steps}
    breached, reason = judged(**livelock, kv_cache_usage_ratio=[0.0] * 5)
    assert breached
    assert reason.startswith("a, model m has 7 requests and made no progress for 4 s: all wait, none runs, and the KV ")
    assert reason.endswith("cache is empty; the engine takes nobody in, or is dead behind its API")
    assert judged(**livelock, kv_cache_usage_ratio=[0.4] * 5)[1].endswith("for 4 s: all wait and none runs")
    prefill = {"running": [1.0] * 5, "waiting": [7.0] * 5, **steps}
    assert judged(**prefill)[0] is False, "a long prompt is worked on"
    assert judged(waiting=[7.0] * 5, **steps)[0] is False, "a server that does not say how many run"
    busy = livelock | {"generation_tokens_delta": [0.0, 0.0, 0.0, 0.0, 3.0]}
    assert judged(**busy)[0] is False


def test_work_that_no_client_has_open_is_told_from_work_that_stands_still():
    wedged = rule("{name: w, when: {kind: wedged, after: 3s}}")
    assert wedged.needs().open_requests
    left = series("a", running=[106.0] * 5, kv_cache_usage_ratio=[0.9] * 5, generation_tokens_delta=[0.0] * 5)

    def said(**taps: Open) -> str:
        (reading,) = wedged.judge(Measured(series=[left], open_requests=taps), NOW)
        assert reading.seen.breached
        return reading.reason

    stuck = "a, model m has 106 requests and made no progress for 4 s"
    assert said() == stuck
    assert said(a=Open(106.0, 0.0)) == stuck
    assert said(a=Open(0.0, 2.0)) == stuck, "not for as long as it stands still"
    assert said(b=Open(0.0, 90.0)) == stuck
    assert said(a=Open(0.0, 90.0)) == (
        f"{stuck}; its tap has had no request open for 90 s: what it shows may be left of requests that were aborted"
    )


def test_a_page_that_shows_nothing_while_answers_are_owed_is_of_a_dead_engine():
    wedged = rule("{name: w, when: {kind: wedged, after: 3s}}")
    idle = {"running": [0.0] * 8, "waiting": [0.0] * 8, "generation_tokens_delta": [0.0] * 8}

    def judged(tap: Open | None, *more: Series, **columns: list[float]) -> list[tuple[bool | None, float | None]]:
        taps = {"a": tap} if tap is not None else {}
        found = wedged.judge(Measured(series=[series("a", **(idle | columns)), *more], open_requests=taps), NOW)
        return [(one.seen.breached, one.seen.since) for one in found if one.labels["instance"] == "a"]

    owes = Open(96.0, 0.0, NOW - 5)
    assert judged(owes) == [(True, NOW - 5)]
    (reading,) = wedged.judge(Measured(series=[series("a", **idle)], open_requests={"a": owes}), NOW)
    assert reading.reason == (
        "a, model m has 96 requests and made no progress for 5 s: its page shows none of them, its tap has them open, "
        "and an answer that it owes does not come; the engine may be dead behind its API"
    )
    assert judged(None) == judged(Open(96.0, 0.0)) == [(False, None)], "clients that read slowly wait for nobody"
    assert judged(owes, generation_tokens_delta=[0.0] * 7 + [1.0]) == [(False, None)]
    assert judged(owes, series("a", "other", **idle)) == [(False, None)] * 2, "nobody knows which model owes it"
    del idle["running"]
    assert judged(owes) == [(False, None)], "a server that does not say how many run (Triton) may be at work"


def test_an_engine_whose_counters_move_as_requests_end_is_no_wedge_while_it_answers():
    wedged = rule("{name: w, when: {kind: wedged, after: 3s}}")

    def judged(engine: str, **columns: list[float]) -> list[bool]:
        one = series("a", running=[1] * 5, generation_tokens_delta=[9, 0, 0, 0, 0], **columns)
        one.labels["engine"] = engine  # type: ignore[index]
        return [reading.seen.breached for reading in wedged.judge(Measured(series=[one]), NOW)]

    assert judged("tgi") == []
    assert judged("sglang") == [], "an old one, which counts no steps"
    assert judged("sglang", engine_steps_delta=[30, 0, 0, 0, 0]) == [True]
    assert judged("sglang", engine_steps_delta=[30, 31, 30, 29, 30]) == [False]
    assert judged("vllm") == [True]


def test_where_counters_move_late_a_wedge_is_that_all_wait_none_runs_and_the_cache_is_empty():
    wedged = rule("{name: w, when: {kind: wedged, after: 3s}}")
    none = {"generation_tokens_delta": [0.0] * 5, "requests_finished_delta": [0.0] * 5}

    def judged(engine: str = "trtllm", **columns: list[float]) -> list[tuple[bool | None, str]]:
        one = series("a", **(none | columns))
        one.labels["engine"] = engine  # type: ignore[index]
        return [(one.seen.breached, one.reason) for one in wedged.judge(Measured(series=[one]), NOW)]

    shut = {"running": [0.0] * 5, "waiting": [3.0] * 5, "kv_cache_usage_ratio": [0.0] * 5}
    ((breached, reason),) = judged(**shut)
    assert breached
    assert reason.endswith("is empty; the engine takes nobody in, or is dead behind its API")
    assert judged("sglang", **shut)[0][0] is True
    for one_works in (
        {"running": [1.0] * 5},
        {"kv_cache_usage_ratio": [0.02] * 5},  # a long prompt is computed in parts
        {"waiting": [0.0] * 5},
        {"requests_finished_delta": [0.0, 0.0, 0.0, 0.0, 1.0]},
    ):
        assert [breached for breached, _ in judged(**(shut | one_works))] == [False]
    del shut["kv_cache_usage_ratio"]
    assert judged("tgi", **shut) == [], "it does not say what it holds"
    assert judged("dynamo", **shut) == []


def test_silence_is_measured_from_the_last_sample():
    silent = rule("{name: s, when: {kind: silent, after: 30s, remember: 1h}}")
    known = [({"instance": n, "deployment": "d"}, NOW - age) for n, age in (("a", 31), ("b", 29), ("c", 4000))]
    a, b = silent.judge(Measured(last_seen=known), NOW)
    assert (a.seen.breached, b.seen.breached) == (True, False)
    assert a.reason == "no sample of a for 31 s, limit 30 s"


SHARE = "{name: e, when: {kind: share, above: 0.1, window: 30s, min_requests: 20, by: [deployment]}}"


@pytest.mark.parametrize(
    ("total", "bad", "breached"), [(100, 11, True), (100, 10, False), (19, 19, False), (20, 20, True), (0, 0, False)]
)
def test_a_share_needs_traffic(total: float, bad: float, breached: bool):
    share = rule(SHARE)
    groups = [Group({"deployment": "d", "replayed": "0"}, {share.when.sli.measure(): Counted(total, bad)})]
    (reading,) = share.judge(Measured(counts={30.0: groups}), NOW)
    assert reading.seen.breached is breached


def test_a_burn_rate_names_share_rates_and_limit():
    burn = rule(
        "slos:\n  - {name: ttft, sli: {kind: latency, threshold_seconds: 1.5}, target: 0.9, by: [deployment],"
        " windows: [{long: 60s, short: 10s, factor: 2}]}"
    )
    measure = burn.when.slo.sli.measure()

    def groups(total: float, bad: float) -> list[Group]:
        return [
            Group({"deployment": "d", "replayed": "0"}, {measure: Counted(total, bad)}),
            Group({"deployment": "d", "replayed": "1"}, {measure: Counted(1000, 1000)}),
        ]

    (reading,) = burn.judge(Measured(counts={60.0: groups(100, 28), 10.0: groups(10, 4)}), NOW)
    assert reading.seen.breached
    assert reading.reason == (
        "28 % of requests of deployment d exceeded 1.5 s (time to first token): the error budget of ttft burns 2.8x "
        "over 1 min and 4x over 10 s, limit 2x"
    )
    (over,) = burn.judge(Measured(counts={60.0: groups(100, 28), 10.0: groups(10, 1)}), NOW)
    assert not over.seen.breached


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_the_trailing_run_equals_a_plain_scan(verdicts: list[bool]):
    points = [(float(i), holds, 1.0) for i, holds in enumerate(verdicts)]
    run = trailing_run(points)
    assert run is not None
    assert run.seen.breached is verdicts[-1]
    if verdicts[-1]:
        start = len(verdicts)
        while start > 0 and verdicts[start - 1]:
            start -= 1
        assert run.seen.since == float(start)
        assert run.seen.unbroken is (start == 0)
    last = max((i for i, holds in enumerate(verdicts) if holds), default=None)
    assert run.seen.last_breach == (None if last is None else float(last))
    assert trailing_run([]) is None
