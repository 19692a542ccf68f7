from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, get_args

import pytest

from analytics.questions import heatmap, histogram, latency, phases
from analytics.selection import Filter, Selection
from analytics.signals import LatencySignal
from analytics.window import Window, WindowError
from tests.analytics.lab import BOUNDS
from tests.analytics.truth import by_step, grouped, latencies, quantile
from tests.analytics.truth import latency as latency_of

if TYPE_CHECKING:
    from tests.analytics.lab import Lab

FILTERS = [
    Filter(),
    Filter(model=("llama",), recording="exclude"),
    Filter(recording="only"),
    Filter(tenant=("a1", "a3"), region=("eu",)),
    Filter(instance=("vllm-0", "triton-0"), version=("0.32", "2.51")),
    Filter(deployment=("code",), engine=("vllm",)),
]
SIGNALS = get_args(LatencySignal)


@pytest.mark.parametrize(
    ("signal", "filter"),
    [(signal, FILTERS[1]) for signal in SIGNALS] + [("ttft_seconds", only) for only in FILTERS],
)
def test_percentiles_from_rows_are_those_of_the_rows(lab: Lab, signal: LatencySignal, filter: Filter):  # noqa: A002
    answer = latency.ask(lab.store, Selection(lab.window, filter), signal=signal)
    truth = latencies(lab.rows(filter), signal)
    if not truth:  # nothing but metrics may answer then
        assert not [line for line in answer.result.lines if line.level == "rows"]
        return
    (line,) = answer.result.lines
    assert (answer.level, answer.exactness, answer.rows, line.exactness) == ("rows", "exact", len(truth), "exact")
    assert line.total["count"] == len(truth)
    assert line.total["max"] == pytest.approx(max(truth), rel=1e-6)
    assert line.total["mean"] == pytest.approx(sum(truth) / len(truth), rel=1e-6)
    for name, q in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
        assert line.total[name] == pytest.approx(quantile(truth, q), rel=1e-6)


def test_percentiles_per_step_and_model_are_those_of_the_rows(lab: Lab):
    answer = latency.ask(lab.store, Selection(lab.window), signal="ttft_seconds", by="model", points=40)
    result = answer.result
    assert result.step == 15
    lines = {line.name: line for line in result.lines if line.level == "rows"}
    truth = grouped((r for r in lab.rows() if latency_of(r, "ttft_seconds") is not None), lambda r: r["model"])
    assert lines.keys() == truth.keys() == {"llama", "qwen", "resnet"}
    for model, rows in truth.items():
        steps = by_step(rows, result.times, result.step)
        for index in range(len(result.times)):
            values = latencies(steps.get(index, []), "ttft_seconds")
            assert lines[model].count[index] == len(values)
            if not values:
                assert lines[model].p99[index] is None
                continue
            assert lines[model].p50[index] == pytest.approx(quantile(values, 0.5), rel=1e-6)
            assert lines[model].p90[index] == pytest.approx(quantile(values, 0.9), rel=1e-6)
            assert lines[model].p95[index] == pytest.approx(quantile(values, 0.95), rel=1e-6)
            assert lines[model].p99[index] == pytest.approx(quantile(values, 0.99), rel=1e-6)
            assert lines[model].mean[index] == pytest.approx(sum(values) / len(values), rel=1e-6)


def test_a_mixed_selection_says_per_line_what_it_rests_on(lab: Lab):
    answer = latency.ask(lab.store, Selection(lab.window), signal="e2e_seconds", by="instance")
    said = {line.name: (line.level, line.exactness) for line in answer.result.lines}
    assert said == {
        "vllm-0": ("rows", "exact"),
        "vllm-1": ("rows", "exact"),
        "vllm-2": ("rows", "exact"),
        "triton-0": ("rows", "exact"),
        "vllm-3": ("metrics", "derived"),
        "triton-1": ("metrics", "means"),
    }
    assert answer.exactness == "means"
    means = next(line for line in answer.result.lines if line.name == "triton-1")
    assert set(means.p99) == {None}
    assert means.total["p99"] is None
    samples = lab.sampled(lambda s: s["instance"] == "triton-1")
    finished = sum(s["requests_finished_delta"] for s in samples)
    assert means.rows == finished
    assert means.total["mean"] == pytest.approx(sum(s["request_seconds_delta"] for s in samples) / finished)
    assert any("vllm-2" in note for note in answer.notes), "failures before the engine are unseen without a tap"


def test_derived_percentiles_interpolate_in_the_buckets_that_all_builds_share(lab: Lab):
    answer = latency.ask(lab.store, Selection(lab.window, Filter(instance=("vllm-3",))), signal="ttft_seconds")
    (line,) = answer.result.lines
    rows = [
        h
        for h in lab.histograms
        if h["instance"] == "vllm-3"
        and h["signal"] == "ttft_seconds"
        and lab.window.start <= h["time"] < lab.window.end
    ]
    counts = [0] * (len(BOUNDS) + 1)
    for row in rows:
        for index, count in enumerate(row["counts"]):
            counts[min(index, len(BOUNDS))] += count
    total = sum(counts)
    assert (answer.level, answer.exactness, answer.rows) == ("metrics", "derived", total)
    rank, below = 0.9 * total, 0
    for index, count in enumerate(counts):  # the bucket that holds the 90th percentile
        if below + count >= rank:
            lower = BOUNDS[index - 1] if index else 0.0
            assert line.total["p90"] == pytest.approx(lower + (BOUNDS[index] - lower) * (rank - below) / count)
            break
        below += count
    assert line.total["mean"] == pytest.approx(sum(r["sum"] for r in rows) / total)


def test_llama_cpp_has_a_mean_per_token_and_nothing_else(lab: Lab):
    only = Filter(instance=("llama-0",))
    (line,) = latency.ask(lab.store, Selection(lab.window, only), signal="tpot_seconds").result.lines
    assert line.exactness == "means"
    assert line.total["mean"] == pytest.approx(0.01)
    assert latency.ask(lab.store, Selection(lab.window, only), signal="e2e_seconds").result.lines == []


def test_metrics_are_never_passed_off_as_one_tenants(lab: Lab):
    answer = latency.ask(lab.store, Selection(lab.window, Filter(tenant=("a1",))), by="model")
    assert {line.level for line in answer.result.lines} == {"rows"}
    nobody = latency.ask(lab.store, Selection(lab.window, Filter(tenant=("nobody",))))
    assert nobody.result.lines == []
    assert nobody.rows == 0


def test_many_tenants_are_cut_to_the_largest(lab: Lab):
    answer = latency.ask(lab.store, Selection(lab.window), by="tenant", limit=2)
    sizes = {
        tenant: len(latencies(rows, "ttft_seconds"))
        for tenant, rows in grouped(lab.rows(), lambda r: r["tenant"]).items()
    }
    largest = sorted(sizes, key=lambda tenant: (-sizes[tenant], tenant))[:2]
    assert [line.name for line in answer.result.lines] == largest
    assert answer.result.left_out == len(sizes) - 2


@pytest.mark.parametrize("signal", ["ttft_seconds", "queue_seconds", "tpot_seconds"])
def test_the_histogram_counts_every_request_in_its_bucket(lab: Lab, signal: LatencySignal):
    result = histogram.ask(lab.store, Selection(lab.window), signal=signal).result
    truth = latencies(lab.rows(), signal)
    assert sum(result.counts) == len(truth)
    assert len(result.edges) == len(result.counts) + 1
    for low, high, count in zip(result.edges, result.edges[1:], result.counts, strict=False):
        found = sum(low <= value < high for value in truth)
        close = sum(math.isclose(value, bound, rel_tol=1e-6) for value in truth for bound in (low, high))
        assert abs(found - count) <= close


def test_the_histogram_of_a_server_without_rows_says_how_coarse_it_is(lab: Lab):
    answer = histogram.ask(lab.store, Selection(lab.window, Filter(instance=("vllm-3",))))
    assert answer.exactness == answer.result.exactness == "derived"
    assert answer.result.edges == [0.0, *BOUNDS, math.inf]
    assert "nothing finer than 0.1 s" in answer.result.bucket_note
    assert sum(answer.result.counts) == answer.rows > 0


def test_the_heatmap_has_every_request_in_its_cell(lab: Lab):
    result = heatmap.ask(
        lab.store, Selection(lab.window, Filter(model=("llama",))), signal="e2e_seconds", points=20
    ).result
    rows = [r for r in lab.rows(Filter(model=("llama",))) if latency_of(r, "e2e_seconds") is not None]
    columns = by_step(rows, result.times, result.step)
    assert [sum(column) for column in zip(*result.counts, strict=True)] == [
        len(columns.get(index, [])) for index in range(len(result.times))
    ]
    for row_index, (low, high) in enumerate(zip(result.edges, result.edges[1:], strict=False)):
        found = sum(low <= r["e2e_seconds"] < high for r in rows)
        assert abs(sum(result.counts[row_index]) - found) <= 1
    derived = heatmap.ask(lab.store, Selection(lab.window, Filter(instance=("vllm-3",))), points=20).result
    assert derived.exactness == "derived"
    assert derived.edges[-1] == math.inf
    assert len(derived.counts) == len(BOUNDS) + 1


@pytest.mark.parametrize("filter", FILTERS[:5], ids=str)
def test_phases_add_up_to_the_end_to_end_time(lab: Lab, filter: Filter):  # noqa: A002
    answer = phases.ask(lab.store, Selection(lab.window, filter), points=30)
    result = answer.result
    rows = [r for r in lab.rows(filter) if latency_of(r, "e2e_seconds") is not None]
    assert answer.rows == len(rows)
    assert result.e2e_mean == pytest.approx(sum(r["e2e_seconds"] for r in rows) / len(rows), rel=1e-6)
    assert sum(line.mean or 0 for line in result.phases) == pytest.approx(result.e2e_mean, rel=1e-6)
    assert sum(line.share or 0 for line in result.phases) == pytest.approx(1, rel=1e-6)
    for line in result.phases:
        if line.phase == "unaccounted":
            continue
        values = [r[f"{line.phase}_seconds"] for r in rows]
        assert line.mean == pytest.approx(sum(values) / len(values), rel=1e-5, abs=1e-6)
        assert line.p99 == pytest.approx(quantile(values, 0.99), rel=1e-5, abs=1e-6)
    steps = by_step(rows, result.times, result.step)
    for index, e2e in enumerate(result.e2e):
        held = steps.get(index, [])
        assert result.requests[index] == len(held)
        if not held:
            assert e2e is None
            continue
        assert e2e == pytest.approx(sum(r["e2e_seconds"] for r in held) / len(held), rel=1e-5)
        assert sum(line.seconds[index] or 0 for line in result.phases) == pytest.approx(e2e, rel=1e-5)


def test_phases_of_tritons_sums_are_means_per_finished_request(lab: Lab):
    answer = phases.ask(lab.store, Selection(lab.window, Filter(instance=("triton-1",))))
    samples = lab.sampled(lambda s: s["instance"] == "triton-1")
    finished = sum(s["requests_finished_delta"] for s in samples)
    assert (answer.level, answer.exactness, answer.rows) == ("metrics", "means", finished)
    found = {line.phase: line.mean for line in answer.result.phases}
    assert set(found) == {"queue", "compute_input", "compute_infer", "compute_output", "unaccounted"}
    assert found["queue"] == pytest.approx(sum(s["queue_seconds_delta"] for s in samples) / finished)
    assert answer.result.e2e_mean == pytest.approx(0.95)


def test_phases_of_a_server_with_histograms_come_from_their_sums_alone(lab: Lab):
    answer = phases.ask(lab.store, Selection(lab.window, Filter(instance=("vllm-3",))))
    rows = [h for h in lab.histograms if h["instance"] == "vllm-3" and lab.window.start <= h["time"] < lab.window.end]
    e2e = [h for h in rows if h["signal"] == "e2e_seconds"]
    assert answer.rows == sum(h["count"] for h in e2e), "the same server's sums are not counted again"
    assert answer.result.e2e_mean == pytest.approx(sum(h["sum"] for h in e2e) / answer.rows)


def test_an_empty_window_has_no_figures_and_says_why(lab: Lab):
    before = Window(lab.start - timedelta(days=3), lab.start - timedelta(days=3) + timedelta(minutes=5))
    for answer in (
        latency.ask(lab.store, Selection(before)),
        histogram.ask(lab.store, Selection(before)),
        heatmap.ask(lab.store, Selection(before)),
        phases.ask(lab.store, Selection(before)),
    ):
        assert answer.rows == 0
        assert answer.freshness is None
        assert answer.state == "no_data"
    assert histogram.ask(lab.store, Selection(before)).result.counts == []
    idle = latency.ask(
        lab.store, Selection(lab.window, Filter(instance=("vllm-0",), model=("llama",), tenant=("nobody",)))
    )
    assert idle.state == "no_traffic", "servers report, nobody of that tenant asked"


def test_a_latency_that_does_not_exist_is_named(lab: Lab):
    with pytest.raises(WindowError, match="no latency 'warp'"):
        latency.ask(lab.store, Selection(lab.window), signal="warp")  # type: ignore[arg-type]
