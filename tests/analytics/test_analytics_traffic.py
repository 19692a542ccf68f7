from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from analytics.questions import choices, instances, traffic
from analytics.selection import Filter, Selection
from analytics.window import Window
from tests.analytics.lab import INSTANCES, RECORDING
from tests.analytics.truth import BAD, by_step, grouped, inside_rate, latencies, quantile

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

ROW_INSTANCES = {"vllm-0", "vllm-1", "vllm-2", "triton-0"}


def total(samples: list[dict[str, Any]], column: str) -> float:
    return sum(s[column] for s in samples if s[column] is not None)


def test_requests_and_errors_add_rows_and_counters_without_counting_anything_twice(lab: Lab):
    answer = traffic.ask(lab.store, Selection(lab.window), points=60)
    rows = lab.rows()
    elsewhere = lab.sampled(lambda s: s["instance"] not in ROW_INSTANCES)
    asked = len(rows) + total(elsewhere, "requests_finished_delta") + total(elsewhere, "requests_failed_delta")
    bad = sum(r["has_edge"] and r["outcome"] in BAD for r in rows) + total(elsewhere, "requests_failed_delta")
    result = answer.result
    assert result.requests.value == pytest.approx(asked / lab.window.seconds)
    assert result.errors.value == pytest.approx(bad / asked)
    assert result.requests.exactness == "derived"
    steps = by_step(rows, result.times, result.step)
    counted = by_step(elsewhere, result.times, result.step)
    for index in range(len(result.times)):
        here = counted.get(index, [])
        amount = (
            len(steps.get(index, [])) + total(here, "requests_finished_delta") + total(here, "requests_failed_delta")
        )
        expected = inside_rate(amount, result.times, result.step, index, lab.window)
        assert result.requests.line[index] == pytest.approx(expected)
    assert sum(result.outcomes.values()) == len(rows)
    assert result.outcomes["rejected"] == sum(r["has_edge"] and r["outcome"] == "rejected" for r in rows)


def test_latency_tiles_are_those_of_the_rows(lab: Lab):
    result = traffic.ask(lab.store, Selection(lab.window, Filter(model=("llama",)))).result
    rows = lab.rows(Filter(model=("llama",)))
    for name in ("ttft", "e2e"):
        values = latencies(rows, f"{name}_seconds")
        assert getattr(result, f"{name}_p50").value == pytest.approx(quantile(values, 0.5), rel=1e-6)
        assert getattr(result, f"{name}_p99").value == pytest.approx(quantile(values, 0.99), rel=1e-6)
        assert getattr(result, f"{name}_p99").rows == len(values)
    values = latencies(rows, "e2e_seconds")
    assert result.e2e_mean.value == pytest.approx(sum(values) / len(values), rel=1e-6)


def test_gauges_add_up_over_instances_and_counters_per_second(lab: Lab):
    result = traffic.ask(lab.store, Selection(lab.window), points=60).result
    steps = by_step(lab.sampled(), result.times, result.step)
    for index, held in steps.items():
        by_instance = grouped(held, lambda s: s["instance"])
        waiting = sum(sum(s["waiting"] for s in found) / len(found) for found in by_instance.values())
        assert result.waiting.line[index] == pytest.approx(waiting)
        kv = max(s["kv_cache_usage_ratio"] for s in held if s["kv_cache_usage_ratio"] is not None)
        assert result.kv.line[index] == pytest.approx(kv)
        tokens = inside_rate(total(held, "generation_tokens_delta"), result.times, result.step, index, lab.window)
        assert result.generation_tokens.line[index] == pytest.approx(tokens)
    assert result.waiting.value == result.waiting.line[max(steps)]
    by_second = grouped(lab.sampled(), lambda s: int(s["time"].timestamp()))
    assert result.waiting.peak == max(sum(s["waiting"] for s in held) for held in by_second.values())
    assert result.waiting.peak >= max(v for v in result.waiting.line if v is not None)
    samples = lab.sampled()
    assert result.preemptions.value == pytest.approx(total(samples, "preemptions_delta") / lab.window.seconds)
    hits = total(samples, "prefix_cache_hits_delta") / total(samples, "prefix_cache_queries_delta")
    assert result.prefix_hits.value == pytest.approx(hits)


def test_a_row_per_model_busiest_first(lab: Lab):
    answer = traffic.ask(lab.store, Selection(lab.window))
    models = {row.model: row for row in answer.result.models}
    assert set(models) == {model for model, *_ in INSTANCES.values()}
    assert [r.requests or 0 for r in answer.result.models] == sorted(
        (r.requests or 0 for r in models.values()), reverse=True
    )
    llama = lab.rows(Filter(model=("llama",)))
    row = models["llama"]
    assert row.requests == len(llama)
    assert row.instances == ["vllm-0", "vllm-1"]
    assert row.engines == ["vllm"]
    assert row.error_share == pytest.approx(sum(r["outcome"] in BAD for r in llama) / len(llama))
    assert row.ttft_p99_seconds == pytest.approx(quantile(latencies(llama, "ttft_seconds"), 0.99), rel=1e-6)
    assert row.ttft_requests == len(latencies(llama, "ttft_seconds"))
    assert row.e2e_requests == len(latencies(llama, "e2e_seconds"))
    assert row.waiting_peak == 40
    assert models["resnet"].kv_peak_ratio is None, "Triton has no KV cache: not known, which is not 0"
    ranker = models["ranker"]
    assert ranker.exactness == "means"
    assert ranker.e2e_mean_seconds == pytest.approx(0.95)
    assert ranker.e2e_p99_seconds is None
    assert models["mixtral"].exactness == "derived"
    assert models["mixtral"].ttft_p99_seconds is not None
    assert models["mixtral"].ttft_requests is not None


def test_a_tenants_tiles_come_from_its_rows_alone(lab: Lab):
    only = Filter(tenant=("a1",))
    answer = traffic.ask(lab.store, Selection(lab.window, only))
    rows = lab.rows(only)
    assert answer.result.requests.value == pytest.approx(len(rows) / lab.window.seconds)
    assert answer.result.requests.exactness == "exact"
    assert answer.result.preemptions.value is None, "servers count them, and no request says its own"
    assert "servers count it" in answer.result.preemptions.reason
    expected = sum(r["completion_tokens"] for r in rows) / lab.window.seconds
    assert answer.result.generation_tokens.value == pytest.approx(expected)
    assert {row.model for row in answer.result.models} == {r["model"] for r in rows}
    assert any("know no tenant" in note for note in answer.notes)


def test_no_traffic_is_not_no_data(lab: Lab):
    idle = traffic.ask(lab.store, Selection(lab.window, Filter(instance=("vllm-0",), tenant=("nobody",))))
    assert idle.state == "no_traffic"
    assert idle.rows == idle.coverage.samples == 600, "no rows, but the instance reports each second"
    assert idle.coverage.instances_up == ("vllm-0",)
    assert (idle.result.requests.state, idle.result.requests.value) == ("no_traffic", 0.0)
    assert (idle.result.ttft_p99.state, idle.result.ttft_p99.value) == ("no_traffic", None)
    assert idle.result.waiting.state == "value"
    silent = traffic.ask(lab.store, Selection(Window(lab.start - timedelta(days=2), lab.start - timedelta(days=1))))
    assert silent.state == "no_data"
    assert silent.result.requests.state == "no_data"
    assert silent.result.requests.value is None
    assert silent.result.models == []
    known = traffic.ask(lab.store, Selection(lab.window, Filter(instance=("triton-0",))))
    assert known.result.kv.state == "no_data"
    assert known.result.kv.reason == "no server shows it"


def test_instances_tell_who_is_down_and_what_they_last_said(lab: Lab):
    found = instances.ask(lab.store, Selection(lab.window)).result.instances
    assert {row.instance for row in found} == set(INSTANCES)
    assert found[0].instance == "vllm-3", "the one that is down comes first"
    assert found[0].up is False
    rows = {(row.instance, row.recording): row for row in found}
    last = max(lab.sampled(lambda s: s["instance"] == "vllm-0"), key=lambda s: s["time"])
    zero = rows["vllm-0", ""]
    assert (zero.running, zero.waiting) == (last["running"], last["waiting"])
    assert zero.kv_cache_usage_ratio == pytest.approx(last["kv_cache_usage_ratio"])
    assert zero.last_sample == last["time"]
    assert (zero.engine, zero.deployment, zero.region, zero.version) == ("vllm", "chat", "eu", "0.32")
    assert zero.requests == len(lab.rows(Filter(instance=("vllm-0",))))
    assert zero.up_ratio == 1
    down = lab.sampled(lambda s: s["instance"] == "vllm-3")
    assert rows["vllm-3", ""].up_ratio == pytest.approx(sum(s["up"] for s in down) / len(down))
    replayed = rows["vllm-1", RECORDING]
    assert replayed.up is None, "it has requests and no samples"
    assert replayed.requests == len(lab.rows(Filter(recording="only")))


def test_the_tiles_are_the_same_without_models(lab: Lab):
    whole, tiles = (
        traffic.ask(lab.store, Selection(lab.window)),
        traffic.ask(lab.store, Selection(lab.window), models=False),
    )
    assert replace(tiles.result, models=whole.result.models, outcomes=whole.result.outcomes) == whole.result
    assert (tiles.result.models, tiles.result.outcomes) == ([], {})
    assert (tiles.state, tiles.exactness, tiles.rows) == (whole.state, whole.exactness, whole.rows)


def test_choices_offer_what_there_is_whatever_is_chosen(lab: Lab):
    answer = choices.ask(lab.store, Selection(lab.window, Filter(model=("llama",), instance=("nobody",))))
    result = answer.result
    assert result.models == sorted({model for model, *_ in INSTANCES.values()})
    assert result.tenants == ["a1", "a2", "a3"]
    assert result.instances == sorted(INSTANCES)
    assert result.engines == ["llamacpp", "triton", "vllm"]
    assert result.versions == sorted({version for *_, version in INSTANCES.values()})
    assert result.recordings == [RECORDING]
    assert "rejected" in result.outcomes
    assert answer.recordings == (RECORDING,)
    long = Window(lab.window.start - timedelta(hours=1), lab.window.end + timedelta(minutes=10))
    assert choices.ask(lab.store, Selection(long)).result == result, (
        "the rollup and the samples tell the same of hours ago"
    )
    assert choices.ask(lab.store, Selection(lab.window, Filter(tenant=("a2",)))).result.tenants == ["a2"]
