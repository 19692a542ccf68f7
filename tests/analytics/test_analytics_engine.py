from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from analytics.questions import batching, kvcache, queue
from analytics.selection import Filter, LatencyRange, Selection
from analytics.window import Window
from tests.analytics.truth import by_step, grouped, inside_rate, latencies, quantile

if TYPE_CHECKING:
    from tests.analytics.lab import Lab


def total(samples: list[dict[str, Any]], column: str) -> float:
    return sum(s[column] for s in samples if s[column] is not None)


def test_arrivals_and_finishes_are_those_of_the_rows(lab: Lab):
    answer = queue.ask(lab.store, Selection(lab.window, Filter(model=("llama", "qwen"))), points=60)
    result = answer.result
    rows = [r for r in lab.requests if r["model"] in {"llama", "qwen"} and r["time"] < lab.window.end]
    arrived = by_step([r for r in rows if r["time"] >= lab.window.start], result.times, result.step)
    ended = [{"time": r["time"] + timedelta(milliseconds=round(r["e2e_seconds"] * 1000))} for r in rows]
    done = by_step([r for r in ended if lab.window.start <= r["time"] < lab.window.end], result.times, result.step)
    for index in range(len(result.times)):
        for line, found in ((result.arrivals, arrived), (result.finished, done)):
            amount = len(found.get(index, []))
            assert line.values[index] == pytest.approx(
                inside_rate(amount, result.times, result.step, index, lab.window)
            )
    assert answer.level == "rows"
    assert result.arrivals.exactness == "exact"


def test_waiting_running_and_the_time_to_drain(lab: Lab):
    result = queue.ask(lab.store, Selection(lab.window, Filter(deployment=("chat",))), points=60).result
    chat = lab.sampled(lambda s: s["deployment"] == "chat")
    steps = by_step(chat, result.times, result.step)
    for index, held in steps.items():
        by_instance = grouped(held, lambda s: s["instance"])
        waiting = sum(sum(s["waiting"] for s in found) / len(found) for found in by_instance.values())
        assert result.waiting.values[index] == pytest.approx(waiting)
        rate = result.finished.values[index]
        expected = 0.0 if waiting == 0 else waiting / rate if rate else None
        assert result.drain.values[index] == (None if expected is None else pytest.approx(expected))
        for line in result.waiting_by_instance:
            found = by_instance[line.name]
            assert line.values[index] == pytest.approx(sum(s["waiting"] for s in found) / len(found))
    assert [line.name for line in result.waiting_by_instance] == ["vllm-0", "vllm-1"]
    at_once = grouped(chat, lambda s: s["time"].replace(microsecond=0))
    assert result.waiting_peak == max(sum(s["waiting"] for s in held) for held in at_once.values())
    rows = lab.rows(Filter(deployment=("chat",)))
    mean = sum(r["e2e_seconds"] for r in rows) / len(rows)
    assert result.littles_law["expected"] == pytest.approx(len(rows) / lab.window.seconds * mean, rel=1e-5)
    inside = [
        a + b
        for a, b in zip(result.running.values, result.waiting.values, strict=True)
        if a is not None and b is not None
    ]
    assert result.littles_law["measured"] == pytest.approx(sum(inside) / len(inside))


@pytest.mark.parametrize(
    "fields",
    [{"filter": Filter(tenant=("a1",))}, {"outcome": ("ok",)}, {"latency": LatencyRange("e2e_seconds", at_least=1.0)}],
)
def test_of_some_requests_no_backlog_is_worked_out(lab: Lab, fields: dict[str, Any]):
    """Who waits and runs is told of all, and who arrives and finishes of some."""
    result = queue.ask(lab.store, Selection(lab.window, **fields), points=60).result
    assert any(result.finished.values)
    assert any(result.waiting.values)
    assert set(result.drain.values) == {None}
    assert result.drain_seconds is None
    assert result.littles_law == {"expected": None, "measured": None}


def test_a_window_that_begins_before_the_first_sample_changes_neither_the_peak_nor_littles_law(lab: Lab):
    chat = Filter(deployment=("chat",))
    length = timedelta(seconds=lab.window.seconds)
    exact = queue.ask(lab.store, Selection(lab.window, chat), points=60).result
    longer = queue.ask(lab.store, Selection(Window(lab.window.start - length, lab.window.end), chat), points=60).result
    assert longer.step > exact.step
    assert longer.waiting_peak == exact.waiting_peak
    for side, value in exact.littles_law.items():
        assert longer.littles_law[side] == pytest.approx(value, rel=0.1), side


def test_queue_time_is_exact_from_rows_derived_or_a_mean_without(lab: Lab):
    rows = queue.ask(lab.store, Selection(lab.window, Filter(model=("llama",))), points=10).result
    steps = by_step(lab.rows(Filter(model=("llama",))), rows.times, rows.step)
    for index, held in steps.items():
        values = latencies(held, "queue_seconds")
        assert rows.queue_p99.values[index] == pytest.approx(quantile(values, 0.99), rel=1e-5)
    assert rows.queue_p99.exactness == "exact"
    assert (
        queue.ask(lab.store, Selection(lab.window, Filter(instance=("vllm-3",)))).result.queue_p99.exactness
        == "derived"
    )
    triton = queue.ask(lab.store, Selection(lab.window, Filter(instance=("triton-1",)))).result
    assert triton.queue_mean.exactness == "means"
    assert set(triton.queue_p99.values) == {None}
    assert any(value is not None for value in triton.queue_mean.values)


def test_without_rows_arrivals_are_worked_out_and_labelled(lab: Lab):
    answer = queue.ask(lab.store, Selection(lab.window, Filter(instance=("triton-1",))), points=60)
    result = answer.result
    assert (answer.level, result.arrivals.exactness, result.finished.exactness) == ("metrics", "derived", "exact")
    steps = by_step(lab.sampled(lambda s: s["instance"] == "triton-1"), result.times, result.step)
    before = None
    for index, held in sorted(steps.items()):
        finished = total(held, "requests_finished_delta")
        inside = sum(s["running"] for s in held) / len(held) + sum(s["waiting"] for s in held) / len(held)
        amount = max(0.0, finished + inside - (inside if before is None else before))
        assert result.arrivals.values[index] == pytest.approx(
            inside_rate(amount, result.times, result.step, index, lab.window), abs=1e-6
        )
        before = inside
    assert any("worked out" in note for note in answer.notes)


def test_kv_occupancy_per_instance_and_over_all(lab: Lab):
    answer = kvcache.ask(lab.store, Selection(lab.window), points=60)
    result = answer.result
    samples = lab.sampled(lambda s: s["engine"] == "vllm")
    by_instance = grouped(samples, lambda s: s["instance"])
    found = {row.instance: row for row in result.instances}
    assert found.keys() == by_instance.keys(), "Triton has no KV cache; llama.cpp of this build shows none"
    peaks = [row.peak or 0.0 for row in result.instances]
    assert peaks == sorted(peaks, reverse=True)
    for name, held in by_instance.items():
        row = found[name]
        usage = [s["kv_cache_usage_ratio"] for s in held]
        assert row.peak == pytest.approx(max(usage))
        assert row.preempted == total(held, "preemptions_delta")
        assert row.hit_share_window == pytest.approx(
            total(held, "prefix_cache_hits_delta") / total(held, "prefix_cache_queries_delta")
        )
        assert row.seconds_above_90 == sum(value >= 0.9 for value in usage)
        for index, here in by_step(held, result.times, result.step).items():
            values = [s["kv_cache_usage_ratio"] for s in here]
            assert row.usage_max[index] == pytest.approx(max(values))
            assert row.usage_mean[index] == pytest.approx(sum(values) / len(values))
    for index, here in by_step(samples, result.times, result.step).items():
        expected = inside_rate(total(here, "preemptions_delta"), result.times, result.step, index, lab.window)
        assert result.preemptions.values[index] == pytest.approx(expected)
    rows = lab.rows()
    assert result.cached_share == pytest.approx(
        sum(r["cached_tokens"] for r in rows) / sum(r["prompt_tokens"] for r in rows)
    )


def test_a_model_that_reads_no_tokens_has_no_rate_of_them(lab: Lab):
    images = Filter(model=("resnet",))
    assert lab.rows(images)
    result = kvcache.ask(lab.store, Selection(lab.window, images)).result
    for line in (result.cached_tokens, result.computed_tokens):
        assert set(line.values) == {None}
    assert result.cached_share is None


def test_batches_by_instance_and_model(lab: Lab):
    answer = batching.ask(lab.store, Selection(lab.window), points=60)
    result = answer.result
    assert {line.name for line in result.tokens_per_step} == {
        "vllm-0 · llama",
        "vllm-1 · llama",
        "vllm-2 · qwen",
        "vllm-3 · mixtral",
    }
    assert {line.name for line in result.inferences_per_execution} == {"triton-0 · resnet", "triton-1 · ranker"}
    assert len(result.running) == 7
    line = next(line for line in result.tokens_per_step if line.name == "vllm-2 · qwen")
    rate = next(line for line in result.steps_per_second if line.name == "vllm-2 · qwen")
    for index, here in by_step(lab.sampled(lambda s: s["instance"] == "vllm-2"), result.times, result.step).items():
        steps = total(here, "engine_steps_delta")
        assert line.values[index] == pytest.approx(total(here, "batch_tokens_delta") / steps)
        assert rate.values[index] == pytest.approx(inside_rate(steps, result.times, result.step, index, lab.window))
    triton = lab.sampled(lambda s: s["engine"] == "triton")
    assert result.mean_batch_size == pytest.approx(
        total(triton, "inferences_delta") / total(triton, "executions_delta")
    )
    vllm = lab.sampled(lambda s: s["engine"] == "vllm")
    assert result.mean_tokens_per_step == pytest.approx(
        total(vllm, "batch_tokens_delta") / total(vllm, "engine_steps_delta")
    )


def test_empty_windows_have_lines_of_gaps(lab: Lab):
    before = Window(lab.start - timedelta(days=3), lab.start - timedelta(days=3) + timedelta(minutes=5))
    flow = queue.ask(lab.store, Selection(before))
    assert flow.state == "no_data"
    assert set(flow.result.waiting.values) == {None}
    assert flow.result.drain_seconds is None
    assert flow.result.littles_law == {"expected": None, "measured": None}
    assert kvcache.ask(lab.store, Selection(before)).result.instances == []
    assert batching.ask(lab.store, Selection(before)).result.running == []
    assert batching.ask(lab.store, Selection(before)).result.mean_batch_size is None
